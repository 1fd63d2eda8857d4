// Many time steps of a recurrent layer in one direction or both, as recurrent_forward.wgsl computes one: a = W_hh h' + b_hh, then
// the cell. Rows of the batch do not depend on each other, so that a workgroup walks through the steps of its own rows
// without waiting for any other.
//   weight_hh [H, G H], transposed; bias_hh [G H]; initial: hidden state [B, H], cell state and peepholes where there are
//   such; marks [T, B]; gates [T, B, G H]: the projected input comes in, what backward needs of the gates goes out;
//   output [T, B, width]: the column block of this direction; saved [T, B, H]: what backward needs beside the gates.
// In a product an invocation computes columns of G H, one or eight at a time, for all rows of the workgroup; in the cell
// units, each always the same ones, which is why it may read from memory what it wrote there a step before.
// Bases point at the first step. CPU twin: src/ops/recurrent/cpu.rs.

struct Parameters {
    rows: u32,
    hidden: u32,
    // Of the step's kernel, P: here H.
    state: u32,
    width: u32,
    // How many steps, and whether time goes up (1) or down (2^32 - 1).
    steps: u32,
    direction: u32,
    first_row: u32,
    weight_base: u32,
    bias_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    marks_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    // FIRST_STEP holds for the first of the steps.
    flags: u32,
    // Of both directions: how many steps behind the first one's place the second one's is in arrays [2, T, ..], and in
    // arrays [T, ..]; modulo 2^32.
    second_behind: u32,
    second_beside: u32,
    // Of the random numbers: the first that the first step draws, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> bias_hh: array<f32>;
@group(0) @binding(3) var<storage, read> initial: array<f32>;
@group(0) @binding(4) var<storage, read> marks: array<u32>;
@group(0) @binding(5) var<storage, read_write> gates: array<f32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;
@group(0) @binding(7) var<storage, read_write> saved: array<f32>;

fn is_first() -> bool { return turn == 0u && (parameters.flags & FIRST_STEP) != 0u; }
fn first_number() -> u32 { return parameters.first_number + walked(parameters.rows * parameters.hidden); }
fn gates_stride() -> u32 { return parameters.rows * GATES * parameters.hidden; }
fn saved_stride() -> u32 { return parameters.rows * parameters.hidden; }
fn output_stride() -> u32 { return parameters.rows * parameters.width; }

fn marks_at() -> u32 { return parameters.marks_base + behind(parameters.rows) + walked(parameters.rows); }
fn gates_at() -> u32 { return parameters.gates_base + behind(gates_stride()) + walked(gates_stride()); }
fn output_at() -> u32 { return parameters.output_base + beside(output_stride()) + walked(output_stride()); }
fn saved_at() -> u32 { return parameters.saved_base + behind(saved_stride()) + walked(saved_stride()); }
fn previous_output_at() -> u32 { return output_at() - direction() * output_stride(); }
fn previous_saved_at() -> u32 { return saved_at() - direction() * saved_stride(); }

fn put_hidden(row: u32, unit: u32, value: f32) {
    output[output_at() + row * parameters.width + unit] = value;
    pool[state_place(row, unit)] = value;
}

// Puts what W_hh is multiplied with where the product finds it. Mostly the step before has done so.
fn enter(row: u32, unit: u32) {
    let goes_on = (marks_of(row) & (VALID | STARTS | RESETS)) == VALID;
    if turn == 0u || STATE_MASK != 0u || !goes_on {
        pool[state_place(row, unit)] = source(row, unit);
    }
}

fn leave(row: u32, unit: u32) {
    var sums: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        sums[gate] = pool[gates_place(row, gate * parameters.hidden + unit)];
    }
    var previous = pool[state_place(row, unit)];
    if STATE_MASK != 0u { previous = previous_hidden(row, unit); }
    finish(row, unit, sums, previous);
}

@compute @workgroup_size(32u << LANE_BITS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    choose_direction(group.z);
    first_row = parameters.first_row + (group.x << ROW_BITS);
    let own = min(group_rows(), parameters.rows - first_row) * parameters.hidden;
    let first = unit_at(lane);
    // Divided once: it takes longer than what else a turn does.
    let apart = Unit(lanes() / parameters.hidden, lanes() % parameters.hidden);
    clear(lane);
    for (var step = 0u; step < parameters.steps; step = step + 1u) {
        turn = step;
        var at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            enter(at.row, at.unit);
            at = further(at, apart);
        }
        workgroupBarrier();
        multiply(lane, 0u, parameters.hidden, parameters.hidden << ROW_BITS, GATES * parameters.hidden);
        workgroupBarrier();
        at = first;
        for (var place = lane; place < own; place = place + lanes()) {
            leave(at.row, at.unit);
            at = further(at, apart);
        }
    }
}
