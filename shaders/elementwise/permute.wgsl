// y[i0, i1, i2, i3] = x[sum_d i_d stride_d]. One dispatch writes the elements of the bound section of y whose source lies
// in the bound section of x; other dispatches write the rest.
//   x [x_count], y [count]. One invocation per element of y. CPU reference: src/ops/permute/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    let place = parameters.y_first + i;
    let i3 = place % parameters.size3;
    let outer = place / parameters.size3;
    let i2 = outer % parameters.size2;
    let outermost = outer / parameters.size2;
    let source = outermost / parameters.size1 * parameters.stride0
        + outermost % parameters.size1 * parameters.stride1
        + i2 * parameters.stride2 + i3 * parameters.stride3;
    if source < parameters.x_first || source - parameters.x_first >= parameters.x_count {
        return;
    }
    y[parameters.y_base + i] = x[parameters.x_base + source - parameters.x_first];
}
