// z[i] = factor x[i] + keep z[i]. With keep = 0 the old z[i] is not read, so it may be uninitialised.
//   x, z [count]. One invocation per element. CPU reference: src/ops/elementwise/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= parameters.count {
        return;
    }
    var value = parameters.factor * x[parameters.x_base + i];
    if parameters.keep != 0u {
        value = value + z[parameters.z_base + i];
    }
    z[parameters.z_base + i] = value;
}
