//! Adam, AdamW and AMSGrad.

use std::sync::Arc;

use super::{expect_fraction, expect_not_negative, expect_own, expect_within};
use crate::device::Device;
use crate::nn::{Gradients, Layout, Parameters};
use crate::ops::optimizer::{self, AdamStep, Moments};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The kind of weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightDecay {
    /// Adds λ p to the gradient: an L2 penalty, as PyTorch's `Adam`.
    Penalty(f64),
    /// Subtracts η λ p from the parameter, apart from the step: PyTorch's `AdamW` (Loshchilov & Hutter 2019).
    Decoupled(f64),
}

/// Options of [`Adam`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Step size η.
    pub learning_rate: f64,
    /// Decay rates β₁, β₂ of the moments.
    pub betas: (f64, f64),
    /// ε, added to the denominator.
    pub epsilon: f64,
    /// The weight decay.
    pub weight_decay: WeightDecay,
    /// Whether to use the largest second moment so far (AMSGrad, Reddi et al. 2018).
    pub amsgrad: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: WeightDecay::Penalty(0.0),
            amsgrad: false,
        }
    }
}

impl AdamConfig {
    /// The defaults with step size `learning_rate`.
    pub fn new(learning_rate: f64) -> Self {
        Self { learning_rate, ..Self::default() }
    }

    /// Fails for options that are out of range, or that the floats of `device` cannot represent.
    fn validate(&self, device: &Device) -> Result<()> {
        expect_not_negative(device, "learning_rate", self.learning_rate)?;
        expect_fraction(device, "betas.0", self.betas.0)?;
        expect_fraction(device, "betas.1", self.betas.1)?;
        // The factor of the first step, after bias correction.
        expect_within(device, "learning_rate / (1 - betas.0)", self.learning_rate / (1.0 - self.betas.0))?;
        expect_not_negative(device, "epsilon", self.epsilon)?;
        if self.epsilon > 0.0 && device.rounded(self.epsilon) == 0.0 {
            let message =
                format!("{:e} rounds to zero in the floats of {device}; use a larger value", self.epsilon);
            return Err(Error::config("epsilon", message));
        }
        let (WeightDecay::Penalty(decay) | WeightDecay::Decoupled(decay)) = self.weight_decay;
        expect_not_negative(device, "weight_decay", decay)?;
        match self.weight_decay {
            WeightDecay::Penalty(_) => Ok(()),
            WeightDecay::Decoupled(_) => {
                expect_within(device, "learning_rate * weight_decay", self.learning_rate * decay)
            }
        }
    }
}

/// Adam (Kingma & Ba 2015, algorithm 1):
///
/// m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  p ← p − η m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ) and
/// v̂ = v / (1 − β₂ᵗ).
pub struct Adam {
    config: AdamConfig,
    layout: Arc<Layout>,
    first: Tensor,
    second: Tensor,
    largest: Option<Tensor>,
    steps: u64,
}

impl Adam {
    /// Creates an optimizer for `parameters`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for options out of range; out of memory for the moments.
    pub fn new(parameters: &Parameters, config: AdamConfig) -> Result<Self> {
        config.validate(parameters.device())?;
        let zeros = || Tensor::zeros(parameters.device(), &[parameters.layout().total()]);
        Ok(Self {
            config,
            layout: Arc::clone(parameters.layout()),
            first: zeros()?,
            second: zeros()?,
            largest: if config.amsgrad { Some(zeros()?) } else { None },
            steps: 0,
        })
    }

    /// Performs one step, and submits the work recorded so far.
    ///
    /// # Errors
    /// [`Error::ModelMismatch`](crate::Error::ModelMismatch), [`Error::DeviceMismatch`](crate::Error::DeviceMismatch),
    /// and errors reported by the device.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients) -> Result<()> {
        expect_own(&self.layout, parameters, gradients)?;
        self.steps += 1;
        let (decay, decoupled_decay) = match self.config.weight_decay {
            WeightDecay::Penalty(decay) => (decay, 0.0),
            WeightDecay::Decoupled(decay) => (0.0, decay),
        };
        let step = AdamStep {
            rate: self.config.learning_rate,
            beta1: self.config.betas.0,
            beta2: self.config.betas.1,
            epsilon: self.config.epsilon,
            decay,
            decoupled_decay,
            count: self.steps,
        };
        let moments = Moments {
            first: self.first.view_mut()?,
            second: self.second.view_mut()?,
            largest: self.largest.as_mut().map(Tensor::view_mut).transpose()?,
        };
        optimizer::adam(parameters.flat_mut(), gradients.flat(), moments, step)?;
        parameters.device().flush()
    }

    /// Sets the step size, for schedules.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless it is finite and non-negative in the device's floats.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        let config = AdamConfig { learning_rate, ..self.config };
        config.validate(self.first.device())?;
        self.config = config;
        Ok(())
    }
}
