// Initializes the exchange buffer of a persistent kernel: y[i] = 0 for i < zeros, else EMPTY.
//   y [count]: the exchange buffer. One invocation per element.
// No CPU reference: the CPU backend has no exchange.

@group(0) @binding(1) var<storage, read_write> y: array<u32>;

fn compute(i: u32) {
    let place = parameters.first + i;
    y[place] = select(0xffffffffu, 0u, place < parameters.zeros);
}
