// Persistent kernel, backward pass: many time steps per dispatch. Per step, as recurrent/step/backward.wgsl:
//   dh_t = dy_t + W_hh^T da_{t+1} + carry; then the cell's derivatives give da_t.
// W_hh stays in workgroup memory (recurrent/persistent/workgroup.wgsl); the workgroups exchange da_t.
//   weight_hh [G H, H]; exchange, status: recurrent/persistent/exchange.wgsl;
//   the others: recurrent/common/backward_arrays.wgsl.
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

@group(0) @binding(9) var<storage, read_write> exchange: array<atomic<u32>>;
@group(0) @binding(10) var<storage, read_write> status: array<atomic<u32>>;

// The sum of this invocation's slice, for four rows.
var<private> slice_sum: vec4<f32>;

fn width() -> u32 { return GATES * parameters.hidden_size; }
// The last step of a sequence has no following one, and its product has no terms.
fn terms(step: u32) -> u32 {
    return select(GATES * parameters.hidden_size, 0u, step == 0u && (parameters.pass_flags & LAST_STEP) != 0u);
}

fn weight_of(depth: u32, unit: u32) -> f32 { return weight_hh[weight_at() + depth * parameters.hidden_size + unit]; }

// Whether the exchange holds an element of the operand: a gradient of the following step.
fn is_exchanged(row: u32, place: u32) -> bool {
    return iteration != 0u && row < parameters.rows && place < GATES * parameters.hidden_size && next_sends(row);
}
fn received(row: u32, place: u32, value: f32) -> f32 { return value; }
fn operand(row: u32, place: u32) -> f32 { return gradient(row, place); }

fn clear_sums() { slice_sum = vec4<f32>(); }
fn add_term(at: u32, rows: vec4<f32>) { slice_sum = fma(rows, vec4<f32>(weights[at]), slice_sum); }

fn finish_units(lane: u32) {
    let product = add_slices(lane, slice_sum);
    if finishes(lane) {
        let row = first_row + (lane >> UNIT_BITS);
        let unit = first_unit + own_unit_of(lane);
        let made = finish(row, unit, product);
        for (var gate = 0u; gate < GATES; gate = gate + 1u) {
            var sent = made.d_gates[gate];
            if LAST_GATE_APART && gate == GATES - 1u { sent = made.d_apart; }
            publish(row, gate * parameters.hidden_size + unit, sent);
        }
    }
}
