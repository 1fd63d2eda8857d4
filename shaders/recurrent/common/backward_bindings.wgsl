// The arrays of every kernel that goes back in time, and how far a step lies from the next one in them.
//   weight_hh [G H, H]; output, d_output [T, B, widths]: the column block of this direction; initial: hidden state [B, H],
//   cell state and peepholes where there are such; marks [T, B];
//   gates [T, B, G H]: what forward kept comes in, the gradients before the activation go out, step by step;
//   saved [T, B, H]: likewise; where the cell has a gate apart, its recurrent gradient goes out;
//   carry [1 or 2, B, H]: the gradient at the state after a step comes in (hidden, then cell), what does not pass through
//   the weights goes out. Before the last step it holds the gradient at the final state.

@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> output: array<f32>;
@group(0) @binding(3) var<storage, read> d_output: array<f32>;
@group(0) @binding(4) var<storage, read> initial: array<f32>;
@group(0) @binding(5) var<storage, read> step_flags: array<u32>;
@group(0) @binding(6) var<storage, read_write> gates: array<f32>;
@group(0) @binding(7) var<storage, read_write> saved: array<f32>;
@group(0) @binding(8) var<storage, read_write> carry: array<f32>;

fn gates_stride() -> u32 { return parameters.rows * GATES * parameters.hidden_size; }
fn saved_stride() -> u32 { return parameters.rows * parameters.hidden_size; }
fn output_stride() -> u32 { return parameters.rows * parameters.width; }
fn d_output_stride() -> u32 { return parameters.rows * parameters.d_width; }
