// The configurable activations of a gated cell, and the gradients of their arguments computed from their
// values. CPU reference: `Gate` in src/ops/recurrent/cpu/gates.rs.

override GATE_FUNCTION: u32 = 3u;
override CANDIDATE_FUNCTION: u32 = 1u;
override OUTPUT_FUNCTION: u32 = 1u;

fn within(x: f32, bound: f32) -> f32 {
    return select(x, clamp_or_nan(x, -bound, bound), bound > 0.0);
}

fn gate_value(a: f32) -> f32 {
    return activate(GATE_FUNCTION, within(a, clip_gates), gate_alpha, gate_beta);
}

fn candidate_value(a: f32) -> f32 {
    return activate(CANDIDATE_FUNCTION, within(a, clip_gates), candidate_alpha, candidate_beta);
}

fn output_value(c: f32) -> f32 {
    return activate(OUTPUT_FUNCTION, c, output_alpha, output_beta);
}

// Whether the argument was clipped: y is then one of the two values at the bounds.
fn at_bound(y: f32, one: f32, other: f32) -> bool {
    return clip_gates > 0.0 && !has_nan_bits(y) && (y <= min(one, other) || y >= max(one, other));
}

// The gradient of a gate's argument, from the gate's value and its gradient: zero where the argument was
// clipped, even if `d` is NaN.
fn gate_gradient(y: f32, d: f32) -> f32 {
    let inside = chain(d, derivative_at_output(GATE_FUNCTION, y, gate_alpha, gate_beta));
    return select(inside, 0.0, at_bound(y, gate_value(-clip_gates), gate_value(clip_gates)));
}

fn candidate_gradient(y: f32, d: f32) -> f32 {
    let inside = chain(d, derivative_at_output(CANDIDATE_FUNCTION, y, candidate_alpha, candidate_beta));
    return select(inside, 0.0, at_bound(y, candidate_value(-clip_gates), candidate_value(clip_gates)));
}

fn output_gradient(y: f32, d: f32) -> f32 {
    return chain(d, derivative_at_output(OUTPUT_FUNCTION, y, output_alpha, output_beta));
}
