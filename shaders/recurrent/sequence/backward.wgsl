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

// The product of the gradients with W_hh, of all rows of the workgroup.
fn multiply_operand(lane: u32) {
    multiply(lane, parameters.hidden_size << ROW_BITS, GATES * parameters.hidden_size, 0u, parameters.hidden_size);
}
