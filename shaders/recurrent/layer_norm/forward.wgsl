// Layer normalisation, forward pass of one time step and direction, after the product with W_hh. Invocations
// per row: lib/row_reduction.wgsl. Equations: recurrent/layer_norm/{lstm,gru}.wgsl.
//   norms: see recurrent/layer_norm/row.wgsl; product [T, B, G H]: W_hh h'; step_flags [T, B];
//   gates [T, B, G H]: read as the normalised projected input, overwritten with the gates after their activation;
//   output [T, B, width]: the columns of this direction; saved [T, B, 2 H]: the cell states before and after the step;
//   hidden, cell [B, H]: the running state, unchanged by a row's padding.
// Padded steps have output zero. Bases include the offsets of the step and of the columns.
// CPU reference: src/ops/recurrent/cpu/cells/layer_norm.rs.

@group(0) @binding(1) var<storage, read> norms: array<f32>;
@group(0) @binding(2) var<storage, read> product: array<f32>;
@group(0) @binding(3) var<storage, read> step_flags: array<u32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;
@group(0) @binding(6) var<storage, read_write> saved: array<f32>;
@group(0) @binding(7) var<storage, read_write> hidden: array<f32>;
@group(0) @binding(8) var<storage, read_write> cell: array<f32>;

// c' of an LSTM, h' of a GRU.
fn before_of(row: u32, unit: u32) -> f32 {
    let place = row * parameters.hidden_size + unit;
    var value = 0.0;
    if HAS_CELL {
        value = cell[parameters.cell_base + place];
    } else {
        value = hidden[parameters.hidden_base + place];
    }
    return select(value, 0.0, (step_flags_of(row) & RESETS) != 0u);
}

// Computes the gates and the cell state of a unit; returns the cell state.
fn advance(row: u32, unit: u32, statistics: RowStatistics) -> f32 {
    let place = row * parameters.hidden_size + unit;
    let valid = (step_flags_of(row) & VALID) != 0u;
    var projected: array<f32, GATES>;
    var recurrent: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        projected[gate] = gates[gate_place(row, gate, unit)];
        recurrent[gate] = recurrent_at(row, gate, unit, statistics);
    }
    let made = cell_gates(projected, recurrent);
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        gates[gate_place(row, gate, unit)] = select(0.0, made[gate], valid);
    }
    if !HAS_CELL {
        return 0.0;
    }
    let before = before_of(row, unit);
    let state = cell_state(made, before);
    let saved_place = parameters.saved_base + row * 2u * parameters.hidden_size + unit;
    saved[saved_place] = select(0.0, before, valid);
    saved[saved_place + parameters.hidden_size] = select(0.0, state, valid);
    if valid { cell[parameters.cell_base + place] = state; }
    return state;
}

fn emit(row: u32, unit: u32, state: Statistics) {
    let place = row * parameters.hidden_size + unit;
    let output_place = parameters.output_base + row * parameters.width + unit;
    if (step_flags_of(row) & VALID) == 0u {
        output[output_place] = 0.0;
        return;
    }
    var made: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        made[gate] = gates[gate_place(row, gate, unit)];
    }
    var normalised = 0.0;
    if HAS_CELL {
        normalised = normalised_state(unit, (cell[parameters.cell_base + place] - state.mean) * state.scale);
    }
    let value = cell_hidden(made, before_of(row, unit), normalised);
    output[output_place] = value;
    hidden[parameters.hidden_base + place] = value;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = parameters.first_row + row_of(group.x, index);
    let statistics = row_statistics(row, index);
    var total = 0.0;
    for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
        total = total + advance(row, unit, statistics);
    }
    var state = Statistics(0.0, 0.0);
    if HAS_CELL {
        let mean = sum_of_lanes(total, index) / f32(parameters.hidden_size);
        var squares = 0.0;
        for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
            let centred = cell[parameters.cell_base + row * parameters.hidden_size + unit] - mean;
            squares = squares + centred * centred;
        }
        state = statistics_of(sum_of_lanes(squares, index), mean, parameters.hidden_size);
    }
    for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
        emit(row, unit, state);
    }
}
