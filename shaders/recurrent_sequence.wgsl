// What the two kernels share that walk over many steps in one dispatch. A workgroup owns some rows of the batch; what
// its invocations tell each other stands in workgroup memory, element by element, rows together:
//   the state or the gradient at it [H, rows], then the gates' sums or gradients [G H, rows].

// 2 to this power are the rows of a workgroup: 1, 2 or 4.
override ROW_BITS: u32 = 0u;
// 32 times 2 to this power are its invocations.
override LANE_BITS: u32 = 0u;
// 1: an invocation computes four neighbouring columns of a product at a time; 0: one.
override WIDE: u32 = 0u;

// All that a device has to have.
const POOL: u32 = 4096u;

var<workgroup> pool: array<f32, 4096>;

// How many steps of this dispatch came before the present one, and the first row of this workgroup.
var<private> turn: u32;
var<private> first_row: u32;

fn lanes() -> u32 { return 32u << LANE_BITS; }
fn group_rows() -> u32 { return 1u << ROW_BITS; }
// How far the present step lies from the first one in an array with `stride` elements a step; may be negative, modulo
// 2^32.
fn walked(stride: u32) -> u32 { return turn * direction() * stride; }
// Of both directions each walks its own way.
fn direction() -> u32 { return select(parameters.direction, 0u - parameters.direction, second != 0u); }

// Where the pool has element `place` of the state, or of the gates.
fn state_place(row: u32, place: u32) -> u32 { return (place << ROW_BITS) + (row - first_row); }
fn gates_place(row: u32, place: u32) -> u32 { return state_place(row, parameters.hidden + place); }

// pool[to ..][columns, rows] = W^T pool[from ..][depth, rows], W [depth, columns]. Sums run over the depth in order.
fn multiply(lane: u32, from_place: u32, depth: u32, to_place: u32, columns: u32) {
    let width = select(1u, 4u, WIDE != 0u);
    for (var column = lane * width; column < columns; column = column + lanes() * width) {
        // Columns beyond the last are computed as the last, and not kept.
        let offsets = min(vec3<u32>(1u, 2u, 3u), vec3<u32>(columns - 1u - column));
        var at = weight_at() + column;
        var sums0 = vec4<f32>();
        var sums1 = vec4<f32>();
        var sums2 = vec4<f32>();
        var sums3 = vec4<f32>();
        for (var inner = 0u; inner < depth; inner = inner + 1u) {
            let rows = load(from_place + (inner << ROW_BITS));
            sums0 = sums0 + rows * weight_hh[at];
            if WIDE != 0u {
                sums1 = sums1 + rows * weight_hh[at + offsets.x];
                sums2 = sums2 + rows * weight_hh[at + offsets.y];
                sums3 = sums3 + rows * weight_hh[at + offsets.z];
            }
            at = at + columns;
        }
        store(to_place + (column << ROW_BITS), sums0);
        if WIDE != 0u {
            if column + 1u < columns { store(to_place + ((column + 1u) << ROW_BITS), sums1); }
            if column + 2u < columns { store(to_place + ((column + 2u) << ROW_BITS), sums2); }
            if column + 3u < columns { store(to_place + ((column + 3u) << ROW_BITS), sums3); }
        }
    }
}

fn load(at: u32) -> vec4<f32> {
    switch ROW_BITS {
        case 0u: { return vec4<f32>(pool[at], 0.0, 0.0, 0.0); }
        case 1u: { return vec4<f32>(pool[at], pool[at + 1u], 0.0, 0.0); }
        default: { return vec4<f32>(pool[at], pool[at + 1u], pool[at + 2u], pool[at + 3u]); }
    }
}

fn store(at: u32, rows: vec4<f32>) {
    pool[at] = rows.x;
    if ROW_BITS > 0u { pool[at + 1u] = rows.y; }
    if ROW_BITS > 1u {
        pool[at + 2u] = rows.z;
        pool[at + 3u] = rows.w;
    }
}

// Rows beyond the batch stay zero.
fn clear(lane: u32) {
    for (var at = lane; at < POOL; at = at + lanes()) {
        pool[at] = 0.0;
    }
    workgroupBarrier();
}
