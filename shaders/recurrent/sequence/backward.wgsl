// Strategy `sequence`, backward pass: many time steps per dispatch. Per step, as
// recurrent/step/backward.wgsl:
//   dh_t = dy_t + W_hh^T da_{t+1} + carry; then the cell's derivatives give da_t.
// A workgroup owns some rows (x) of a direction (z) and waits for no other. In the product an invocation
// computes one or eight columns of H at a time for all rows of the workgroup; in the cell always the same
// units.
//   Arrays: recurrent/common/backward_arrays.wgsl.
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// Stores the following step's gradients in `pool`, unless that step has just done so.
fn load_operand(row: u32, unit: u32) {
    if iteration != 0u && next_sends(row) {
        return;
    }
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        let place = gate * parameters.hidden_size + unit;
        pool[gates_place(row, place)] = gradient(row, place);
    }
}

fn finish_units(row: u32, unit: u32) {
    var product = 0.0;
    if !is_last() { product = pool[state_place(row, unit)]; }
    let made = finish(row, unit, product);
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        var sent = made.d_gates[gate];
        if LAST_GATE_APART && gate == GATES - 1u { sent = made.d_apart; }
        pool[gates_place(row, gate * parameters.hidden_size + unit)] = sent;
    }
}

@compute @workgroup_size(32u << LANE_BITS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    choose_direction(group.z);
    first_row = parameters.first_row + (group.x << ROW_BITS);
    let own = min(group_rows(), parameters.rows - first_row) * parameters.hidden_size;
    let first = unit_at(lane);
    // Computed once: the division takes longer than the rest of an iteration.
    let apart = Unit(lanes() / parameters.hidden_size, lanes() % parameters.hidden_size);
    clear(lane);
    for (var step = 0u; step < parameters.steps; step = step + 1u) {
        iteration = step;
        var at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            load_operand(at.row, at.unit);
            at = further(at, apart);
        }
        workgroupBarrier();
        multiply(lane, parameters.hidden_size << ROW_BITS, GATES * parameters.hidden_size, 0u, parameters.hidden_size);
        workgroupBarrier();
        at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            finish_units(at.row, at.unit);
            at = further(at, apart);
        }
    }
}
