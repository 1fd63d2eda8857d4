// A unit's backward step after the product: zoneout, the cell's derivatives, and the results. Returns the
// gradients of the gates; zeros for a padded step. Parameters and bindings: those of the including kernel.

fn finish(row: u32, unit: u32, product: f32) -> Backward {
    let gates_row = gates_at() + row * GATES * parameters.hidden_size + unit;
    let place = row * parameters.hidden_size + unit;
    let flags = step_flags_of(row);
    if (flags & VALID) == 0u {
        // The carry is kept until the row's last valid step.
        if PROJECTED == 0u {
            carry[carry_out_at() + place] = carry[carry_at() + place];
        }
        if HAS_CELL {
            carry[carry_cell_out_at() + place] = carry[carry_cell_at() + place];
        }
        return Backward();
    }
    var inputs: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        inputs[gate] = gates[gates_row + gate * parameters.hidden_size];
    }
    var kept = 0.0;
    if SAVES { kept = saved[saved_at() + place]; }
    var d_cell = 0.0;
    if HAS_CELL { d_cell = carry[carry_cell_at() + place]; }
    let d_hidden = gradient_at_hidden(row, unit, product);
    let hidden = output[output_at() + row * parameters.width + unit];
    own_unit = unit;
    var before = previous(row, unit, flags);
    let mask = state_mask(row % parameters.batch, unit, parameters.hidden_size);
    if PHASE == 2u { before.hidden = before.hidden * mask; }
    var step = Step(inputs, kept, before, hidden);
    var direct = CellState(0.0, 0.0);
    var d_made = CellState(d_hidden, d_cell);
    if ZONEOUT != 0u && PHASE != 2u {
        // The old state's share bypasses the cell, whose outputs before zoneout are recomputed.
        let old = zoneout(place);
        let hidden_parts = zoneout_split(old.hidden, d_hidden);
        let cell_parts = zoneout_split(old.cell, d_cell);
        direct = CellState(hidden_parts.x, cell_parts.x);
        d_made = CellState(hidden_parts.y, cell_parts.y);
        let made = cell_candidate(step);
        step.hidden = made.hidden;
        if HAS_CELL { step.saved = made.cell; }
    }
    var made = cell_backward(step, d_made.hidden, d_made.cell);
    made.d_hidden = made.d_hidden * select(1.0, mask, PHASE == 2u) + direct.hidden;
    made.d_cell = made.d_cell + direct.cell;
    // Other invocations of phase 2 read the last gate's gradient.
    let written = select(GATES, GATES - 1u, PHASE == 2u);
    for (var gate = 0u; gate < written; gate = gate + 1u) {
        gates[gates_row + gate * parameters.hidden_size] = made.d_gates[gate];
    }
    if LAST_GATE_APART {
        saved[saved_at() + place] = made.d_apart;
    }
    let flows = (flags & (RESETS | CUTS)) == 0u;
    if PHASE == 2u {
        made.d_hidden = made.d_hidden + carry[carry_out_at() + place];
    }
    if PROJECTED == 0u {
        carry[carry_out_at() + place] = select(0.0, made.d_hidden, flows);
    }
    if HAS_CELL {
        carry[carry_cell_out_at() + place] = select(0.0, within_bound(made.d_cell), flows);
    }
    return made;
}
