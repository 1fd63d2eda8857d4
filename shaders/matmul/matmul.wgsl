// Shared by the kernels of the matrix product: C = op(A) op(B) + bias, or C += op(A) op(B). C is [M,N]; op(A) is [M,K],
// op(B) is [K,N]; A and B are stored row-major, transposed or not. bias [N].
//
// Each output is one accumulator; products are added to it by fma in the order of K. So all kernels give the same bits, and
// a row of C does not depend on the number of rows.

override TRANSPOSE_A: u32 = 0u;
override TRANSPOSE_B: u32 = 0u;

@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// The number of positions `first` to `first + 3` that are below `end`.
fn rest(first: u32, end: u32) -> u32 {
    return min(max(end, first) - first, 4u);
}

// A 4 by 4 block of stored values that starts at (`row`, `column`); values outside [`rows`, `columns`] are zero.
fn fetch_a(row: u32, rows: u32, column: u32, columns: u32) -> mat4x4<f32> {
    let stride = parameters.a_stride;
    let at = parameters.a_base + row * stride + column;
    let there = rest(column, columns);
    return mat4x4<f32>(
        read_a(at, select(0u, there, row < rows)),
        read_a(at + stride, select(0u, there, row + 1u < rows)),
        read_a(at + 2u * stride, select(0u, there, row + 2u < rows)),
        read_a(at + 3u * stride, select(0u, there, row + 3u < rows)),
    );
}

fn fetch_b(row: u32, rows: u32, column: u32, columns: u32) -> mat4x4<f32> {
    let stride = parameters.b_stride;
    let at = parameters.b_base + row * stride + column;
    let there = rest(column, columns);
    return mat4x4<f32>(
        read_b(at, select(0u, there, row < rows)),
        read_b(at + stride, select(0u, there, row + 1u < rows)),
        read_b(at + 2u * stride, select(0u, there, row + 2u < rows)),
        read_b(at + 3u * stride, select(0u, there, row + 3u < rows)),
    );
}

fn store_one(at: u32, column: u32, sum: f32) {
    if column >= parameters.n {
        return;
    }
    var value = sum;
    if parameters.accumulate != 0u {
        value = value + c[at];
    }
    if parameters.has_bias != 0u {
        value = value + bias[parameters.bias_base + column];
    }
    c[at] = value;
}

// Stores four consecutive outputs.
fn store(plane: u32, row: u32, column: u32, sums: vec4<f32>) {
    if row >= parameters.m {
        return;
    }
    let at = parameters.c_base + plane * parameters.c_plane + row * parameters.c_stride + column;
    store_one(at, column, sums.x);
    store_one(at + 1u, column + 1u, sums.y);
    store_one(at + 2u, column + 2u, sums.z);
    store_one(at + 3u, column + 3u, sums.w);
}
