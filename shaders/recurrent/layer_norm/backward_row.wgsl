// Means over the gates of a row, and what a step back writes. CPU twin: src/ops/recurrent/normalised/cpu.rs. Parameters
// and bindings are those of recurrent/layer_norm/backward.wgsl.

fn add_to_norms(row: u32, place: u32, value: f32) {
    let target_place = parameters.d_norms_base + row * parameters.norms_width + place;
    d_norms[target_place] = d_norms[target_place] + value;
}

// `joint` and `others`: means of the gradients at the standard products of the joint gates and of the others: alone, and
// times those products.
fn finish(
    row: u32, unit: u32, statistics: RowStatistics, state: StateRow, joint: vec2<f32>, others: vec2<f32>,
) {
    let mark = marks_of(row);
    if (mark & VALID) == 0u {
        for (var gate = 0u; gate < GATES; gate = gate + 1u) {
            gates[gate_place(row, gate, unit)] = 0.0;
            product[parameters.product_base + (row * GATES + gate) * parameters.hidden + unit] = 0.0;
        }
        return;
    }
    let slopes = slopes_of(row, unit, statistics, state);
    if HAS_CELL {
        let standard = (state_at(row, unit) - state.statistics.mean) * state.statistics.scale;
        let slope = slope_at_state(row, unit, standard);
        add_to_norms(row, GATES * parameters.hidden + unit, slope * standard);
        add_to_norms(row, (GATES + 1u) * parameters.hidden + unit, slope);
    } else {
        add_to_norms(row, GATES * parameters.hidden + unit, slopes.d_last);
    }
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        let standard = standard_at(row, gate, unit, statistics);
        let upstream = d_recurrent(slopes, gate);
        add_to_norms(row, gate * parameters.hidden + unit, upstream * standard);
        var means = others;
        var scale = statistics.others.scale;
        if gate < JOINT {
            means = joint;
            scale = statistics.joint.scale;
        }
        let slope = (gain_at(gate, unit) * upstream - means.x - standard * means.y) * scale;
        gates[gate_place(row, gate, unit)] = slopes.d_gates[gate];
        let place = parameters.product_base + (row * GATES + gate) * parameters.hidden + unit;
        product[place] = select(slope, 0.0, (mark & RESETS) != 0u);
    }
    let flows = (mark & (RESETS | CUTS)) == 0u;
    let place = row * parameters.hidden + unit;
    carry[parameters.carry_base + place] = select(0.0, slopes.d_hidden, flows);
    if HAS_CELL {
        carry[parameters.carry_cell_base + place] = select(0.0, slopes.d_cell, flows);
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
    for (var unit = lane_of(index); unit < places(row, parameters.hidden); unit = unit + (1u << LANE_BITS)) {
        let slopes = slopes_of(row, unit, statistics, state);
        for (var gate = 0u; gate < GATES; gate = gate + 1u) {
            let slope = gain_at(gate, unit) * d_recurrent(slopes, gate);
            let both = vec2<f32>(slope, slope * standard_at(row, gate, unit, statistics));
            if gate < JOINT {
                joint = joint + both;
            } else {
                others = others + both;
            }
        }
    }
    let joint_count = f32(JOINT * parameters.hidden);
    joint = vec2<f32>(sum_of_lanes(joint.x, index), sum_of_lanes(joint.y, index)) / joint_count;
    if JOINT < GATES {
        let count = f32((GATES - JOINT) * parameters.hidden);
        others = vec2<f32>(sum_of_lanes(others.x, index), sum_of_lanes(others.y, index)) / count;
    }
    for (var unit = lane_of(index); unit < places(row, parameters.hidden); unit = unit + (1u << LANE_BITS)) {
        finish(row, unit, statistics, state, joint, others);
    }
}
