//! Functions of each element: activations and their derivatives, functions of two arrays, dropout.

use refrain::ops::{self, Activation, Binary, Mask};
use refrain::random::Stream;
use refrain::{Device, Result};

use super::{NANS, Results, as_on_the_cpu, builds, on_builds, specials, vector};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu};

/// Every activation, and constants at which a factor vanishes.
fn activations() -> Vec<Activation> {
    let mut all = Activation::ALL.to_vec();
    all.push(Activation::LeakyRelu { slope: 0.0 });
    all.push(Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 });
    all.push(Activation::HardTanh { low: -0.25, high: 6.0 });
    all
}

/// Where f' does not depend on x it is known at NaN too.
fn has_one_derivative(function: Activation) -> bool {
    matches!(function, Activation::Identity | Activation::Affine { .. })
}

/// f and f' of every NaN, and f' times every NaN, are NaN.
fn nan_stays_nan_through_every_activation(device: &Device) -> Outcome {
    let nans = NANS.map(f32::from_bits);
    for function in activations() {
        let x = vector(device, &nans)?;
        let y = ops::unary(&x, function)?;
        let values = y.download()?;
        assert!(values.iter().all(|value| value.is_nan()), "{function:?} of NaN is {values:?} on {device}");
        let d_y = vector(device, &[0.5; NANS.len()])?;
        let derivatives = ops::unary_backward(&x, &y, &d_y, function)?.download()?;
        let right = |slope: &f32| slope.is_nan() != has_one_derivative(function);
        assert!(
            derivatives.iter().all(right),
            "the derivative of {function:?} at NaN is {derivatives:?} on {device}"
        );
        for at in [-2.0, 0.25, 2.0] {
            let x = vector(device, &[at; NANS.len()])?;
            let y = ops::unary(&x, function)?;
            let d_x = ops::unary_backward(&x, &y, &vector(device, &nans)?, function)?.download()?;
            assert!(d_x.iter().all(|d| d.is_nan()), "{function:?}, NaN back to {at}: {d_x:?} on {device}");
        }
    }
    Ok(())
}

/// tan is off for large arguments on a GPU. And a kink at zero is to the right of a positive subnormal number only where it
/// is not taken for zero.
fn arguments(function: Activation) -> Vec<f32> {
    let mut all = specials();
    all.retain(|x| function != Activation::Tan || !x.is_finite() || x.abs() < 12_000.0);
    all.retain(|x| !(x.is_subnormal() && *x > 0.0));
    all
}

fn activations_of_extremes_are_as_on_the_cpu(device: &Device) -> Result<Results> {
    let mut results = Results::new();
    for function in activations() {
        let values = arguments(function);
        let x = vector(device, &values)?;
        let y = ops::unary(&x, function)?;
        results.push((format!("{function:?}"), y.download()?));
        for upstream in [0.5, -3e38, f32::INFINITY, f32::NAN] {
            let d_y = vector(device, &vec![upstream; values.len()])?;
            let d_x = ops::unary_backward(&x, &y, &d_y, function)?;
            results.push((format!("{function:?}, {upstream} back"), d_x.download()?));
        }
    }
    Ok(results)
}

fn tan_of_any_number_is_a_number(adapter: &Adapter) -> Outcome {
    let numbers = [3e38, -3e38, 1e10, -1e20, 12_868.0, 1e-40, f32::MAX, f32::MIN];
    for device in builds(adapter)? {
        let y = ops::unary(&vector(&device, &numbers)?, Activation::Tan)?.download()?;
        assert!(y.iter().all(|y| y.is_finite()), "{y:?}");
    }
    Ok(())
}

/// Each special value with each, but for subnormal numbers with the largest and with infinities: where a subnormal number counts
/// as zero their product is another.
fn functions_of_two_extremes_are_as_on_the_cpu(device: &Device) -> Result<Results> {
    let specials = specials();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for &one in &specials {
        for &other in &specials {
            let unclear = |a: f32, b: f32| a.is_subnormal() && b.abs() > 1.0;
            if !unclear(one, other) && !unclear(other, one) {
                left.push(one);
                right.push(other);
            }
        }
    }
    let (a, b) = (vector(device, &left)?, vector(device, &right)?);
    let mut results = Results::new();
    for function in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Axpy(-1.0), Binary::Axpy(0.0)] {
        results.push((format!("{function:?}"), ops::binary(&a, &b, function)?.download()?));
    }
    for factor in [0.5, 0.0, -2.0] {
        results.push((format!("scale by {factor}"), ops::scale(&a, factor)?.download()?));
    }
    Ok(results)
}

/// Some of each kept, some left out: what is left out is zero whatever it was.
fn dropout_of_extremes_is_as_on_the_cpu(device: &Device) -> Result<Results> {
    let values = specials().repeat(8);
    let mask = Mask::new(Stream::new(5, 6), 0.5)?;
    Ok(vec![("dropout".to_owned(), ops::dropout(&vector(device, &values)?, mask)?.download()?)])
}

pub(super) fn register(suite: &mut Suite) {
    on_builds!(suite, nan_stays_nan_through_every_activation);
    as_on_the_cpu!(
        suite,
        activations_of_extremes_are_as_on_the_cpu,
        functions_of_two_extremes_are_as_on_the_cpu,
        dropout_of_extremes_is_as_on_the_cpu,
    );
    on_gpu!(suite, tan_of_any_number_is_a_number);
}
