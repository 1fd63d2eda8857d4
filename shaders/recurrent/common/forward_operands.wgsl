// What a forward step reads: the state before it, and what W_hh is multiplied with. Parameters and bindings are
// those of the kernel around it.

fn previous_hidden(row: u32, place: u32) -> f32 {
    if row >= parameters.rows || place >= parameters.state {
        return 0.0;
    }
    let mark = marks_of(row);
    if (mark & RESETS) != 0u || (mark & VALID) == 0u {
        return 0.0;
    }
    if (mark & STARTS) != 0u {
        return initial[initial_at() + row * parameters.state + place];
    }
    return output[previous_output_at() + row * parameters.width + place];
}

// What W_hh is multiplied with.
fn source(row: u32, place: u32) -> f32 {
    if PHASE != 2u {
        let state = previous_hidden(row, place);
        if STATE_MASK == 0u || row >= parameters.rows || place >= parameters.state {
            return state;
        }
        return state * state_mask(row, place, parameters.state);
    }
    if row >= parameters.rows || place >= parameters.hidden {
        return 0.0;
    }
    return saved[saved_at() + row * parameters.hidden + place];
}

fn previous_cell(row: u32, unit: u32) -> f32 {
    let mark = marks_of(row);
    if !HAS_CELL || (mark & RESETS) != 0u {
        return 0.0;
    }
    let place = row * parameters.hidden + unit;
    if (mark & STARTS) != 0u {
        return initial[initial_cell_at() + place];
    }
    return saved[previous_saved_at() + place];
}
