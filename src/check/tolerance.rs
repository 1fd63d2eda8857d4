//! How far two correct evaluations may be apart, in units of the largest magnitude of the expected tensor.
//!
//! One rounding to f32 errs by at most u = 2⁻²⁴ relative to what is rounded. A result that n roundings reach errs
//! by at most n u, but they point in all directions: Higham & Mary 2019 ("A new approach to probabilistic rounding
//! error analysis", theorem 2.4) bound the sum of n errors of mean zero by λ √n u with probability 1 − 2 exp(−λ²/2).
//! So each case counts the roundings that reach a result ([`sum`], [`Recurrence`]), and [`independent`] turns
//! the count into a tolerance.
//!
//! What is rounded on the way are partial sums, products and activations. Inputs are drawn so that these are no
//! larger than the largest result: a walk of mean zero where there are many results, values that do not cancel
//! where there are few. Where an equation cancels by itself (softmax backward), the case names the magnitude that
//! its roundings are relative to.

/// The unit roundoff of f32.
pub(crate) const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

/// λ: 2 exp(−λ²/2) is 3·10⁻⁸, so that among the table's 10⁶ results none is expected to be further off by chance.
const CONFIDENCE: f64 = 6.0;

/// What an elementary function counts for. The shaders' tanh, exp and log, like those of C libraries, are exact
/// to a few units in the last place; a WGSL division alone may err by 2.5 of them (WGSL, section 15.7.4). Eight units
/// are 16 u, and λ √8 u is 17 u.
pub(crate) const EVALUATION: f64 = 8.0;

/// The tolerance of a result that `roundings` independent roundings reach.
pub(crate) fn independent(roundings: f64) -> f64 {
    CONFIDENCE * roundings.max(1.0).sqrt() * UNIT
}

/// Roundings in a sum of `terms` products: one for each addition, one for the product, one for a bias.
pub(crate) fn sum(terms: usize) -> f64 {
    terms as f64 + 2.0
}

/// The roundings that reach the results of a recurrent stack, forward and backward.
///
/// A step rounds `terms` = I + H products and evaluates f. An error in h is multiplied by W_hh and f' at each later
/// step. The entries of W_hh are drawn from U(±1/√H), variance 1/(3H), so the variance of an error shrinks by
/// g = f'²/3 a step, and the errors of all T steps together count as Σ_t gᵗ of those of one.
#[derive(Clone, Copy)]
pub(crate) struct Recurrence {
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) layers: usize,
    pub(crate) terms: usize,
    /// The largest |f'|.
    pub(crate) slope: f64,
}

impl Recurrence {
    /// Roundings of one step.
    fn step(self) -> f64 {
        sum(self.terms) + 1.0 + EVALUATION
    }

    /// Σ_t gᵗ over the steps.
    fn growth(self) -> f64 {
        let gain = self.slope * self.slope / 3.0;
        (0..self.steps).map(|t| gain.powi(t as i32)).sum()
    }

    /// Those that reach an output: each layer adds its own to those of the layer below, which its input weights
    /// shrink likewise.
    pub(crate) fn forward(self) -> f64 {
        self.layers as f64 * self.growth() * self.step()
    }

    /// Those that reach a gradient: the backward recurrence's own, those of the states at which it evaluates f', and
    /// the sum over T·B places in a weight's gradient.
    pub(crate) fn backward(self) -> f64 {
        let through_time = self.layers as f64 * self.growth() * (self.step() + self.forward());
        through_time + sum(self.steps * self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_far_below_one_and_grows_with_the_work() {
        let small = Recurrence { steps: 1, batch: 1, layers: 1, terms: 2, slope: 1.0 };
        let large = Recurrence { steps: 65, batch: 17, layers: 3, terms: 130, slope: 1.0 };
        assert!(independent(small.forward()) > EVALUATION.sqrt() * UNIT);
        assert!(independent(large.forward()) > independent(small.forward()));
        assert!(independent(large.backward()) > independent(large.forward()));
        assert!(independent(large.backward()) < 5e-5);
        assert!(independent(sum(70_000)) < 1e-4);
    }
}
