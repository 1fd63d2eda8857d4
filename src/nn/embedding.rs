//! The embedding layer: y_i = weight_{token_i}.

use serde::{Deserialize, Serialize};

use super::layer::expect_size;
use super::{Gradients, Init, Layer, ParameterSpec, Parameters};
use crate::Result;
use crate::ops;
use crate::shape::Shape;
use crate::tensor::{Indices, Tensor};

/// Embedding: y_i = weight_{token_i}. Parameter, as in PyTorch: `weight` \[vocabulary, features\],
/// initialized from N(0, 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embedding {
    vocabulary: usize,
    features: usize,
}

impl Embedding {
    /// Creates an embedding of `vocabulary` tokens with `features` features each.
    pub fn new(vocabulary: usize, features: usize) -> Self {
        Self { vocabulary, features }
    }

    /// Features of the output.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    pub(super) fn describe(&self) -> String {
        format!("embedding of {} tokens", self.vocabulary)
    }

    pub(super) fn validate(&self, name: &str) -> Result<()> {
        expect_size(name, "vocabulary", self.vocabulary)?;
        expect_size(name, "features", self.features)
    }

    pub(super) fn parameters(&self, name: &str) -> Result<Vec<ParameterSpec>> {
        let name = format!("{name}.weight");
        let shape = Shape::named(&name, &[self.vocabulary, self.features])?;
        Ok(vec![ParameterSpec { shape, name, init: Init::Normal }])
    }
}

/// The trace of [`Layer<Embedding>::forward`].
pub struct EmbeddingTrace<'p> {
    layer: Layer<Embedding>,
    parameters: &'p Parameters,
    tokens: Indices,
}

impl Layer<Embedding> {
    /// y_i = weight_{token_i}. tokens \[...\] → y \[..., features\].
    ///
    /// # Errors
    /// [`Error::Index`](crate::Error::Index) for a token outside the vocabulary,
    /// [`Error::DeviceMismatch`](crate::Error::DeviceMismatch),
    /// [`Error::ModelMismatch`](crate::Error::ModelMismatch).
    pub fn infer(&self, parameters: &Parameters, tokens: &Indices) -> Result<Tensor> {
        let model = parameters.layout().expect_model("parameters", self.model);
        self.named(model.and_then(|()| ops::embedding(tokens, parameters.section(self.first))))
    }

    /// As [`Layer::<Embedding>::infer`]; also returns the trace for the backward pass.
    ///
    /// # Errors
    /// As [`Layer::<Embedding>::infer`].
    pub fn forward<'p>(
        &self,
        parameters: &'p Parameters,
        tokens: &Indices,
    ) -> Result<(Tensor, EmbeddingTrace<'p>)> {
        let y = self.infer(parameters, tokens)?;
        Ok((y, EmbeddingTrace { layer: self.clone(), parameters, tokens: tokens.clone() }))
    }
}

impl EmbeddingTrace<'_> {
    /// Adds dweight_v = Σ dy_i over all i with token v to `gradients`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DeviceMismatch`](crate::Error::DeviceMismatch),
    /// [`Error::ModelMismatch`](crate::Error::ModelMismatch).
    pub fn backward(self, d_y: &Tensor, gradients: &mut Gradients) -> Result<()> {
        self.layer.named(gradients.expect_of(self.parameters))?;
        let weight = gradients.section_mut(self.layer.first);
        self.layer.named(ops::embedding::embedding_backward_into(weight, &self.tokens, d_y.view()))
    }
}
