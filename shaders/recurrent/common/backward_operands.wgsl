// The operands of a backward step: the previous state, and the operand of the product with W_hh. Parameters
// and bindings: those of the including kernel.

// 1: the gradient of the previous state is clipped.
override CLIPS_GRADIENT: u32 = 0u;

fn has_next(row: u32) -> bool {
    if HAS_STEP_FLAGS == 0u || is_last() {
        return !is_last();
    }
    return (step_flags[next_step_flags_at() + row] & VALID) != 0u;
}

// Whether the following step's gates contribute to the gradient of this step's state.
fn next_sends(row: u32) -> bool {
    if HAS_STEP_FLAGS == 0u || is_last() {
        return !is_last();
    }
    return (step_flags[next_step_flags_at() + row] & (VALID | STARTS | RESETS | CUTS)) == VALID;
}

// The number of rows of W_hh in the product.
fn depth() -> u32 {
    switch PHASE {
        case 1u: { return (GATES - 1u) * parameters.hidden_size; }
        case 2u: { return parameters.hidden_size; }
        default: { return select(GATES * parameters.hidden_size, 0u, PROJECTED != 0u); }
    }
}

// The first of these rows.
fn first_weight() -> u32 { return select(0u, (GATES - 1u) * parameters.hidden_size, PHASE == 2u); }

// Element `place` of the operand: the following step's gate gradient or, in phase 2, that of this step's last
// gate.
fn gradient(row: u32, place: u32) -> f32 {
    if row >= parameters.rows || place >= depth() {
        return 0.0;
    }
    let apart = (GATES - 1u) * parameters.hidden_size;
    if PHASE == 2u {
        return gates[gates_at() + row * GATES * parameters.hidden_size + apart + place];
    }
    if !next_sends(row) {
        return 0.0;
    }
    if LAST_GATE_APART && place >= apart {
        return saved[next_saved_at() + row * parameters.hidden_size + (place - apart)];
    }
    return gates[next_gates_at() + row * GATES * parameters.hidden_size + place];
}

fn previous(row: u32, unit: u32, flags: u32) -> CellState {
    var before = CellState(0.0, 0.0);
    if (flags & RESETS) != 0u {
        return before;
    }
    if (flags & STARTS) != 0u {
        let place = row % parameters.batch * parameters.hidden_size + unit;
        if PROJECTED == 0u { before.hidden = initial[initial_at() + place]; }
        if HAS_CELL { before.cell = initial[initial_cell_at() + place]; }
    } else {
        before.hidden = output[previous_output_at() + row * parameters.width + unit];
        if HAS_CELL { before.cell = saved[previous_saved_at() + row * parameters.hidden_size + unit]; }
    }
    return before;
}

fn within_bound(gradient: f32) -> f32 {
    if CLIPS_GRADIENT == 0u {
        return gradient;
    }
    let bound = option_at(CLIP_GRADIENT);
    return clamp_or_nan(gradient, -bound, bound);
}

// The gradient of h, or of m with a projection h = W_hr m.
fn gradient_at_hidden(row: u32, unit: u32, product: f32) -> f32 {
    if PHASE == 2u {
        return product;
    }
    var sum = 0.0;
    if (parameters.pass_flags & TAKES_OUTPUTS) != 0u {
        sum = d_output[d_output_at() + row * parameters.d_width + unit];
    }
    if PROJECTED != 0u {
        return sum;
    }
    let carried = product * state_mask(row % parameters.batch, unit, parameters.hidden_size)
        + carry[carry_at() + row * parameters.hidden_size + unit];
    // The gradient from a later step is clipped; that of the final state is not.
    return sum + select(carried, within_bound(carried), has_next(row));
}
