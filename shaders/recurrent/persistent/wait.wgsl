// How an invocation waits for a word of `exchange` that another workgroup writes. Who waits in vain, or learns by
// `others_timed_out` of the kernel around it that another has, sets `stops`. The kernel around it also defines `spin_limit`: how
// many polls an invocation may spend on waiting in a dispatch.

// The bits of no number that is ever written.
const EMPTY: u32 = 0xffffffffu;

// This workgroup waited in vain.
var<workgroup> timed_out: atomic<u32>;
var<workgroup> told: u32;
// The polls spent so far. A driver may end all loops of an invocation after so many turns of all of them together, without a
// word: waiting must end before.
var<private> polls: u32;

// What invocation 0 says, to all of the workgroup.
fn tell(lane: u32, value: u32) -> u32 {
    if lane == 0u { told = value; }
    return workgroupUniformLoad(&told);
}

// The word, or EMPTY.
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
