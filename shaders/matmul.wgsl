// What the kernels of a matrix product share: C = op(A) op(B) + bias, or C += op(A) op(B). C is [M,N]; op(A) is
// [M,K], op(B) is [K,N]; A and B are stored row-major as they are, or transposed.
//
// A workgroup of 256 computes a square of outputs from tiles of A and B in workgroup memory, DEPTH deep and GROUPS
// times four outputs wide: GROUPS * DEPTH is 512 in every kernel. One half of the workgroup fetches A, the other B,
// each invocation four by four values; those for the next DEPTH are under way while this one is multiplied.
// Each output is one accumulator, to which products are added by fma in the order of K: so all kernels give the same
// bits, and a row of C does not depend on how many others there are.

override TRANSPOSE_A: u32 = 0u;
override TRANSPOSE_B: u32 = 0u;

struct Parameters {
    m: u32,
    n: u32,
    k: u32,
    a_stride: u32,
    b_stride: u32,
    c_stride: u32,
    a_base: u32,
    b_base: u32,
    c_base: u32,
    bias_base: u32,
    // 1: add a bias to each row; 0: none.
    has_bias: u32,
    // 1: add to what C holds; 0: overwrite.
    accumulate: u32,
    // Workgroup z sums over this part of K, the z-th, into the z-th plane of C.
    part: u32,
    // Elements from one plane of C to the next.
    c_plane: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// Four neighbouring outputs each, [DEPTH][GROUPS].
var<workgroup> tile_a: array<vec4<f32>, 512>;
var<workgroup> tile_b: array<vec4<f32>, 512>;

// Invocations that fetch one operand.
const HALF: u32 = 128u;
// Fours along K.
const BLOCKS: u32 = DEPTH / 4u;

// How many of four positions from `first` are below `end`.
fn rest(first: u32, end: u32) -> u32 {
    return min(max(end, first) - first, 4u);
}

// Four rows of four stored values, from row `row` (below `rows` there are some) and column `column` on; zero outside.
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

// Which block of its operand's tile an invocation fetches: the four along K, the group of four outputs. Neighbours read
// neighbouring memory, so it depends on how the operand is stored.
fn block_of(index: u32) -> vec2<u32> {
    let lane = index % HALF;
    let along_k = select(TRANSPOSE_A == 0u, TRANSPOSE_B != 0u, index >= HALF);
    return select(vec2<u32>(lane / GROUPS, lane % GROUPS), vec2<u32>(lane % BLOCKS, lane / BLOCKS), along_k);
}

// This invocation's block, from outputs `row` by `column` and depth `first` of the sum up to `end`: four vectors at
// consecutive depths.
fn fetch(row: u32, column: u32, first: u32, end: u32, index: u32) -> mat4x4<f32> {
    let block = block_of(index);
    let inner = first + block.x * 4u;
    if index < HALF {
        let outer = row + block.y * 4u;
        if TRANSPOSE_A != 0u {
            return fetch_a(inner, end, outer, parameters.m);
        }
        return transpose(fetch_a(outer, parameters.m, inner, end));
    }
    let outer = column + block.y * 4u;
    if TRANSPOSE_B != 0u {
        return transpose(fetch_b(outer, parameters.n, inner, end));
    }
    return fetch_b(inner, end, outer, parameters.n);
}

// What is added by exclusive or to places in a tile at the four depths of `block`, so that neighbours along K write to
// other banks; readers all have the same depth, and stay apart.
fn swizzle(block: u32) -> u32 {
    return block * SWIZZLE % 8u;
}

fn keep(fetched: mat4x4<f32>, index: u32) {
    let block = block_of(index);
    let mix = swizzle(block.x);
    let at = block.x * 4u * GROUPS + block.y;
    if index < HALF {
        tile_a[at ^ mix] = fetched[0];
        tile_a[(at + GROUPS) ^ mix] = fetched[1];
        tile_a[(at + 2u * GROUPS) ^ mix] = fetched[2];
        tile_a[(at + 3u * GROUPS) ^ mix] = fetched[3];
    } else {
        tile_b[at ^ mix] = fetched[0];
        tile_b[(at + GROUPS) ^ mix] = fetched[1];
        tile_b[(at + 2u * GROUPS) ^ mix] = fetched[2];
        tile_b[(at + 3u * GROUPS) ^ mix] = fetched[3];
    }
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

// Four neighbouring outputs.
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
