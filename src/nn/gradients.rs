//! The gradients of a model: one flat buffer with the same sections as its parameters.

use std::sync::Arc;

use super::Parameters;
use super::parameters::{Layout, flat_shape};
use crate::device::Device;
use crate::ops::{Norm, norm, optimizer};
use crate::tensor::{Storage, Tensor, View, ViewMut};
use crate::{Error, Result};

/// The gradients of all parameters of a [`Model`](super::Model), to which traces add.
pub struct Gradients {
    device: Device,
    storage: Storage,
    layout: Arc<Layout>,
}

impl Parameters {
    /// Creates gradients of zero for these parameters.
    ///
    /// # Errors
    /// Out of memory.
    pub fn zero_gradients(&self) -> Result<Gradients> {
        let (device, layout) = (self.device().clone(), Arc::clone(self.layout()));
        let storage = Storage::zeros(&device, layout.total(), "the model's gradients")?;
        Ok(Gradients { device, storage, layout })
    }
}

impl Gradients {
    /// Returns the gradient of one parameter by its full name.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name; the message lists the known ones.
    pub fn view(&self, name: &str) -> Result<View<'_>> {
        let index = self.layout.find(name)?;
        Ok(self.layout.view(&self.device, &self.storage, index))
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
        let shape = flat_shape(&self.layout);
        let flat = ViewMut::new(&self.device, &mut self.storage, 0, shape);
        optimizer::clip(flat, total.view(), max_norm)?;
        Ok(total)
    }

    pub(crate) fn flat(&self) -> View<'_> {
        View::new(&self.device, &self.storage, 0, flat_shape(&self.layout))
    }

    pub(crate) fn section_mut(&mut self, index: usize) -> ViewMut<'_> {
        self.layout.view_mut(&self.device, &mut self.storage, index)
    }

    /// Checks that these are gradients of `parameters`, not of another initialization.
    pub(crate) fn expect_of(&self, parameters: &Parameters) -> Result<()> {
        parameters.device().expect_same("gradients", &self.device)?;
        self.layout.expect_id("gradients", parameters.layout().id())
    }
}
