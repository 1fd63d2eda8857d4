//! Updates of flat buffers: gradient descent, Adam, gradient clipping. One dispatch each, padding included.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::Result;
use crate::device::on_device;
use crate::ops::elementwise::expect_as_many;
use crate::tensor::{Real, View, ViewMut};

/// The numbers of one step of gradient descent; see [`Sgd`](crate::optim::Sgd).
#[derive(Clone, Copy)]
pub(crate) struct SgdStep {
    pub(crate) rate: f64,
    pub(crate) momentum: f64,
    pub(crate) dampening: f64,
    pub(crate) decay: f64,
    pub(crate) nesterov: bool,
    /// Whether this is the first step, so that the velocity is still empty.
    pub(crate) first: bool,
}

/// Updates `parameters` (and, with momentum, `velocity`) with `gradient`.
pub(crate) fn sgd(
    mut parameters: ViewMut<'_>,
    gradient: View<'_>,
    mut velocity: Option<ViewMut<'_>>,
    step: SgdStep,
) -> Result<()> {
    expect_as_many(&parameters, "the gradient", gradient)?;
    if let Some(velocity) = &velocity {
        expect_as_many(velocity, "the gradient of the velocity", gradient)?;
    }
    on_device!(gradient.device(),
        F => {
            let velocity = velocity.as_mut().map(|velocity| velocity.array1());
            cpu::sgd::<F>(parameters.array1(), gradient.array1(), velocity, step);
            Ok(())
        },
        context => {
            let velocity = velocity.as_ref().map(|velocity| velocity.span());
            gpu::sgd(context, parameters.span(), gradient.span(), velocity, step)
        },
    )
}

/// The numbers of one step of Adam; see [`Adam`](crate::optim::Adam).
#[derive(Clone, Copy)]
pub(crate) struct AdamStep {
    pub(crate) rate: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
    /// λ of the L2 penalty: decay · p is added to the gradient.
    pub(crate) decay: f64,
    /// λ of the decoupled decay: rate · λ · p is subtracted from the parameter.
    pub(crate) decoupled_decay: f64,
    /// The number t of this step, from 1.
    pub(crate) count: u64,
}

/// The moments that Adam stores.
pub(crate) struct Moments<'a> {
    pub(crate) first: ViewMut<'a>,
    pub(crate) second: ViewMut<'a>,
    /// The largest second moment so far (AMSGrad).
    pub(crate) largest: Option<ViewMut<'a>>,
}

/// Updates `parameters` and `moments` with `gradient`.
pub(crate) fn adam(
    mut parameters: ViewMut<'_>,
    gradient: View<'_>,
    mut moments: Moments<'_>,
    step: AdamStep,
) -> Result<()> {
    expect_as_many(&parameters, "the gradient", gradient)?;
    for moment in
        [Some(&moments.first), Some(&moments.second), moments.largest.as_ref()].into_iter().flatten()
    {
        expect_as_many(moment, "the gradient of a moment", gradient)?;
    }
    on_device!(gradient.device(),
        F => {
            let moments = cpu::MomentArrays {
                first: moments.first.array1(),
                second: moments.second.array1(),
                largest: moments.largest.as_mut().map(|largest| largest.array1()),
            };
            cpu::adam::<F>(parameters.array1(), gradient.array1(), moments, step);
            Ok(())
        },
        context => gpu::adam(context, parameters.span(), gradient.span(), &moments, step),
    )
}

/// gradient *= min(1, max_norm / (norm + 10⁻⁶)); does not wait for `norm`.
pub(crate) fn clip(mut gradient: ViewMut<'_>, norm: View<'_>, max_norm: f32) -> Result<()> {
    on_device!(norm.device(),
        F => {
            cpu::clip::<F>(gradient.array1(), norm.array1()[0], F::from_f32(max_norm));
            Ok(())
        },
        context => gpu::clip(context, gradient.span(), norm.span(), max_norm),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Tensor};

    #[test]
    fn updates_of_other_sizes_are_refused() -> Result<()> {
        let device = Device::cpu();
        let zeros = |size: usize| Tensor::zeros(&device, &[size]);
        let step =
            SgdStep { rate: 0.1, momentum: 0.5, dampening: 0.0, decay: 0.0, nesterov: false, first: true };
        let (mut parameters, mut velocity) = (zeros(6)?, zeros(4)?);
        assert!(sgd(parameters.view_mut()?, zeros(4)?.view(), None, step).is_err());
        assert!(sgd(parameters.view_mut()?, zeros(6)?.view(), Some(velocity.view_mut()?), step).is_err());
        sgd(parameters.view_mut()?, zeros(6)?.view(), None, step)?;
        let step = AdamStep {
            rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            decay: 0.0,
            decoupled_decay: 0.0,
            count: 1,
        };
        let adam_of = |parameters: usize, gradient: usize, second: usize| -> Result<()> {
            let (mut first, mut second) = (zeros(6)?, zeros(second)?);
            let moments = Moments { first: first.view_mut()?, second: second.view_mut()?, largest: None };
            adam(zeros(parameters)?.view_mut()?, zeros(gradient)?.view(), moments, step)
        };
        assert!(adam_of(6, 4, 6).is_err());
        assert!(adam_of(4, 6, 6).is_err());
        assert!(adam_of(6, 6, 4).is_err());
        adam_of(6, 6, 6)
    }
}
