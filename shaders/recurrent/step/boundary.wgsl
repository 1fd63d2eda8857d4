// The gradient that the first step of a sequence sends to the initial state: y = sent W, with the sums and
// slices of recurrent/step/backward.wgsl, so that the gradient of a state has the same bits wherever the
// sequence is cut.
//   weight_hh [terms, H], sent [B, terms] -> y [B, H].
// Workgroups: 16 units (x), some rows (y).
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

@group(0) @binding(1) var<storage, read> weight_hh: array<f32>;
@group(0) @binding(2) var<storage, read> sent: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<private> slice_sum: vec4<f32>;

fn add_term(at: u32, rows: vec4<f32>) {
    slice_sum = fma(rows, vec4<f32>(weight_hh[at]), slice_sum);
}

fn operand(row: u32, place: u32) -> f32 {
    if row >= parameters.rows {
        return 0.0;
    }
    return sent[parameters.sent_base + row * parameters.terms + place];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let first_row = parameters.first_row + group.y * group_rows();
    let unit = parameters.first_unit + group.x * UNITS + own_unit_of(index);
    // Units beyond the last are computed as the last and not stored.
    let weights = parameters.weight_base + min(unit, parameters.hidden_size - 1u);
    add_terms(index, first_row, parameters.terms, weights, parameters.hidden_size);
    workgroupBarrier();
    pool[index] = slice_sum;
    workgroupBarrier();
    let product = add_slices(index, 0u);
    let row = first_row + summed_row(index);
    if summed_row(index) < group_rows() && row < parameters.rows && unit < parameters.hidden_size {
        y[parameters.y_base + row * parameters.hidden_size + unit] = product;
    }
}
