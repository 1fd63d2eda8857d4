// Persistent kernel, forward pass: many time steps per dispatch, one direction or both. Per step, as
// recurrent/step/forward.wgsl: a = W_hh h' + b_hh, then the cell. W_hh stays in workgroup memory
// (recurrent/persistent/workgroup.wgsl); the workgroups exchange h.
//   weight_hh [G H, H]; exchange, status: recurrent/persistent/exchange.wgsl;
//   the others: recurrent/common/forward_arrays.wgsl.
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

@group(0) @binding(8) var<storage, read_write> exchange: array<atomic<u32>>;
@group(0) @binding(9) var<storage, read_write> status: array<atomic<u32>>;

// The sums of this invocation's slice, per gate, for four rows.
var<private> slice_sums: array<vec4<f32>, GATES>;

fn width() -> u32 { return parameters.hidden_size; }
fn terms(step: u32) -> u32 { return parameters.hidden_size; }

fn weight_of(depth: u32, unit: u32) -> f32 {
    let row = depth / parameters.hidden_size * parameters.hidden_size + unit;
    return weight_hh[weight_at() + row * parameters.hidden_size + depth % parameters.hidden_size];
}

// Whether the exchange holds an element of the operand: a state of the previous step.
fn is_exchanged(row: u32, place: u32) -> bool {
    return iteration != 0u && row < parameters.rows && place < parameters.hidden_size
        && (step_flags_of(row) & (VALID | STARTS | RESETS)) == VALID;
}
fn received(row: u32, place: u32, value: f32) -> f32 { return value * state_mask(row, place, parameters.hidden_size); }
fn operand(row: u32, place: u32) -> f32 { return source(row, place); }

fn clear_sums() { slice_sums = array<vec4<f32>, GATES>(); }

fn add_term(at: u32, rows: vec4<f32>) {
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        let weight = weights[at + ((gate * parameters.hidden_size) << UNIT_BITS)];
        slice_sums[gate] = fma(rows, vec4<f32>(weight), slice_sums[gate]);
    }
}

fn put_hidden(row: u32, unit: u32, value: f32) {
    output[output_at() + row * parameters.width + unit] = value;
    publish(row, unit, value);
}

fn finish_units(lane: u32) {
    var sums: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        sums[gate] = add_slices(lane, slice_sums[gate]);
    }
    if finishes(lane) {
        let row = first_row + (lane >> UNIT_BITS);
        let unit = first_unit + own_unit_of(lane);
        finish(row, unit, sums, previous_hidden(row, unit));
    }
}
