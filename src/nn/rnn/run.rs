//! The forward pass of a stack.

use super::state::StateSizes;
use super::trace::{LayerTrace, RnnTrace};
use super::{Directions, Rnn, Sequences, State};
use crate::device::Device;
use crate::nn::{Layer, Parameters};
use crate::ops::recurrent::{self, Call, Direction, Equations, Steps, Walk};
use crate::ops::{Form, matmul, zero_padding};
use crate::shape::Shape;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Layer<Rnn> {
    /// The state before a sequence begins: zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for a batch of zero; out of memory.
    pub fn zero_state(&self, device: &Device, batch: usize) -> Result<State> {
        let sizes = self.state_sizes(batch);
        let what = "the state [layers x directions, batch, hidden]";
        Shape::named(what, &[sizes.places, sizes.batch, sizes.hidden])?;
        State::zeros(device, sizes)
    }

    pub(super) fn state_sizes(&self, batch: usize) -> StateSizes {
        let Rnn { cell, layers, hidden, directions, .. } = self.description;
        StateSizes {
            places: layers * directions.all().len(),
            batch,
            hidden: self.description.hidden_width(),
            cell: cell.has_cell_state().then_some(hidden),
        }
    }

    /// Outputs of the last layer \[T, B, D·H\] and the state after the last step, from x \[T, B, I\] and the state
    /// before the first step. Keeps nothing.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn infer(&self, parameters: &Parameters, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        self.infer_sequences(parameters, x, state, Sequences::whole())
    }

    /// As [`Layer::<Rnn>::infer`], over the steps of each row that `sequences` tells; in evaluation, unless it asks
    /// for the random numbers of training.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::infer`]; [`Error::Config`] and [`Error::Index`] for lengths of zero or beyond T.
    pub fn infer_sequences(
        &self,
        parameters: &Parameters,
        x: &Tensor,
        state: &State,
        sequences: Sequences<'_>,
    ) -> Result<(Tensor, State)> {
        self.run(parameters, x, state, sequences.or_evaluation(), drop)
    }

    /// As [`Layer::<Rnn>::infer`], with the trace that backward needs.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::infer`]; [`Error::Config`] for a stack with dropout, which must be told by
    /// [`Layer::<Rnn>::forward_sequences`] whether this is training.
    pub fn forward<'p>(
        &self,
        parameters: &'p Parameters,
        x: &Tensor,
        state: &State,
    ) -> Result<(Tensor, State, RnnTrace<'p>)> {
        self.forward_sequences(parameters, x, state, Sequences::whole())
    }

    /// As [`Layer::<Rnn>::infer_sequences`], with the trace that backward needs.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::infer_sequences`]; [`Error::Config`] for a stack with dropout and `sequences` that do not say
    /// whether this is training.
    pub fn forward_sequences<'p>(
        &self,
        parameters: &'p Parameters,
        x: &Tensor,
        state: &State,
        sequences: Sequences<'_>,
    ) -> Result<(Tensor, State, RnnTrace<'p>)> {
        let mut layers: Vec<LayerTrace> = Vec::with_capacity(self.description.layers);
        self.expect_mode(sequences)?;
        let (output, next) = self.run(parameters, x, state, sequences, |made| layers.push(made))?;
        let trace = RnnTrace {
            layer: self.clone(),
            parameters,
            initial: state.clone(),
            lengths: sequences.lengths.cloned(),
            resets: sequences.resets.cloned(),
            mode: sequences.mode,
            layers,
        };
        Ok((output, next, trace))
    }

    /// Runs layer after layer, handing what each leaves to `keep`; returns the last one's output and the state at the
    /// end.
    fn run(
        &self,
        parameters: &Parameters,
        x: &Tensor,
        state: &State,
        sequences: Sequences<'_>,
        mut keep: impl FnMut(LayerTrace),
    ) -> Result<(Tensor, State)> {
        let [steps, batch] = self.check(parameters, x, state)?;
        let Rnn { layers, directions, .. } = self.description;
        let directions = directions.all();
        let mut next = State::unwritten(x.device(), self.state_sizes(batch))?;
        // What stands in the padding may be anything: products would spread it.
        let mut input = match sequences.lengths {
            Some(lengths) => zero_padding(x, lengths)?,
            None => x.clone(),
        };
        for layer in 0..layers {
            let read = self.enter(sequences.mode, layer, &input)?;
            let mut output = Tensor::unwritten(x.device(), &[steps, batch, self.description.width()])?;
            let mut made: Vec<Steps> = Vec::with_capacity(directions.len());
            for (index, &direction) in directions.iter().enumerate() {
                let place = layer * directions.len() + index;
                let weights = self.weights(parameters, place);
                let form = Form::RightTransposed;
                let projected = matmul(read.view(), weights.weight_ih, form, weights.bias_ih)?;
                let masked = self.masked_weight(sequences.mode, parameters, [layer, index])?;
                let mut call = self.call(parameters, state, place, direction, sequences)?;
                if let Some(masked) = &masked {
                    call.weights.weight_hh = masked.copy.view();
                }
                let done = recurrent::forward(&call, projected, &mut output)?;
                next.put(place, &done.last)?;
                made.push(done);
            }
            input = self.leave(sequences.mode, layer, &output, &input)?;
            keep(LayerTrace { x: read, output, directions: made });
        }
        Ok((input, next.carried_by(self.model, self.first)))
    }

    /// The time loop at `place`, before its input is known.
    pub(super) fn call<'a>(
        &self,
        parameters: &'a Parameters,
        initial: &'a State,
        place: usize,
        direction: Direction,
        sequences: Sequences<'a>,
    ) -> Result<Call<'a>> {
        let Rnn { directions, options, .. } = &self.description;
        let Sequences { lengths, resets, .. } = sequences;
        Ok(Call {
            equations: Equations { noise: self.noise(sequences.mode, place), ..self.description.equations() },
            state_mask: self.state_mask(sequences.mode, place, initial.batch())?,
            weights: self.weights(parameters, place).recurrent,
            initial: initial.at(place)?,
            walk: Walk { direction, lengths, resets, truncation: options.truncation },
            column: place % directions.all().len() * self.description.hidden_width(),
        })
    }

    /// Checks what comes in; returns T and B.
    fn check(&self, parameters: &Parameters, x: &Tensor, state: &State) -> Result<[usize; 2]> {
        let Rnn { inputs, .. } = self.description;
        parameters.layout().expect("parameters", self.model)?;
        parameters.device().expect_same("x", x.device())?;
        parameters.device().expect_same("the state", state.device())?;
        let [steps, batch, features] = x.shape().exactly("x", "[time, batch, inputs]")?;
        if features != inputs {
            return Err(Error::shape(
                "x",
                format!("[time, batch, {inputs}] (the layer's inputs)"),
                x.shape(),
            ));
        }
        state.expect("the state", self.state_sizes(batch))?;
        if self.description.directions != Directions::Forward && state.is_carried_by(self.model, self.first) {
            return Err(Error::config(
                "the state and reverse or bidirectional",
                "do not go together: the reverse direction begins at the end of a window, and what it ended the window \
                 before with comes from the beginning of that; start each window from `zero_state`",
            ));
        }
        Ok([steps, batch])
    }
}
