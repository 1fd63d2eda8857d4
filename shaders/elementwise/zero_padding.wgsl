// y[t, b, :] = x[t, b, :] for t < lengths[b], else 0, even where x is NaN.
//   x, y [T, B, features]; lengths [B]. One invocation per element. CPU reference: src/ops/padding/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    let place = (parameters.first + i) / parameters.features;
    let valid = place / parameters.rows < lengths[parameters.lengths_base + place % parameters.rows];
    y[parameters.y_base + i] = select(0.0, x[parameters.x_base + i], valid);
}
