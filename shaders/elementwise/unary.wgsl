// y[i] = f(x[i]), where FUNCTION selects f. x, y [count]. One invocation per element.
// CPU reference: src/ops/elementwise/cpu.rs.

override FUNCTION: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    y[parameters.y_base + i] = activate(FUNCTION, x[parameters.x_base + i], parameters.alpha, parameters.beta);
}
