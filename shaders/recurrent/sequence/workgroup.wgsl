// Common code of both kernels of the strategy `sequence`. A workgroup owns some rows of the batch; its
// invocations share, in workgroup memory, element by element with rows together:
//   the state or its gradient [H, rows], then the gates' sums or gradients [G H, rows].
// `main` runs the steps: the kernel's own file defines load_operand, multiply_operand and finish_units.
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// A workgroup owns 1 << ROW_BITS rows: 1, 2, 4 or 8.
override ROW_BITS: u32 = 0u;
// A workgroup has 32 << LANE_BITS invocations.
override LANE_BITS: u32 = 0u;
// 1: an invocation computes eight neighbouring columns of a product at a time; 0: one.
override WIDE: u32 = 0u;

// The workgroup memory that WebGPU guarantees, 16 KiB.
const POOL: u32 = 4096u;

var<workgroup> pool: array<f32, 4096>;

// The first row of this workgroup.
var<private> first_row: u32;

fn lanes() -> u32 { return 32u << LANE_BITS; }
fn group_rows() -> u32 { return 1u << ROW_BITS; }

// The index in `pool` of element `place` of the state, or of the gates.
fn state_place(row: u32, place: u32) -> u32 { return (place << ROW_BITS) + (row - first_row); }
fn gates_place(row: u32, place: u32) -> u32 { return state_place(row, parameters.hidden_size + place); }

// All rows at one element: the first four, and four more.
struct Rows {
    lower: vec4<f32>,
    upper: vec4<f32>,
}

// pool[to ..][columns, rows] = W^T pool[from ..][depth, rows], for W [depth, columns]; sums run over the
// depth in order.
fn multiply(lane: u32, from_place: u32, depth: u32, to_place: u32, columns: u32) {
    let width = select(1u, 8u, WIDE != 0u);
    for (var column = lane * width; column < columns; column = column + lanes() * width) {
        // Columns beyond the last are computed as the last and not stored.
        let last = columns - 1u - column;
        let near = min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
        let far = min(vec4<u32>(4u, 5u, 6u, 7u), vec4<u32>(last));
        var at = weight_at() + column;
        var sums0 = Rows();
        var sums1 = Rows();
        var sums2 = Rows();
        var sums3 = Rows();
        var sums4 = Rows();
        var sums5 = Rows();
        var sums6 = Rows();
        var sums7 = Rows();
        for (var inner = 0u; inner < depth; inner = inner + 1u) {
            let rows = load(from_place + (inner << ROW_BITS));
            sums0 = add_product(sums0, rows, weight_hh[at]);
            if WIDE != 0u {
                sums1 = add_product(sums1, rows, weight_hh[at + near.y]);
                sums2 = add_product(sums2, rows, weight_hh[at + near.z]);
                sums3 = add_product(sums3, rows, weight_hh[at + near.w]);
                sums4 = add_product(sums4, rows, weight_hh[at + far.x]);
                sums5 = add_product(sums5, rows, weight_hh[at + far.y]);
                sums6 = add_product(sums6, rows, weight_hh[at + far.z]);
                sums7 = add_product(sums7, rows, weight_hh[at + far.w]);
            }
            at = at + columns;
        }
        let to = to_place + (column << ROW_BITS);
        store(to, sums0);
        if WIDE != 0u {
            if last >= 1u { store(to + (1u << ROW_BITS), sums1); }
            if last >= 2u { store(to + (2u << ROW_BITS), sums2); }
            if last >= 3u { store(to + (3u << ROW_BITS), sums3); }
            if last >= 4u { store(to + (4u << ROW_BITS), sums4); }
            if last >= 5u { store(to + (5u << ROW_BITS), sums5); }
            if last >= 6u { store(to + (6u << ROW_BITS), sums6); }
            if last >= 7u { store(to + (7u << ROW_BITS), sums7); }
        }
    }
}

fn add_product(sums: Rows, rows: Rows, weight: f32) -> Rows {
    if ROW_BITS < 3u { return Rows(sums.lower + rows.lower * weight, vec4<f32>()); }
    return Rows(sums.lower + rows.lower * weight, sums.upper + rows.upper * weight);
}

fn load(at: u32) -> Rows {
    switch ROW_BITS {
        case 0u: { return Rows(vec4<f32>(pool[at], 0.0, 0.0, 0.0), vec4<f32>()); }
        case 1u: { return Rows(vec4<f32>(pool[at], pool[at + 1u], 0.0, 0.0), vec4<f32>()); }
        case 2u: { return Rows(load_four(at), vec4<f32>()); }
        default: { return Rows(load_four(at), load_four(at + 4u)); }
    }
}

fn load_four(at: u32) -> vec4<f32> {
    return vec4<f32>(pool[at], pool[at + 1u], pool[at + 2u], pool[at + 3u]);
}

fn store(at: u32, rows: Rows) {
    pool[at] = rows.lower.x;
    if ROW_BITS > 0u { pool[at + 1u] = rows.lower.y; }
    if ROW_BITS > 1u {
        pool[at + 2u] = rows.lower.z;
        pool[at + 3u] = rows.lower.w;
    }
    if ROW_BITS > 2u {
        pool[at + 4u] = rows.upper.x;
        pool[at + 5u] = rows.upper.y;
        pool[at + 6u] = rows.upper.z;
        pool[at + 7u] = rows.upper.w;
    }
}

// A unit of a row.
struct Unit {
    row: u32,
    unit: u32,
}

// The units of a workgroup, row by row: the one at `place`, and the one `places` further.
fn unit_at(place: u32) -> Unit {
    return Unit(first_row + place / parameters.hidden_size, place % parameters.hidden_size);
}

fn further(start: Unit, places: Unit) -> Unit {
    let unit = start.unit + places.unit;
    let wraps = unit >= parameters.hidden_size;
    return Unit(start.row + places.row + select(0u, 1u, wraps), select(unit, unit - parameters.hidden_size, wraps));
}

// Rows beyond the batch remain zero.
fn clear(lane: u32) {
    for (var at = lane; at < POOL; at = at + lanes()) {
        pool[at] = 0.0;
    }
    workgroupBarrier();
}

@compute @workgroup_size(32u << LANE_BITS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    choose_direction(group.z);
    first_row = parameters.first_row + (group.x << ROW_BITS);
    let own = min(group_rows(), parameters.rows - first_row) * parameters.hidden_size;
    let first = unit_at(lane);
    // Computed once: the division takes longer than the rest of an iteration.
    let apart = Unit(lanes() / parameters.hidden_size, lanes() % parameters.hidden_size);
    clear(lane);
    for (var step = 0u; step < parameters.steps; step = step + 1u) {
        iteration = step;
        var at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            load_operand(at.row, at.unit);
            at = further(at, apart);
        }
        workgroupBarrier();
        multiply_operand(lane);
        workgroupBarrier();
        at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            finish_units(at.row, at.unit);
            at = further(at, apart);
        }
    }
}
