// Loads the operands of a matrix product into workgroup memory.
//
// A workgroup of 256 invocations computes a square of outputs from tiles of A and B that are DEPTH deep and GROUPS times
// four outputs wide; GROUPS * DEPTH is 512 in every kernel. One half of the workgroup fetches A, the other half B, 4 by 4
// values per invocation; the next tiles are fetched while the current ones are multiplied.

// Vectors of four consecutive outputs, [DEPTH][GROUPS].
var<workgroup> tile_a: array<vec4<f32>, 512>;
var<workgroup> tile_b: array<vec4<f32>, 512>;

// The number of invocations that fetch one operand.
const HALF: u32 = 128u;
// The number of blocks of four along K.
const BLOCKS: u32 = DEPTH / 4u;

// The block of its operand's tile that an invocation fetches: (index along K, group of four outputs). Consecutive
// invocations read consecutive memory, so the result depends on how the operand is stored.
fn block_of(index: u32) -> vec2<u32> {
    let lane = index % HALF;
    let along_k = select(TRANSPOSE_A == 0u, TRANSPOSE_B != 0u, index >= HALF);
    return select(vec2<u32>(lane / GROUPS, lane % GROUPS), vec2<u32>(lane % BLOCKS, lane / BLOCKS), along_k);
}

// Fetches this invocation's block of the tile that starts at output `row` or `column` and at depth `first`: four vectors at
// consecutive depths, zero from depth `end` on.
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

// XOR mask for the tile positions of the four depths of `block`: blocks that are neighbours along K write to different
// banks. All readers use the same depth, so their positions stay distinct.
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
