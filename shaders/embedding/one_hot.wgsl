// y[i, v] = 1 if v = tokens[i], else 0. tokens [T]; y [T, vocabulary]. One invocation per element of y.
// CPU reference: src/ops/embedding/cpu.rs.

@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    let place = parameters.y_first + i;
    let token = tokens[parameters.tokens_base + place / parameters.vocabulary];
    y[parameters.y_base + i] = select(0.0, 1.0, token == place % parameters.vocabulary);
}
