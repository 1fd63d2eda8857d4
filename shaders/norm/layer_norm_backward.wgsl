// dx = (g dy - mean(g dy) - u mean(g dy u)) / sqrt(v + e), where u = (x - m) / sqrt(v + e), and m, v and the means are taken
// over the columns [first, first + columns) of a row. terms = dy u; its sum over the rows is dg.
//   x, d_y, d_x, terms [rows, width]; gain [width]. Rows are assigned to invocations as in lib/row_reduction.wgsl.
//   CPU reference: src/ops/layer_norm/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> gain: array<f32>;
@group(0) @binding(3) var<storage, read> d_y: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(5) var<storage, read_write> terms: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = lane_of(index);
    let row = row_of(group.x, index);
    let columns = select(0u, parameters.columns, row < parameters.rows);
    let place = row * parameters.width + parameters.first;
    let x_row = parameters.x_base + place;
    let d_y_row = parameters.d_y_base + place;
    let gain_row = parameters.gain_base + parameters.first;
    let count = f32(parameters.columns);
    var total = 0.0;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        total = total + x[x_row + j];
    }
    let mean = sum_of_lanes(total, index) / count;
    var squares = 0.0;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let centred = x[x_row + j] - mean;
        squares = squares + centred * centred;
    }
    let scale = 1.0 / sqrt(sum_of_lanes(squares, index) / count + parameters.epsilon);
    var upstream_sum = 0.0;
    var products = 0.0;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let gradient_at_gain = gain[gain_row + j] * d_y[d_y_row + j];
        upstream_sum = upstream_sum + gradient_at_gain;
        products = products + gradient_at_gain * ((x[x_row + j] - mean) * scale);
    }
    let average = sum_of_lanes(upstream_sum, index) / count;
    let along = sum_of_lanes(products, index) / count;
    for (var j = lane; j < columns; j = j + (1u << LANE_BITS)) {
        let standard = (x[x_row + j] - mean) * scale;
        let upstream = d_y[d_y_row + j];
        let gradient_at_gain = gain[gain_row + j] * upstream;
        d_x[parameters.d_x_base + place + j] = (gradient_at_gain - average - standard * along) * scale;
        terms[parameters.terms_base + place + j] = upstream * standard;
    }
}
