// How workgroups of a persistent kernel exchange results: through a history of all steps that is EMPTY before
// the dispatch. Each word is either EMPTY or final, so no memory ordering between words is required (payload
// and flag in one word: Merrill and Garland 2016).
//   exchange: the next tile; the number of steps each tile finished; the history [1 or 2, steps, B, width()];
//   status: the timeouts of all dispatches of the device so far.
// Waiting is in recurrent/persistent/wait.wgsl. Workgroups stop when `status` shows a timeout of another
// workgroup.

const NOT_A_NUMBER: u32 = 0x7fc00000u;
// Words of `status`: the number of workgroups of the first dispatch in which one timed out, or 0; the step
// and the tile of the first timeout; 1 if steps could not be completed; the spin limit of this device.
const TIMED_OUT: u32 = 0u;
const TIMEOUT_STEP: u32 = 1u;
const TIMEOUT_TILE: u32 = 2u;
const LOST: u32 = 3u;
const SPIN_LIMIT: u32 = 4u;
// Words of `exchange`.
const TICKETS: u32 = 0u;
const PROGRESS: u32 = 1u;

// The words of the next chunk that have been read so far.
var<private> seen: array<vec4<u32>, 2>;

// The index of an element of the given step of this dispatch in the history.
fn history_at(step: u32, row: u32, place: u32) -> u32 {
    return PROGRESS + tiles() + ((second * parameters.steps + step) * parameters.rows + row) * width() + place;
}

fn publish(row: u32, place: u32, value: f32) {
    let bits = bitcast<u32>(value);
    atomicStore(&exchange[history_at(iteration, row, place)], select(bits, NOT_A_NUMBER, bits == EMPTY));
}

fn others_timed_out() -> bool { return atomicLoad(&status[TIMED_OUT]) != 0u; }
fn spin_limit() -> u32 { return atomicLoad(&status[SPIN_LIMIT]); }

// Reads the chunk of the operand that begins at `first`, without waiting.
fn request(lane: u32, first: u32) {
    for (var half = 0u; half < 2u; half = half + 1u) {
        let at = lane + half * GROUP;
        let row = first_row + 4u * (at / chunk());
        for (var four = 0u; four < 4u; four = four + 1u) {
            let place = first + at % chunk();
            seen[half][four] = EMPTY;
            if is_exchanged(row + four, place) {
                seen[half][four] = atomicLoad(&exchange[history_at(iteration - 1u, row + four, place)]);
            }
        }
    }
}

// Stores the requested chunk in `pool`; waits for the words that were EMPTY.
fn load_operand(lane: u32, first: u32) {
    for (var half = 0u; half < 2u; half = half + 1u) {
        let at = lane + half * GROUP;
        let row = first_row + 4u * (at / chunk());
        let place = first + at % chunk();
        var rows: vec4<f32>;
        for (var four = 0u; four < 4u; four = four + 1u) {
            if is_exchanged(row + four, place) {
                var bits = seen[half][four];
                if bits == EMPTY { bits = wait(history_at(iteration - 1u, row + four, place)); }
                rows[four] = received(row + four, place, bitcast<f32>(bits));
            } else {
                rows[four] = operand(row + four, place);
            }
        }
        pool[at] = rows;
    }
}
