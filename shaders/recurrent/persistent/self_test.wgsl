// Whether workgroups can wait for each other, as recurrent/persistent/workgroup.wgsl has them do: in each round all write, and wait
// for what others wrote in the same round, by recurrent/persistent/wait.wgsl.
//   exchange: tickets; what was found: workgroups that waited in vain, wrong numbers, workgroups that came to the
//   end; the history [rounds, groups, 256], empty before the dispatch. No CPU reference: it asks a question of the adapter.
// A dispatch of one workgroup in place of `groups` times out waiting for the others, which takes the time of `spin_limit` polls.

@group(0) @binding(1) var<storage, read_write> exchange: array<atomic<u32>>;

// 1024 times 2 to this power are the numbers held in workgroup memory.
override WEIGHT_BITS: u32 = 0u;
const TIMEOUTS: u32 = 1u;
const WRONG: u32 = 2u;
const ENDED: u32 = 3u;
const HISTORY: u32 = 4u;

// As much as a layer's kernel holds, so that no more workgroups run at once for want of workgroup memory than there would.
// A kernel that needs many registers may still have fewer: then it stops once, and fewer wait.
var<workgroup> held: array<u32, 1024u << WEIGHT_BITS>;
var<workgroup> more: array<vec4<u32>, 512>;

fn others_timed_out() -> bool { return atomicLoad(&exchange[TIMEOUTS]) != 0u; }
fn spin_limit() -> u32 { return parameters.spin_limit; }

// A number for each round, workgroup and invocation; never the empty one.
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
    let group = tell(lane, ticket);
    for (var place = lane; place < (1024u << WEIGHT_BITS); place = place + 256u) {
        held[place] = place;
    }
    more[lane] = vec4<u32>(lane);
    more[lane + 256u] = vec4<u32>(lane);
    workgroupBarrier();
    var round = 0u;
    for (; round < parameters.rounds; round = round + 1u) {
        // What is held goes into what is written, and out of it again: nothing of it may be left out.
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
        if tell(lane, atomicLoad(&timed_out)) != 0u { break; }
    }
    if lane == 0u {
        atomicAdd(&exchange[select(TIMEOUTS, ENDED, round == parameters.rounds)], 1u);
    }
}
