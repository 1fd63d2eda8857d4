// g *= min(1, max_norm / (norm + 1e-6)). The norm is read on the device, so the host does not wait for it.
//   norm [1]; gradient [count]. One invocation per element. CPU reference: src/ops/optimizer/cpu.rs.

@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;

fn compute(i: u32) {
    let total = norm[parameters.norm_base] + 1e-6;
    // GPUs may flush the ratio to zero if the norm is huge, so both are scaled by a power of two.
    let power = select(1.0, 5.421010862427522e-20, total > 1e18);
    let ratio = parameters.max_norm / (total * power);
    // A NaN norm makes all gradients NaN, as in PyTorch.
    if ratio * power > 1.0 && !has_nan_bits(total) {
        return;
    }
    let at = parameters.gradient_base + i;
    gradient[at] = (gradient[at] * power) * ratio;
}
