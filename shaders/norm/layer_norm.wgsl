// y = g (x - m) / sqrt(v + e) + s, where m and v are the mean and the variance of the columns [first, first + columns)
// of a row (Ba, Kiros & Hinton 2016).
//   x, y [rows, width]; gain, shift [width]. Rows are assigned to invocations as in lib/row_reduction.wgsl.
//   CPU reference: src/ops/layer_norm/cpu.rs.

// 1: add the shift s.
override SHIFTED: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> gain: array<f32>;
@group(0) @binding(3) var<storage, read> shift: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = lane_of(index);
    let row = row_of(group.x, index);
    let columns = select(0u, parameters.columns, row < parameters.rows);
    let place = row * parameters.width + parameters.first;
    let x_row = parameters.x_base + place;
    var total = 0.0;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        total = total + x[x_row + j];
    }
    let mean = sum_of_lanes(total, index) / f32(parameters.columns);
    var squares = 0.0;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let centred = x[x_row + j] - mean;
        squares = squares + centred * centred;
    }
    let variance = sum_of_lanes(squares, index) / f32(parameters.columns);
    let scale = 1.0 / sqrt(variance + parameters.epsilon);
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let column = parameters.first + j;
        var value = gain[parameters.gain_base + column] * ((x[x_row + j] - mean) * scale);
        if SHIFTED != 0u { value = value + shift[parameters.shift_base + column]; }
        y[parameters.y_base + place + j] = value;
    }
}
