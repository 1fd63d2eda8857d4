// Measures the time of a completing workgroup of recurrent/persistent/workgroup.wgsl: executes `iterations`
// loop iterations like those that load and multiply a chunk of its operand. One workgroup.
//   exchange [4096]: words to load; the first 256 receive the sums.
// No CPU reference: it measures the adapter.

@group(0) @binding(1) var<storage, read_write> exchange: array<atomic<u32>>;

const WORDS: u32 = 4096u;
// Loop iterations per chunk: eight loads and eight terms.
const ITERATIONS: u32 = 16u;

var<workgroup> pool: array<vec4<f32>, 512>;
var<workgroup> weights: array<f32, 1024>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var place = lane; place < 1024u; place = place + 256u) {
        weights[place] = f32(place);
    }
    var sums: vec4<f32>;
    for (var iteration = 0u; iteration < parameters.iterations; iteration = iteration + ITERATIONS) {
        for (var half = 0u; half < 2u; half = half + 1u) {
            var seen: vec4<u32>;
            for (var four = 0u; four < 4u; four = four + 1u) {
                seen[four] = atomicLoad(&exchange[((iteration + 4u * half + four) * 256u + lane) % WORDS]);
            }
            pool[lane + half * 256u] = vec4<f32>(seen);
        }
        workgroupBarrier();
        for (var inner = 0u; inner < 8u; inner = inner + 1u) {
            sums = sums + weights[(iteration + lane + inner) & 1023u] * pool[(lane + inner * 32u) & 511u];
        }
        workgroupBarrier();
    }
    atomicStore(&exchange[lane], bitcast<u32>(sums.x + sums.y + sums.z + sums.w));
}
