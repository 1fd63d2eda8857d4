// GRU with layer normalisation (Ba, Kiros & Hinton 2016, supplementary material), gates r, z, n. With u =
// LN(W_ih x) + b_ih and q = LN(W_hh h') + b_hh, each over r and z together and over n:
//   r = s(u_r + q_r), z = s(u_z + q_z), n = tanh(u_n + r q_n); h = (1 - z) n + z h'.
// CPU reference: src/ops/recurrent/cpu/cells/layer_norm.rs.

const GATES: u32 = 3u;
const JOINT: u32 = 2u;
const HAS_CELL: bool = false;

fn cell_gates(projected: array<f32, GATES>, recurrent: array<f32, GATES>) -> array<f32, GATES> {
    let r = accurate_sigmoid(projected[0] + recurrent[0]);
    let z = accurate_sigmoid(projected[1] + recurrent[1]);
    return array<f32, GATES>(r, z, accurate_tanh(projected[2] + r * recurrent[2]));
}

fn cell_state(gates: array<f32, GATES>, before: f32) -> f32 {
    return 0.0;
}

// h, from the previous one.
fn cell_hidden(gates: array<f32, GATES>, before: f32, normalised: f32) -> f32 {
    return (1.0 - gates[1]) * gates[2] + gates[1] * before;
}

fn state_derivative(gates: array<f32, GATES>, normalised: f32, d_hidden: f32) -> f32 {
    return 0.0;
}

fn cell_backward(step: Step, d_hidden: f32, d_state: f32) -> GateGradients {
    let r = step.gates[0];
    let z = step.gates[1];
    let n = step.gates[2];
    let d_n = d_hidden * (1.0 - z) * ((1.0 - n) * (1.0 + n));
    let d_gates = array<f32, GATES>(
        d_n * step.last * (r * (1.0 - r)),
        d_hidden * (step.before - n) * (z * (1.0 - z)),
        d_n,
    );
    return GateGradients(d_gates, d_n * r, d_hidden * z, 0.0);
}
