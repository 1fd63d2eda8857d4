// Partial sums of x, |x| or x^2, or partial maxima of |x|: workgroup g reduces elements [g CHUNK, (g + 1) CHUNK) to
// partial[g], in a fixed order. The host repeats the pass on its own result until one value is left.
//   x [count]; partial [ceil(count / CHUNK)]. CPU reference: src/ops/reduce/cpu.rs.

// 0: sum of x, 1: sum of |x|, 2: sum of x^2, 3: maximum of |x|.
override FUNCTION: u32 = 0u;

const CHUNK: u32 = 4096u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

var<workgroup> lanes: array<f32, 256>;

fn combine(left: f32, right: f32) -> f32 {
    if FUNCTION == 3u {
        // The order of the bits is the order of the magnitudes, with NaN above infinity.
        return bitcast<f32>(max(bitcast<u32>(left), bitcast<u32>(right)));
    }
    return left + right;
}

fn prepare(value: f32) -> f32 {
    switch FUNCTION {
        case 0u: { return value; }
        case 2u: { return value * value; }
        // Clears the sign bit, also that of NaN.
        default: { return bitcast<f32>(bitcast<u32>(value) & 0x7fffffffu); }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * CHUNK;
    let last = min(first + CHUNK, parameters.count);
    var total = 0.0;
    for (var i = first + lane; i < last; i = i + 256u) {
        total = combine(total, prepare(x[parameters.x_base + i]));
    }
    lanes[lane] = total;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half = half / 2u) {
        if lane < half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        workgroupBarrier();
    }
    if lane == 0u {
        partial[parameters.partial_base + group.x] = select(lanes[0], sqrt(lanes[0]), parameters.root != 0u);
    }
}
