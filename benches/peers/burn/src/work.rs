//! The work of `../../README.md` in burn: what one run does, and the checksum of its first values.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::shape::{Shape, Work};
use crate::stack::{Classifier, Stack};
use crate::values;

const CLIP_NORM: f32 = 1.0;
const LEARNING_RATE: f64 = 1e-3;

/// What a failed run tells.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// One shape's work, ready to run: weights and data are on the device.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Prepared {
    /// See [`Work::Infer`].
    Infer {
        /// The stack, without autodiff.
        stack: Stack,
        /// `[B, T, I]`.
        x: Tensor<3>,
    },
    /// See [`Work::Backward`].
    Backward {
        /// The stack, with autodiff.
        stack: Stack,
        /// `[B, T, I]`, with a gradient.
        x: Tensor<3>,
    },
    /// See [`Work::Train`].
    Train(Box<Training>),
}

/// What a training step reads and changes.
pub(crate) struct Training {
    /// Taken by the optimizer in each step and given back.
    model: Option<Classifier>,
    adam: ModuleOptimizer,
    loss: CrossEntropyLoss,
    x: Tensor<3>,
    targets: Tensor<1, Int>,
}

impl Prepared {
    /// Builds the work of a shape on a device.
    pub(crate) fn new(shape: &Shape, work: Work, device: &Device) -> Self {
        match work {
            Work::Infer => Self::Infer { stack: Stack::new(shape, device), x: inputs(shape, device) },
            Work::Backward => {
                let device = device.clone().autodiff();
                Self::Backward { stack: Stack::new(shape, &device), x: inputs(shape, &device).require_grad() }
            }
            Work::Train => Self::Train(Box::new(Training::new(shape, &device.clone().autodiff()))),
        }
    }

    /// Does the work once and waits for it.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub(crate) fn run(&mut self, device: &Device) -> Result<(), Failure> {
        match self {
            Self::Infer { stack, x } => {
                let outputs = stack.forward(x.clone());
                device.sync()?;
                drop(outputs);
            }
            Self::Backward { stack, x } => {
                let gradients = stack.forward(x.clone()).mean().backward();
                device.sync()?;
                drop(gradients);
            }
            Self::Train(training) => {
                training.step()?;
                device.sync()?;
            }
        }
        Ok(())
    }

    /// Mean magnitude of the outputs; that of the gradient at x; loss of the second training step.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub(crate) fn checksum(&mut self) -> Result<f64, Failure> {
        match self {
            Self::Infer { stack, x } => {
                Ok(f64::from(stack.forward(x.clone()).abs().mean().try_into_scalar::<f32>()?))
            }
            Self::Backward { stack, x } => {
                let gradients = stack.forward(x.clone()).mean().backward();
                let of_x = x.grad(&gradients).ok_or("burn gave x no gradient")?;
                Ok(f64::from(of_x.abs().mean().try_into_scalar::<f32>()?))
            }
            Self::Train(training) => {
                training.step()?;
                Ok(f64::from(training.step()?))
            }
        }
    }
}

impl Training {
    fn new(shape: &Shape, device: &Device) -> Self {
        // The head reads rows in burn's order, [B, T].
        let by_time = values::targets(shape);
        let by_row: Vec<i32> =
            (0..shape.batch).flat_map(|row| by_time.iter().copied().skip(row).step_by(shape.batch)).collect();
        Self {
            model: Some(Classifier::new(shape, device)),
            // The other frameworks' epsilon.
            adam: AdamConfig::new().with_epsilon(1e-8).init(),
            loss: CrossEntropyLossConfig::new().init(device),
            x: inputs(shape, device),
            targets: Tensor::from_data(TensorData::new(by_row, [shape.tokens()]), device),
        }
    }

    /// One training step. Returns the loss before it.
    fn step(&mut self) -> Result<f32, Failure> {
        let model = self.model.take().ok_or("an earlier step failed")?;
        let loss = self.loss.forward(model.forward(self.x.clone()), self.targets.clone());
        let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
        clip(&mut gradients, &model)?;
        self.model = Some(self.adam.step(LEARNING_RATE, model, gradients));
        Ok(loss.try_into_scalar::<f32>()?)
    }
}

/// x in burn's layout, `[B, T, I]`.
fn inputs(shape: &Shape, device: &Device) -> Tensor<3> {
    let by_time = TensorData::new(values::inputs(shape), [shape.sequence, shape.batch, shape.inputs]);
    let x: Tensor<3> = Tensor::from_data(by_time, &device.clone().without_autodiff());
    // Through the host, so that the batch's rows lie one after another from the start.
    Tensor::from_data(x.swap_dims(0, 1).into_data(), device)
}

/// Scales all gradients so that their common norm is at most [`CLIP_NORM`]; burn's own clipping is by parameter.
fn clip<M: Module>(gradients: &mut GradientsParams, model: &M) -> Result<(), Failure> {
    let norm = squared_norm(gradients, model)?.sqrt();
    let factor = (norm + 1e-6).recip().mul_scalar(CLIP_NORM).clamp_max(1.0);
    model.visit(&mut Scale { gradients, factor });
    Ok(())
}

/// Sum of the squares of all gradients `[1]`.
fn squared_norm<M: Module>(gradients: &GradientsParams, model: &M) -> Result<Tensor<1>, Failure> {
    let mut squares = Squares { gradients, sum: None };
    model.visit(&mut squares);
    squares.sum.ok_or_else(|| "burn gave no gradients".into())
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(parameter.id) {
            let square = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(parameter.id) {
            let scaled = gradient * self.factor.clone().unsqueeze::<D>();
            self.gradients.register(parameter.id, scaled);
        }
    }
}
