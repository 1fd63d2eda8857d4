// dx[i] = dy[i] f'(x[i]), where FUNCTION selects f and y = f(x). x, y, d_y, d_x [count]. One invocation per element.
// CPU reference: src/ops/elementwise/cpu.rs.

override FUNCTION: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> d_y: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_x: array<f32>;

fn compute(i: u32) {
    let local = derivative(
        FUNCTION, x[parameters.x_base + i], y[parameters.y_base + i], parameters.alpha, parameters.beta);
    d_x[parameters.d_x_base + i] = chain(d_y[parameters.d_y_base + i], local);
}
