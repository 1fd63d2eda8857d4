// C = op(A) op(B) + bias, or C += op(A) op(B). C is [M,N]; op(A) is [M,K], op(B) is [K,N]; A and B are stored
// row-major as they are, or transposed. CPU twin: src/ops/matmul/cpu.rs.
//
// A workgroup of 16 by 16 computes 64 by 64 outputs, 4 by 4 an invocation, from tiles of depth 16 in workgroup
// memory: each value fetched from memory is used 64 times. Sums run over K in order, so results do not depend
// on timing.

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
}

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

var<workgroup> tile_a: array<f32, 1024>;
var<workgroup> tile_b: array<f32, 1024>;

fn load_a(row: u32, inner: u32) -> f32 {
    if row >= parameters.m || inner >= parameters.k {
        return 0.0;
    }
    if TRANSPOSE_A != 0u {
        return a[parameters.a_base + inner * parameters.a_stride + row];
    }
    return a[parameters.a_base + row * parameters.a_stride + inner];
}

fn load_b(inner: u32, column: u32) -> f32 {
    if inner >= parameters.k || column >= parameters.n {
        return 0.0;
    }
    if TRANSPOSE_B != 0u {
        return b[parameters.b_base + column * parameters.b_stride + inner];
    }
    return b[parameters.b_base + inner * parameters.b_stride + column];
}

// Fills both tiles (stored [DEPTH][TILE]) for depth `first`; neighbouring invocations read neighbouring memory.
fn load_tiles(row: u32, column: u32, first: u32, local: u32) {
    for (var i = local; i < TILE * DEPTH; i = i + 256u) {
        var inner = i / TILE;
        var outer = i % TILE;
        if TRANSPOSE_A == 0u {
            inner = i % DEPTH;
            outer = i / DEPTH;
        }
        tile_a[inner * TILE + outer] = load_a(row + outer, first + inner);
    }
    for (var i = local; i < TILE * DEPTH; i = i + 256u) {
        var inner = i / TILE;
        var outer = i % TILE;
        if TRANSPOSE_B != 0u {
            inner = i % DEPTH;
            outer = i / DEPTH;
        }
        tile_b[inner * TILE + outer] = load_b(first + inner, column + outer);
    }
}

fn store(row: u32, column: u32, sum: f32) {
    if row >= parameters.m || column >= parameters.n {
        return;
    }
    let at = parameters.c_base + row * parameters.c_stride + column;
    var value = sum;
    if parameters.accumulate != 0u {
        value = value + c[at];
    }
    if parameters.has_bias != 0u {
        value = value + bias[parameters.bias_base + column];
    }
    c[at] = value;
}

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row = group.y * TILE;
    let column = group.x * TILE;
    var sums: array<vec4<f32>, 4>;
    for (var first = 0u; first < parameters.k; first = first + DEPTH) {
        load_tiles(row, column, first, index);
        workgroupBarrier();
        for (var inner = 0u; inner < DEPTH; inner = inner + 1u) {
            let at_a = inner * TILE + local.y * 4u;
            let at_b = inner * TILE + local.x * 4u;
            let right = vec4<f32>(tile_b[at_b], tile_b[at_b + 1u], tile_b[at_b + 2u], tile_b[at_b + 3u]);
            sums[0] = sums[0] + tile_a[at_a] * right;
            sums[1] = sums[1] + tile_a[at_a + 1u] * right;
            sums[2] = sums[2] + tile_a[at_a + 2u] * right;
            sums[3] = sums[3] + tile_a[at_a + 3u] * right;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i = i + 1u) {
        for (var j = 0u; j < 4u; j = j + 1u) {
            store(row + local.y * 4u + i, column + local.x * 4u + j, sums[i][j]);
        }
    }
}
