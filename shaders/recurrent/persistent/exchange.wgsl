// How the workgroups of recurrent/persistent/workgroup.wgsl tell each other what they made: through `exchange`, a history of all steps
// that is EMPTY everywhere before the dispatch. A number there is either not yet written or right, so that no order
// between memory accesses is needed (payload and readiness in one word: Merrill and Garland 2016).
//   exchange: the next tile; how many steps each tile has finished; the history [1 or 2, steps, B, width()];
//   status: of the device, what happened to any dispatch so far.
// How it waits: recurrent/persistent/wait.wgsl. Who sees in `status` that another waited in vain does not go on either.

const NOT_A_NUMBER: u32 = 0x7fc00000u;
// Words of `status`: how many workgroups the dispatch had of which one stopped, at which step the first did, and its tile;
// 1: something is missing for good; the spin limit of this device.
const TIMED_OUT: u32 = 0u;
const TIMEOUT_STEP: u32 = 1u;
const TIMEOUT_TILE: u32 = 2u;
const LOST: u32 = 3u;
const SPIN_LIMIT: u32 = 4u;
// In `exchange`.
const TICKETS: u32 = 0u;
const PROGRESS: u32 = 1u;

// What has been seen of the chunk to come.
var<private> seen: array<vec4<u32>, 2>;

// Where the history has an element of the given step of this dispatch.
fn history_at(step: u32, row: u32, place: u32) -> u32 {
    return PROGRESS + tiles() + ((second * parameters.steps + step) * parameters.rows + row) * width() + place;
}

fn publish(row: u32, place: u32, value: f32) {
    let bits = bitcast<u32>(value);
    atomicStore(&exchange[history_at(iteration, row, place)], select(bits, NOT_A_NUMBER, bits == EMPTY));
}

fn others_timed_out() -> bool { return atomicLoad(&status[TIMED_OUT]) != 0u; }
fn spin_limit() -> u32 { return atomicLoad(&status[SPIN_LIMIT]); }

// Looks at a chunk of the operand, whose first place is `first`, and waits for nothing.
fn request(lane: u32, first: u32) {
    for (var half = 0u; half < 2u; half = half + 1u) {
        let at = lane + half * GROUP;
        let row = first_row + 4u * (at / chunk());
        for (var four = 0u; four < 4u; four = four + 1u) {
            let place = first + at % chunk();
            seen[half][four] = EMPTY;
            if travels(row + four, place) {
                seen[half][four] = atomicLoad(&exchange[history_at(iteration - 1u, row + four, place)]);
            }
        }
    }
}

// Puts the chunk where the product finds it, and waits for what had not come.
fn enter(lane: u32, first: u32) {
    for (var half = 0u; half < 2u; half = half + 1u) {
        let at = lane + half * GROUP;
        let row = first_row + 4u * (at / chunk());
        let place = first + at % chunk();
        var rows: vec4<f32>;
        for (var four = 0u; four < 4u; four = four + 1u) {
            if travels(row + four, place) {
                var bits = seen[half][four];
                if bits == EMPTY { bits = wait(history_at(iteration - 1u, row + four, place)); }
                rows[four] = arrived(row + four, place, bitcast<f32>(bits));
            } else {
                rows[four] = operand(row + four, place);
            }
        }
        pool[at] = rows;
    }
}
