// The vanilla cell (Elman 1990): h = f(a), a = W_ih x + b_ih + W_hh h' + b_hh.
// CPU reference: src/ops/recurrent/cpu/cells/vanilla.rs.

const GATES: u32 = 1u;
const SAVES: bool = false;
const HAS_CELL: bool = false;
const LAST_GATE_APART: bool = false;

override FUNCTION: u32 = 0u;

fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: CellState) -> Forward {
    let gate = projected[0] + recurrent[0];
    let entering = select(gate, clamp_or_nan(gate, -clip_gates, clip_gates), clip_gates > 0.0);
    return Forward(array<f32, GATES>(gate), 0.0, activate(FUNCTION, entering, gate_alpha, gate_beta));
}

fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    let local = derivative(FUNCTION, step.gates[0], step.hidden, gate_alpha, gate_beta);
    let bounded = clip_gates > 0.0 && !has_nan_bits(step.gates[0]) && abs(step.gates[0]) >= clip_gates;
    return Backward(array<f32, GATES>(select(chain(d_hidden, local), 0.0, bounded)), 0.0, 0.0, 0.0);
}

fn cell_candidate(step: Step) -> CellState {
    let entering = select(step.gates[0], clamp_or_nan(step.gates[0], -clip_gates, clip_gates), clip_gates > 0.0);
    return CellState(activate(FUNCTION, entering, gate_alpha, gate_beta), 0.0);
}
