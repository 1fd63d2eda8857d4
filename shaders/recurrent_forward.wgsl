// One time step of a recurrent layer: h_t = cell(gates_t + W_hh h_{t-1} + b_hh).
//   weight_hh [G H, H], bias_hh [G H], initial [B, H];
//   gates [T, B, G H]: the projected input comes in, the gates before their activation go out;
//   output [T, B, H]: rows of earlier steps are read, those of this step are written.
// A workgroup of 16 by 16 computes 16 units (x) of 16 rows of the batch (y); the product runs over H in tiles of
// 16 through workgroup memory. Bases already point at this step. CPU twin: src/ops/recurrent/cpu.rs.

struct Parameters {
    rows: u32,
    hidden: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    bias_base: u32,
    // 0: no bias.
    has_bias: u32,
    // 1: h_{t-1} is the initial state; 0: it is in the output.
    from_initial: u32,
    previous_base: u32,
    gates_base: u32,
    output_base: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> bias_hh: array<f32>;
@group(0) @binding(3) var<storage, read> initial: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;

const TILE: u32 = 16u;
// One more column than needed keeps neighbouring invocations off the same memory bank.
const PITCH: u32 = 17u;

var<workgroup> tile_state: array<f32, 272>;
var<workgroup> tile_weight: array<f32, GATES * 272u>;

fn previous(row: u32, unit: u32) -> f32 {
    if row >= parameters.rows || unit >= parameters.hidden {
        return 0.0;
    }
    let at = parameters.previous_base + row * parameters.hidden + unit;
    if parameters.from_initial != 0u {
        return initial[at];
    }
    return output[at];
}

fn weight(gate: u32, unit: u32, inner: u32) -> f32 {
    if unit >= parameters.hidden || inner >= parameters.hidden {
        return 0.0;
    }
    return weight_hh[parameters.weight_base + (gate * parameters.hidden + unit) * parameters.hidden + inner];
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_unit = parameters.first_unit + group.x * TILE;
    let row = parameters.first_row + group.y * TILE + local.y;
    let unit = first_unit + local.x;
    var sums: array<f32, GATES>;
    for (var first = 0u; first < parameters.hidden; first = first + TILE) {
        tile_state[local.y * PITCH + local.x] = previous(row, first + local.x);
        for (var gate = 0u; gate < GATES; gate = gate + 1u) {
            let value = weight(gate, first_unit + local.y, first + local.x);
            tile_weight[(gate * TILE + local.y) * PITCH + local.x] = value;
        }
        workgroupBarrier();
        for (var inner = 0u; inner < TILE; inner = inner + 1u) {
            let state = tile_state[local.y * PITCH + inner];
            for (var gate = 0u; gate < GATES; gate = gate + 1u) {
                sums[gate] = sums[gate] + state * tile_weight[(gate * TILE + local.x) * PITCH + inner];
            }
        }
        workgroupBarrier();
    }
    if row >= parameters.rows || unit >= parameters.hidden {
        return;
    }
    let gates_row = parameters.gates_base + row * GATES * parameters.hidden;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) {
        let place = gate * parameters.hidden + unit;
        var bias = 0.0;
        if parameters.has_bias != 0u {
            bias = bias_hh[parameters.bias_base + place];
        }
        sums[gate] = gates[gates_row + place] + (sums[gate] + bias);
        gates[gates_row + place] = sums[gate];
    }
    output[parameters.output_base + row * parameters.hidden + unit] = cell_forward(sums);
}
