// What the two kernels share that keep W_hh on chip. A workgroup of 256 holds the weights of its units in workgroup
// memory for all steps of a dispatch, and takes these units of its rows of the batch from step to step, as soon as the
// others have made what it needs (recurrent/persistent/exchange.wgsl; persistent RNNs: Diamos et al. 2016).
// Units and rows of a workgroup are its tile. Roles are taken in turn, so that workgroups which run have the first ones.
// Who waits in vain stops before it has written anything of the step, and so, one after the other, do all. The same kernel
// with COMPLETES goes over the same steps again, one workgroup for the rows of all their tiles, and takes what is missing: by
// the same sums, to the same bits, without waiting for anyone. Where nothing is missing it ends at once.
// A sum is in slices, as in a step's own dispatch: slice s adds up each terms s, s + slices(), ..; then the slices are
// added up in order. CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// 2 to this power are the slices of a sum: 4 to 16.
override SLICE_BITS: u32 = 2u;
// 2 to this power are the units of a workgroup, and the fours of rows; together with the slices at most 256.
override UNIT_BITS: u32 = 0u;
override QUAD_BITS: u32 = 0u;
// 1024 times 2 to this power are the weights that it holds.
override WEIGHT_BITS: u32 = 0u;
// 1: takes what is missing of steps that stopped.
override COMPLETES: u32 = 0u;

const GROUP: u32 = 256u;
// Fours of rows of the operand at a time.
const POOL: u32 = 512u;

var<workgroup> weights: array<f32, 1024u << WEIGHT_BITS>;
// A chunk of the operand, [fours of rows, chunk()]; later the sums of all invocations.
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
// The unit, the four rows and the slice that this invocation adds up; slices beyond the last have no terms.
fn own_unit_of(lane: u32) -> u32 { return lane & (group_units() - 1u); }
fn own_quad(lane: u32) -> u32 { return (lane >> UNIT_BITS) & ((1u << QUAD_BITS) - 1u); }
fn own_slice(lane: u32) -> u32 { return lane >> (UNIT_BITS + QUAD_BITS); }

// Takes over a tile: its direction, rows, units and their weights, [depth, units].
fn take(number: u32, lane: u32) {
    tile = number;
    choose_direction(number / (unit_blocks() * row_blocks()));
    first_row = number / unit_blocks() % row_blocks() * group_rows();
    first_unit = number % unit_blocks() * group_units();
    for (var at = lane; at < GATES * parameters.hidden_size * group_units(); at = at + GROUP) {
        weights[at] = weight_of(at >> UNIT_BITS, min(first_unit + own_unit_of(at), parameters.hidden_size - 1u));
    }
}

// The sum, at the row and unit that this invocation finishes, of what every invocation has of its slice.
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

// Whether this invocation has a row and a unit to finish.
fn finishes(lane: u32) -> bool {
    let row = lane >> UNIT_BITS;
    return row < group_rows() && first_row + row < parameters.rows
        && first_unit + own_unit_of(lane) < parameters.hidden_size;
}

// One step of a tile; false where something it needs has not come. Then nothing of the step is written.
fn step(lane: u32, terms: u32) -> bool {
    clear_sums();
    request(lane, 0u);
    workgroupBarrier();
    for (var first = 0u; first < terms; first = first + chunk()) {
        enter(lane, first);
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
    // After a stop no chunk is waited for any longer.
    if tell(lane, atomicLoad(&timed_out)) != 0u { return false; }
    leave(lane);
    return true;
}

// A tile of its own for this workgroup, from the first step to the last.
fn run(lane: u32) {
    var ticket = 0u;
    if lane == 0u { ticket = atomicAdd(&exchange[TICKETS], 1u); }
    take(tell(lane, ticket), lane);
    // After one dispatch has stopped those that are under way already do not try.
    var done = 0u;
    if tell(lane, atomicLoad(&status[TIMED_OUT])) == 0u {
        for (; done < parameters.steps; done = done + 1u) {
            iteration = done;
            if !step(lane, terms(done)) { break; }
        }
        // Only the first says where.
        if lane == 0u && done < parameters.steps && atomicMax(&status[TIMED_OUT], tiles()) == 0u {
            atomicStore(&status[TIMEOUT_STEP], done);
            atomicStore(&status[TIMEOUT_TILE], tile);
        }
    }
    if lane == 0u { atomicStore(&exchange[PROGRESS + tile], done); }
}

// What the tiles of some rows have left, step by step.
fn complete(lane: u32, first_tile: u32) {
    for (var place = lane; place < unit_blocks(); place = place + GROUP) {
        atomicMin(&least, atomicLoad(&exchange[PROGRESS + first_tile + place]));
    }
    workgroupBarrier();
    let first_iteration = tell(lane, atomicLoad(&least));
    for (var next = first_iteration; next < parameters.steps; next = next + 1u) {
        for (var place = 0u; place < unit_blocks(); place = place + 1u) {
            let done = tell(lane, atomicLoad(&exchange[PROGRESS + first_tile + place]));
            if done <= next {
                take(first_tile + place, lane);
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
