// C = op(A) op(B) + bias, or C += op(A) op(B), for a medium number of outputs. A workgroup computes 64 by 64 outputs, an
// invocation 4 by 4. Bindings: matmul/matmul.wgsl; tiles: matmul/tiles.wgsl. CPU reference: src/ops/matmul/cpu.rs.

const GROUPS: u32 = 16u;
const DEPTH: u32 = 32u;
const SWIZZLE: u32 = 1u;

var<private> sums: array<vec4<f32>, 4>;

fn multiply(a: vec4<f32>, b: vec4<f32>) {
    sums[0] = fma(vec4<f32>(a.x), b, sums[0]);
    sums[1] = fma(vec4<f32>(a.y), b, sums[1]);
    sums[2] = fma(vec4<f32>(a.z), b, sums[2]);
    sums[3] = fma(vec4<f32>(a.w), b, sums[3]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = group.y * 64u;
    let column = group.x * 64u;
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
        let blocks = min((end - first + 3u) / 4u, BLOCKS);
        for (var block = 0u; block < blocks; block = block + 1u) {
            let at = block * 4u * GROUPS;
            let at_a = at + (y ^ swizzle(block));
            let at_b = at + (x ^ swizzle(block));
            multiply(tile_a[at_a], tile_b[at_b]);
            multiply(tile_a[at_a + 16u], tile_b[at_b + 16u]);
            multiply(tile_a[at_a + 32u], tile_b[at_b + 32u]);
            multiply(tile_a[at_a + 48u], tile_b[at_b + 48u]);
        }
    }
    let top = row + y * 4u;
    let left = column + x * 4u;
    store(group.z, top, left, sums[0]);
    store(group.z, top + 1u, left, sums[1]);
    store(group.z, top + 2u, left, sums[2]);
    store(group.z, top + 3u, left, sums[3]);
}
