// What the kernels that walk over time and the cells share. GATES is the cell's. Where the arrays of a step begin is for
// each kernel to say, by functions whose names end in `_at`.

// The state of one unit.
struct CellState {
    hidden: f32,
    cell: f32,
}

// 1: marks are bound; 0: every step is valid, and only the first one starts.
override HAS_STEP_FLAGS: u32 = 0u;
// 1: the dispatch is of both directions, and its workgroups with z = 1 (on chip the second half of the roles) are of the reverse one. What is given for a
// direction, and arrays over time, stand one behind the other for both ([2, ..]); outputs, and gradients at them, side by
// side.
override BOTH: u32 = 0u;
// 1: a projection stands between what the cell makes of h and h itself.
override PROJECTED: u32 = 0u;
// 0: a dispatch does all of a step. For a cell whose last gate has a product of its own: 1: all before that product; 2: it
// and what follows.
override PHASE: u32 = 0u;

// 1: the state is masked where it enters the product with W_hh.
override STATE_MASK: u32 = 0u;
// Zoneout: 0 none; 1 by random numbers; 2 in expectation.
override ZONEOUT: u32 = 0u;

// Bits of `parameters.pass_flags`.
const FIRST_STEP: u32 = 1u;
const LAST_STEP: u32 = 2u;
// The gradient at the outputs counts here; it may belong to other dispatches.
const TAKES_OUTPUTS: u32 = 4u;
const HAS_BIAS: u32 = 8u;

// 1: this invocation is of the second direction of both.
var<private> second: u32;

// Comes first in every kernel.
fn choose_direction(z: u32) {
    second = select(0u, z, BOTH != 0u);
    read_options();
}

// How many steps of this dispatch came before the present one.
var<private> iteration: u32;

// Of both directions each walks its own way.
fn direction() -> u32 { return select(parameters.direction, 0u - parameters.direction, second != 0u); }
// How far the present step lies from the first one in an array with `stride` elements a step; may be negative, modulo
// 2^32.
fn elapsed(stride: u32) -> u32 { return iteration * direction() * stride; }

// From the first direction's place in an array [2, T, ..] with `stride` elements a step to this one's.
fn behind(stride: u32) -> u32 { return second * parameters.second_behind * stride; }
// Likewise in an array [T, .., 2 H].
fn beside(stride: u32) -> u32 { return second * (parameters.second_beside * stride + parameters.hidden_size); }

fn weight_at() -> u32 { return parameters.weight_base + second * GATES * parameters.hidden_size * parameters.hidden_size; }
fn initial_at() -> u32 { return parameters.initial_base + second * parameters.rows * parameters.hidden_size; }
fn initial_cell_at() -> u32 { return parameters.initial_cell_base + second * parameters.rows * parameters.hidden_size; }
fn peepholes_at() -> u32 { return parameters.peepholes_base + second * (GATES - 1u) * parameters.hidden_size; }
fn mask_at() -> u32 { return parameters.mask_base + second * parameters.rows * parameters.hidden_size; }

// The unit that this invocation computes, for cells that have weights of their own for each.
var<private> own_unit: u32;

fn step_flags_of(row: u32) -> u32 {
    if HAS_STEP_FLAGS != 0u {
        return step_flags[step_flags_at() + row];
    }
    return select(VALID, VALID | STARTS, is_first());
}

struct Forward {
    // What backward needs of the gates.
    gates: array<f32, GATES>,
    // What backward needs beside them: the new cell state, where there is one.
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
    // The gradient at the gates before their activation, as the projected input sees them.
    d_gates: array<f32, GATES>,
    // The gradient at the last gate's recurrent part, where it is not the same.
    d_apart: f32,
    // What flows to the previous state beside the product with the weights.
    d_hidden: f32,
    d_cell: f32,
}

// What a unit's state is multiplied by on its way into the product with W_hh.
fn state_mask(row: u32, place: u32, width: u32) -> f32 {
    if STATE_MASK == 0u {
        return 1.0;
    }
    return initial[mask_at() + row * width + place];
}

// keep old + (1 - keep) made, where the one of which there is nothing has no part, be it NaN.
fn mixed(keep: f32, old: f32, made: f32) -> f32 {
    return select(select(keep * old + (1.0 - keep) * made, old, keep == 1.0), made, keep == 0.0);
}

// The parts of the gradient at that which are the old value's and the new one's.
fn parted(keep: f32, d: f32) -> vec2<f32> {
    let old = select(select(keep * d, d, keep == 1.0), 0.0, keep == 0.0);
    return vec2<f32>(old, select(select(d - old, 0.0, keep == 1.0), d, keep == 0.0));
}

// How much of its old state a unit keeps: element `place` of this dispatch's rows by units. Hidden states have the even
// numbers of the stream, cell states the odd ones.
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

// The first number that does not keep: the rate times 2^32, rounded up, in whole numbers.
fn threshold(rate: f32) -> u32 {
    let high = floor(rate * 65536.0);
    return (u32(high) << 16u) + u32(ceil((rate * 65536.0 - high) * 65536.0));
}
