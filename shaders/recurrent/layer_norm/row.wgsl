// Common code of the forward and backward step with layer normalisation, whose parameters and bindings it
// uses: `product` [T, B, G H] is W_hh h'; `norms` holds norm_hh [G H], bias_hh [G H] and norm_c [2, H], as
// far as the layer has them. The cell defines GATES, the number of gates, and JOINT: the first JOINT gates
// are normalised together, and so are the others.

// 1: step flags are bound; 0: every step is valid.
override HAS_STEP_FLAGS: u32 = 0u;
// 1: the layer has a recurrent bias.
override BIASED: u32 = 0u;

struct Statistics {
    mean: f32,
    // 1 / sqrt(variance + epsilon).
    scale: f32,
}

// Statistics of the joint gates and of the others.
struct RowStatistics {
    joint: Statistics,
    others: Statistics,
}

// The values of a unit that its backward step reads.
struct Step {
    gates: array<f32, GATES>,
    // c' of an LSTM, h' of a GRU.
    before: f32,
    // The normalised cell state.
    normalised: f32,
    // The recurrent part of the last gate.
    last: f32,
}

struct GateGradients {
    // The gradient of the input part of the gates before their activation.
    d_gates: array<f32, GATES>,
    // The gradient of the recurrent part of the last gate.
    d_last: f32,
    // The gradient of the previous state other than through the product.
    d_hidden: f32,
    d_cell: f32,
}

fn step_flags_of(row: u32) -> u32 {
    if HAS_STEP_FLAGS != 0u {
        return step_flags[parameters.step_flags_base + row];
    }
    return VALID;
}

fn gate_place(row: u32, gate: u32, unit: u32) -> u32 {
    return parameters.gates_base + (row * GATES + gate) * parameters.hidden_size + unit;
}

// W_hh h' at `place` of a row; zero after a reset.
fn product_at(row: u32, place: u32) -> f32 {
    let value = product[parameters.product_base + row * GATES * parameters.hidden_size + place];
    return select(value, 0.0, (step_flags_of(row) & RESETS) != 0u);
}

// `count`, or 0 for rows past the last.
fn places(row: u32, count: u32) -> u32 {
    return select(0u, count, row < parameters.end_row);
}

fn statistics_of(sum_of_squares: f32, mean: f32, count: u32) -> Statistics {
    return Statistics(mean, 1.0 / sqrt(sum_of_squares / f32(count) + parameters.epsilon));
}

fn product_statistics(row: u32, first: u32, count: u32, index: u32) -> Statistics {
    var total = 0.0;
    for (var place = lane_of(index); place < places(row, count); place = place + (1u << LANE_BITS)) {
        total = total + product_at(row, first + place);
    }
    let mean = sum_of_lanes(total, index) / f32(count);
    var squares = 0.0;
    for (var place = lane_of(index); place < places(row, count); place = place + (1u << LANE_BITS)) {
        let centred = product_at(row, first + place) - mean;
        squares = squares + centred * centred;
    }
    return statistics_of(sum_of_lanes(squares, index), mean, count);
}

fn row_statistics(row: u32, index: u32) -> RowStatistics {
    let joint = JOINT * parameters.hidden_size;
    var statistics = RowStatistics(Statistics(0.0, 0.0), Statistics(0.0, 0.0));
    statistics.joint = product_statistics(row, 0u, joint, index);
    if JOINT < GATES {
        statistics.others = product_statistics(row, joint, (GATES - JOINT) * parameters.hidden_size, index);
    }
    return statistics;
}

// The standardised product: mean 0, variance 1.
fn standard_at(row: u32, gate: u32, unit: u32, statistics: RowStatistics) -> f32 {
    var own = statistics.others;
    if gate < JOINT { own = statistics.joint; }
    return (product_at(row, gate * parameters.hidden_size + unit) - own.mean) * own.scale;
}

fn gain_at(gate: u32, unit: u32) -> f32 {
    return norms[parameters.norms_base + gate * parameters.hidden_size + unit];
}

// The recurrent part of a gate: LN(W_hh h') + b_hh.
fn recurrent_at(row: u32, gate: u32, unit: u32, statistics: RowStatistics) -> f32 {
    var value = gain_at(gate, unit) * standard_at(row, gate, unit, statistics);
    if BIASED != 0u {
        value = value + norms[parameters.norms_base + (GATES + gate) * parameters.hidden_size + unit];
    }
    return value;
}

// LN(c), from the standardised c.
fn normalised_state(unit: u32, standard: f32) -> f32 {
    let gain = parameters.state_norm_base + unit;
    return norms[gain] * standard + norms[gain + parameters.hidden_size];
}
