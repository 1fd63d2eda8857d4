// What recurrent/persistent/workgroup.wgsl starts from: y[i] = 0 for i < zeros, else a word that stands for nothing yet.
//   y [count]: the exchange. No CPU reference: nothing is exchanged there.

@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = parameters.first + id.x;
    if id.x < parameters.count {
        y[i] = select(0xffffffffu, 0u, i < parameters.zeros);
    }
}
