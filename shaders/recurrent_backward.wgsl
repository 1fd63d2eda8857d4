// One time step back: dh_t = dy_t + dgates_{t+1} W_hh (or the gradient at the last state), then
// dgates_t = dh_t through the cell's derivative.
//   weight_hh [G H, H]; output, d_output [T, B, H]; d_last [B, H];
//   gates [T, B, G H]: gates before their activation come in, their gradients go out, step by step from the end.
// A workgroup of 16 by 16 computes 16 units (x) of 16 rows of the batch (y); the product runs over G H in tiles
// of 16 through workgroup memory. Bases already point at this step. CPU twin: src/ops/recurrent/cpu.rs.

struct Parameters {
    rows: u32,
    hidden: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    output_base: u32,
    d_output_base: u32,
    d_last_base: u32,
    gates_base: u32,
    next_base: u32,
    // What comes from the future. 0: dgates_{t+1} W_hh; 1: d_last; 2: nothing.
    future: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> output: array<f32>;
@group(0) @binding(3) var<storage, read> d_output: array<f32>;
@group(0) @binding(4) var<storage, read> d_last: array<f32>;
@group(0) @binding(5) var<storage, read_write> gates: array<f32>;

const TILE: u32 = 16u;
// One more column than needed keeps neighbouring invocations off the same memory bank.
const PITCH: u32 = 17u;

var<workgroup> tile_gradient: array<f32, 272>;
var<workgroup> tile_weight: array<f32, 272>;

fn next_gradient(row: u32, place: u32) -> f32 {
    if row >= parameters.rows || place >= GATES * parameters.hidden {
        return 0.0;
    }
    return gates[parameters.next_base + row * GATES * parameters.hidden + place];
}

fn weight(place: u32, unit: u32) -> f32 {
    if place >= GATES * parameters.hidden || unit >= parameters.hidden {
        return 0.0;
    }
    return weight_hh[parameters.weight_base + place * parameters.hidden + unit];
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = parameters.first_row + group.y * TILE + local.y;
    let unit = parameters.first_unit + group.x * TILE + local.x;
    // Without a next step the product has no terms.
    let depth = select(0u, GATES * parameters.hidden, parameters.future == 0u);
    var future = 0.0;
    for (var first = 0u; first < depth; first = first + TILE) {
        tile_gradient[local.y * PITCH + local.x] = next_gradient(row, first + local.x);
        tile_weight[local.y * PITCH + local.x] = weight(first + local.y, unit);
        workgroupBarrier();
        for (var inner = 0u; inner < TILE; inner = inner + 1u) {
            future = future + tile_gradient[local.y * PITCH + inner] * tile_weight[inner * PITCH + local.x];
        }
        workgroupBarrier();
    }
    if row >= parameters.rows || unit >= parameters.hidden {
        return;
    }
    let place = row * parameters.hidden + unit;
    if parameters.future == 1u {
        future = d_last[parameters.d_last_base + place];
    }
    let d_hidden = d_output[parameters.d_output_base + place] + future;
    let gates_row = parameters.gates_base + row * GATES * parameters.hidden + unit;
    var inputs: array<f32, GATES>;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        inputs[gate] = gates[gates_row + gate * parameters.hidden];
    }
    var d_gates = cell_backward(inputs, output[parameters.output_base + place], d_hidden);
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        gates[gates_row + gate * parameters.hidden] = d_gates[gate];
    }
}
