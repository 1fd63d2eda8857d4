// A unit's forward step after the product: bias, cell, zoneout, and the results. `previous` is the unit's h
// before the step. Parameters and bindings: those of the including kernel.

fn finish(row: u32, unit: u32, products: array<f32, GATES>, previous: f32) {
    let gates_row = gates_at() + row * GATES * parameters.hidden_size + unit;
    let place = row * parameters.hidden_size + unit;
    if (step_flags_of(row) & VALID) == 0u {
        for (var gate = 0u; gate < GATES; gate = gate + 1u) {
            gates[gates_row + gate * parameters.hidden_size] = 0.0;
        }
        if SAVES {
            saved[saved_at() + place] = 0.0;
        }
        put_hidden(row, unit, 0.0);
        return;
    }
    var projected: array<f32, GATES>;
    var recurrent = products;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        projected[gate] = gates[gates_row + gate * parameters.hidden_size];
        if (parameters.pass_flags & HAS_BIAS) != 0u {
            let place = (second * GATES + gate) * parameters.hidden_size + unit;
            recurrent[gate] = recurrent[gate] + bias_hh[parameters.bias_base + place];
        }
    }
    own_unit = unit;
    let before = CellState(previous, previous_cell(row, unit));
    // In phase 1 the state is masked here, as it is for the product of phase 2.
    let seen = select(before.hidden, before.hidden * state_mask(row, unit, parameters.projection_size), PHASE == 1u);
    var made = cell_forward(projected, recurrent, CellState(seen, before.cell));
    if ZONEOUT != 0u && PHASE != 1u {
        let kept = zoneout(place);
        made.hidden = zoneout_mix(kept.hidden, before.hidden, made.hidden);
        if HAS_CELL { made.saved = zoneout_mix(kept.cell, before.cell, made.saved); }
    }
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        gates[gates_row + gate * parameters.hidden_size] = made.gates[gate];
    }
    if SAVES && PHASE != 2u {
        saved[saved_at() + place] = made.saved;
    }
    put_hidden(row, unit, made.hidden);
}
