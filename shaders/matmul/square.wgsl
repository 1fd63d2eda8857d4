// The 8 by 8 outputs of a matrix product that one invocation accumulates: four rows and four rows further down, by four
// columns and four columns further right.

// Per row: the left four outputs, then the right four.
var<private> sums: array<vec4<f32>, 16>;

// Adds the products of one depth, from A at the rows and B at the columns.
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

fn store_row(plane: u32, row: u32, column: u32, apart: u32, left: vec4<f32>, right: vec4<f32>) {
    store(plane, row, column, left);
    store(plane, row, column + apart, right);
}

// `apart` is the distance from the first row, or column, to the fifth.
fn store_square(plane: u32, top: u32, left: u32, apart: u32) {
    store_row(plane, top, left, apart, sums[0], sums[1]);
    store_row(plane, top + 1u, left, apart, sums[2], sums[3]);
    store_row(plane, top + 2u, left, apart, sums[4], sums[5]);
    store_row(plane, top + 3u, left, apart, sums[6], sums[7]);
    store_row(plane, top + apart, left, apart, sums[8], sums[9]);
    store_row(plane, top + apart + 1u, left, apart, sums[10], sums[11]);
    store_row(plane, top + apart + 2u, left, apart, sums[12], sums[13]);
    store_row(plane, top + apart + 3u, left, apart, sums[14], sums[15]);
}
