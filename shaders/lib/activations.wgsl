// y = f(x) and f'(x). `function` is the number that `Activation::code` returns for f; callers pass a pipeline constant, so
// the compiler removes the switch. CPU reference: src/ops/elementwise/cpu.rs.

const SELU_SCALE: f32 = 1.0507009873554805;
const SELU_ALPHA: f32 = 1.6732632423543772;

// f(x). NaN stays NaN.
fn activate(function: u32, x: f32, alpha: f32, beta: f32) -> f32 {
    return select(activate_number(function, x, alpha, beta), x, has_nan_bits(x));
}

fn activate_number(function: u32, x: f32, alpha: f32, beta: f32) -> f32 {
    switch function {
        case 1u: { return accurate_tanh(x); }
        case 2u: { return select(x, 0.0, x <= 0.0); }
        case 3u: { return accurate_sigmoid(x); }
        case 4u: { return select(x, alpha * x, x <= 0.0); }
        case 5u: { return select(x, alpha * exp_minus_one_of_nonpositive(min(x, 0.0)), x <= 0.0); }
        case 6u: {
            let negative = SELU_ALPHA * exp_minus_one_of_nonpositive(min(x, 0.0));
            return SELU_SCALE * select(x, negative, x <= 0.0);
        }
        case 7u: { return select(x, 0.0, x <= 0.0) + log_one_plus(exp_of_nonpositive(-abs(x))); }
        case 8u: { return clamp_or_nan(alpha * x + beta, 0.0, 1.0); }
        case 9u: {
            // WGSL guarantees no accuracy for a division by more than 2^126.
            let scale = select(1.0, 0.25, abs(x) > 1.0);
            return scale * x / (scale + scale * abs(x));
        }
        case 10u: { return accurate_tan(x); }
        case 11u: { return alpha * x + beta; }
        case 12u: { return select(x, 0.0, x < alpha); }
        case 13u: { return alpha * accurate_tanh(beta * x); }
        case 14u: { return select(select(x, beta, x >= beta), alpha, x <= alpha); }
        default: { return x; }
    }
}

// Whether f'(x) is the same for all x, including NaN.
fn is_linear(function: u32) -> bool { return function == 0u || function == 11u; }

// Chain rule: d f'(x), where `local` is f'(x). NaN if d is NaN, even if f'(x) is zero.
fn chain(d: f32, local: f32) -> f32 { return select(d * local, d, has_nan_bits(d)); }

// f'(x), where y = f(x); NaN at NaN. Reads x only if y does not determine f'(x), because layers do not save x.
fn derivative(function: u32, x: f32, y: f32, alpha: f32, beta: f32) -> f32 {
    var local = 0.0;
    switch function {
        case 4u: { local = select(1.0, alpha, x <= 0.0); }
        case 5u: { local = select(1.0, y + alpha, x <= 0.0); }
        case 7u: { local = accurate_sigmoid(x); }
        case 9u: {
            let width = 1.0 + abs(x);
            local = 1.0 / (width * width);
        }
        case 12u: { local = select(1.0, 0.0, x <= alpha); }
        case 13u: {
            let tanh = accurate_tanh(beta * x);
            local = alpha * beta * (1.0 - tanh) * (1.0 + tanh);
        }
        default: { return derivative_at_output(function, y, alpha, beta); }
    }
    return select(local, x, has_nan_bits(x));
}

// f'(x) computed from y = f(x) alone; alpha >= 0. NaN at NaN.
fn derivative_at_output(function: u32, y: f32, alpha: f32, beta: f32) -> f32 {
    let unknown = has_nan_bits(y) && !is_linear(function);
    return select(derivative_at_number(function, y, alpha, beta), y, unknown);
}

fn derivative_at_number(function: u32, y: f32, alpha: f32, beta: f32) -> f32 {
    switch function {
        case 1u: { return (1.0 - y) * (1.0 + y); }
        case 2u: { return select(1.0, 0.0, y <= 0.0); }
        case 3u: { return y * (1.0 - y); }
        case 4u: { return select(1.0, alpha, y <= 0.0); }
        case 5u: { return select(1.0, y + alpha, y <= 0.0); }
        case 6u: { return select(SELU_SCALE, y + SELU_SCALE * SELU_ALPHA, y <= 0.0); }
        case 7u: { return -exp_minus_one_of_nonpositive(-y); }
        case 8u: { return select(0.0, alpha, y > 0.0 && y < 1.0); }
        case 9u: { return (1.0 - abs(y)) * (1.0 - abs(y)); }
        case 10u: { return 1.0 + y * y; }
        case 11u: { return alpha; }
        case 12u: { return select(1.0, 0.0, y <= alpha); }
        case 13u: {
            // Avoids 0 / 0: y is zero if alpha is.
            let scale = select(alpha, 1.0, alpha == 0.0);
            return beta * (alpha - y * (y / scale));
        }
        case 14u: { return select(0.0, 1.0, y > alpha && y < beta); }
        default: { return 1.0; }
    }
}
