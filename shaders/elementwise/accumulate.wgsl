// z[i] = factor x[i] + keep z[i]. With keep = 0 the old z[i] is not read, so it may be uninitialised.
//   x, z [count]. One invocation per element. CPU reference: src/ops/elementwise/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> z: array<f32>;

fn compute(i: u32) {
    var value = parameters.factor * x[parameters.x_base + i];
    if parameters.keep != 0u {
        value = value + z[parameters.z_base + i];
    }
    z[parameters.z_base + i] = value;
}
