//! Runs a whole model: its layers in the order in which they were added.

use std::sync::Arc;

use super::model::Added;
use super::{
    EmbeddingTrace, Gradients, Layer, LayerConfig, LinearTrace, Model, Parameters, Rnn, RnnTrace, Sequences,
    State,
};
use crate::device::Device;
use crate::ops::zero_padding;
use crate::tensor::{Indices, Tensor};
use crate::{Error, Result};

/// The input of a model's first layer.
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

/// The states of all recurrent layers of a model, in the order of the layers.
#[derive(Clone, Debug)]
pub struct ModelState {
    states: Vec<State>,
}

impl ModelState {
    /// The states of the recurrent layers, in the order in which they were added.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Returns a copy with zeros in the rows of the batch where `resets` \[B\] is not zero: see
    /// [`State::reset`].
    ///
    /// # Errors
    /// As [`State::reset`].
    pub fn reset(&self, resets: &Indices) -> Result<Self> {
        let states = self.states.iter().map(|state| state.reset(resets));
        Ok(Self { states: states.collect::<Result<_>>()? })
    }
}

/// The trace of [`Model::forward`].
pub struct ModelTrace<'p> {
    traces: Vec<AnyTrace<'p>>,
    lengths: Option<Indices>,
}

enum AnyTrace<'p> {
    Embedding(EmbeddingTrace<'p>),
    OneHot,
    Rnn(Box<RnnTrace<'p>>),
    Linear(LinearTrace<'p>),
}

/// The value passed from one layer to the next.
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
                "reads tokens, but gets features: it must be the first layer, with tokens as input",
            )),
        }
    }

    fn features(&self, layer: &str) -> Result<&Tensor> {
        match self {
            Self::Features(features) => Ok(features),
            Self::Tokens(_) => Err(Error::config(
                format!("layer `{layer}`"),
                "reads features, but gets tokens: add an embedding or one-hot layer before it",
            )),
        }
    }
}

impl Added {
    fn layer<D: Clone>(&self, model: &Model, description: &D) -> Layer<D> {
        Layer {
            name: Arc::clone(&self.name),
            description: description.clone(),
            model: model.id(),
            first: self.first,
        }
    }
}

impl Model {
    /// Returns states of zero for all recurrent layers.
    ///
    /// # Errors
    /// [`Error::Shape`] for a batch of zero; out of memory.
    pub fn zero_state(&self, device: &Device, batch: usize) -> Result<ModelState> {
        self.states(|layer| layer.zero_state(device, batch))
    }

    /// Returns the initial states of all recurrent layers: learned ones where a stack has
    /// [`learned_initial_state`](Rnn::learned_initial_state), else zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for a batch of zero, [`Error::ModelMismatch`]; out of memory.
    pub fn initial_state(&self, parameters: &Parameters, batch: usize) -> Result<ModelState> {
        parameters.layout().expect_model("parameters", self.id())?;
        self.states(|layer| layer.initial_or_zero_state(parameters, batch))
    }

    /// The states that `create` returns for the recurrent layers.
    fn states(&self, create: impl Fn(Layer<Rnn>) -> Result<State>) -> Result<ModelState> {
        let states = self.layers().iter().filter_map(|added| match &added.config {
            LayerConfig::Rnn(rnn) => Some(create(added.layer(self, rnn))),
            _ => None,
        });
        Ok(ModelState { states: states.collect::<Result<_>>()? })
    }

    /// Runs all layers; returns the output of the last one and the states after the last step. Saves nothing
    /// for a backward pass.
    ///
    /// # Errors
    /// As the layers' own `infer`; [`Error::Config`] for a model without layers, a layer that cannot read the
    /// output of the previous one, and a state of another model.
    pub fn infer<'a>(
        &self,
        parameters: &Parameters,
        input: impl Into<Input<'a>>,
        state: &ModelState,
    ) -> Result<(Tensor, ModelState)> {
        self.infer_sequences(parameters, input, state, Sequences::whole())
    }

    /// As [`Model::infer`], with the lengths and resets of `sequences` in all recurrent layers; in
    /// evaluation, unless `sequences` requests training. The model's output is zero in the padding of ragged
    /// rows, whatever its input holds there.
    ///
    /// # Errors
    /// As [`Model::infer`] and the layers' own `infer_sequences`; [`Error::Config`] for lengths or resets in
    /// a model without recurrent layers.
    pub fn infer_sequences<'a>(
        &self,
        parameters: &Parameters,
        input: impl Into<Input<'a>>,
        state: &ModelState,
        sequences: Sequences<'_>,
    ) -> Result<(Tensor, ModelState)> {
        self.run(parameters, input.into(), state, sequences, |added, signal, state| {
            let tokens = || signal.tokens(&added.name);
            let features = || signal.features(&added.name);
            Ok(match &added.config {
                LayerConfig::Embedding(layer) => {
                    (added.layer(self, layer).infer(parameters, tokens()?)?, None)
                }
                LayerConfig::OneHot(layer) => (added.layer(self, layer).infer(tokens()?)?, None),
                LayerConfig::Rnn(layer) => {
                    let layer = added.layer(self, layer);
                    let (y, next) = layer.infer_sequences(parameters, features()?, state()?, sequences)?;
                    (y, Some(next))
                }
                LayerConfig::Linear(layer) => {
                    (added.layer(self, layer).infer(parameters, features()?)?, None)
                }
            })
        })
    }

    /// As [`Model::infer`]; also returns the trace for the backward pass.
    ///
    /// # Errors
    /// As [`Model::infer`]; [`Error::Config`] for a model with dropout, which requires
    /// [`Model::forward_sequences`] to choose training or evaluation.
    pub fn forward<'a, 'p>(
        &self,
        parameters: &'p Parameters,
        input: impl Into<Input<'a>>,
        state: &ModelState,
    ) -> Result<(Tensor, ModelState, ModelTrace<'p>)> {
        self.forward_sequences(parameters, input, state, Sequences::whole())
    }

    /// As [`Model::infer_sequences`]; also returns the trace for the backward pass. The gradient of the
    /// output is ignored in the padding.
    ///
    /// # Errors
    /// As [`Model::infer_sequences`]; [`Error::Config`] for a model with dropout if `sequences` requests
    /// neither training nor evaluation.
    pub fn forward_sequences<'a, 'p>(
        &self,
        parameters: &'p Parameters,
        input: impl Into<Input<'a>>,
        state: &ModelState,
        sequences: Sequences<'_>,
    ) -> Result<(Tensor, ModelState, ModelTrace<'p>)> {
        let mut traces = Vec::with_capacity(self.layers().len());
        let (output, next) =
            self.run(parameters, input.into(), state, sequences, |added, signal, state| {
                let tokens = || signal.tokens(&added.name);
                let features = || signal.features(&added.name);
                let (y, next, trace) = match &added.config {
                    LayerConfig::Embedding(layer) => {
                        let (y, trace) = added.layer(self, layer).forward(parameters, tokens()?)?;
                        (y, None, AnyTrace::Embedding(trace))
                    }
                    LayerConfig::OneHot(layer) => {
                        (added.layer(self, layer).infer(tokens()?)?, None, AnyTrace::OneHot)
                    }
                    LayerConfig::Rnn(layer) => {
                        let layer = added.layer(self, layer);
                        let (y, next, trace) =
                            layer.forward_sequences(parameters, features()?, state()?, sequences)?;
                        (y, Some(next), AnyTrace::Rnn(Box::new(trace)))
                    }
                    LayerConfig::Linear(layer) => {
                        let (y, trace) = added.layer(self, layer).forward(parameters, features()?)?;
                        (y, None, AnyTrace::Linear(trace))
                    }
                };
                traces.push(trace);
                Ok((y, next))
            })?;
        Ok((output, next, ModelTrace { traces, lengths: sequences.lengths.cloned() }))
    }

    /// Passes the signal and the states through `step`, layer by layer.
    fn run<'a, 's>(
        &self,
        parameters: &Parameters,
        input: Input<'a>,
        state: &'s ModelState,
        sequences: Sequences<'_>,
        mut step: impl FnMut(
            &Added,
            &Signal<'a>,
            &mut dyn FnMut() -> Result<&'s State>,
        ) -> Result<(Tensor, Option<State>)>,
    ) -> Result<(Tensor, ModelState)> {
        parameters.layout().expect_model("parameters", self.id())?;
        self.expect_recurrent(sequences)?;
        let mut signal = match input {
            Input::Tokens(tokens) => Signal::Tokens(tokens),
            Input::Features(features) => Signal::Features(without_padding(features, sequences.lengths)?),
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
            Signal::Features(output) => {
                Ok((without_padding(&output, sequences.lengths)?, ModelState { states }))
            }
            Signal::Tokens(_) => Err(Error::config("model", "has no layers: add some before running it")),
        }
    }

    /// Checks that a model with lengths or resets has a recurrent layer that reads them.
    fn expect_recurrent(&self, sequences: Sequences<'_>) -> Result<()> {
        let recurrent = self.layers().iter().any(|added| matches!(added.config, LayerConfig::Rnn(_)));
        if recurrent || sequences.is_whole() {
            return Ok(());
        }
        Err(Error::config(
            "sequences",
            "have lengths or resets, but the model has no recurrent layer to read them",
        ))
    }
}

/// Returns `x` with zeros in the padding, where rows have lengths.
fn without_padding(x: &Tensor, lengths: Option<&Indices>) -> Result<Tensor> {
    match lengths {
        Some(lengths) => zero_padding(x, lengths),
        None => Ok(x.clone()),
    }
}

impl ModelTrace<'_> {
    /// Extends the trace to its size at the largest in a backward pass; returns how many steps of each layer a backward
    /// pass runs again.
    pub(super) fn extend(&mut self) -> Result<Vec<usize>> {
        let extend = |trace: &mut AnyTrace<'_>| match trace {
            AnyTrace::Rnn(trace) => trace.extend(),
            _ => Ok(0),
        };
        self.traces.iter_mut().map(extend).collect()
    }

    /// Back-propagates the gradient of the model's output through all layers and adds to `gradients`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn backward(self, d_output: &Tensor, gradients: &mut Gradients) -> Result<()> {
        self.backward_from(d_output.clone(), gradients)
    }

    /// As [`ModelTrace::backward`]; frees the gradient of the output once it is no longer read, so that the
    /// lower layers can reuse its memory.
    ///
    /// # Errors
    /// As [`ModelTrace::backward`].
    pub fn backward_from(self, d_output: Tensor, gradients: &mut Gradients) -> Result<()> {
        let mut d_y = without_padding(&d_output, self.lengths.as_ref())?;
        drop(d_output);
        let mut traces = self.traces;
        while let Some(trace) = traces.pop() {
            // The gradient of a model's own input is not computed.
            let reads_data = matches!(traces.last(), None | Some(AnyTrace::OneHot));
            match trace {
                AnyTrace::Embedding(trace) => return trace.backward(&d_y, gradients),
                AnyTrace::OneHot => return Ok(()),
                AnyTrace::Rnn(trace) if reads_data => return trace.parameters_from(d_y, gradients),
                AnyTrace::Rnn(trace) => d_y = trace.backward_outputs(d_y, gradients)?,
                AnyTrace::Linear(trace) if reads_data => return trace.backward_parameters(&d_y, gradients),
                AnyTrace::Linear(trace) => d_y = trace.backward(&d_y, gradients)?,
            }
        }
        Ok(())
    }
}
