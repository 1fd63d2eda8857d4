// What a backward step reads: the state before it, and what W_hh is multiplied with. Parameters and bindings are
// those of the kernel around it.

// 1: the gradient at the state that a step started from is bounded.
override CLIPS_GRADIENT: u32 = 0u;

fn has_next(row: u32) -> bool {
    if HAS_STEP_FLAGS == 0u || is_last() {
        return !is_last();
    }
    return (step_flags[next_step_flags_at() + row] & VALID) != 0u;
}

// Whether the next step's gates send a gradient to this step's state.
fn next_sends(row: u32) -> bool {
    if HAS_STEP_FLAGS == 0u || is_last() {
        return !is_last();
    }
    return (step_flags[next_step_flags_at() + row] & (VALID | STARTS | RESETS | CUTS)) == VALID;
}

// How many of the rows of W_hh the product runs over.
fn depth() -> u32 {
    switch PHASE {
        case 1u: { return (GATES - 1u) * parameters.hidden_size; }
        case 2u: { return parameters.hidden_size; }
        default: { return select(GATES * parameters.hidden_size, 0u, PROJECTED != 0u); }
    }
}

// The first of these rows.
fn first_weight() -> u32 { return select(0u, (GATES - 1u) * parameters.hidden_size, PHASE == 2u); }

// The gradient at place `place` of the recurrent product: the next step's, or of this step's last gate.
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

// The gradient at what the cell makes of h.
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
    // What comes from a later step is bounded; what is given at the final state is not.
    return sum + select(carried, within_bound(carried), has_next(row));
}
