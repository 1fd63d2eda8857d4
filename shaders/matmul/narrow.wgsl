// C = op(A) op(B) + bias, or C += op(A) op(B), for few rows, few columns or few outputs. A workgroup computes 16 by 16
// outputs. Bindings: matmul/matmul.wgsl; tiles: matmul/tiles.wgsl. CPU reference: src/ops/matmul/cpu.rs.
//
// Fetching dominates the time: all 256 invocations fetch, 128 deep, and 64 of them multiply, four outputs each.

const GROUPS: u32 = 4u;
const DEPTH: u32 = 128u;
const SWIZZLE: u32 = 1u;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = group.y * 16u;
    let column = group.x * 16u;
    let x = index % 4u;
    let y = index / 4u;
    let start = group.z * parameters.part;
    let end = min(start + parameters.part, parameters.k);
    var sums = vec4<f32>();
    var fetched = fetch(row, column, start, end, index);
    for (var first = start; first < end; first = first + DEPTH) {
        workgroupBarrier();
        keep(fetched, index);
        workgroupBarrier();
        if first + DEPTH < end {
            fetched = fetch(row, column, first + DEPTH, end, index);
        }
        if y < 16u && row + y < parameters.m {
            let blocks = min((end - first + 3u) / 4u, BLOCKS);
            for (var block = 0u; block < blocks; block = block + 1u) {
                let mix = swizzle(block);
                let at_a = block * 16u + y / 4u;
                let at_b = block * 16u + x;
                sums = fma(vec4<f32>(tile_a[at_a ^ mix][y % 4u]), tile_b[at_b ^ mix], sums);
                sums = fma(vec4<f32>(tile_a[(at_a + 4u) ^ mix][y % 4u]), tile_b[(at_b + 4u) ^ mix], sums);
                sums = fma(vec4<f32>(tile_a[(at_a + 8u) ^ mix][y % 4u]), tile_b[(at_b + 8u) ^ mix], sums);
                sums = fma(vec4<f32>(tile_a[(at_a + 12u) ^ mix][y % 4u]), tile_b[(at_b + 12u) ^ mix], sums);
            }
        }
    }
    if y < 16u {
        store(group.z, row + y, column + x * 4u, sums);
    }
}
