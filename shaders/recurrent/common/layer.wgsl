// Common code of the kernels of the time loop and the cells. The cell defines GATES; each kernel defines
// functions named `*_at`, which return the offsets of a step in the arrays.

// The state of one unit.
struct CellState {
    hidden: f32,
    cell: f32,
}

// 1: step flags are bound; 0: every step is valid, and only the first starts from the initial state.
override HAS_STEP_FLAGS: u32 = 0u;
// 1: the dispatch computes both directions; the reverse one has the workgroups with z = 1, or in persistent
// kernels the second half of the tiles. Operands of a direction and arrays over time are concatenated, [2,
// ..]; outputs and their gradients are side by side.
override BOTH: u32 = 0u;
// 1: the layer has a projection, h = W_hr m.
override PROJECTED: u32 = 0u;
// 0: a dispatch computes a whole step. For a cell whose last gate has a product of its own: 1: everything
// before that product; 2: the product and what follows.
override PHASE: u32 = 0u;

// 1: the state is multiplied by a dropout mask before the product with W_hh.
override STATE_MASK: u32 = 0u;
// Zoneout: 0: none; 1: random; 2: in expectation.
override ZONEOUT: u32 = 0u;

// Bits of `parameters.pass_flags`.
const FIRST_STEP: u32 = 1u;
const LAST_STEP: u32 = 2u;
// d_output is added; in some dispatches of sliding windows it is not.
const TAKES_OUTPUTS: u32 = 4u;
const HAS_BIAS: u32 = 8u;

// 1: this invocation belongs to the second direction.
var<private> second: u32;

// Every kernel calls it first.
fn choose_direction(z: u32) {
    second = select(0u, z, BOTH != 0u);
    read_options();
}

// The index of the current step in this dispatch.
var<private> iteration: u32;

// The increment of the step, opposite for the second direction.
fn direction() -> u32 { return select(parameters.direction, 0u - parameters.direction, second != 0u); }
// The offset from the first step to the current one in an array with `stride` elements per step, modulo 2^32.
fn elapsed(stride: u32) -> u32 { return iteration * direction() * stride; }

// The offset from the first direction to this one in an array [2, T, ..] with `stride` elements per step.
fn behind(stride: u32) -> u32 { return second * parameters.second_behind * stride; }
// As `behind`, in an array [T, .., 2 H].
fn beside(stride: u32) -> u32 { return second * (parameters.second_beside * stride + parameters.hidden_size); }

// Elements per step of the arrays over time.
fn gates_stride() -> u32 { return parameters.rows * GATES * parameters.hidden_size; }
fn saved_stride() -> u32 { return parameters.rows * parameters.hidden_size; }
fn output_stride() -> u32 { return parameters.rows * parameters.width; }

// The offsets of the current step in them.
fn step_flags_at() -> u32 { return parameters.step_flags_base + behind(parameters.rows) + elapsed(parameters.rows); }
fn gates_at() -> u32 { return parameters.gates_base + behind(gates_stride()) + elapsed(gates_stride()); }
fn output_at() -> u32 { return parameters.output_base + beside(output_stride()) + elapsed(output_stride()); }
fn saved_at() -> u32 { return parameters.saved_base + behind(saved_stride()) + elapsed(saved_stride()); }
fn first_number() -> u32 { return parameters.first_number + elapsed(saved_stride()); }

fn weight_at() -> u32 { return parameters.weight_base + second * GATES * parameters.hidden_size * parameters.hidden_size; }
fn initial_at() -> u32 { return parameters.initial_base + second * parameters.rows * parameters.hidden_size; }
fn initial_cell_at() -> u32 { return parameters.initial_cell_base + second * parameters.rows * parameters.hidden_size; }
fn peepholes_at() -> u32 { return parameters.peepholes_base + second * (GATES - 1u) * parameters.hidden_size; }
fn mask_at() -> u32 { return parameters.mask_base + second * parameters.rows * parameters.hidden_size; }

// The unit of this invocation, for cells with weights per unit.
var<private> own_unit: u32;

fn step_flags_of(row: u32) -> u32 {
    if HAS_STEP_FLAGS != 0u {
        return step_flags[step_flags_at() + row];
    }
    return select(VALID, VALID | STARTS, is_first());
}

struct Forward {
    // The gates as the backward pass reads them.
    gates: array<f32, GATES>,
    // The other value that it reads: the new cell state, where the cell has one.
    saved: f32,
    hidden: f32,
}

struct Step {
    gates: array<f32, GATES>,
    saved: f32,
    previous: CellState,
    hidden: f32,
}

struct Backward {
    // The gradient of the input part of the gates before their activation.
    d_gates: array<f32, GATES>,
    // The gradient of the last gate's recurrent part, with LAST_GATE_APART.
    d_apart: f32,
    // The gradient of the previous state other than through the product with the weights.
    d_hidden: f32,
    d_cell: f32,
}

// The factor of the state in the product with W_hh.
fn state_mask(row: u32, place: u32, width: u32) -> f32 {
    if STATE_MASK == 0u {
        return 1.0;
    }
    return initial[mask_at() + row * width + place];
}

// keep old + (1 - keep) made; a NaN in the value with weight 0 does not propagate.
fn zoneout_mix(keep: f32, old: f32, made: f32) -> f32 {
    return select(select(keep * old + (1.0 - keep) * made, old, keep == 1.0), made, keep == 0.0);
}

// The gradients of old and of made.
fn zoneout_split(keep: f32, d: f32) -> vec2<f32> {
    let old = select(select(keep * d, d, keep == 1.0), 0.0, keep == 0.0);
    return vec2<f32>(old, select(select(d - old, 0.0, keep == 1.0), d, keep == 0.0));
}

// The weights of the old hidden and cell state at element `place` of this dispatch's rows by units. Hidden
// states use the even numbers of the stream, cell states the odd ones.
fn zoneout(place: u32) -> CellState {
    if ZONEOUT != 1u {
        return CellState(zoneout_hidden, zoneout_cell);
    }
    let seed = vec2<u32>(parameters.seed_low, parameters.seed_high);
    let stream = vec2<u32>(parameters.stream_low, parameters.stream_high);
    let number = 2u * (first_number() + place);
    let block = philox_block(number / 4u, seed, stream);
    return CellState(
        select(0.0, 1.0, block[number % 4u] < threshold(zoneout_hidden)),
        select(0.0, 1.0, block[number % 4u + 1u] < threshold(zoneout_cell)),
    );
}

// rate * 2^32, rounded up, in integer arithmetic: numbers below it keep the old state.
fn threshold(rate: f32) -> u32 {
    let high = floor(rate * 65536.0);
    return (u32(high) << 16u) + u32(ceil((rate * 65536.0 - high) * 65536.0));
}
