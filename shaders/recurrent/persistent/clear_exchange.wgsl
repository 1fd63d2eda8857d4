// Initializes the exchange buffer of a persistent kernel: y[i] = 0 for i < zeros, else EMPTY.
//   y [count]: the exchange buffer. One invocation per element.
// No CPU reference: the CPU backend has no exchange.

@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = parameters.first + id.x;
    if id.x < parameters.count {
        y[i] = select(0xffffffffu, 0u, i < parameters.zeros);
    }
}
