//! How far two correct evaluations may be apart, in units of an entry of the expected tensor and what is typical of it.
//!
//! One rounding to f32 has a relative error of at most u = 2⁻²⁴. A result that n roundings affect has an error
//! of at most n u, but they have different signs: Higham & Mary 2019 ("A new approach to probabilistic rounding
//! error analysis", theorem 2.4) bound the sum of n errors of mean zero by λ √n u with probability 1 − 2 exp(−λ²/2).
//! So each case counts the roundings that affect a result ([`sum`], [`Recurrence`]), and [`independent`] converts
//! the count to a tolerance.
//!
//! Roundings occur in partial sums, products and activations. Inputs are sampled so that these are no larger than the
//! largest result: a random walk of mean zero if there are many results, values that do not cancel if there are few.
//! Where an equation cancels by itself (softmax backward), the case specifies the magnitude that its roundings are
//! relative to.

use crate::nn::Cell;
use crate::ops::Activation;

/// The unit roundoff of f32.
pub(crate) const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

/// λ: 2 exp(−λ²/2) is 3·10⁻⁸, so that none of the table's 10⁶ results is expected to exceed its tolerance by chance.
const CONFIDENCE: f64 = 6.0;

/// The number of roundings that an elementary function counts for. The shaders' tanh, exp and log, like those of C
/// libraries, are accurate to a few units in the last place; a WGSL division alone may err by 2.5 of them (WGSL, section
/// 15.7.4). Eight units are 16 u, and λ √8 u is 17 u.
pub(crate) const EVALUATION: f64 = 8.0;

/// The tolerance of a result that `roundings` independent roundings affect.
pub(crate) fn independent(roundings: f64) -> f64 {
    CONFIDENCE * roundings.sqrt() * UNIT
}

/// Roundings in a sum of `terms` products: one for each addition, one for the product, one for a bias.
pub(crate) fn sum(terms: usize) -> f64 {
    terms as f64 + 2.0
}

/// The pointwise operations of a gated cell, each rounded once: at most five products and sums.
const POINTWISE: f64 = 5.0;

/// The roundings that affect the results of a recurrent stack, forward and backward.
///
/// A step of a vanilla cell rounds `terms` = I + H products and evaluates f. An error in h is multiplied by W_hh and
/// f' at each later step. The entries of W_hh are uniform in ±1/√H, variance 1/(3H), so the variance of an error
/// decreases by the factor g = f'²/3 per step, and the errors of all T steps together count as Σ_t gᵗ of those of one.
///
/// A gated cell does this for each of its G gates and combines them in its state. All G count in full: σ' ≤ 1/4 attenuates a
/// gate's error to a quarter, but the state is smaller than the pre-activations by about the same ratio. The state
/// keeps a fraction of its previous value, c = f c' or h = z h', so that an error persists until the gate forgets it: g is
/// f² or z² plus what returns through the gates. For a GRU, with h and n in ±1, that is at most
/// z² + (1 − z)² (1 + 4 z² + 1/16) / 3 ≤ 1. For an LSTM it is at most
/// f² + (f² (1 − f)² c'² + 1/16 + 1) o² / 3, below 1 for |c'| ≤ 1 and gates up to 0.8; saturated gates let less return. No
/// bound below 1 is certain, so g = 1, and the errors of all T steps add up.
#[derive(Clone)]
pub(crate) struct Recurrence {
    pub(crate) cell: Cell,
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) layers: usize,
    pub(crate) terms: usize,
}

/// The largest |f'|.
fn largest_derivative(activation: Activation) -> f64 {
    match activation {
        Activation::Sigmoid => 0.25,
        // 1.0507 · 1.6733, left of zero.
        Activation::Selu => 1.76,
        // 1 + tan² up to π/4, which the cases do not exceed.
        Activation::Tan => 2.0,
        Activation::HardSigmoid { alpha, .. } | Activation::Affine { alpha, .. } => f64::from(alpha).abs(),
        Activation::ScaledTanh { alpha, beta } => (f64::from(alpha) * f64::from(beta)).abs(),
        // 1 to the right of zero.
        Activation::LeakyRelu { slope: left } | Activation::Elu { alpha: left } => {
            f64::from(left).abs().max(1.0)
        }
        _ => 1.0,
    }
}

/// The factor by which the roundings of `steps` steps grow through gates with these functions. An error is multiplied by
/// f' at each step, which is at most 1 for sigmoid and tanh: Σ_t s²ᵗ / T for the largest slope s, or 1 if s is at most
/// 1.
pub(crate) fn steepness(functions: [Activation; 3], steps: usize) -> f64 {
    let gain = functions.into_iter().map(largest_derivative).fold(1.0, f64::max).powi(2);
    (0..steps).map(|t| gain.powi(t as i32)).sum::<f64>() / steps as f64
}

impl Recurrence {
    /// The roundings of one step.
    fn step(&self) -> f64 {
        let gate = sum(self.terms) + 1.0 + EVALUATION;
        match &self.cell {
            Cell::Vanilla(_) => gate,
            Cell::Gru => self.cell.gates() as f64 * gate + POINTWISE,
            // tanh(c) in addition to the gates' functions; a user-defined cell may apply a function to its state too.
            Cell::Lstm | Cell::Custom(_) => self.cell.gates() as f64 * gate + POINTWISE + EVALUATION,
        }
    }

    /// Σ_t gᵗ over the steps.
    fn growth(&self) -> f64 {
        let gain = match &self.cell {
            Cell::Vanilla(activation) => largest_derivative(*activation).powi(2) / 3.0,
            Cell::Gru | Cell::Lstm | Cell::Custom(_) => 1.0,
        };
        (0..self.steps).map(|t| gain.powi(t as i32)).sum()
    }

    /// The roundings that affect an output: each layer adds its own to those of the layer below, which its input weights
    /// attenuate in the same way. The other direction of a layer only adds to `terms` of the next.
    pub(crate) fn forward(&self) -> f64 {
        self.layers as f64 * self.growth() * self.step()
    }

    /// The roundings that affect a gradient: those of the backward recurrence, those of the states at which f' is
    /// evaluated, and the sum over T·B terms in a weight's gradient.
    pub(crate) fn backward(&self) -> f64 {
        let through_time = self.layers as f64 * self.growth() * (self.step() + self.forward());
        through_time + sum(self.steps * self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recurrence(cell: &Cell, steps: usize, batch: usize, layers: usize, terms: usize) -> Recurrence {
        Recurrence { cell: cell.clone(), steps, batch, layers, terms }
    }

    #[test]
    fn a_tolerance_is_far_below_one_and_grows_with_the_work() {
        let small = recurrence(&Cell::tanh(), 1, 1, 1, 2);
        let large = recurrence(&Cell::tanh(), 65, 17, 3, 130);
        assert!(independent(small.forward()) > EVALUATION.sqrt() * UNIT);
        assert!(independent(large.forward()) > independent(small.forward()));
        assert!(independent(large.backward()) > independent(large.forward()));
        assert!(independent(large.backward()) < 5e-5);
        assert!(independent(sum(70_000)) < 1e-4);
    }

    #[test]
    fn gates_count_each_and_forget_nothing() {
        for cell in [&Cell::Gru, &Cell::Lstm] {
            let one = recurrence(cell, 1, 3, 1, 20);
            let gates = cell.gates() as f64;
            assert!(one.forward() > gates * recurrence(&Cell::tanh(), 1, 3, 1, 20).forward());
            assert_eq!(recurrence(cell, 17, 3, 1, 20).forward(), 17.0 * one.forward());
            assert!(independent(recurrence(cell, 17, 16, 2, 128).backward()) < 5e-4);
        }
    }
}
