// y[t, b, :] = x[t, b, :] for t < lengths[b], else 0, even where x is NaN.
//   x, y [T, B, features]; lengths [B]. One invocation per element. CPU reference: src/ops/padding/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= parameters.count {
        return;
    }
    let place = (parameters.first + id.x) / parameters.features;
    let valid = place / parameters.rows < lengths[parameters.lengths_base + place % parameters.rows];
    y[parameters.y_base + id.x] = select(0.0, x[parameters.x_base + id.x], valid);
}
