// Many time steps of a recurrent layer in one direction or both, as recurrent/step/forward.wgsl computes one: a = W_hh h' + b_hh,
// then the cell. Rows of the batch do not depend on each other, so that a workgroup walks through the steps of its own
// rows without waiting for any other. W_hh is transposed, [H, G H].
// In a product an invocation computes columns of G H, one or eight at a time, for all rows of the workgroup; in the cell
// units, each always the same ones, which is why it may read from memory what it wrote there a step before.
// Arrays: recurrent/common/forward_arrays.wgsl. CPU reference: src/ops/recurrent/cpu/time_loop.rs.

fn put_hidden(row: u32, unit: u32, value: f32) {
    output[output_at() + row * parameters.width + unit] = value;
    pool[state_place(row, unit)] = value;
}

// Puts what W_hh is multiplied with where the product finds it. Mostly the step before has done so.
fn enter(row: u32, unit: u32) {
    let goes_on = (step_flags_of(row) & (VALID | STARTS | RESETS)) == VALID;
    if iteration == 0u || STATE_MASK != 0u || !goes_on {
        pool[state_place(row, unit)] = source(row, unit);
    }
}

fn leave(row: u32, unit: u32) {
    var sums: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        sums[gate] = pool[gates_place(row, gate * parameters.hidden_size + unit)];
    }
    var previous = pool[state_place(row, unit)];
    if STATE_MASK != 0u { previous = previous_hidden(row, unit); }
    finish(row, unit, sums, previous);
}

@compute @workgroup_size(32u << LANE_BITS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    choose_direction(group.z);
    first_row = parameters.first_row + (group.x << ROW_BITS);
    let own = min(group_rows(), parameters.rows - first_row) * parameters.hidden_size;
    let first = unit_at(lane);
    // Divided once: it takes longer than what else a turn does.
    let apart = Unit(lanes() / parameters.hidden_size, lanes() % parameters.hidden_size);
    clear(lane);
    for (var step = 0u; step < parameters.steps; step = step + 1u) {
        iteration = step;
        var at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            enter(at.row, at.unit);
            at = further(at, apart);
        }
        workgroupBarrier();
        multiply(lane, 0u, parameters.hidden_size, parameters.hidden_size << ROW_BITS, GATES * parameters.hidden_size);
        workgroupBarrier();
        at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            leave(at.row, at.unit);
            at = further(at, apart);
        }
    }
}
