// y[r, c] = x[r, c] for a block of columns: copies `columns` columns of one matrix to another. The bases point at the first
// column of the block.
//   x [rows, x_width], y [rows, y_width]. One invocation per element. CPU reference: src/ops/columns/mod.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    let row = i / parameters.columns;
    let column = i % parameters.columns;
    y[parameters.y_base + row * parameters.y_width + column]
        = x[parameters.x_base + row * parameters.x_width + column];
}
