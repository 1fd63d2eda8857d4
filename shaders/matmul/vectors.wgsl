// Reads the operands of a matrix product in vectors of four: offsets, strides and lengths of rows are multiples of four, so
// a vector is either complete or missing. For a missing vector the operand's first vector is read instead.

@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;

fn read_a(at: u32, there: u32) -> vec4<f32> {
    let found = there != 0u;
    return select(vec4<f32>(), a[select(parameters.a_base, at, found) / 4u], found);
}

fn read_b(at: u32, there: u32) -> vec4<f32> {
    let found = there != 0u;
    return select(vec4<f32>(), b[select(parameters.b_base, at, found) / 4u], found);
}
