//! eˣ, tanh and the logistic function over slices, accurate to two and a half units in the last place. The code has no
//! branches, so that the compiler vectorises it.
//!
//! x = n ln 2 + r with |r| ≤ ln 2 / 2, and eˣ = 2ⁿ eʳ (Cody & Waite 1980, "Software manual for the elementary functions",
//! chapter 6). In that range the relative error of the series of eʳ − 1 up to r⁷ is less than 2⁻²⁶.

use super::instructions::{Instructions, Work, run};

/// x ← eˣ.
pub(crate) fn exp(values: &mut [f32]) {
    run(Each(values, Exp));
}

/// x ← tanh x.
pub(crate) fn tanh(values: &mut [f32]) {
    run(Each(values, Tanh));
}

/// x ← 1 / (1 + e⁻ˣ).
pub(crate) fn sigmoid(values: &mut [f32]) {
    run(Each(values, Sigmoid));
}

/// A function of one number.
trait Function {
    fn at<I: Instructions>(x: f32) -> f32;
}

/// A function to be applied to each number in place.
struct Each<'a, F>(&'a mut [f32], F);

impl<F: Function> Work for Each<'_, F> {
    #[inline(always)]
    fn run<I: Instructions>(self) {
        for value in self.0 {
            *value = F::at::<I>(*value);
        }
    }
}

struct Exp;
struct Tanh;
struct Sigmoid;

/// ln 2 as a sum of two parts. The first has nine bits, so its products with integers are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// 1.5 · 2²³: adding it to a number rounds the number to an integer, which is then in the lowest bits.
const ROUNDING: f32 = 12_582_912.0;

/// Returns n and r for |x| ≤ 2²² ln 2.
#[inline(always)]
fn reduced<I: Instructions>(x: f32) -> (i32, f32) {
    let shifted = I::multiply_add(x, std::f32::consts::LOG2_E, ROUNDING);
    let whole = shifted - ROUNDING;
    let rest = I::multiply_add(-LN_2[0], whole, x);
    let bits = shifted.to_bits().wrapping_sub(ROUNDING.to_bits());
    (bits as i32, I::multiply_add(-LN_2[1], whole, rest))
}

/// eʳ − 1 = r + r²/2! + r³/3! + … for |r| ≤ ln 2 / 2.
#[inline(always)]
fn series<I: Instructions>(r: f32) -> f32 {
    let mut sum = 1.0 / 5040.0;
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        sum = I::multiply_add(sum, r, term);
    }
    I::multiply_add(sum, r * r, r)
}

/// 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Clamps x to [low, high]; NaN stays NaN.
#[inline(always)]
fn within(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn exponential<I: Instructions>(x: f32) -> f32 {
    // Beyond these bounds the results are 0 and ∞.
    let (n, r) = reduced::<I>(within(x, -104.0, 89.0));
    // 2ⁿ may be out of range although the result is not, so it is applied in two factors.
    let half = n >> 1;
    (1.0 + series::<I>(r)) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

impl Function for Exp {
    #[inline(always)]
    fn at<I: Instructions>(x: f32) -> f32 {
        exponential::<I>(x)
    }
}

impl Function for Tanh {
    /// |tanh x| = t / (t + 2) with t = e^(2|x|) − 1, which loses no digits near 0.
    #[inline(always)]
    fn at<I: Instructions>(x: f32) -> f32 {
        // The result is 1 from |x| = 9.02 on.
        let (n, r) = reduced::<I>(within(2.0 * x.abs(), 0.0, 20.0));
        let power = power_of_two(n);
        let t = I::multiply_add(power, series::<I>(r), power - 1.0);
        (t / (t + 2.0)).copysign(x)
    }
}

impl Function for Sigmoid {
    /// Computed from e^(−|x|), which does not overflow.
    #[inline(always)]
    fn at<I: Instructions>(x: f32) -> f32 {
        let e = exponential::<I>(-x.abs());
        let above = if x < 0.0 { e } else { 1.0 };
        above / (1.0 + e)
    }
}

#[cfg(test)]
mod tests {
    use super::super::instructions::run_with_each;
    use super::*;

    /// The largest allowed error, in units in the last place.
    const UNITS: f64 = 2.5;

    /// The distance between `found` and the true value, in units in the last place.
    fn units(found: f32, expected: f64) -> f64 {
        let rounded = expected as f32;
        if !rounded.is_finite() || !found.is_finite() {
            return if rounded == found || rounded.is_nan() && found.is_nan() { 0.0 } else { f64::INFINITY };
        }
        let unit = f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
        (f64::from(found) - expected).abs() / unit
    }

    /// Some hundred numbers per exponent and sign, and the special values.
    fn samples() -> Vec<f32> {
        let mut samples: Vec<f32> =
            (0..=u32::MAX / 16_001).map(|place| f32::from_bits(place * 16_001)).collect();
        samples.extend((-22_000..=22_000).map(|place| place as f32 * 5e-3));
        samples.extend([0.0, -0.0, 1.0, -1.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, f32::EPSILON]);
        samples.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
        samples
    }

    fn expect_accurate<F: Function>(name: &str, function: fn() -> F, truth: fn(f64) -> f64) {
        let samples = samples();
        run_with_each(|| Check { samples: &samples, name, function: function(), truth });
    }

    struct Check<'a, F> {
        samples: &'a [f32],
        name: &'a str,
        function: F,
        truth: fn(f64) -> f64,
    }

    impl<F: Function> Work for Check<'_, F> {
        fn run<I: Instructions>(self) {
            let Self { samples, name, function, truth } = self;
            let mut result = samples.to_vec();
            Each(&mut result, function).run::<I>();
            for (&x, &found) in samples.iter().zip(&result) {
                let expected = truth(f64::from(x));
                let off = units(found, expected);
                assert!(off <= UNITS, "{name} of {x:e}: {found:e}, not {expected:e}: {off} units");
                if expected == 0.0 {
                    assert_eq!(found.is_sign_negative(), expected.is_sign_negative(), "{name} of {x:e}");
                }
            }
        }
    }

    #[test]
    fn functions_are_accurate_everywhere() {
        expect_accurate("exp", || Exp, f64::exp);
        expect_accurate("tanh", || Tanh, f64::tanh);
        expect_accurate("sigmoid", || Sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
    }

    #[test]
    fn a_value_does_not_depend_on_its_place() {
        let values: Vec<f32> = (0..101).map(|place| (place as f32 * 0.7).sin() * 9.0).collect();
        for function in [exp, tanh, sigmoid] {
            let mut whole = values.clone();
            function(&mut whole);
            for (place, &value) in values.iter().enumerate() {
                let mut alone = [value];
                function(&mut alone);
                assert_eq!(alone[0], whole[place]);
            }
        }
    }
}
