// LSTM with layer normalisation (Ba, Kiros & Hinton 2016, supplementary material), gates i, f, g, o:
//   a = LN(W_ih x) + b_ih + LN(W_hh h') + b_hh; c = f c' + i g; h = o tanh(LN(c)).
// CPU reference: src/ops/recurrent/cpu/cells/layer_norm.rs.

const GATES: u32 = 4u;
const JOINT: u32 = 4u;
const HAS_CELL: bool = true;

fn cell_gates(projected: array<f32, GATES>, recurrent: array<f32, GATES>) -> array<f32, GATES> {
    return array<f32, GATES>(
        accurate_sigmoid(projected[0] + recurrent[0]),
        accurate_sigmoid(projected[1] + recurrent[1]),
        accurate_tanh(projected[2] + recurrent[2]),
        accurate_sigmoid(projected[3] + recurrent[3]),
    );
}

// c, from the previous one.
fn cell_state(gates: array<f32, GATES>, before: f32) -> f32 {
    return gates[1] * before + gates[0] * gates[2];
}

// h, from the normalised c.
fn cell_hidden(gates: array<f32, GATES>, before: f32, normalised: f32) -> f32 {
    return gates[3] * accurate_tanh(normalised);
}

// The gradient of the normalised c.
fn state_derivative(gates: array<f32, GATES>, normalised: f32, d_hidden: f32) -> f32 {
    let y = accurate_tanh(normalised);
    return d_hidden * gates[3] * ((1.0 - y) * (1.0 + y));
}

// `d_state` is the whole gradient of c.
fn cell_backward(step: Step, d_hidden: f32, d_state: f32) -> GateGradients {
    let i = step.gates[0];
    let f = step.gates[1];
    let g = step.gates[2];
    let o = step.gates[3];
    let d_gates = array<f32, GATES>(
        d_state * g * (i * (1.0 - i)),
        d_state * step.before * (f * (1.0 - f)),
        d_state * i * ((1.0 - g) * (1.0 + g)),
        d_hidden * accurate_tanh(step.normalised) * (o * (1.0 - o)),
    );
    return GateGradients(d_gates, d_gates[3], 0.0, d_state * f);
}
