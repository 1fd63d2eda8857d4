// C = op(A) op(B) + bias, or C += op(A) op(B), for many outputs. A workgroup computes 128 by 128 outputs, an invocation
// 8 by 8. Bindings: matmul/matmul.wgsl; tiles: matmul/tiles.wgsl. CPU reference: src/ops/matmul/cpu.rs.
//
// At each depth an invocation reads four vectors and computes 64 products; each value fetched from memory is used 128
// times.

const GROUPS: u32 = 32u;
const DEPTH: u32 = 16u;
const SWIZZLE: u32 = 2u;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = group.y * 128u;
    let column = group.x * 128u;
    // 32 consecutive invocations cover 4 by 8 groups of four outputs, so that they read few distinct tile addresses at once.
    let x = index % 8u + index / 32u % 2u * 8u;
    let y = index / 8u % 4u + index / 64u * 4u;
    let start = group.z * parameters.part;
    let end = min(start + parameters.part, parameters.k);
    var fetched = fetch(row, column, start, end, index);
    for (var first = start; first < end; first = first + DEPTH) {
        workgroupBarrier();
        keep(fetched, index);
        workgroupBarrier();
        if first + DEPTH < end {
            fetched = fetch(row, column, first + DEPTH, end, index);
        }
        for (var block = 0u; block < BLOCKS; block = block + 1u) {
            let at = block * 4u * GROUPS;
            let at_a = at + (y ^ swizzle(block));
            let at_b = at + (x ^ swizzle(block));
            multiply(tile_a[at_a], tile_a[at_a + 16u], tile_b[at_b], tile_b[at_b + 16u]);
            multiply(tile_a[at_a + 32u], tile_a[at_a + 48u], tile_b[at_b + 32u], tile_b[at_b + 48u]);
            multiply(tile_a[at_a + 64u], tile_a[at_a + 80u], tile_b[at_b + 64u], tile_b[at_b + 80u]);
            multiply(tile_a[at_a + 96u], tile_a[at_a + 112u], tile_b[at_b + 96u], tile_b[at_b + 112u]);
        }
    }
    let top = row + y * 4u;
    let left = column + x * 4u;
    store_square(group.z, top, left, 64u);
}
