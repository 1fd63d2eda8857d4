// z[i] = a[i] + b[i], a[i] - b[i], a[i] b[i] or factor a[i] + b[i], selected by FUNCTION.
//   a, b, z [count]. One invocation per element. CPU reference: src/ops/elementwise/cpu.rs.

override FUNCTION: u32 = 0u;

@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;

fn compute(i: u32) {
    let left = a[parameters.a_base + i];
    let right = b[parameters.b_base + i];
    var value = left + right;
    switch FUNCTION {
        case 1u: { value = left - right; }
        case 2u: { value = left * right; }
        case 3u: { value = parameters.factor * left + right; }
        default: {}
    }
    z[parameters.z_base + i] = value;
}
