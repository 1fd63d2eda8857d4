// The gradient of the hidden state of one time step with a projection: dh_t = dy_t + product + carry, where
// product = da_{t+1} W_hh. One invocation per element.
//   product [rows, P]; d_output [T, B, width]: the columns of this direction; step_flags [T, B];
//   carry [rows, P]: the gradient of the final state until the row's last step -> d_hidden [rows, P].
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// 1: step flags are bound; 0: every step is valid.
override HAS_STEP_FLAGS: u32 = 0u;
// 1: the gradient of the previous state is clipped.
override CLIPS_GRADIENT: u32 = 0u;

@group(0) @binding(1) var<storage, read> product: array<f32>;
@group(0) @binding(2) var<storage, read> d_output: array<f32>;
@group(0) @binding(3) var<storage, read> step_flags: array<u32>;
@group(0) @binding(4) var<storage, read_write> carry: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_hidden: array<f32>;

fn step_flags_of(row: u32, base: u32) -> u32 {
    if HAS_STEP_FLAGS == 0u {
        return VALID;
    }
    return step_flags[base + row];
}

fn compute(i: u32) {
    let place = parameters.first + i;
    let row = place / parameters.projection_size;
    let carried = carry[parameters.carry_base + place];
    if (step_flags_of(row, parameters.step_flags_base) & VALID) == 0u {
        // The carry is kept until the row's last valid step.
        carry[parameters.carry_out_base + place] = carried;
        d_hidden[parameters.d_hidden_base + place] = 0.0;
        return;
    }
    var sum = carried;
    if parameters.ends == 0u {
        let next = step_flags_of(row, parameters.next_step_flags_base);
        if (next & (VALID | STARTS | RESETS | CUTS)) == VALID {
            let sent = product[parameters.product_base + place];
            sum = sum + select(sent, clamp_or_nan(sent, -parameters.bound, parameters.bound), CLIPS_GRADIENT != 0u);
        }
    }
    if parameters.takes_outputs != 0u {
        sum = sum + d_output[parameters.d_output_base + row * parameters.width + place % parameters.projection_size];
    }
    d_hidden[parameters.d_hidden_base + place] = sum;
    carry[parameters.carry_out_base + place] = 0.0;
}
