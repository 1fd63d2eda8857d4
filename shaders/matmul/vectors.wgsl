// Operands of a matrix product read by fours: starts, strides and lengths of rows divide by four, so of four values all
// are there or none; in place of those that are not there the operand's first four are read.

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
