// Operands of a matrix product read by fours: starts, strides and lengths of rows divide by four, so of four values all
// are there or none.

@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;

fn read_a(at: u32, there: u32) -> vec4<f32> {
    if there == 0u {
        return vec4<f32>();
    }
    return a[at / 4u];
}

fn read_b(at: u32, there: u32) -> vec4<f32> {
    if there == 0u {
        return vec4<f32>();
    }
    return b[at / 4u];
}
