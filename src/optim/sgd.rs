//! Stochastic gradient descent.

use std::sync::Arc;

use super::{expect_fraction, expect_not_negative, expect_own};
use crate::device::Device;
use crate::nn::{Gradients, Layout, Parameters};
use crate::ops::optimizer::{self, SgdStep};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Options of [`Sgd`], with PyTorch's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdConfig {
    /// Step size η.
    pub learning_rate: f64,
    /// Momentum μ.
    pub momentum: f64,
    /// Dampening τ of the gradient in the velocity.
    pub dampening: f64,
    /// Factor λ of an L2 penalty.
    pub weight_decay: f64,
    /// Whether to use Nesterov momentum (Nesterov 1983).
    pub nesterov: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

impl SgdConfig {
    /// Plain gradient descent with step size `learning_rate`.
    pub fn new(learning_rate: f64) -> Self {
        Self { learning_rate, ..Self::default() }
    }

    /// Fails for options that are out of range, or that the floats of `device` cannot represent.
    fn validate(&self, device: &Device) -> Result<()> {
        expect_not_negative(device, "learning_rate", self.learning_rate)?;
        expect_fraction(device, "momentum", self.momentum)?;
        expect_fraction(device, "dampening", self.dampening)?;
        expect_not_negative(device, "weight_decay", self.weight_decay)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            return Err(Error::config("nesterov", "needs a momentum and no dampening"));
        }
        Ok(())
    }
}

/// Gradient descent with momentum (Sutskever et al. 2013), as PyTorch's `SGD`:
///
/// g ← g + λ p;  v ← μ v + (1 − τ) g (at the first step v ← g);  p ← p − η v, or p − η (g + μ v) with Nesterov.
pub struct Sgd {
    config: SgdConfig,
    device: Device,
    layout: Arc<Layout>,
    velocity: Option<Tensor>,
    steps: u64,
}

impl Sgd {
    /// Creates an optimizer for `parameters`.
    ///
    /// # Errors
    /// [`Error::Config`] for options out of range; out of memory for the velocity.
    pub fn new(parameters: &Parameters, config: SgdConfig) -> Result<Self> {
        config.validate(parameters.device())?;
        let size = parameters.layout().total();
        let velocity = match config.momentum > 0.0 {
            true => Some(Tensor::zeros(parameters.device(), &[size])?),
            false => None,
        };
        Ok(Self {
            config,
            device: parameters.device().clone(),
            layout: Arc::clone(parameters.layout()),
            velocity,
            steps: 0,
        })
    }

    /// Performs one step, and submits the work recorded so far.
    ///
    /// # Errors
    /// [`Error::ModelMismatch`], [`Error::DeviceMismatch`], and errors reported by the device.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients) -> Result<()> {
        expect_own(&self.layout, parameters, gradients)?;
        let step = SgdStep {
            rate: self.config.learning_rate,
            momentum: self.config.momentum,
            dampening: self.config.dampening,
            decay: self.config.weight_decay,
            nesterov: self.config.nesterov,
            first: self.steps == 0,
        };
        let velocity = self.velocity.as_mut().map(Tensor::view_mut).transpose()?;
        optimizer::sgd(parameters.flat_mut(), gradients.flat(), velocity, step)?;
        self.steps += 1;
        parameters.device().flush()
    }

    /// Sets the step size, for schedules.
    ///
    /// # Errors
    /// [`Error::Config`] unless it is finite and non-negative in the device's floats.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        let config = SgdConfig { learning_rate, ..self.config };
        config.validate(&self.device)?;
        self.config = config;
        Ok(())
    }
}
