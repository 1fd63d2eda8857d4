//! Filters out cases whose results depend on a single rounding.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};

use super::{Bias, Stack, StackInputs};
use crate::Result;
use crate::check::compare::difference;
use crate::check::sampler::{Nudge, Sampler};
use crate::check::tolerance::independent;
use crate::device::Device;
use crate::nn::Cell;
use crate::ops::{Activation, Binary, Form, binary, matmul};
use crate::tensor::Tensor;

/// The largest relative change of a case's numbers: many times the effect of roundings on a pre-activation.
const NUDGE: f64 = 2e-5;
/// The number of random directions in which the numbers are changed, each with both signs.
const DIRECTIONS: u64 = 4;

impl Stack {
    /// The first seed, starting at `seed`, for which no pre-activation is near a kink of f: there a rounding selects one
    /// of two derivatives, both of which are correct. Saturated cases avoid the whole curved part.
    pub(super) fn seed_off_kinks(self, seed: u64) -> Result<u64> {
        if self.choices.have_kinks() {
            return self.first_seed(seed, |seed| self.is_smooth(seed));
        }
        let Cell::Vanilla(activation) = *self.cell else { return Ok(seed) };
        let (kinks, margin) = match activation {
            Activation::Relu | Activation::LeakyRelu { .. } | Activation::Elu { .. } | Activation::Selu => {
                (vec![0.0], 1e-4 * self.magnitude)
            }
            Activation::HardSigmoid { alpha, beta } => {
                (vec![f64::from(-beta / alpha), f64::from((1.0 - beta) / alpha)], 1e-4)
            }
            Activation::ThresholdedRelu { alpha } => (vec![f64::from(alpha)], 1e-4),
            Activation::HardTanh { low, high } => (vec![f64::from(low), f64::from(high)], 1e-4),
            // Half way to the poles, near which derivatives are unbounded.
            Activation::Tan => (vec![-FRAC_PI_2, FRAC_PI_2], FRAC_PI_4),
            // From 20 on tanh is 1 in both precisions.
            Activation::Tanh if self.magnitude > 1.0 => (vec![0.0], 20.0),
            _ => return Ok(seed),
        };
        self.first_seed(seed, |seed| {
            let gates = self.pre_activations(&Sampler::new(&Device::reference(), seed))?;
            Ok(gates.iter().all(|gate| kinks.iter().all(|kink| (gate - kink).abs() > margin)))
        })
    }

    fn first_seed(self, seed: u64, is_clear: impl Fn(u64) -> Result<bool>) -> Result<u64> {
        for seed in seed..seed + 99 {
            if is_clear(seed)? {
                return Ok(seed);
            }
        }
        Err(crate::Error::config(self.label(), "has a pre-activation near a kink under every seed"))
    }

    /// Whether the gradients are smooth near the case's numbers, for any functions and bounds: then a small change of
    /// all numbers and its opposite change the gradients by opposite amounts. If a pre-activation crosses a kink in one
    /// of the two directions, the gradients jump only there.
    fn is_smooth(self, seed: u64) -> Result<bool> {
        let reference = Device::reference();
        let here = self.backward(&Sampler::new(&reference, seed))?;
        for direction in 0..DIRECTIONS {
            let moved = |size| self.backward(&Sampler::nudged(&reference, seed, Nudge { direction, size }));
            let (one, other) = (moved(NUDGE)?, moved(-NUDGE)?);
            for ((here, one), other) in here.iter().zip(&one).zip(&other) {
                let (one, other) = (one.tensor.download_f64()?, other.tensor.download_f64()?);
                let middle: Vec<f64> =
                    one.iter().zip(&other).map(|(one, other)| (one + other) / 2.0).collect();
                let jump = difference(&here.tensor.download_f64()?, &middle, here.scale).error;
                // Smaller jumps are within the tolerance of the comparison.
                if jump > independent(here.roundings) / 4.0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// W_ih x_t + b_ih + W_hh h_{t−1} + b_hh of a forward stack of one layer over whole rows \[T, B, H\].
    fn pre_activations(self, sampler: &Sampler) -> Result<Vec<f64>> {
        debug_assert_eq!(self.layers, 1);
        debug_assert_eq!(
            (self.directions, self.rows),
            (super::CaseDirections::Forward, super::CaseRows::Whole)
        );
        let StackInputs { layer, parameters, x, initial, .. } = self.sampler(sampler)?;
        let (y, _) = layer.infer(&parameters, &x, &initial)?;
        let mut before = initial.hidden().download_f64()?;
        before.extend(y.download_f64()?);
        before.truncate(y.shape().elements());
        let before = Tensor::from_slice_f64(sampler.device(), y.shape().dimensions(), &before)?;
        let bias = |name| (self.bias == Bias::With).then(|| parameters.view(name)).transpose();
        let transposed = Form::RightTransposed;
        let from_x = matmul(&x, parameters.view("rnn.weight_ih_l0")?, transposed, bias("rnn.bias_ih_l0")?)?;
        let from_h =
            matmul(&before, parameters.view("rnn.weight_hh_l0")?, transposed, bias("rnn.bias_hh_l0")?)?;
        binary(&from_x, &from_h, Binary::Add)?.download_f64()
    }
}
