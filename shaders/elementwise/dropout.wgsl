// Inverted dropout: y[i] = x[i] scale if random number (first + i) mod period of the stream is at least threshold, else 0;
// with add = 1 the value is added to y[i].
//   x, y [count]. One invocation computes four consecutive elements; they share one Philox block unless the period or the
//   block ends between them. CPU reference: src/ops/dropout/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let seed = vec2<u32>(parameters.seed_low, parameters.seed_high);
    let stream = vec2<u32>(parameters.stream_low, parameters.stream_high);
    let start = 4u * id.x;
    let end = min(start + 4u, parameters.count);
    // The index of the block in `numbers`; this initial value is no valid index.
    var drawn = 0xffffffffu;
    var numbers = vec4<u32>();
    for (var i = start; i < end; i = i + 1u) {
        let index = (parameters.first + i) % parameters.period;
        if index / 4u != drawn {
            drawn = index / 4u;
            numbers = philox_block(drawn, seed, stream);
        }
        var value = 0.0;
        if numbers[index % 4u] >= parameters.threshold {
            value = x[parameters.x_base + i] * parameters.scale;
        }
        if parameters.add != 0u {
            value = value + y[parameters.y_base + i];
        }
        y[parameters.y_base + i] = value;
    }
}
