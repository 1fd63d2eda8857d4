//! CPU reference of `shaders/optimizer/{sgd,adam,clip}.wgsl`.

use ndarray::{ArrayView1, ArrayViewMut1, Zip};

use super::{AdamStep, SgdStep};
use crate::tensor::Real;

pub(super) fn sgd<F: Real>(
    mut parameters: ArrayViewMut1<'_, F>,
    gradient: ArrayView1<'_, F>,
    velocity: Option<ArrayViewMut1<'_, F>>,
    step: SgdStep,
) {
    let [rate, momentum, decay] = [step.rate, step.momentum, step.decay].map(F::from_f64);
    let undamped = F::from_f64(1.0 - step.dampening);
    let slope = |parameter: F, gradient: F| gradient + decay * parameter;
    match velocity {
        None => Zip::from(&mut parameters).and(&gradient).for_each(|parameter, &gradient| {
            *parameter -= rate * slope(*parameter, gradient);
        }),
        Some(mut velocity) => {
            Zip::from(&mut parameters).and(&gradient).and(&mut velocity).for_each(
                |parameter, &gradient, velocity| {
                    let slope = slope(*parameter, gradient);
                    *velocity = if step.first { slope } else { momentum * *velocity + undamped * slope };
                    let direction = if step.nesterov { slope + momentum * *velocity } else { *velocity };
                    *parameter -= rate * direction;
                },
            );
        }
    }
}

pub(super) struct MomentArrays<'a, F> {
    pub(super) first: ArrayViewMut1<'a, F>,
    pub(super) second: ArrayViewMut1<'a, F>,
    pub(super) largest: Option<ArrayViewMut1<'a, F>>,
}

/// Kingma & Ba 2015, algorithm 1, with explicit bias correction of the moments.
pub(super) fn adam<F: Real>(
    mut parameters: ArrayViewMut1<'_, F>,
    gradient: ArrayView1<'_, F>,
    mut moments: MomentArrays<'_, F>,
    step: AdamStep,
) {
    let [rate, beta1, beta2, epsilon] = [step.rate, step.beta1, step.beta2, step.epsilon].map(F::from_f64);
    let [rest1, rest2] = [1.0 - step.beta1, 1.0 - step.beta2].map(F::from_f64);
    let power = step.count.min(i32::MAX as u64) as i32;
    let [correction1, correction2] =
        [1.0 - step.beta1.powi(power), 1.0 - step.beta2.powi(power)].map(F::from_f64);
    let shrink = F::from_f64(1.0 - step.rate * step.decoupled_decay);
    let decay = F::from_f64(step.decay);
    for i in 0..parameters.len() {
        let slope = gradient[i] + decay * parameters[i];
        moments.first[i] = beta1 * moments.first[i] + rest1 * slope;
        moments.second[i] = beta2 * moments.second[i] + rest2 * slope * slope;
        let spread = match &mut moments.largest {
            Some(largest) => {
                // Propagates NaN from either moment.
                if moments.second[i] > largest[i] || moments.second[i].is_nan() {
                    largest[i] = moments.second[i];
                }
                largest[i]
            }
            None => moments.second[i],
        };
        let first = moments.first[i] / correction1;
        let change =
            if first == F::zero() { first } else { first / ((spread / correction2).sqrt() + epsilon) };
        parameters[i] = shrink * parameters[i] - rate * change;
    }
}

pub(super) fn clip<F: Real>(mut gradient: ArrayViewMut1<'_, F>, norm: F, max_norm: F) {
    let factor = max_norm / (norm + F::from_f64(1e-6));
    // A NaN norm makes all gradients NaN, so that it does not go unnoticed.
    if factor > F::one() {
        return;
    }
    gradient.mapv_inplace(|gradient| gradient * factor);
}
