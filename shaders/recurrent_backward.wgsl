// One time step back in one direction: dh = dy + what the next step's gates and the carry bring, then the cell's
// derivative.
//   weight_hh [G H, H]; output, d_output [T, B, widths]: the column block of this direction; with a projection
//   what the cell made of h and the gradient at that, and no product is left to this shader;
//   initial: hidden state [B, H], cell state and peepholes where there are such; marks [T, B];
//   gates [T, B, G H]: what forward kept comes in, the gradients before the activation go out, step by step;
//   saved [T, B, H]: likewise; where the cell has a gate apart, its recurrent gradient goes out;
//   carry [1 or 2, B, H]: the gradient at the state after this step comes in (hidden, then cell), what does not
//   pass through the weights goes out, to the same place or another. Before the last step it holds the gradient at the
//   final state.
// Rows may be those of several steps: the initial state is then that of row modulo batch.
// A workgroup of 16 by 16 computes 16 units (x) of 16 rows of the batch (y); the product runs over G H in tiles
// of 16 through workgroup memory. Bases already point at the step and the column block.
// CPU twin: src/ops/recurrent/cpu.rs.

struct Parameters {
    rows: u32,
    batch: u32,
    hidden: u32,
    width: u32,
    d_width: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    marks_base: u32,
    // The step after this one, in this direction.
    next_marks_base: u32,
    next_gates_base: u32,
    next_saved_base: u32,
    output_base: u32,
    d_output_base: u32,
    previous_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    previous_saved_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    carry_out_base: u32,
    carry_cell_out_base: u32,
    flags: u32,
    // Of the random numbers: the first that these rows draw, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> output: array<f32>;
@group(0) @binding(3) var<storage, read> d_output: array<f32>;
@group(0) @binding(4) var<storage, read> initial: array<f32>;
@group(0) @binding(5) var<storage, read> marks: array<u32>;
@group(0) @binding(6) var<storage, read_write> gates: array<f32>;
@group(0) @binding(7) var<storage, read_write> saved: array<f32>;
@group(0) @binding(8) var<storage, read_write> carry: array<f32>;

// The bound of the gradient at the state that a step started from; 0: none.
override CLIP_GRADIENT: f32 = 0.0;

var<workgroup> tile_gradient: array<f32, 272>;
var<workgroup> tile_weight: array<f32, 272>;

fn finish(row: u32, unit: u32, product: f32) {
    let gates_row = parameters.gates_base + row * GATES * parameters.hidden + unit;
    let place = row * parameters.hidden + unit;
    let mark = marks_of(row);
    if (mark & VALID) == 0u {
        // The carry waits for the row's last valid step.
        if PROJECTED == 0u {
            carry[parameters.carry_out_base + place] = carry[parameters.carry_base + place];
        }
        if HAS_CELL {
            carry[parameters.carry_cell_out_base + place] = carry[parameters.carry_cell_base + place];
        }
        return;
    }
    var inputs: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        inputs[gate] = gates[gates_row + gate * parameters.hidden];
    }
    var kept = 0.0;
    if SAVES { kept = saved[parameters.saved_base + place]; }
    var d_cell = 0.0;
    if HAS_CELL { d_cell = carry[parameters.carry_cell_base + place]; }
    let d_hidden = gradient_at_hidden(row, unit, product);
    let hidden = output[parameters.output_base + row * parameters.width + unit];
    own_unit = unit;
    var before = previous(row, unit, mark);
    let mask = state_mask(row % parameters.batch, unit, parameters.hidden);
    if PHASE == 2u { before.hidden = before.hidden * mask; }
    var step = Step(inputs, kept, before, hidden);
    var direct = Memory(0.0, 0.0);
    var d_made = Memory(d_hidden, d_cell);
    if ZONEOUT != 0u && PHASE != 2u {
        // The old state's part goes past the cell, which is taken back to what it made.
        let old = zoneout(place);
        direct = Memory(old.hidden * d_hidden, old.cell * d_cell);
        d_made = Memory(d_hidden - direct.hidden, d_cell - direct.cell);
        let made = cell_candidate(step);
        step.hidden = made.hidden;
        if HAS_CELL { step.saved = made.cell; }
    }
    var made = cell_backward(step, d_made.hidden, d_made.cell);
    made.d_hidden = made.d_hidden * select(1.0, mask, PHASE == 2u) + direct.hidden;
    made.d_cell = made.d_cell + direct.cell;
    // The last gate's gradient is what other invocations of phase 2 read.
    let written = select(GATES, GATES - 1u, PHASE == 2u);
    for (var gate = 0u; gate < written; gate = gate + 1u) {
        gates[gates_row + gate * parameters.hidden] = made.d_gates[gate];
    }
    if LAST_GATE_APART {
        saved[parameters.saved_base + place] = made.d_apart;
    }
    let flows = (mark & (RESETS | CUTS)) == 0u;
    if PHASE == 2u {
        made.d_hidden = made.d_hidden + carry[parameters.carry_out_base + place];
    }
    if PROJECTED == 0u {
        carry[parameters.carry_out_base + place] = select(0.0, made.d_hidden, flows);
    }
    if HAS_CELL {
        carry[parameters.carry_cell_out_base + place] = select(0.0, within_bound(made.d_cell), flows);
    }
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = parameters.first_row + group.y * TILE + local.y;
    let unit = parameters.first_unit + group.x * TILE + local.x;
    // Without a next step the product has no terms.
    let terms = select(depth(), 0u, PHASE != 2u && (parameters.flags & LAST_STEP) != 0u);
    var product = 0.0;
    for (var first = 0u; first < terms; first = first + TILE) {
        tile_gradient[local.y * PITCH + local.x] = gradient(row, first + local.x);
        tile_weight[local.y * PITCH + local.x] = weight(first + local.y, unit);
        workgroupBarrier();
        for (var inner = 0u; inner < TILE; inner = inner + 1u) {
            product = product + tile_gradient[local.y * PITCH + inner] * tile_weight[inner * PITCH + local.x];
        }
        workgroupBarrier();
    }
    if row < parameters.rows && unit < parameters.hidden {
        finish(row, unit, product);
    }
}
