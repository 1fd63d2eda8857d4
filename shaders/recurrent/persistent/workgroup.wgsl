// The loop of both persistent kernels (persistent RNNs: Diamos et al. 2016). A workgroup of 256 holds the
// weights of some units in workgroup memory for all steps of a dispatch, and computes these units for some
// rows in each step, once the other workgroups have published its operand
// (recurrent/persistent/exchange.wgsl). These units and rows are its tile. Tiles are assigned in the order in
// which workgroups start, so that running workgroups have the first ones.
// A workgroup that times out stops before it writes anything of the step, and then all others do. A second
// dispatch, with COMPLETES, computes the missing steps without waiting: one workgroup computes all tiles of
// some rows, with the same sums and so the same bits. If no step is missing it returns at once.
// Sums are computed in slices: slice s adds the terms s, s + slices(), ..; then the slices are added in
// order. CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// A sum has 1 << SLICE_BITS slices: 4 to 16.
override SLICE_BITS: u32 = 2u;
// A tile has 1 << UNIT_BITS units and 1 << QUAD_BITS groups of four rows; times the slices, at most 256.
override UNIT_BITS: u32 = 0u;
override QUAD_BITS: u32 = 0u;
// The tile has at most 1024 << WEIGHT_BITS weights.
override WEIGHT_BITS: u32 = 0u;
// 1: completes the steps that timed out.
override COMPLETES: u32 = 0u;

const GROUP: u32 = 256u;
// Groups of four rows of the operand that are loaded at a time.
const POOL: u32 = 512u;

var<workgroup> weights: array<f32, 1024u << WEIGHT_BITS>;
// A chunk of the operand, [groups of four rows, chunk()]; later the sums of all invocations.
var<workgroup> pool: array<vec4<f32>, 512>;
var<workgroup> least: atomic<u32>;

var<private> tile: u32;
var<private> first_row: u32;
var<private> first_unit: u32;

fn slices() -> u32 { return 1u << SLICE_BITS; }
fn chunk() -> u32 { return POOL >> QUAD_BITS; }
fn group_units() -> u32 { return 1u << UNIT_BITS; }
fn group_rows() -> u32 { return 4u << QUAD_BITS; }
fn unit_blocks() -> u32 { return (parameters.hidden_size + group_units() - 1u) >> UNIT_BITS; }
fn row_blocks() -> u32 { return (parameters.rows + group_rows() - 1u) / group_rows(); }
fn tiles() -> u32 { return unit_blocks() * row_blocks() * select(1u, 2u, BOTH != 0u); }
// The unit, four rows and slice of this invocation; slices beyond the last have no terms.
fn own_unit_of(lane: u32) -> u32 { return lane & (group_units() - 1u); }
fn own_quad(lane: u32) -> u32 { return (lane >> UNIT_BITS) & ((1u << QUAD_BITS) - 1u); }
fn own_slice(lane: u32) -> u32 { return lane >> (UNIT_BITS + QUAD_BITS); }

// Selects a tile: its direction, rows and units. Loads its weights, [depth, units].
fn take_tile(number: u32, lane: u32) {
    tile = number;
    choose_direction(number / (unit_blocks() * row_blocks()));
    first_row = number / unit_blocks() % row_blocks() * group_rows();
    first_unit = number % unit_blocks() * group_units();
    for (var at = lane; at < GATES * parameters.hidden_size * group_units(); at = at + GROUP) {
        weights[at] = weight_of(at >> UNIT_BITS, min(first_unit + own_unit_of(at), parameters.hidden_size - 1u));
    }
}

// Adds the slices of all invocations, at the row and unit that this invocation finishes.
fn add_slices(lane: u32, sums: vec4<f32>) -> f32 {
    workgroupBarrier();
    pool[lane] = sums;
    workgroupBarrier();
    let row = (lane >> UNIT_BITS) & (group_rows() - 1u);
    var total = 0.0;
    for (var slice = 0u; slice < slices(); slice = slice + 1u) {
        let place = (((slice << QUAD_BITS) + row / 4u) << UNIT_BITS) + own_unit_of(lane);
        total = total + pool[place][row % 4u];
    }
    return total;
}

// Whether this invocation finishes a row and unit.
fn finishes(lane: u32) -> bool {
    let row = lane >> UNIT_BITS;
    return row < group_rows() && first_row + row < parameters.rows
        && first_unit + own_unit_of(lane) < parameters.hidden_size;
}

// Computes one step of the tile. Returns false, without writing anything, after a timeout.
fn step(lane: u32, terms: u32) -> bool {
    clear_sums();
    request(lane, 0u);
    workgroupBarrier();
    for (var first = 0u; first < terms; first = first + chunk()) {
        load_operand(lane, first);
        workgroupBarrier();
        if first + chunk() < terms { request(lane, first + chunk()); }
        if own_slice(lane) < slices() {
            let end = min(terms - first, chunk());
            for (var inner = own_slice(lane); inner < end; inner = inner + slices()) {
                let rows = pool[own_quad(lane) * chunk() + inner];
                add_term(((first + inner) << UNIT_BITS) + own_unit_of(lane), rows);
            }
        }
        workgroupBarrier();
    }
    // After a timeout the remaining chunks are not waited for.
    if broadcast(lane, atomicLoad(&timed_out)) != 0u { return false; }
    finish_units(lane);
    return true;
}

// Computes all steps of a tile of its own.
fn run(lane: u32) {
    var ticket = 0u;
    if lane == 0u { ticket = atomicAdd(&exchange[TICKETS], 1u); }
    take_tile(broadcast(lane, ticket), lane);
    // After a timeout in one dispatch, those already submitted compute nothing.
    var done = 0u;
    if broadcast(lane, atomicLoad(&status[TIMED_OUT])) == 0u {
        for (; done < parameters.steps; done = done + 1u) {
            iteration = done;
            if !step(lane, terms(done)) { break; }
        }
        // Only the first timeout is recorded.
        if lane == 0u && done < parameters.steps && atomicMax(&status[TIMED_OUT], tiles()) == 0u {
            atomicStore(&status[TIMEOUT_STEP], done);
            atomicStore(&status[TIMEOUT_TILE], tile);
        }
    }
    if lane == 0u { atomicStore(&exchange[PROGRESS + tile], done); }
}

// Completes the missing steps of all tiles of some rows, step by step.
fn complete(lane: u32, first_tile: u32) {
    for (var place = lane; place < unit_blocks(); place = place + GROUP) {
        atomicMin(&least, atomicLoad(&exchange[PROGRESS + first_tile + place]));
    }
    workgroupBarrier();
    let first_iteration = broadcast(lane, atomicLoad(&least));
    for (var next = first_iteration; next < parameters.steps; next = next + 1u) {
        for (var place = 0u; place < unit_blocks(); place = place + 1u) {
            let done = broadcast(lane, atomicLoad(&exchange[PROGRESS + first_tile + place]));
            if done <= next {
                take_tile(first_tile + place, lane);
                iteration = next;
                if !step(lane, terms(next)) {
                    if lane == 0u { atomicStore(&status[LOST], 1u); }
                    return;
                }
            }
        }
        storageBarrier();
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&timed_out, 0u);
        atomicStore(&least, parameters.steps);
    }
    workgroupBarrier();
    if COMPLETES != 0u {
        complete(lane, group.x * unit_blocks());
    } else {
        run(lane);
    }
}
