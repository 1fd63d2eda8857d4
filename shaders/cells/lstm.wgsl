// Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), PyTorch's gate
// order: i = s(a_i), f = s(a_f), g = tanh(a_g), o = s(a_o); c = f c' + i g; h = o tanh(c). The gates are kept
// after their activation, c beside them. CPU twin: src/ops/recurrent/cells.rs.

const GATES: u32 = 4u;
const SAVES: bool = true;
const HAS_CELL: bool = true;
const LAST_GATE_APART: bool = false;

fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: Memory) -> Forward {
    let i = accurate_sigmoid(projected[0] + recurrent[0]);
    let f = accurate_sigmoid(projected[1] + recurrent[1]);
    let g = accurate_tanh(projected[2] + recurrent[2]);
    let o = accurate_sigmoid(projected[3] + recurrent[3]);
    let c = f * previous.cell + i * g;
    return Forward(array<f32, GATES>(i, f, g, o), c, o * accurate_tanh(c));
}

fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    let i = step.gates[0];
    let f = step.gates[1];
    let g = step.gates[2];
    let o = step.gates[3];
    let tanh_c = accurate_tanh(step.saved);
    let d_c = d_cell + d_hidden * o * (1.0 - tanh_c) * (1.0 + tanh_c);
    let d_gates = array<f32, GATES>(
        d_c * g * i * (1.0 - i),
        d_c * step.previous.cell * f * (1.0 - f),
        d_c * i * (1.0 - g) * (1.0 + g),
        d_hidden * tanh_c * o * (1.0 - o),
    );
    return Backward(d_gates, 0.0, 0.0, d_c * f);
}
