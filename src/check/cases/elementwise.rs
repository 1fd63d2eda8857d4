//! Element-wise functions: value and derivative of each activation, and the functions of two arrays.

use super::{Case, Operation, Output};
use crate::Result;
use crate::check::sampler::{CENTRED, Sampler};
use crate::check::tolerance::EVALUATION;
use crate::ops::{Activation, Binary, binary, scale, unary, unary_backward};
use crate::tensor::Tensor;

/// Lengths around the size of a workgroup, and one above the limit of a grid row on some devices.
const LENGTHS: [usize; 6] = [1, 33, 255, 257, 1000, 70_001];

/// Arguments at which formulas overflow, underflow or cancel.
const EXTREMES: [f32; 16] =
    [0.0, 1e-30, -1e-30, 1e-6, -1e-6, 0.34, -0.35, 9.0, -9.0, 20.0, -20.0, 88.0, -88.0, 89.5, 1e4, -1e4];

pub(super) fn operations() -> Vec<Operation> {
    let mut operations: Vec<Operation> = Activation::ALL.into_iter().map(activation).collect();
    operations.extend([
        of_two("add", Binary::Add),
        of_two("subtract", Binary::Sub),
        of_two("multiply", Binary::Mul),
        of_two("axpy", Binary::Axpy(-1.75)),
        over_lengths("scale", 400, |sampler, &length| {
            let x = sampler.tensor(&[length], CENTRED)?;
            Ok(vec![Output::new("y", scale(&x, 0.3)?, 1.0)])
        }),
    ]);
    operations
}

fn over_lengths(
    name: &'static str,
    seed: u64,
    run: impl Fn(&Sampler, &usize) -> Result<Vec<Output>> + Copy + 'static,
) -> Operation {
    Operation::over(name, seed, LENGTHS, |length| format!("length {length}"), run)
}

fn of_two(name: &'static str, function: Binary) -> Operation {
    over_lengths(name, 300, move |sampler, &length| {
        let (a, b) = (sampler.tensor(&[length], CENTRED)?, sampler.tensor(&[length], CENTRED)?);
        // At most two roundings, of the product and of the sum, relative to the operands instead of a sum that may cancel.
        Ok(vec![Output::new("z", binary(&a, &b, function)?, 2.0).relative_to(1.0)])
    })
}

fn activation(function: Activation) -> Operation {
    let mut operation = over_lengths(function.name(), 200, move |sampler, &length| {
        let mut values = sampler.values(length, -6.0..6.0);
        values.iter_mut().for_each(|value| *value = off_kink(function, *value));
        value_and_derivative(sampler, function, &values)
    });
    operation.cases.push(Case::new("extreme arguments", 250, move |sampler| {
        value_and_derivative(sampler, function, &EXTREMES)
    }));
    operation
}

/// Moves x away from the kinks of a hard sigmoid: it compares the rounded α x + β with its bounds, and its derivative is
/// discontinuous there. All other functions compare x itself, which is exact, so they are tested anywhere.
fn off_kink(function: Activation, x: f32) -> f32 {
    const DISTANCE: f32 = 1e-3;
    let Activation::HardSigmoid { alpha, beta } = function else { return x };
    let near = [-beta / alpha, (1.0 - beta) / alpha].into_iter().find(|kink| (x - kink).abs() < DISTANCE);
    near.map_or(x, |kink| kink + DISTANCE)
}

fn value_and_derivative(sampler: &Sampler, function: Activation, values: &[f32]) -> Result<Vec<Output>> {
    let x = Tensor::from_slice(sampler.device(), &[values.len()], values)?;
    let d_y = sampler.tensor(&[values.len()], CENTRED)?;
    let y = unary(&x, function)?;
    let d_x = unary_backward(&x, &y, &d_y, function)?;
    // y (1 - y) and 1 - y² cancel near y = 1: their errors are relative to y and dy. 1 + y² of tan has twice the error of y.
    let evaluations = if function == Activation::Tan { 2.0 } else { 1.0 };
    let d_x = Output::new("d_x", d_x, evaluations * EVALUATION + 2.0).relative_to(1.0);
    Ok(vec![Output::new("y", y, EVALUATION), d_x])
}
