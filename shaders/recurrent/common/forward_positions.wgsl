// Where a kernel that takes many steps forward in one dispatch has its parameters, and the present step in its arrays
// (recurrent/common/forward_bindings.wgsl). Bases point at the first step.

fn is_first() -> bool { return iteration == 0u && (parameters.pass_flags & FIRST_STEP) != 0u; }
fn first_number() -> u32 { return parameters.first_number + elapsed(parameters.rows * parameters.hidden_size); }

fn step_flags_at() -> u32 { return parameters.step_flags_base + behind(parameters.rows) + elapsed(parameters.rows); }
fn gates_at() -> u32 { return parameters.gates_base + behind(gates_stride()) + elapsed(gates_stride()); }
fn output_at() -> u32 { return parameters.output_base + beside(output_stride()) + elapsed(output_stride()); }
fn saved_at() -> u32 { return parameters.saved_base + behind(saved_stride()) + elapsed(saved_stride()); }
fn previous_output_at() -> u32 { return output_at() - direction() * output_stride(); }
fn previous_saved_at() -> u32 { return saved_at() - direction() * saved_stride(); }
