// Layer normalisation, backward pass: the means over the gates of a row, and the results of a step.
// Parameters and bindings: recurrent/layer_norm/backward.wgsl. CPU reference:
// src/ops/recurrent/cpu/cells/layer_norm.rs.

fn add_to_norms(row: u32, place: u32, value: f32) {
    let target_place = parameters.d_norms_base + row * parameters.norms_width + place;
    d_norms[target_place] = d_norms[target_place] + value;
}

// `joint` and `others`: for the joint gates and for the others, the mean of the gradient at the gain, and of
// it times the standardised product.
fn finish(
    row: u32, unit: u32, statistics: RowStatistics, state: StateRow, joint: vec2<f32>, others: vec2<f32>,
) {
    let flags = step_flags_of(row);
    if (flags & VALID) == 0u {
        for (var gate = 0u; gate < GATES; gate = gate + 1u) {
            gates[gate_place(row, gate, unit)] = 0.0;
            product[parameters.product_base + (row * GATES + gate) * parameters.hidden_size + unit] = 0.0;
        }
        return;
    }
    let gradients = gradients_of(row, unit, statistics, state);
    if HAS_CELL {
        let standard = (state_at(row, unit) - state.statistics.mean) * state.statistics.scale;
        let gradient_at_gain = gradient_at_state(row, unit, standard);
        add_to_norms(row, GATES * parameters.hidden_size + unit, gradient_at_gain * standard);
        add_to_norms(row, (GATES + 1u) * parameters.hidden_size + unit, gradient_at_gain);
    } else {
        add_to_norms(row, GATES * parameters.hidden_size + unit, gradients.d_last);
    }
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        let standard = standard_at(row, gate, unit, statistics);
        let upstream = d_recurrent(gradients, gate);
        add_to_norms(row, gate * parameters.hidden_size + unit, upstream * standard);
        var means = others;
        var scale = statistics.others.scale;
        if gate < JOINT {
            means = joint;
            scale = statistics.joint.scale;
        }
        let gradient_at_gain = (gain_at(gate, unit) * upstream - means.x - standard * means.y) * scale;
        gates[gate_place(row, gate, unit)] = gradients.d_gates[gate];
        let place = parameters.product_base + (row * GATES + gate) * parameters.hidden_size + unit;
        product[place] = select(gradient_at_gain, 0.0, (flags & RESETS) != 0u);
    }
    let flows = (flags & (RESETS | CUTS)) == 0u;
    let place = row * parameters.hidden_size + unit;
    carry[parameters.carry_base + place] = select(0.0, gradients.d_hidden, flows);
    if HAS_CELL {
        carry[parameters.carry_cell_base + place] = select(0.0, gradients.d_cell, flows);
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = parameters.first_row + row_of(group.x, index);
    let statistics = row_statistics(row, index);
    var state = StateRow(Statistics(0.0, 0.0), 0.0, 0.0);
    if HAS_CELL {
        state = state_row(row, index);
    }
    var joint = vec2<f32>(0.0, 0.0);
    var others = vec2<f32>(0.0, 0.0);
    for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
        let gradients = gradients_of(row, unit, statistics, state);
        for (var gate = 0u; gate < GATES; gate = gate + 1u) {
            let gradient_at_gain = gain_at(gate, unit) * d_recurrent(gradients, gate);
            let both = vec2<f32>(gradient_at_gain, gradient_at_gain * standard_at(row, gate, unit, statistics));
            if gate < JOINT {
                joint = joint + both;
            } else {
                others = others + both;
            }
        }
    }
    let joint_count = f32(JOINT * parameters.hidden_size);
    joint = vec2<f32>(sum_of_lanes(joint.x, index), sum_of_lanes(joint.y, index)) / joint_count;
    if JOINT < GATES {
        let count = f32((GATES - JOINT) * parameters.hidden_size);
        others = vec2<f32>(sum_of_lanes(others.x, index), sum_of_lanes(others.y, index)) / count;
    }
    for (var unit = lane_of(index); unit < places(row, parameters.hidden_size); unit = unit + (1u << LANE_BITS)) {
        finish(row, unit, statistics, state, joint, others);
    }
}
