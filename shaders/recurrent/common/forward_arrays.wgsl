// The bindings of every forward kernel, and the offsets of a step in them.
//   weight_hh: see the kernel; bias_hh [G H]; step_flags [T, B]; initial: initial hidden state [B, P], and the cell state
//   [B, H] and peepholes that the cell has;
//   gates [T, B, G H]: read as the projected input, overwritten with the gates as the backward pass reads them;
//   output [T, B, width]: the columns of this direction, of which earlier steps are read;
//   saved [T, B, H]: other values for the backward pass. P = H without a projection.

@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> bias_hh: array<f32>;
@group(0) @binding(3) var<storage, read> initial: array<f32>;
@group(0) @binding(4) var<storage, read> step_flags: array<u32>;
@group(0) @binding(5) var<storage, read_write> gates: array<f32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;
@group(0) @binding(7) var<storage, read_write> saved: array<f32>;

fn is_first() -> bool { return iteration == 0u && (parameters.pass_flags & FIRST_STEP) != 0u; }

fn previous_output_at() -> u32 { return output_at() - direction() * output_stride(); }
fn previous_saved_at() -> u32 { return saved_at() - direction() * saved_stride(); }
