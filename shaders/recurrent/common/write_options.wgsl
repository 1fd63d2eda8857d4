// Writes the real-valued options of a recurrent layer from parameters to the buffer in which its kernels read
// them, whose own parameters have no space left. One invocation.
//   -> y [OPTIONS].
// No CPU reference: the CPU cells read the options directly.

@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(1)
fn main() {
    y[parameters.y_base + ZONEOUT_HIDDEN] = parameters.zoneout_hidden;
    y[parameters.y_base + ZONEOUT_CELL] = parameters.zoneout_cell;
    y[parameters.y_base + CLIP_GATES] = parameters.clip_gates;
    y[parameters.y_base + CLIP_CELL] = parameters.clip_cell;
    y[parameters.y_base + CLIP_GRADIENT] = parameters.clip_gradient;
    y[parameters.y_base + GATE_ALPHA] = parameters.gate_alpha;
    y[parameters.y_base + GATE_BETA] = parameters.gate_beta;
    y[parameters.y_base + CANDIDATE_ALPHA] = parameters.candidate_alpha;
    y[parameters.y_base + CANDIDATE_BETA] = parameters.candidate_beta;
    y[parameters.y_base + OUTPUT_ALPHA] = parameters.output_alpha;
    y[parameters.y_base + OUTPUT_BETA] = parameters.output_beta;
}
