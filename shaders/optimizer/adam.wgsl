// Adam (Kingma & Ba 2015, algorithm 1), AdamW (Loshchilov & Hutter 2019) and AMSGrad (Reddi et al. 2018):
//   g += decay p (Adam)  or  p *= shrink (AdamW);
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
//   p -= step m / (sqrt(v or its maximum) / correction + epsilon),
// where the host computes step = rate / (1 - beta1^t) and correction = sqrt(1 - beta2^t).
//   All bindings are [count]. One invocation per parameter. CPU reference: src/ops/optimizer/cpu.rs.

@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(3) var<storage, read_write> first_moment: array<f32>;
@group(0) @binding(4) var<storage, read_write> second_moment: array<f32>;
@group(0) @binding(5) var<storage, read_write> largest_moment: array<f32>;

fn compute(i: u32) {
    let at = parameters.parameter_base + i;
    let old = parameter[at];
    let gradient_at_gain = gradient[parameters.gradient_base + i] + parameters.decay * old;
    let first = parameters.beta1 * first_moment[parameters.first_base + i] + parameters.rest1 * gradient_at_gain;
    let second =
        parameters.beta2 * second_moment[parameters.second_base + i] + parameters.rest2 * gradient_at_gain * gradient_at_gain;
    first_moment[parameters.first_base + i] = first;
    second_moment[parameters.second_base + i] = second;
    var spread = second;
    if parameters.keep_largest != 0u {
        spread = max_or_nan(second, largest_moment[parameters.largest_base + i]);
        largest_moment[parameters.largest_base + i] = spread;
    }
    let width = sqrt(spread) / parameters.correction + parameters.epsilon;
    // While all gradients so far are zero the parameter does not change, even if epsilon is zero.
    let change = select(parameters.step * first / width, 0.0, first == 0.0 && !has_nan_bits(first));
    parameter[at] = parameters.shrink * old - change;
}
