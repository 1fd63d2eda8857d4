// Strategy `sequence`, forward pass: many time steps per dispatch, one direction or both. Per step, as
// recurrent/step/forward.wgsl: a = W_hh h' + b_hh, then the cell.
// A workgroup owns some rows (x) of a direction (z). Rows do not depend on each other, so it waits for no
// other. In the product an invocation computes one or eight columns of G H at a time for all rows of the
// workgroup; in the cell always the same units, so it may read what it stored in the previous step.
//   weight_hh [H, G H], transposed; the others: recurrent/common/forward_arrays.wgsl.
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

fn put_hidden(row: u32, unit: u32, value: f32) {
    output[output_at() + row * parameters.width + unit] = value;
    pool[state_place(row, unit)] = value;
}

// Stores the operand of the product in `pool`, unless the previous step has just done so.
fn load_operand(row: u32, unit: u32) {
    let goes_on = (step_flags_of(row) & (VALID | STARTS | RESETS)) == VALID;
    if iteration == 0u || STATE_MASK != 0u || !goes_on {
        pool[state_place(row, unit)] = source(row, unit);
    }
}

fn finish_units(row: u32, unit: u32) {
    var sums: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        sums[gate] = pool[gates_place(row, gate * parameters.hidden_size + unit)];
    }
    var previous = pool[state_place(row, unit)];
    if STATE_MASK != 0u { previous = previous_hidden(row, unit); }
    finish(row, unit, sums, previous);
}

// The product with W_hh of all rows of the workgroup.
fn multiply_operand(lane: u32) {
    multiply(lane, 0u, parameters.hidden_size, parameters.hidden_size << ROW_BITS, GATES * parameters.hidden_size);
}
