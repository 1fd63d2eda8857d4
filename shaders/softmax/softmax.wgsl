// y = softmax(x) or log softmax(x) over each row: y_j = exp(x_j - m) / sum_k exp(x_k - m) with m = max_k x_k.
// A row that contains NaN or +inf, or only -inf, yields NaN.
//   x, y [rows, columns]. Rows are assigned to invocations as in lib/row_reduction.wgsl.
//   CPU reference: src/ops/softmax/cpu.rs.

// 0: softmax, 1: log softmax.
override LOGARITHM: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = lane_of(index);
    let own_row = row_of(group.x, index);
    let columns = select(0u, parameters.columns, own_row < parameters.rows);
    let row = own_row * columns;
    let x_row = parameters.x_base + row;
    let y_row = parameters.y_base + row;
    var seen = x[x_row];
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        seen = max(seen, x[x_row + j]);
    }
    let largest = largest_of_lanes(seen, index);
    var total = 0.0;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        total = total + exp_of_nonpositive(x[x_row + j] - largest);
    }
    let sum = sum_of_lanes(total, index);
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let shifted = x[x_row + j] - largest;
        if LOGARITHM != 0u {
            y[y_row + j] = shifted - natural_log(sum);
        } else {
            y[y_row + j] = exp_of_nonpositive(shifted) / sum;
        }
    }
}
