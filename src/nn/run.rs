//! A whole model as one function: its layers run in the order in which they were added.

use super::model::Added;
use super::{
    Embedding, EmbeddingTrace, Gradients, Layer, LayerConfig, Linear, LinearTrace, Model, OneHot, Parameters,
    Rnn, RnnTrace, State,
};
use crate::device::Device;
use crate::tensor::{Indices, Tensor};
use crate::{Error, Result};

/// What a model's first layer reads.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Tokens \[T, B\], for an embedding or one-hot layer.
    Tokens(&'a Indices),
    /// Features \[T, B, F\], for any other layer.
    Features(&'a Tensor),
}

impl<'a> From<&'a Indices> for Input<'a> {
    fn from(tokens: &'a Indices) -> Self {
        Self::Tokens(tokens)
    }
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(features: &'a Tensor) -> Self {
        Self::Features(features)
    }
}

/// The states of all recurrent layers of a model, in their order.
#[derive(Clone, Debug)]
pub struct ModelState {
    states: Vec<State>,
}

impl ModelState {
    /// The states of the recurrent layers, in the order in which they were added.
    pub fn states(&self) -> &[State] {
        &self.states
    }
}

/// What [`Model::forward`] leaves for backward.
pub struct ModelTrace<'p> {
    traces: Vec<AnyTrace<'p>>,
}

enum AnyTrace<'p> {
    Embedding(EmbeddingTrace<'p>),
    OneHot,
    Rnn(Box<RnnTrace<'p>>),
    Linear(LinearTrace<'p>),
}

/// What flows between layers.
enum Signal<'a> {
    Tokens(&'a Indices),
    Features(Tensor),
}

impl Signal<'_> {
    fn tokens(&self, layer: &str) -> Result<&Indices> {
        match self {
            Self::Tokens(tokens) => Ok(tokens),
            Self::Features(_) => Err(Error::config(
                format!("layer `{layer}`"),
                "reads tokens, but gets features: it must come first and be given tokens",
            )),
        }
    }

    fn features(&self, layer: &str) -> Result<&Tensor> {
        match self {
            Self::Features(features) => Ok(features),
            Self::Tokens(_) => Err(Error::config(
                format!("layer `{layer}`"),
                "reads features, but gets tokens: put an embedding or one-hot layer before it",
            )),
        }
    }
}

impl Added {
    fn layer<D: Clone>(&self, model: &Model, description: &D) -> Layer<D> {
        Layer { description: description.clone(), model: model.id(), first: self.first }
    }
}

impl Model {
    /// The states of all recurrent layers before a sequence begins: zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for a batch of zero; out of memory.
    pub fn zero_state(&self, device: &Device, batch: usize) -> Result<ModelState> {
        let states = self.layers().iter().filter_map(|added| match &added.config {
            LayerConfig::Rnn(rnn) => Some(added.layer(self, rnn).zero_state(device, batch)),
            _ => None,
        });
        Ok(ModelState { states: states.collect::<Result<_>>()? })
    }

    /// Runs all layers; returns the last one's output and the states after the last step. Keeps nothing.
    ///
    /// # Errors
    /// As the layers' own `infer`; [`Error::Config`] for a model without layers, a layer that cannot read what
    /// the one before it gives, and a state of another model.
    pub fn infer<'a>(
        &self,
        parameters: &Parameters,
        input: impl Into<Input<'a>>,
        state: &ModelState,
    ) -> Result<(Tensor, ModelState)> {
        self.run(input.into(), state, |added, signal, state| match &added.config {
            LayerConfig::Embedding(description) => {
                let layer: Layer<Embedding> = added.layer(self, description);
                layer.infer(parameters, signal.tokens(&added.name)?).map(|y| (y, None))
            }
            LayerConfig::OneHot(description) => {
                let layer: Layer<OneHot> = added.layer(self, description);
                layer.infer(signal.tokens(&added.name)?).map(|y| (y, None))
            }
            LayerConfig::Rnn(description) => {
                let layer: Layer<Rnn> = added.layer(self, description);
                let (y, next) = layer.infer(parameters, signal.features(&added.name)?, state()?)?;
                Ok((y, Some(next)))
            }
            LayerConfig::Linear(description) => {
                let layer: Layer<Linear> = added.layer(self, description);
                layer.infer(parameters, signal.features(&added.name)?).map(|y| (y, None))
            }
        })
    }

    /// As [`Model::infer`], with the one trace that backward needs.
    ///
    /// # Errors
    /// As [`Model::infer`].
    pub fn forward<'a, 'p>(
        &self,
        parameters: &'p Parameters,
        input: impl Into<Input<'a>>,
        state: &ModelState,
    ) -> Result<(Tensor, ModelState, ModelTrace<'p>)> {
        let mut traces = Vec::with_capacity(self.layers().len());
        let (output, next) = self.run(input.into(), state, |added, signal, state| {
            let (y, next, trace) = match &added.config {
                LayerConfig::Embedding(description) => {
                    let layer: Layer<Embedding> = added.layer(self, description);
                    let (y, trace) = layer.forward(parameters, signal.tokens(&added.name)?)?;
                    (y, None, AnyTrace::Embedding(trace))
                }
                LayerConfig::OneHot(description) => {
                    let layer: Layer<OneHot> = added.layer(self, description);
                    (layer.infer(signal.tokens(&added.name)?)?, None, AnyTrace::OneHot)
                }
                LayerConfig::Rnn(description) => {
                    let layer: Layer<Rnn> = added.layer(self, description);
                    let (y, next, trace) =
                        layer.forward(parameters, signal.features(&added.name)?, state()?)?;
                    (y, Some(next), AnyTrace::Rnn(Box::new(trace)))
                }
                LayerConfig::Linear(description) => {
                    let layer: Layer<Linear> = added.layer(self, description);
                    let (y, trace) = layer.forward(parameters, signal.features(&added.name)?)?;
                    (y, None, AnyTrace::Linear(trace))
                }
            };
            traces.push(trace);
            Ok((y, next))
        })?;
        Ok((output, next, ModelTrace { traces }))
    }

    /// Threads the signal and the states through `step`, layer by layer.
    fn run<'a, 's>(
        &self,
        input: Input<'a>,
        state: &'s ModelState,
        mut step: impl FnMut(
            &Added,
            &Signal<'a>,
            &mut dyn FnMut() -> Result<&'s State>,
        ) -> Result<(Tensor, Option<State>)>,
    ) -> Result<(Tensor, ModelState)> {
        let mut signal = match input {
            Input::Tokens(tokens) => Signal::Tokens(tokens),
            Input::Features(features) => Signal::Features(features.clone()),
        };
        let mut given = state.states.iter();
        let mut take = || {
            given
                .next()
                .ok_or_else(|| Error::config("state", "has too few layers: use this model's zero_state"))
        };
        let mut states = Vec::with_capacity(state.states.len());
        for added in self.layers() {
            let (y, next) = step(added, &signal, &mut take)?;
            states.extend(next);
            signal = Signal::Features(y);
        }
        if states.len() != state.states.len() {
            return Err(Error::config("state", "has too many layers: use this model's zero_state"));
        }
        match signal {
            Signal::Features(output) => Ok((output, ModelState { states })),
            Signal::Tokens(_) => Err(Error::config("model", "has no layers: add some before running it")),
        }
    }
}

impl ModelTrace<'_> {
    /// Back-propagates the gradient at the model's output through all layers, adding to `gradients`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn backward(self, d_output: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let mut d_y = d_output.clone();
        let mut traces = self.traces.into_iter().rev().peekable();
        while let Some(trace) = traces.next() {
            match trace {
                AnyTrace::Embedding(trace) => return trace.backward(&d_y, gradients),
                AnyTrace::OneHot => return Ok(()),
                AnyTrace::Rnn(trace) => (d_y, _) = trace.backward(&d_y, None, gradients)?,
                // The gradient at a model's own input is nobody's business: it is not computed.
                AnyTrace::Linear(trace) if traces.peek().is_none() => {
                    trace.backward_parameters(&d_y, gradients)?;
                }
                AnyTrace::Linear(trace) => d_y = trace.backward(&d_y, gradients)?,
            }
        }
        Ok(())
    }
}
