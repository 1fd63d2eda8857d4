// The entry point of element-wise kernels, with one invocation per element; the kernel defines `compute`.
// No CPU reference: each kernel names its own.

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < parameters.count {
        compute(id.x);
    }
}
