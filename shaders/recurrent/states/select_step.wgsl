// y[b, columns] = x[step(b), b, columns], where step(b) is the first or last valid step of row b; zeros where
// the step flags say that no gradient flows past it. A row without steps is left unchanged in y. One
// invocation per element.
//   x [T, B, x_width], lengths [B], step_flags [T, B] -> y [B, y_width].
// CPU reference: src/ops/recurrent/cpu/time_loop.rs.

// 1: the last valid step of each row; 0: the first.
override LAST: u32 = 0u;
// 1: lengths are bound.
override RAGGED: u32 = 0u;
// 1: step flags are bound.
override HAS_STEP_FLAGS: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read> step_flags: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    let row = (parameters.first + i) / parameters.columns;
    let column = (parameters.first + i) % parameters.columns;
    var length = parameters.steps;
    if RAGGED != 0u {
        length = lengths[parameters.lengths_base + row];
    }
    if length == 0u {
        return;
    }
    let step = select(0u, length - 1u, LAST != 0u);
    if step < parameters.first_step || step - parameters.first_step >= parameters.bound_steps {
        return;
    }
    let place = (step - parameters.first_step) * parameters.rows + row;
    var value = x[parameters.x_base + place * parameters.x_width + column];
    if HAS_STEP_FLAGS != 0u && (step_flags[parameters.step_flags_base + place] & (RESETS | CUTS)) != 0u {
        value = 0.0;
    }
    y[parameters.y_base + row * parameters.y_width + column] = value;
}
