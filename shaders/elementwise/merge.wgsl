// z[r, c] = factor (first[r, c] + second[r, c]), first[r, c] second[r, c] or factor first[r, c]: merges the two halves of a
// bidirectional output; with dy and the other half as operands it computes the gradient of one half.
//   first, second, z [rows, columns], each with its own row stride. One invocation per element.
//   CPU reference: src/ops/merge/cpu.rs.

const SUM: u32 = 0u;
const PRODUCT: u32 = 1u;
// Any other value: only the first operand.
override FUNCTION: u32;

@group(0) @binding(1) var<storage, read> first: array<f32>;
@group(0) @binding(2) var<storage, read> second: array<f32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;

fn compute(i: u32) {
    let row = i / parameters.columns;
    let column = i % parameters.columns;
    var value = first[parameters.first_base + row * parameters.first_stride + column];
    let other = parameters.second_base + row * parameters.second_stride + column;
    if FUNCTION == SUM {
        value = value + second[other];
    } else if FUNCTION == PRODUCT {
        value = value * second[other];
    }
    z[parameters.z_base + row * parameters.z_stride + column] = parameters.factor * value;
}
