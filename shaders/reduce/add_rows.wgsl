// y[c] = y[c] + sum_r x[r, c]. Rows are added one by one, from the last to the first, so that the bits do not depend on
// whether the rows are added by one dispatch or by several, of which the first adds the last rows.
//   x [rows, columns]; y [columns]. One invocation per column. CPU reference: src/ops/reduce/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    let column = parameters.first_column + i;
    var total = y[parameters.y_base + column];
    for (var after = parameters.rows; after > 0u; after = after - 1u) {
        total = total + x[parameters.x_base + (after - 1u) * parameters.columns + column];
    }
    y[parameters.y_base + column] = total;
}
