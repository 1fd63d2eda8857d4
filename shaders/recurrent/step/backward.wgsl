// One time step back, in one direction or both: dh = dy + what the next step's gates and the carry bring, then the cell's
// derivative.
// Arrays: recurrent/common/backward_arrays.wgsl. With a projection `output` is what the cell made of h, `d_output` the gradient at that,
// and no product is left to this shader. What goes out of `carry` goes to the same place or another.
// Rows may be those of several steps: the initial state is then that of row modulo batch.
// Workgroups are of 16 units (x) and some rows (y); the product is that of recurrent/step/split_k.wgsl, over G H. Bases already point
// at the step and the column block.
// What follows the product is in recurrent/common/backward_unit.wgsl. CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// At four rows.
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
    // Units beyond the last are computed as the last, and not kept.
    let weights = weight_at() + first_weight() * parameters.hidden_size + min(unit, parameters.hidden_size - 1u);
    // Without a next step the product has no terms. Of uniform values alone, which is_last() is not, for barriers follow.
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
