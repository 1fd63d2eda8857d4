// Gated recurrent unit (Cho et al. 2014) with the reset after the product, as cuDNN and PyTorch have it:
// r = s(a_r), z = s(a_z), n = tanh(W_in x + b_in + r q) with q = W_hn h' + b_hn; h = (1 - z) n + z h'.
// The gates are kept after their activation, q beside them; backward leaves the gradient at q in its place.
// CPU twin: src/ops/recurrent/cells.rs.

const GATES: u32 = 3u;
const SAVES: bool = true;
const HAS_CELL: bool = false;
const LAST_GATE_APART: bool = true;

fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: Memory) -> Forward {
    let r = accurate_sigmoid(projected[0] + recurrent[0]);
    let z = accurate_sigmoid(projected[1] + recurrent[1]);
    let n = accurate_tanh(projected[2] + r * recurrent[2]);
    return Forward(array<f32, GATES>(r, z, n), recurrent[2], (1.0 - z) * n + z * previous.hidden);
}

fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    let r = step.gates[0];
    let z = step.gates[1];
    let n = step.gates[2];
    let d_n = d_hidden * (1.0 - z) * (1.0 - n) * (1.0 + n);
    let d_gates = array<f32, GATES>(
        d_n * step.saved * r * (1.0 - r),
        d_hidden * (step.previous.hidden - n) * z * (1.0 - z),
        d_n,
    );
    return Backward(d_gates, d_n * r, d_hidden * z, 0.0);
}
