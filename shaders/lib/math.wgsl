// Elementary functions accurate to a few units in the last place on every driver: WGSL allows an error of 1e-5 for `tanh`
// and of 3 + 2|x| ulp for `exp`, and some drivers make use of it. The functions are computed from their power series, after
// a range reduction that brings the first omitted term below 2^-25. CPU reference: the standard library's functions.

// NaN and infinity are detected by their bits: `x != x` is false for NaN in the SPIR-V that naga writes, WGSL leaves
// comparisons, `min`, `max` and `clamp` of NaN undefined, and a driver's compiler may assume that NaN does not occur.

fn has_nan_bits(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

fn has_finite_bits(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }

// `value` if `valid`, else NaN.
fn nan_unless(valid: bool, value: f32) -> f32 {
    return bitcast<f32>(select(0x7fc00000u, bitcast<u32>(value), valid));
}

// x clamped to [low, high]; NaN stays NaN.
fn clamp_or_nan(x: f32, low: f32, high: f32) -> f32 { return select(clamp(x, low, high), x, has_nan_bits(x)); }

// The larger of a and b; NaN if either is NaN.
fn max_or_nan(a: f32, b: f32) -> f32 {
    return select(select(max(a, b), a, has_nan_bits(a)), b, has_nan_bits(b));
}

const LOG2_E: f32 = 1.4426950408889634;
// ln 2 = LN2_HIGH + LN2_LOW; LN2_HIGH has so few bits that its product with a small integer is exact.
const LN2_HIGH: f32 = 0.693359375;
const LN2_LOW: f32 = -2.12194440e-4;
const HALF_LN2: f32 = 0.34657359;

// exp(x) - 1 for |x| <= ln(2) / 2.
fn exp_minus_one_near_zero(x: f32) -> f32 {
    let tail = 1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0));
    return x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * tail)));
}

// exp(x) for x <= 0; flushed to zero below x = -87. NaN stays NaN.
fn exp_of_nonpositive(x: f32) -> f32 {
    let clamped = max(x, -87.0);
    let n = round(clamped * LOG2_E);
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let power = bitcast<f32>((i32(n) + 127) << 23u);
    let value = select((1.0 + exp_minus_one_near_zero(r)) * power, 0.0, x < -87.0);
    return select(value, x, has_nan_bits(x));
}

// exp(x) - 1 for x <= 0, without cancellation near zero.
fn exp_minus_one_of_nonpositive(x: f32) -> f32 {
    return select(exp_of_nonpositive(x) - 1.0, exp_minus_one_near_zero(x), x > -HALF_LN2);
}

// 2 artanh(s) = ln((1 + s) / (1 - s)) for |s| <= 1/3.
fn twice_artanh(s: f32) -> f32 {
    let q = s * s;
    let tail = 1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q * (1.0 / 15.0)));
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * tail))));
}

// ln(x) for normal x > 0 and for +infinity. NaN stays NaN.
fn natural_log(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    var exponent = f32(i32(bits >> 23u) - 127);
    var mantissa = bitcast<f32>((bits & 0x007fffffu) | 0x3f800000u);
    if mantissa > 1.4142135 {
        mantissa = mantissa * 0.5;
        exponent = exponent + 1.0;
    }
    let value = twice_artanh((mantissa - 1.0) / (mantissa + 1.0));
    return select(exponent * LN2_HIGH + (value + exponent * LN2_LOW), x, !has_finite_bits(x));
}

// ln(1 + t) for 0 <= t <= 1.
fn log_one_plus(t: f32) -> f32 {
    return twice_artanh(t / (2.0 + t));
}

fn accurate_tanh(x: f32) -> f32 {
    let t = exp_minus_one_of_nonpositive(-2.0 * abs(x));
    let magnitude = -t / (2.0 + t);
    return select(magnitude, -magnitude, x < 0.0);
}

fn accurate_sigmoid(x: f32) -> f32 {
    let e = exp_of_nonpositive(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}

const TWO_OVER_PI: f32 = 0.6366197723675814;
// pi / 2 as a sum of parts of 8, 11, 11 and 24 bits.
const HALF_PI_1: f32 = 1.5703125;
const HALF_PI_2: f32 = 4.837512969970703125e-4;
const HALF_PI_3: f32 = 7.54953362047672271728515625e-8;
const HALF_PI_4: f32 = 2.5633440682570896e-12;

// tan(x) = tan(r) for even n and -1 / tan(r) for odd n, where x = n pi / 2 + r and |r| <= pi / 4.
// Range reduction: for |n| < 2^13, that is |x| < 12,867, the products of n with the first three parts are exact, and so are
// the subtractions while digits cancel. The four parts differ from n pi / 2 by n 2^-63, while no f32 is nearer to a multiple
// of pi / 2 than 2^-27.8. Only the last operations round; the error of r is at most 2^-23 of r, measured near all multiples.
// tan(r) = sine / cosine is the fifth convergent of Lambert's fraction r / (1 - r^2 / (3 - r^2 / (5 - ...))), whose
// relative error is at most r^10 / (945 * 10395) < 2^-26; sine, cosine and their quotient add five roundings.
// For larger |x| the result is some finite number; for infinity it is NaN.
fn accurate_tan(x: f32) -> f32 {
    let n = round(x * TWO_OVER_PI);
    let r = clamp((((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3) - n * HALF_PI_4, -1.0, 1.0);
    let q = r * r;
    let sine = r * (945.0 + q * (q - 105.0));
    let cosine = 945.0 + q * (15.0 * q - 420.0);
    let odd = n - 2.0 * floor(0.5 * n) > 0.5;
    return nan_unless(has_finite_bits(x), select(sine, -cosine, odd) / select(cosine, sine, odd));
}
