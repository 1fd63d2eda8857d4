//! The gradients of a model: one flat buffer, section by section like its parameters.

use std::sync::Arc;

use super::Parameters;
use super::parameters::{Layout, flat_shape};
use crate::device::Device;
use crate::ops::{Norm, norm, optimizer};
use crate::tensor::{Storage, Tensor, View, ViewMut};
use crate::{Error, Result};

/// Gradients of all parameters of a [`Model`](super::Model); traces add to them.
pub struct Gradients {
    device: Device,
    storage: Storage,
    layout: Arc<Layout>,
}

impl Gradients {
    pub(super) fn zeros(device: &Device, layout: Arc<Layout>) -> Result<Self> {
        let storage = Storage::zeros(device, layout.total(), "the model's gradients")?;
        Ok(Self { device: device.clone(), storage, layout })
    }

    /// The gradient of one parameter, by its full name.
    ///
    /// # Errors
    /// [`Error::Config`], listing the names there are.
    pub fn view(&self, name: &str) -> Result<View<'_>> {
        let index = self.layout.find(name)?;
        Ok(self.layout.view(&self.device, &self.storage, index))
    }

    /// ‖g‖ over all gradients together, as a tensor of one; nobody waits.
    ///
    /// # Errors
    /// Out of memory.
    pub fn norm(&self, kind: Norm) -> Result<Tensor> {
        norm(self.flat(), kind)
    }

    /// Scales all gradients by min(1, max_norm / (‖g‖₂ + 10⁻⁶)) (Pascanu et al. 2013) and returns ‖g‖₂ before
    /// that, as PyTorch's `clip_grad_norm_`. Nobody waits: the norm stays on the device.
    ///
    /// # Errors
    /// [`Error::Config`] for a `max_norm` that is not positive.
    pub fn clip_norm(&mut self, max_norm: f32) -> Result<Tensor> {
        self.clip(max_norm, Norm::L2)
    }

    /// As [`Gradients::clip_norm`], by another norm.
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

    /// Fails unless these are gradients of `parameters`, and of no other initialization.
    pub(crate) fn expect_of(&self, parameters: &Parameters) -> Result<()> {
        parameters.device().expect_same("gradients", &self.device)?;
        self.layout.expect_id("gradients", parameters.layout().id())
    }
}
