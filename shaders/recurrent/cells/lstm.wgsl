// LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000), gates in PyTorch's order:
//   i = s(a_i), f = s(a_f), g = tanh(a_g), o = s(a_o); c = f c' + i g; h = o tanh(c).
// With peepholes (Gers et al. 2002), p c' is added to a_i and a_f, and p c to a_o. `gates` holds i, f, g, o
// and `saved` holds c.
// CPU reference: src/ops/recurrent/cpu/cells/lstm.rs.

const SAVES: bool = true;
const HAS_CELL: bool = true;
const LAST_GATE_APART: bool = false;

// 1: the layer has peepholes.
override PEEPHOLES: u32 = 0u;

// p c for the peephole of the input gate (0), the forget gate (1) or the output gate (the last). Without
// peepholes zero, even for an infinite c.
fn peephole(place: u32, c: f32) -> f32 {
    if PEEPHOLES == 0u {
        return 0.0;
    }
    return initial[peepholes_at() + place * parameters.hidden_size + own_unit] * c;
}

fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: CellState) -> Forward {
    let i = gate_value(projected[0] + recurrent[0] + peephole(0u, previous.cell));
    var f = 1.0 - i;
    if !COUPLED { f = gate_value(projected[1] + recurrent[1] + peephole(1u, previous.cell)); }
    let g = candidate_value(projected[GATES - 2u] + recurrent[GATES - 2u]);
    let c = within(f * previous.cell + i * g, clip_cell);
    let o = gate_value(projected[GATES - 1u] + recurrent[GATES - 1u] + peephole(GATES - 2u, c));
    var gates: array<f32, GATES>;
    gates[0] = i;
    if !COUPLED { gates[1] = f; }
    gates[GATES - 2u] = g;
    gates[GATES - 1u] = o;
    return Forward(gates, c, o * output_value(c));
}

fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    let i = step.gates[0];
    var f = 1.0 - i;
    if !COUPLED { f = step.gates[1]; }
    let g = step.gates[GATES - 2u];
    let o = step.gates[GATES - 1u];
    let y = output_value(step.saved);
    let d_o = gate_gradient(o, d_hidden * y);
    var d_c = d_cell + output_gradient(y, d_hidden * o) + peephole(GATES - 2u, d_o);
    if clip_cell > 0.0 && !has_nan_bits(step.saved) && abs(step.saved) >= clip_cell { d_c = 0.0; }
    let from_i = select(g, g - step.previous.cell, COUPLED);
    let d_i = gate_gradient(i, d_c * from_i);
    let d_f = select(gate_gradient(f, d_c * step.previous.cell), 0.0, COUPLED);
    var d_gates: array<f32, GATES>;
    d_gates[0] = d_i;
    if !COUPLED { d_gates[1] = d_f; }
    d_gates[GATES - 2u] = candidate_gradient(g, d_c * i);
    d_gates[GATES - 1u] = d_o;
    var before = d_c * f + peephole(0u, d_i);
    if !COUPLED { before = before + peephole(1u, d_f); }
    return Backward(d_gates, 0.0, 0.0, before);
}

fn cell_candidate(step: Step) -> CellState {
    var f = 1.0 - step.gates[0];
    if !COUPLED { f = step.gates[1]; }
    return CellState(step.hidden, within(f * step.previous.cell + step.gates[0] * step.gates[GATES - 2u], clip_cell));
}
