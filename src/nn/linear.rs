//! The linear layer: y = x Wᵀ + b.

use serde::{Deserialize, Serialize};

use super::layer::expect_size;
use super::{Gradients, Init, Layer, ParameterSpec, Parameters};
use crate::ops::elementwise::add_into;
use crate::ops::matmul::matmul_into;
use crate::ops::{Form, matmul, sum_rows};
use crate::shape::Shape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Linear layer: y = x Wᵀ + b. Parameters, as in PyTorch: `weight` \[outputs, inputs\], `bias` \[outputs\],
/// both initialized from U(±1/√inputs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    bias: bool,
}

impl Linear {
    /// Creates a layer with `inputs` input and `outputs` output features.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, bias: true }
    }

    /// Omits the bias b.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// Features of the input.
    pub(super) fn reads(&self) -> usize {
        self.inputs
    }

    /// Features of the output.
    pub(super) fn gives(&self) -> usize {
        self.outputs
    }

    /// Entries of W.
    pub(super) fn entries(&self) -> usize {
        self.inputs * self.outputs
    }

    pub(super) fn describe(&self) -> String {
        format!("linear{}", if self.bias { "" } else { ", no bias" })
    }

    pub(super) fn validate(&self, name: &str) -> Result<()> {
        expect_size(name, "inputs", self.inputs)?;
        expect_size(name, "outputs", self.outputs)
    }

    pub(super) fn parameters(&self, name: &str) -> Result<Vec<ParameterSpec>> {
        let init = Init::inverse_root(self.inputs);
        let spec = |parameter: &str, dimensions: &[usize]| {
            let name = format!("{name}.{parameter}");
            Ok(ParameterSpec { shape: Shape::named(&name, dimensions)?, name, init })
        };
        let weight = spec("weight", &[self.outputs, self.inputs])?;
        match self.bias {
            true => Ok(vec![weight, spec("bias", &[self.outputs])?]),
            false => Ok(vec![weight]),
        }
    }
}

/// The trace of [`Layer<Linear>::forward`].
pub struct LinearTrace<'p> {
    layer: Layer<Linear>,
    parameters: &'p Parameters,
    x: Tensor,
}

impl Layer<Linear> {
    /// y = x Wᵀ + b. x \[..., inputs\] → y \[..., outputs\].
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn infer(&self, parameters: &Parameters, x: &Tensor) -> Result<Tensor> {
        self.named(self.output(parameters, x))
    }

    fn output(&self, parameters: &Parameters, x: &Tensor) -> Result<Tensor> {
        parameters.layout().expect_model("parameters", self.model)?;
        parameters.device().expect_same("x", x.device())?;
        if x.shape().last() != self.description.inputs {
            let expected = format!("a last size of {} (the layer's inputs)", self.description.inputs);
            return Err(Error::shape("x", expected, x.shape()));
        }
        let bias = self.description.bias.then(|| parameters.section(self.first + 1));
        matmul(x.view(), parameters.section(self.first), Form::RightTransposed, bias)
    }

    /// As [`Layer::<Linear>::infer`]; also returns the trace for the backward pass.
    ///
    /// # Errors
    /// As [`Layer::<Linear>::infer`].
    pub fn forward<'p>(&self, parameters: &'p Parameters, x: &Tensor) -> Result<(Tensor, LinearTrace<'p>)> {
        let y = self.infer(parameters, x)?;
        Ok((y, LinearTrace { layer: self.clone(), parameters, x: x.clone() }))
    }
}

impl LinearTrace<'_> {
    /// Adds dW = dyᵀ x and db = Σ dy to `gradients`; returns dx = dy W.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn backward(self, d_y: &Tensor, gradients: &mut Gradients) -> Result<Tensor> {
        self.backward_parameters(d_y, gradients)?;
        let weight = self.parameters.section(self.layer.first);
        self.layer.named(matmul(d_y.view(), weight, Form::Plain, None))
    }

    pub(super) fn backward_parameters(&self, d_y: &Tensor, gradients: &mut Gradients) -> Result<()> {
        self.layer.named(self.accumulate(d_y, gradients))
    }

    fn accumulate(&self, d_y: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let Layer { description, first, .. } = &self.layer;
        gradients.expect_of(self.parameters)?;
        d_y.shape().expect("d_y", self.x.shape().with_last(description.outputs)?.dimensions())?;
        let weight = gradients.section_mut(*first);
        matmul_into(weight, d_y.view().matrix()?, self.x.view().matrix()?, Form::LeftTransposed)?;
        if description.bias {
            let sum = sum_rows(d_y)?;
            add_into(gradients.section_mut(first + 1), sum.view())?;
        }
        Ok(())
    }
}
