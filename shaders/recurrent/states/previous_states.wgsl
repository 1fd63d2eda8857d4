// y[t, b, :] = the state before step t of row b: that of the previous step in this direction, the initial
// state, or zero. One invocation per element of y.
//   output [T, B, width]: the columns of this direction; initial [B, H]; step_flags [T, B] -> y [T, B, H].
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// 1: the direction runs from the end of each row to its beginning.
override REVERSED: u32 = 0u;
// 1: step flags are bound; 0: every step is valid, and only the first starts from the initial state.
override HAS_STEP_FLAGS: u32 = 0u;

@group(0) @binding(1) var<storage, read> output: array<f32>;
@group(0) @binding(2) var<storage, read> initial: array<f32>;
@group(0) @binding(3) var<storage, read> step_flags: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn step_flags_of(step: u32, place: u32) -> u32 {
    if HAS_STEP_FLAGS != 0u {
        return step_flags[parameters.step_flags_base + place];
    }
    let first = select(0u, parameters.steps - 1u, REVERSED != 0u);
    return select(VALID, VALID | STARTS, step == first);
}

fn compute(i: u32) {
    let place = parameters.y_first + i;
    let unit = place % parameters.hidden_size;
    let row = place / parameters.hidden_size % parameters.rows;
    let local_step = place / (parameters.hidden_size * parameters.rows);
    let step = parameters.first_step + local_step;
    let flags = step_flags_of(step, local_step * parameters.rows + row);
    var value = 0.0;
    if (flags & STARTS) != 0u {
        value = initial[parameters.initial_base + row * parameters.hidden_size + unit];
    } else if (flags & VALID) != 0u {
        let before = select(step - 1u, step + 1u, REVERSED != 0u) - parameters.first_bound;
        value = output[parameters.output_base + (before * parameters.rows + row) * parameters.width + unit];
    }
    if (flags & RESETS) != 0u {
        value = 0.0;
    }
    y[parameters.y_base + i] = value;
}
