// How an invocation waits for a word of `exchange` that another workgroup writes. Who waits in vain, or learns by
// `others_stopped` of the kernel around it that another has, sets `stops`. The kernel around it also defines `spin_limit`: how
// many polls an invocation may spend on waiting in a dispatch.

// The bits of no number that is ever written.
const EMPTY: u32 = 0xffffffffu;

// This workgroup waited in vain.
var<workgroup> stops: atomic<u32>;
var<workgroup> told: u32;
// The polls spent so far. A driver may end all loops of an invocation after so many turns of all of them together, without a
// word: waiting must end before.
var<private> looked: u32;

// What invocation 0 says, to all of the workgroup.
fn tell(lane: u32, value: u32) -> u32 {
    if lane == 0u { told = value; }
    return workgroupUniformLoad(&told);
}

// The word, or EMPTY.
fn wait(at: u32) -> u32 {
    let limit = spin_limit();
    for (; looked < limit; looked = looked + 1u) {
        let bits = atomicLoad(&exchange[at]);
        if bits != EMPTY { return bits; }
        if (looked & 63u) == 63u && (atomicLoad(&stops) != 0u || others_stopped()) { break; }
    }
    atomicStore(&stops, 1u);
    return EMPTY;
}
