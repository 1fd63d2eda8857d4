// How a matrix product's operands come into workgroup memory.
//
// A workgroup of 256 computes a square of outputs from tiles of A and B, DEPTH deep and GROUPS times four outputs wide:
// GROUPS * DEPTH is 512 in every kernel. One half of the workgroup fetches A, the other B, each invocation four by four
// values; those for the next DEPTH are under way while this one is multiplied.

// Four neighbouring outputs each, [DEPTH][GROUPS].
var<workgroup> tile_a: array<vec4<f32>, 512>;
var<workgroup> tile_b: array<vec4<f32>, 512>;

// Invocations that fetch one operand.
const HALF: u32 = 128u;
// Fours along K.
const BLOCKS: u32 = DEPTH / 4u;

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
