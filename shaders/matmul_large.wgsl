// C = op(A) op(B) + bias, or C += op(A) op(B), for many outputs: a workgroup computes 128 by 128, 8 by 8 an
// invocation. Bindings and how tiles are filled: matmul.wgsl. CPU twin: src/ops/matmul/cpu.rs.
//
// At each depth an invocation reads four vectors and multiplies 64 pairs of values; each value fetched from memory is
// used 128 times.

const GROUPS: u32 = 32u;
const DEPTH: u32 = 16u;
const SWIZZLE: u32 = 2u;

// Rows 0 to 3 and 64 to 67 of an invocation; of each row columns 0 to 3 and 64 to 67.
var<private> sums: array<vec4<f32>, 16>;

fn multiply(a: vec4<f32>, lower_a: vec4<f32>, b: vec4<f32>, right_b: vec4<f32>) {
    sums[0] = fma(vec4<f32>(a.x), b, sums[0]);
    sums[1] = fma(vec4<f32>(a.x), right_b, sums[1]);
    sums[2] = fma(vec4<f32>(a.y), b, sums[2]);
    sums[3] = fma(vec4<f32>(a.y), right_b, sums[3]);
    sums[4] = fma(vec4<f32>(a.z), b, sums[4]);
    sums[5] = fma(vec4<f32>(a.z), right_b, sums[5]);
    sums[6] = fma(vec4<f32>(a.w), b, sums[6]);
    sums[7] = fma(vec4<f32>(a.w), right_b, sums[7]);
    sums[8] = fma(vec4<f32>(lower_a.x), b, sums[8]);
    sums[9] = fma(vec4<f32>(lower_a.x), right_b, sums[9]);
    sums[10] = fma(vec4<f32>(lower_a.y), b, sums[10]);
    sums[11] = fma(vec4<f32>(lower_a.y), right_b, sums[11]);
    sums[12] = fma(vec4<f32>(lower_a.z), b, sums[12]);
    sums[13] = fma(vec4<f32>(lower_a.z), right_b, sums[13]);
    sums[14] = fma(vec4<f32>(lower_a.w), b, sums[14]);
    sums[15] = fma(vec4<f32>(lower_a.w), right_b, sums[15]);
}

fn store_row(plane: u32, row: u32, column: u32, left: vec4<f32>, right: vec4<f32>) {
    store(plane, row, column, left);
    store(plane, row, column + 64u, right);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = group.y * 128u;
    let column = group.x * 128u;
    // A run of 32 invocations covers 4 by 8 fours: few places of the tiles are read at once.
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
    store_row(group.z, top, left, sums[0], sums[1]);
    store_row(group.z, top + 1u, left, sums[2], sums[3]);
    store_row(group.z, top + 2u, left, sums[4], sums[5]);
    store_row(group.z, top + 3u, left, sums[6], sums[7]);
    store_row(group.z, top + 64u, left, sums[8], sums[9]);
    store_row(group.z, top + 65u, left, sums[10], sums[11]);
    store_row(group.z, top + 66u, left, sums[12], sums[13]);
    store_row(group.z, top + 67u, left, sums[14], sums[15]);
}
