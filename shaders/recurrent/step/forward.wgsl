// Strategy `per_step`, forward pass of one time step, one direction or both: a = W_hh h' + b_hh, then the
// cell (recurrent/common/forward_unit.wgsl).
//   weight_hh [G H, P], or transposed; unprojected [T, B, H]: m, with a projection h = W_hr m;
//   the others: recurrent/common/forward_arrays.wgsl.
// Workgroups: 16 units (x), some rows (y), a direction (z); the product is split-K over P
// (recurrent/step/split_k.wgsl). Padded steps have output zero. Bases include the offsets of the step and of
// the columns.
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

@group(0) @binding(8) var<storage, read_write> unprojected: array<f32>;

// The sums of this invocation's slice, per gate, for four rows.
var<private> slice_sums: array<vec4<f32>, GATES>;

fn put_hidden(row: u32, unit: u32, value: f32) {
    if PROJECTED != 0u {
        unprojected[parameters.unprojected_base + row * parameters.hidden_size + unit] = value;
    } else if PHASE != 1u {
        output[output_at() + row * parameters.width + unit] = value;
    }
}

// The gates that have a product in this phase.
fn first_gate() -> u32 { return select(0u, GATES - 1u, PHASE == 2u); }
fn end_gate() -> u32 { return select(GATES, GATES - 1u, PHASE == 1u); }

fn add_term(at: u32, rows: vec4<f32>) {
    for (var gate = first_gate(); gate < end_gate(); gate = gate + 1u) {
        let weight = weight_hh[at + gate * parameters.hidden_size * parameters.weight_unit];
        slice_sums[gate] = fma(rows, vec4<f32>(weight), slice_sums[gate]);
    }
}

fn operand(row: u32, place: u32) -> f32 { return source(row, place); }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    choose_direction(group.z);
    let first_row = parameters.first_row + group.y * group_rows();
    let unit = parameters.first_unit + group.x * UNITS + own_unit_of(index);
    // Units beyond the last are computed as the last and not stored.
    let weights = weight_at() + min(unit, parameters.hidden_size - 1u) * parameters.weight_unit;
    add_terms(index, first_row, parameters.projection_size, weights, parameters.weight_term);
    var sums: array<f32, GATES>;
    for (var first = first_gate(); first < end_gate(); first = first + SUMS) {
        let end = min(first + SUMS, end_gate());
        workgroupBarrier();
        for (var gate = first; gate < end; gate = gate + 1u) { pool[(gate - first) * GROUP + index] = slice_sums[gate]; }
        workgroupBarrier();
        for (var gate = first; gate < end; gate = gate + 1u) { sums[gate] = add_slices(index, gate - first); }
    }
    let row = first_row + summed_row(index);
    if summed_row(index) < group_rows() && row < parameters.rows && unit < parameters.hidden_size {
        finish(row, unit, sums, previous_hidden(row, unit));
    }
}
