// Strategy `per_step`, backward pass of one time step, one direction or both:
//   dh_t = dy_t + W_hh^T da_{t+1} + carry; then the cell's derivatives give da_t (recurrent/common/backward_unit.wgsl).
//   Arrays: recurrent/common/backward_arrays.wgsl. With a projection h = W_hr m, `output` is m, `d_output` its gradient,
//   and this kernel computes no product. `carry` may be written at another offset than it is read.
// Workgroups: 16 units (x), some rows (y), a direction (z); the product is split-K over G H
// (recurrent/step/split_k.wgsl). Rows may be those of several steps: the initial state is then that of row
// modulo batch. Bases include the offsets of the step and of the columns.
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// The sum of this invocation's slice, for four rows.
var<private> slice_sum: vec4<f32>;

fn add_term(at: u32, rows: vec4<f32>) {
    slice_sum = fma(rows, vec4<f32>(weight_hh[at]), slice_sum);
}

fn operand(row: u32, place: u32) -> f32 { return gradient(row, place); }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    choose_direction(group.z);
    let first_row = parameters.first_row + group.y * group_rows();
    let unit = parameters.first_unit + group.x * UNITS + own_unit_of(index);
    // Units beyond the last are computed as the last and not stored.
    let weights = weight_at() + first_weight() * parameters.hidden_size + min(unit, parameters.hidden_size - 1u);
    // Without a following step the product has no terms. The condition reads uniform values only (is_last() reads a private
    // variable), because the loop over the terms has barriers.
    let terms = select(depth(), 0u, PHASE != 2u && (parameters.pass_flags & LAST_STEP) != 0u);
    add_terms(index, first_row, terms, weights, parameters.hidden_size);
    workgroupBarrier();
    pool[index] = slice_sum;
    workgroupBarrier();
    let product = add_slices(index, 0u);
    let row = first_row + summed_row(index);
    if summed_row(index) < group_rows() && row < parameters.rows && unit < parameters.hidden_size {
        finish(row, unit, product);
    }
}
