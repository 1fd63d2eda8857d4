//! The gradients of a model: one flat buffer with the same sections as its parameters.

use std::sync::Arc;

use super::Parameters;
use super::parameters::Flat;
use crate::ops::{Norm, norm, optimizer};
use crate::tensor::{Tensor, View, ViewMut};
use crate::{Error, Result};

/// The gradients of all parameters of a [`Model`](super::Model), to which traces add.
pub struct Gradients(Flat);

impl Parameters {
    /// Creates gradients of zero for these parameters.
    ///
    /// # Errors
    /// Out of memory.
    pub fn zero_gradients(&self) -> Result<Gradients> {
        Flat::zeros(self.device(), Arc::clone(self.layout()), "the model's gradients").map(Gradients)
    }
}

impl Gradients {
    /// Returns the gradient of one parameter by its full name.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name; the message lists the known ones.
    pub fn view(&self, name: &str) -> Result<View<'_>> {
        Ok(self.0.section(self.0.layout.find(name)?))
    }

    /// Returns ‖g‖ over all gradients as a tensor of one element, without waiting for the device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn norm(&self, kind: Norm) -> Result<Tensor> {
        norm(self.flat(), kind)
    }

    /// Multiplies all gradients by min(1, max_norm / (‖g‖₂ + 10⁻⁶)) (Pascanu et al. 2013) and returns the
    /// previous ‖g‖₂, as PyTorch's `clip_grad_norm_`. The norm stays on the device: the call does not wait.
    ///
    /// # Errors
    /// [`Error::Config`] for a `max_norm` that is not positive.
    pub fn clip_norm(&mut self, max_norm: f32) -> Result<Tensor> {
        self.clip(max_norm, Norm::L2)
    }

    /// As [`Gradients::clip_norm`], with another norm.
    ///
    /// # Errors
    /// As [`Gradients::clip_norm`].
    pub fn clip(&mut self, max_norm: f32, kind: Norm) -> Result<Tensor> {
        if !(max_norm > 0.0 && max_norm.is_finite()) {
            return Err(Error::config("max_norm", format!("must be positive and finite, not {max_norm}")));
        }
        let total = self.norm(kind)?;
        optimizer::clip(self.0.whole_mut(), total.view(), max_norm)?;
        Ok(total)
    }

    pub(crate) fn flat(&self) -> View<'_> {
        self.0.whole()
    }

    pub(crate) fn section_mut(&mut self, index: usize) -> ViewMut<'_> {
        self.0.section_mut(index)
    }

    /// Checks that these are gradients of `parameters`, not of another initialization.
    pub(crate) fn expect_of(&self, parameters: &Parameters) -> Result<()> {
        parameters.device().expect_same("gradients", &self.0.device)?;
        self.0.layout.expect_id("gradients", parameters.layout().id())
    }
}
