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

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= parameters.count {
        return;
    }
    let row = id.x / parameters.columns;
    let column = id.x % parameters.columns;
    var value = first[parameters.first_base + row * parameters.first_stride + column];
    let other = parameters.second_base + row * parameters.second_stride + column;
    if FUNCTION == SUM {
        value = value + second[other];
    } else if FUNCTION == PRODUCT {
        value = value * second[other];
    }
    z[parameters.z_base + row * parameters.z_stride + column] = parameters.factor * value;
}
