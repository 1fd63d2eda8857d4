// Stochastic gradient descent with momentum (Sutskever et al. 2013, as implemented in PyTorch):
//   g += decay p;  v = momentum v + (1 - dampening) g, at the first step v = g;
//   p -= rate (nesterov ? g + momentum v : v), or p -= rate g without momentum.
//   All bindings are [count]. One invocation per parameter. CPU reference: src/ops/optimizer/cpu.rs.

@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(3) var<storage, read_write> velocity: array<f32>;

fn compute(i: u32) {
    let at = parameters.parameter_base + i;
    let old = parameter[at];
    let gradient_at_gain = gradient[parameters.gradient_base + i] + parameters.decay * old;
    var direction = gradient_at_gain;
    if parameters.momentum != 0.0 {
        let moving = parameters.velocity_base + i;
        var speed = gradient_at_gain;
        if parameters.first == 0u {
            speed = parameters.momentum * velocity[moving] + parameters.undamped * gradient_at_gain;
        }
        velocity[moving] = speed;
        direction = select(speed, gradient_at_gain + parameters.momentum * speed, parameters.nesterov != 0u);
    }
    parameter[at] = old - parameters.rate * direction;
}
