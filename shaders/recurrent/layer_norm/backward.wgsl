// Layer normalisation, backward pass of one time step and direction. Afterwards d_product W_hh is added to
// the carry. Invocations per row: lib/row_reduction.wgsl. Equations: recurrent/layer_norm/{lstm,gru}.wgsl.
//   norms: see recurrent/layer_norm/row.wgsl; d_output [T, B, width]: the columns of this direction;
//   step_flags [T, B]; before [T, B, 2 H]: the cell states before and after the step, or [T, B, H]: the hidden state
//   before the step, for a GRU; gates [T, B, G H]: read after the activation, overwritten with their gradients before it;
//   product [T, B, G H]: read as W_hh h', overwritten with its gradient;
//   carry [1 or 2, B, H]: read as the gradient of the state after the step (hidden, then cell), overwritten with what
//   reaches the state before it other than through the product;
//   d_norms [B, norms_width]: each row's contribution to the gradients of norm_hh and norm_c, or of norm_hh and the last
//   gate's bias.
// CPU reference: src/ops/recurrent/cpu/cells/layer_norm.rs.

@group(0) @binding(1) var<storage, read> norms: array<f32>;
@group(0) @binding(2) var<storage, read> d_output: array<f32>;
@group(0) @binding(3) var<storage, read> step_flags: array<u32>;
@group(0) @binding(4) var<storage, read> before: array<f32>;
@group(0) @binding(5) var<storage, read_write> gates: array<f32>;
@group(0) @binding(6) var<storage, read_write> product: array<f32>;
@group(0) @binding(7) var<storage, read_write> carry: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_norms: array<f32>;

// Statistics of the cell state; the means over the row of the gradient at the gain, and of it times the
// standardised state.
struct StateRow {
    statistics: Statistics,
    average: f32,
    along: f32,
}

fn before_place(row: u32, unit: u32) -> u32 {
    return parameters.before_base + row * select(1u, 2u, HAS_CELL) * parameters.hidden_size + unit;
}

fn gradient_at_hidden(row: u32, unit: u32) -> f32 {
    var carried = carry[parameters.carry_base + row * parameters.hidden_size + unit];
    // The product has added the following step's gradient even where a cut ends the flow of gradients.
    if HAS_STEP_FLAGS != 0u && parameters.ends == 0u && (step_flags[parameters.next_step_flags_base + row] & CUTS) != 0u {
        carried = 0.0;
    }
    return d_output[parameters.d_output_base + row * parameters.d_width + unit] + carried;
}

fn step_of(row: u32, unit: u32) -> Step {
    var step: Step;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        step.gates[gate] = gates[gate_place(row, gate, unit)];
    }
    step.before = before[before_place(row, unit)];
    return step;
}

// The cell state after the step, as saved: recomputing it could differ in the last bit, which matters where
// the deviation of the row is as small.
fn state_at(row: u32, unit: u32) -> f32 {
    return before[before_place(row, unit) + parameters.hidden_size];
}

// The gradient of the normalised cell state.
fn gradient_at_state(row: u32, unit: u32, standard: f32) -> f32 {
    let step = step_of(row, unit);
    return state_derivative(step.gates, normalised_state(unit, standard), gradient_at_hidden(row, unit));
}

fn state_row(row: u32, index: u32) -> StateRow {
    let count = f32(parameters.hidden_size);
    var total = 0.0;
    for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
        total = total + state_at(row, unit);
    }
    let mean = sum_of_lanes(total, index) / count;
    var squares = 0.0;
    for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
        let centred = state_at(row, unit) - mean;
        squares = squares + centred * centred;
    }
    let statistics = statistics_of(sum_of_lanes(squares, index), mean, parameters.hidden_size);
    var sums = vec2<f32>(0.0, 0.0);
    for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
        let standard = (state_at(row, unit) - statistics.mean) * statistics.scale;
        let gradient_at_gain = norms[parameters.state_norm_base + unit] * gradient_at_state(row, unit, standard);
        sums = sums + vec2<f32>(gradient_at_gain, gradient_at_gain * standard);
    }
    return StateRow(statistics, sum_of_lanes(sums.x, index) / count, sum_of_lanes(sums.y, index) / count);
}

fn gradients_of(row: u32, unit: u32, statistics: RowStatistics, state: StateRow) -> GateGradients {
    var step = step_of(row, unit);
    step.last = recurrent_at(row, GATES - 1u, unit, statistics);
    var d_state = 0.0;
    if HAS_CELL {
        let standard = (state_at(row, unit) - state.statistics.mean) * state.statistics.scale;
        step.normalised = normalised_state(unit, standard);
        let gradient_at_gain = norms[parameters.state_norm_base + unit] * gradient_at_state(row, unit, standard);
        let carried = carry[parameters.carry_cell_base + row * parameters.hidden_size + unit];
        d_state = carried + (gradient_at_gain - state.average - standard * state.along) * state.statistics.scale;
    }
    return cell_backward(step, gradient_at_hidden(row, unit), d_state);
}

// The gradient of the recurrent part of a gate.
fn d_recurrent(gradients: GateGradients, gate: u32) -> f32 {
    return select(gradients.d_gates[gate], gradients.d_last, gate == GATES - 1u);
}
