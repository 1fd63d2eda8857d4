// C = op(A) op(B) + bias, or C += op(A) op(B), without workgroup memory. A workgroup computes 32 by 32 outputs, an
// invocation 8 by 8, from operands that it reads itself. For devices where workgroup memory is ordinary memory and a barrier
// is a switch between invocations. Bindings: matmul/matmul.wgsl. CPU reference: src/ops/matmul/cpu.rs.

// op(A) at rows `row` to `row + 3` and depths `inner` to `inner + 3`: one vector of four rows per depth.
fn columns_of_a(row: u32, inner: u32, end: u32) -> mat4x4<f32> {
    if TRANSPOSE_A != 0u {
        return fetch_a(inner, end, row, parameters.m);
    }
    return transpose(fetch_a(row, parameters.m, inner, end));
}

fn rows_of_b(column: u32, inner: u32, end: u32) -> mat4x4<f32> {
    if TRANSPOSE_B != 0u {
        return transpose(fetch_b(column, parameters.n, inner, end));
    }
    return fetch_b(inner, end, column, parameters.n);
}

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let top = group.y * 32u + index / 4u * 4u;
    let left = group.x * 32u + index % 4u * 4u;
    let start = group.z * parameters.part;
    let end = min(start + parameters.part, parameters.k);
    for (var inner = start; inner < end; inner = inner + 4u) {
        let upper = columns_of_a(top, inner, end);
        let lower = columns_of_a(top + 16u, inner, end);
        let here = rows_of_b(left, inner, end);
        let right = rows_of_b(left + 16u, inner, end);
        multiply(upper[0], lower[0], here[0], right[0]);
        multiply(upper[1], lower[1], here[1], right[1]);
        multiply(upper[2], lower[2], here[2], right[2]);
        multiply(upper[3], lower[3], here[3], right[3]);
    }
    store_square(group.z, top, left, 16u);
}
