// Tests whether workgroups can wait for each other as in recurrent/persistent/workgroup.wgsl: in each round,
// every invocation writes a word and waits for the word of another workgroup
// (recurrent/persistent/wait.wgsl).
//   exchange: tickets; results: workgroups that timed out, wrong words, workgroups that finished;
//   the history [rounds, groups, 256], EMPTY before the dispatch.
// A dispatch of one workgroup instead of `groups` times out, which measures the time of `spin_limit` polls.
// No CPU reference: it tests the adapter.

@group(0) @binding(1) var<storage, read_write> exchange: array<atomic<u32>>;

// The array in workgroup memory has 1024 << WEIGHT_BITS elements.
override WEIGHT_BITS: u32 = 0u;
const TIMEOUTS: u32 = 1u;
const WRONG: u32 = 2u;
const ENDED: u32 = 3u;
const HISTORY: u32 = 4u;

// As much workgroup memory as the kernel of a layer uses, so that no more workgroups run at once than there.
// A kernel that needs many registers may run fewer: then it times out once, and fewer workgroups are used.
var<workgroup> held: array<u32, 1024u << WEIGHT_BITS>;
var<workgroup> more: array<vec4<u32>, 512>;

fn others_timed_out() -> bool { return atomicLoad(&exchange[TIMEOUTS]) != 0u; }
fn spin_limit() -> u32 { return parameters.spin_limit; }

// A distinct word for each round, workgroup and invocation; never EMPTY.
fn number(round: u32, group: u32, lane: u32) -> u32 {
    return (((round * parameters.groups + group) * 256u + lane) * 2654435761u) >> 1u;
}

fn at(round: u32, group: u32, lane: u32) -> u32 {
    return HISTORY + (round * parameters.groups + group) * 256u + lane;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    var ticket = 0u;
    if lane == 0u {
        ticket = atomicAdd(&exchange[0], 1u);
        atomicStore(&timed_out, 0u);
    }
    let group = broadcast(lane, ticket);
    for (var place = lane; place < (1024u << WEIGHT_BITS); place = place + 256u) {
        held[place] = place;
    }
    more[lane] = vec4<u32>(lane);
    more[lane + 256u] = vec4<u32>(lane);
    workgroupBarrier();
    var round = 0u;
    for (; round < parameters.rounds; round = round + 1u) {
        // Adds and subtracts what the arrays hold, so that the compiler cannot remove them.
        let own = held[(lane * 33u + round) & ((1024u << WEIGHT_BITS) - 1u)];
        let extra = more[(lane + round) & 511u].x;
        let expected = ((lane * 33u + round) & ((1024u << WEIGHT_BITS) - 1u)) + ((lane + round) & 255u);
        atomicStore(&exchange[at(round, group, lane)], number(round, group, lane) + (own + extra - expected));
        let other = (group + lane + round * 256u) % parameters.groups;
        let found = wait(at(round, other, lane));
        if found != EMPTY && found != number(round, other, lane) {
            atomicAdd(&exchange[WRONG], 1u);
        }
        workgroupBarrier();
        if broadcast(lane, atomicLoad(&timed_out)) != 0u { break; }
    }
    if lane == 0u {
        atomicAdd(&exchange[select(TIMEOUTS, ENDED, round == parameters.rounds)], 1u);
    }
}
