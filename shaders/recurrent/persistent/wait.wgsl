// Waits for a word of `exchange` that another workgroup writes. The kernel around it defines `spin_limit`,
// the most polls of an invocation in a dispatch, and `others_timed_out`, whether another workgroup has timed
// out. In both cases `timed_out` is set.

// A word that is never written.
const EMPTY: u32 = 0xffffffffu;

// 1: this workgroup timed out.
var<workgroup> timed_out: atomic<u32>;
var<workgroup> broadcast_word: u32;
// Polls of this invocation so far. A driver may silently end all loops of an invocation after some number of
// iterations, counted over all of them: the spin limit is lower.
var<private> polls: u32;

// Broadcasts invocation 0's value to the workgroup.
fn broadcast(lane: u32, value: u32) -> u32 {
    if lane == 0u { broadcast_word = value; }
    return workgroupUniformLoad(&broadcast_word);
}

// Returns the word, or EMPTY after a timeout.
fn wait(at: u32) -> u32 {
    let limit = spin_limit();
    for (; polls < limit; polls = polls + 1u) {
        let bits = atomicLoad(&exchange[at]);
        if bits != EMPTY { return bits; }
        if (polls & 63u) == 63u && (atomicLoad(&timed_out) != 0u || others_timed_out()) { break; }
    }
    atomicStore(&timed_out, 1u);
    return EMPTY;
}
