// Where a kernel that takes many steps back in one dispatch has its parameters, and the present step in its arrays
// (recurrent/common/backward_bindings.wgsl). Bases point at the first step to be taken, which is the last in time.

fn is_first() -> bool { return iteration + 1u == parameters.steps && (parameters.pass_flags & FIRST_STEP) != 0u; }
fn is_last() -> bool { return iteration == 0u && (parameters.pass_flags & LAST_STEP) != 0u; }
fn first_number() -> u32 { return parameters.first_number + elapsed(parameters.rows * parameters.hidden_size); }

// Elements from the step after the present one, in the direction of the layer, to it.
fn onwards(stride: u32) -> u32 { return direction() * stride; }

fn step_flags_at() -> u32 { return parameters.step_flags_base + behind(parameters.rows) + elapsed(parameters.rows); }
fn next_step_flags_at() -> u32 { return step_flags_at() - onwards(parameters.rows); }
fn gates_at() -> u32 { return parameters.gates_base + behind(gates_stride()) + elapsed(gates_stride()); }
fn next_gates_at() -> u32 { return gates_at() - onwards(gates_stride()); }
fn saved_at() -> u32 { return parameters.saved_base + behind(saved_stride()) + elapsed(saved_stride()); }
fn next_saved_at() -> u32 { return saved_at() - onwards(saved_stride()); }
fn previous_saved_at() -> u32 { return saved_at() + onwards(saved_stride()); }
fn output_at() -> u32 { return parameters.output_base + beside(output_stride()) + elapsed(output_stride()); }
fn previous_output_at() -> u32 { return output_at() + onwards(output_stride()); }
fn d_output_at() -> u32 { return parameters.d_output_base + beside(d_output_stride()) + elapsed(d_output_stride()); }
fn carry_at() -> u32 { return parameters.carry_base + second * saved_stride(); }
fn carry_out_at() -> u32 { return parameters.carry_base + second * saved_stride(); }
fn carry_cell_at() -> u32 { return parameters.carry_cell_base + second * saved_stride(); }
fn carry_cell_out_at() -> u32 { return parameters.carry_cell_base + second * saved_stride(); }
