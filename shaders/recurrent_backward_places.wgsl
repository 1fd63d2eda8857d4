// Where a kernel that takes many steps back in one dispatch has its parameters, and the present step in its arrays
// (recurrent_backward_arrays.wgsl). Bases point at the first step to be taken, which is the last in time.

struct Parameters {
    rows: u32,
    batch: u32,
    hidden: u32,
    width: u32,
    d_width: u32,
    // How many steps, and whether this pass goes up in time (1) or down (2^32 - 1).
    steps: u32,
    direction: u32,
    first_row: u32,
    weight_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    marks_base: u32,
    output_base: u32,
    d_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    // LAST_STEP holds for the first of the steps taken; FIRST_STEP for the last of them.
    flags: u32,
    // Of both directions: how many steps behind the first one's place the second one's is in arrays [2, T, ..], and in
    // arrays [T, ..]; modulo 2^32.
    second_behind: u32,
    second_beside: u32,
    // Of the random numbers: the first that the first step draws, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
}

fn is_first() -> bool { return turn + 1u == parameters.steps && (parameters.flags & FIRST_STEP) != 0u; }
fn is_last() -> bool { return turn == 0u && (parameters.flags & LAST_STEP) != 0u; }
fn first_number() -> u32 { return parameters.first_number + walked(parameters.rows * parameters.hidden); }

// Elements from the step after the present one, in the direction of the layer, to it.
fn onwards(stride: u32) -> u32 { return direction() * stride; }

fn marks_at() -> u32 { return parameters.marks_base + behind(parameters.rows) + walked(parameters.rows); }
fn next_marks_at() -> u32 { return marks_at() - onwards(parameters.rows); }
fn gates_at() -> u32 { return parameters.gates_base + behind(gates_stride()) + walked(gates_stride()); }
fn next_gates_at() -> u32 { return gates_at() - onwards(gates_stride()); }
fn saved_at() -> u32 { return parameters.saved_base + behind(saved_stride()) + walked(saved_stride()); }
fn next_saved_at() -> u32 { return saved_at() - onwards(saved_stride()); }
fn previous_saved_at() -> u32 { return saved_at() + onwards(saved_stride()); }
fn output_at() -> u32 { return parameters.output_base + beside(output_stride()) + walked(output_stride()); }
fn previous_output_at() -> u32 { return output_at() + onwards(output_stride()); }
fn d_output_at() -> u32 { return parameters.d_output_base + beside(d_output_stride()) + walked(d_output_stride()); }
fn carry_at() -> u32 { return parameters.carry_base + second * saved_stride(); }
fn carry_out_at() -> u32 { return parameters.carry_base + second * saved_stride(); }
fn carry_cell_at() -> u32 { return parameters.carry_cell_base + second * saved_stride(); }
fn carry_cell_out_at() -> u32 { return parameters.carry_cell_base + second * saved_stride(); }
