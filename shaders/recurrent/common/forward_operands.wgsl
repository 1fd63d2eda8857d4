// The operands of a forward step: the previous state, and the operand of the product with W_hh. Parameters
// and bindings: those of the including kernel.

fn previous_hidden(row: u32, place: u32) -> f32 {
    if row >= parameters.rows || place >= parameters.projection_size {
        return 0.0;
    }
    let flags = step_flags_of(row);
    if (flags & RESETS) != 0u || (flags & VALID) == 0u {
        return 0.0;
    }
    if (flags & STARTS) != 0u {
        return initial[initial_at() + row * parameters.projection_size + place];
    }
    return output[previous_output_at() + row * parameters.width + place];
}

// Element `place` of the operand of W_hh.
fn source(row: u32, place: u32) -> f32 {
    if PHASE != 2u {
        let state = previous_hidden(row, place);
        if STATE_MASK == 0u || row >= parameters.rows || place >= parameters.projection_size {
            return state;
        }
        return state * state_mask(row, place, parameters.projection_size);
    }
    if row >= parameters.rows || place >= parameters.hidden_size {
        return 0.0;
    }
    return saved[saved_at() + row * parameters.hidden_size + place];
}

fn previous_cell(row: u32, unit: u32) -> f32 {
    let flags = step_flags_of(row);
    if !HAS_CELL || (flags & RESETS) != 0u {
        return 0.0;
    }
    let place = row * parameters.hidden_size + unit;
    if (flags & STARTS) != 0u {
        return initial[initial_cell_at() + place];
    }
    return saved[previous_saved_at() + place];
}
