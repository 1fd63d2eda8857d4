// GRU with the reset before the product, as in Cho et al. (2014):
//   r = s(a_r), z = s(a_z), n = tanh(W_in x + b_in + W_hn (r h') + b_hn); h = (1 - z) n + z h'.
// The product with W_hn is the second phase of the step. `gates` holds r, z, n and `saved` holds r h'.
// CPU reference: src/ops/recurrent/cpu/cells/gru.rs.

const GATES: u32 = 3u;
const SAVES: bool = true;
const HAS_CELL: bool = false;
const LAST_GATE_APART: bool = false;

fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: CellState) -> Forward {
    if PHASE == 1u {
        let r = gate_value(projected[0] + recurrent[0]);
        let z = gate_value(projected[1] + recurrent[1]);
        return Forward(array<f32, GATES>(r, z, projected[2]), r * previous.hidden, 0.0);
    }
    let z = projected[1];
    let n = candidate_value(projected[2] + recurrent[2]);
    return Forward(array<f32, GATES>(projected[0], z, n), 0.0, (1.0 - z) * n + z * previous.hidden);
}

// In phase 2, `d_hidden` is the gradient of r h'.
fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    let r = step.gates[0];
    let z = step.gates[1];
    let n = step.gates[2];
    if PHASE == 1u {
        let d_n = candidate_gradient(n, d_hidden * (1.0 - z));
        let d_z = gate_gradient(z, d_hidden * (step.previous.hidden - n));
        return Backward(array<f32, GATES>(r, d_z, d_n), 0.0, d_hidden * z, 0.0);
    }
    let d_r = gate_gradient(r, d_hidden * step.previous.hidden);
    return Backward(array<f32, GATES>(d_r, z, n), 0.0, d_hidden * r, 0.0);
}

fn cell_candidate(step: Step) -> CellState {
    return CellState(step.hidden, 0.0);
}
