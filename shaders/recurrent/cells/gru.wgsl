// GRU (Cho et al. 2014) with the reset after the product, as in cuDNN and PyTorch:
//   r = s(a_r), z = s(a_z), n = tanh(W_in x + b_in + r q) with q = W_hn h' + b_hn; h = (1 - z) n + z h'.
// `gates` holds r, z, n and `saved` holds q, which the backward pass overwrites with its gradient.
// CPU reference: src/ops/recurrent/cpu/cells/gru.rs.

const GATES: u32 = 3u;
const SAVES: bool = true;
const HAS_CELL: bool = false;
const LAST_GATE_APART: bool = true;

fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: CellState) -> Forward {
    let r = gate_value(projected[0] + recurrent[0]);
    let z = gate_value(projected[1] + recurrent[1]);
    let n = candidate_value(projected[2] + r * recurrent[2]);
    return Forward(array<f32, GATES>(r, z, n), recurrent[2], (1.0 - z) * n + z * previous.hidden);
}

fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    let r = step.gates[0];
    let z = step.gates[1];
    let n = step.gates[2];
    let d_n = candidate_gradient(n, d_hidden * (1.0 - z));
    let d_gates = array<f32, GATES>(
        gate_gradient(r, d_n * step.saved),
        gate_gradient(z, d_hidden * (step.previous.hidden - n)),
        d_n,
    );
    return Backward(d_gates, d_n * r, d_hidden * z, 0.0);
}

fn cell_candidate(step: Step) -> CellState {
    return CellState(step.hidden, 0.0);
}
