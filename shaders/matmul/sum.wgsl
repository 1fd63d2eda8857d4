// The second pass of a split-K matrix product: C = bias + sum_p parts[p], or C += sum_p parts[p].
//   parts [P, M, N]; bias [N]; C [M, N]. One invocation per output. It adds the partial sums one by one, from the last to
//   the first, whichever kernel computed them. CPU reference: src/ops/matmul/cpu.rs.

@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

fn compute(i: u32) {
    let place = parameters.first + i;
    let column = place % parameters.n;
    let at = parameters.c_base + place / parameters.n * parameters.c_stride + column;
    var value = 0.0;
    if parameters.accumulate != 0u {
        value = c[at];
    }
    for (var part = parameters.parts; part > 0u; part = part - 1u) {
        value = value + parts[parameters.parts_base + (part - 1u) * parameters.plane + place];
    }
    if parameters.has_bias != 0u {
        value = value + bias[parameters.bias_base + column];
    }
    c[at] = value;
}
