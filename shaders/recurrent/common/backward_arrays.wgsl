// The bindings of every backward kernel, and the offsets of a step in them.
//   weight_hh [G H, H]; output, d_output [T, B, widths]: the columns of this direction; step_flags [T, B];
//   initial: initial hidden state [B, H], and the cell state and peepholes that the cell has;
//   gates [T, B, G H]: read as the forward pass saved them, overwritten with their gradients before the activation;
//   saved [T, B, H]: read as the forward pass saved it; with LAST_GATE_APART overwritten with the recurrent gradient of the last gate;
//   carry [1 or 2, B, H]: read as the gradient of the state after a step (hidden, then cell), overwritten with what
//   reaches the state before it other than through the weights; initially the gradient of the final state.

@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> output: array<f32>;
@group(0) @binding(3) var<storage, read> d_output: array<f32>;
@group(0) @binding(4) var<storage, read> initial: array<f32>;
@group(0) @binding(5) var<storage, read> step_flags: array<u32>;
@group(0) @binding(6) var<storage, read_write> gates: array<f32>;
@group(0) @binding(7) var<storage, read_write> saved: array<f32>;
@group(0) @binding(8) var<storage, read_write> carry: array<f32>;

fn d_output_stride() -> u32 { return parameters.rows * parameters.d_width; }

fn is_first() -> bool { return iteration + 1u == parameters.steps && (parameters.pass_flags & FIRST_STEP) != 0u; }
fn is_last() -> bool { return iteration == 0u && (parameters.pass_flags & LAST_STEP) != 0u; }

// Rows from this step to the following one in the order of the layer, in the same array.
fn next_rows() -> u32 { return select(parameters.next_row, 0u - parameters.next_row, second != 0u); }

fn next_step_flags_at() -> u32 { return step_flags_at() - direction() * parameters.batch; }
fn next_gates_at() -> u32 { return gates_at() + next_rows() * GATES * parameters.hidden_size; }
fn next_saved_at() -> u32 { return saved_at() + next_rows() * parameters.hidden_size; }
// Rows may be those of several steps, one batch apart.
fn previous_saved_at() -> u32 { return saved_at() + direction() * parameters.batch * parameters.hidden_size; }
fn previous_output_at() -> u32 { return output_at() + direction() * parameters.batch * parameters.width; }
fn d_output_at() -> u32 { return parameters.d_output_base + beside(d_output_stride()) + elapsed(d_output_stride()); }
fn carry_out_at() -> u32 { return parameters.carry_base + second * saved_stride(); }
fn carry_cell_out_at() -> u32 { return parameters.carry_cell_base + second * saved_stride(); }
fn carry_at() -> u32 { return carry_out_at() + parameters.carry_row * parameters.hidden_size; }
fn carry_cell_at() -> u32 { return carry_cell_out_at() + parameters.carry_row * parameters.hidden_size; }
