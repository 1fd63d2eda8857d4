// Softmax: dx_j = y_j (dy_j - sum_k dy_k y_k). Log softmax: dx_j = dy_j - exp(y_j) sum_k dy_k.
//   y, d_y, d_x [rows, columns]. Rows are assigned to invocations as in lib/row_reduction.wgsl.
//   CPU reference: src/ops/softmax/cpu.rs.

// 0: softmax, 1: log softmax.
override LOGARITHM: u32 = 0u;

@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> d_y: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_x: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = lane_of(index);
    let own_row = row_of(group.x, index);
    let columns = select(0u, parameters.columns, own_row < parameters.rows);
    let row = own_row * columns;
    let y_row = parameters.y_base + row;
    let d_y_row = parameters.d_y_base + row;
    var total = 0.0;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let weight = select(y[y_row + j], 1.0, LOGARITHM != 0u);
        total = total + d_y[d_y_row + j] * weight;
    }
    let sum = sum_of_lanes(total, index);
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let output = y[y_row + j];
        var value = output * (d_y[d_y_row + j] - sum);
        if LOGARITHM != 0u {
            value = d_y[d_y_row + j] - exp_of_nonpositive(output) * sum;
        }
        d_x[parameters.d_x_base + row + j] = value;
    }
}
