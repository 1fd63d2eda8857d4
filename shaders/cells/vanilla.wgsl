// The vanilla cell (Elman 1990): h = f(g), where g = W_ih x + b_ih + W_hh h' + b_hh is its only gate.
// CPU twin: src/ops/recurrent/cpu.rs.

const GATES: u32 = 1u;

fn cell_forward(gates: array<f32, GATES>) -> f32 {
    return activate(gates[0], parameters.alpha, parameters.beta);
}

// The gradient at the gates, given the gates, the new state and the gradient at the new state.
fn cell_backward(gates: array<f32, GATES>, hidden: f32, d_hidden: f32) -> array<f32, GATES> {
    return array<f32, GATES>(d_hidden * derivative(gates[0], hidden, parameters.alpha, parameters.beta));
}
