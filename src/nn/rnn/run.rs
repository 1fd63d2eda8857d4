//! The forward pass of a stack.

use std::ops::Range;

use super::checkpoints::{Joined, Segment};
use super::options::Checkpoints;
use super::sequences::Mode;
use super::state::StateSizes;
use super::trace::{LayerTrace, RnnTrace};
use super::{Directions, Rnn, Sequences, State};
use crate::device::Device;
use crate::nn::{Layer, Parameters, RandomKey};
use crate::ops::recurrent::{self, Call, Direction, Equations, SavedActivations, Traversal, block_steps};
use crate::ops::zero_padding;
use crate::shape::Shape;
use crate::tensor::{Tensor, View};
use crate::{Error, Result};

impl Layer<Rnn> {
    /// Returns a state of zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for a batch of zero; out of memory.
    pub fn zero_state(&self, device: &Device, batch: usize) -> Result<State> {
        let sizes = self.state_sizes(batch);
        let what = "the state [layers x directions, batch, hidden]";
        let shape = Shape::named(what, &[sizes.places, sizes.batch, sizes.hidden]);
        self.named(shape.and_then(|_| State::zeros(device, sizes)))
    }

    pub(super) fn state_sizes(&self, batch: usize) -> StateSizes {
        let Rnn { ref cell, layers, hidden, directions, .. } = self.description;
        StateSizes {
            places: layers * directions.all().len(),
            batch,
            hidden: self.description.hidden_width(),
            cell: cell.has_cell_state().then_some(hidden),
        }
    }

    /// Returns the outputs of the last layer \[T, B, D·H\] and the state after the last step, from x \[T, B,
    /// I\] and the initial state. Saves nothing for a backward pass.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn infer(&self, parameters: &Parameters, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        self.infer_sequences(parameters, x, state, Sequences::whole())
    }

    /// As [`Layer::<Rnn>::infer`], with the lengths and resets of `sequences`; in evaluation, unless
    /// `sequences` requests training.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::infer`]; [`Error::Index`] for lengths beyond T.
    pub fn infer_sequences(
        &self,
        parameters: &Parameters,
        x: &Tensor,
        state: &State,
        sequences: Sequences<'_>,
    ) -> Result<(Tensor, State)> {
        self.named(self.run(parameters, x, state, sequences.or_evaluation(), drop))
    }

    /// As [`Layer::<Rnn>::infer`]; also returns the trace for the backward pass.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::infer`]; [`Error::Config`] for a stack with dropout, which requires
    /// [`Layer::<Rnn>::forward_sequences`] to choose training or evaluation.
    pub fn forward<'p>(
        &self,
        parameters: &'p Parameters,
        x: &Tensor,
        state: &State,
    ) -> Result<(Tensor, State, RnnTrace<'p>)> {
        self.forward_sequences(parameters, x, state, Sequences::whole())
    }

    /// As [`Layer::<Rnn>::infer_sequences`]; also returns the trace for the backward pass.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::infer_sequences`]; [`Error::Config`] for a stack with dropout if `sequences`
    /// requests neither training nor evaluation.
    pub fn forward_sequences<'p>(
        &self,
        parameters: &'p Parameters,
        x: &Tensor,
        state: &State,
        sequences: Sequences<'_>,
    ) -> Result<(Tensor, State, RnnTrace<'p>)> {
        self.named(self.run_traced(parameters, x, state, sequences))
    }

    fn run_traced<'p>(
        &self,
        parameters: &'p Parameters,
        x: &Tensor,
        state: &State,
        sequences: Sequences<'_>,
    ) -> Result<(Tensor, State, RnnTrace<'p>)> {
        self.expect_mode(sequences)?;
        let [steps, batch] = self.check(parameters, x, state)?;
        let segment = self.segment_steps(parameters, [steps, batch])?;
        if segment < steps {
            self.traversal(Direction::Forward, sequences).check(steps, batch)?;
        }
        let mut output = Joined::new(steps);
        let mut segments: Vec<Segment> = Vec::with_capacity(steps.div_ceil(segment));
        let mut layers: Vec<LayerTrace> = Vec::with_capacity(self.description.layers);
        let mut next = state.clone();
        for first in (0..steps).step_by(segment) {
            let own = Segment::cut(first..steps.min(first + segment), steps, next, sequences)?;
            let is_last = own.steps.end == steps;
            let keep = |result| {
                if is_last {
                    layers.push(result)
                }
            };
            let x = x.outer(own.steps.clone())?;
            let (part, after) =
                self.run(parameters, &x, &own.initial, own.sequences(sequences.mode), keep)?;
            output.put(own.steps.clone(), part)?;
            segments.push(own);
            next = after;
        }
        // The layers of the last segment save its input themselves.
        let x = (segments.len() > 1).then(|| x.clone());
        let trace = RnnTrace { layer: self.clone(), parameters, mode: sequences.mode, x, segments, layers };
        Ok((output.whole(), next, trace))
    }

    /// The steps of each segment but the last in a pass over `steps` steps of `batch` rows; all of them without
    /// checkpoints.
    fn segment_steps(&self, parameters: &Parameters, [steps, batch]: [usize; 2]) -> Result<usize> {
        let block = block_steps(batch);
        let budget = match self.description.options.checkpoints {
            Checkpoints::None => return Ok(steps),
            Checkpoints::Every(every) => return Ok(every.min(steps).next_multiple_of(block).min(steps)),
            Checkpoints::Within(bytes) => bytes,
        };
        let [x, state, one] = self.trace_bytes(parameters, [1, batch])?;
        let [.., two] = self.trace_bytes(parameters, [2, batch])?;
        let needed = |segment: usize| {
            let segments = steps.div_ceil(segment) as u64;
            // The input of one segment is not saved if the first layer saves a masked copy.
            let is_saved = segments > 1 || self.description.options.input_dropout == 0.0;
            let x = if is_saved { steps as u64 * x } else { 0 };
            x + segments * state + one + (segment as u64 - 1) * (two - one)
        };
        let mut least = u64::MAX;
        for segment in (1..=steps.div_ceil(block)).rev().map(|blocks| (blocks * block).min(steps)) {
            let needed = needed(segment);
            if needed <= budget {
                return Ok(segment);
            }
            least = least.min(needed);
        }
        let message = format!(
            "{budget} bytes do not hold what backward needs of {steps} steps of {batch} rows in any number of segments: \
             {least} bytes do"
        );
        Err(Error::config("checkpointed_within", message))
    }

    /// Bytes of an input, of a state, and of what the layers save of them for a backward pass, counted in a dry run.
    fn trace_bytes(&self, parameters: &Parameters, [steps, batch]: [usize; 2]) -> Result<[u64; 3]> {
        let device = Device::dry();
        let parameters = parameters.dry(&device)?;
        let mut before = device.counters().bytes_in_use;
        let mut since = || {
            let now = device.counters().bytes_in_use;
            now - std::mem::replace(&mut before, now)
        };
        let x = Tensor::zeros(&device, &[steps, batch, self.description.inputs])?;
        let x_bytes = since();
        let state = self.zero_state(&device, batch)?;
        let state_bytes = since();
        let mut layers = Vec::with_capacity(self.description.layers);
        let training = Sequences::whole().training(RandomKey::new(0, 0));
        self.run(&parameters, &x, &state, training, |layer| layers.push(layer))?;
        Ok([x_bytes, state_bytes, since()])
    }

    /// Recomputes the layers' traces of a segment of `x`.
    pub(super) fn retrace(
        &self,
        parameters: &Parameters,
        x: &Tensor,
        segment: &Segment,
        mode: Option<Mode>,
    ) -> Result<Vec<LayerTrace>> {
        let mut layers = Vec::with_capacity(self.description.layers);
        let keep = |result| layers.push(result);
        self.run(
            parameters,
            &x.outer(segment.steps.clone())?,
            &segment.initial,
            segment.sequences(mode),
            keep,
        )?;
        Ok(layers)
    }

    /// Runs all layers and passes their traces to `keep`; returns the output of the last layer and the final
    /// state.
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
        // The padding may hold anything, NaN included, which products would spread.
        let mut input = match sequences.lengths {
            Some(lengths) => zero_padding(x, lengths)?,
            None => x.clone(),
        };
        for layer in 0..layers {
            let read = self.enter(sequences.mode, layer, &input)?;
            let mut output = Tensor::unwritten(x.device(), &[steps, batch, self.description.width()])?;
            let first = layer * directions.len();
            let places = first..first + directions.len();
            let masked = (0..directions.len())
                .map(|index| self.masked_weight(sequences.mode, parameters, [layer, index]))
                .collect::<Result<Vec<_>>>()?;
            let weight = |place: usize| masked[place - first].as_ref().map(|masked| masked.copy.view());
            let calls = self.calls(parameters, state, places.clone(), sequences, weight)?;
            let together = recurrent::together(x.device(), &calls, [steps, batch]);
            let mut saved: Vec<SavedActivations> = Vec::with_capacity(directions.len() / together);
            for (calls, place) in calls.chunks(together).zip(places.step_by(together)) {
                let weights = (place..place + together).map(|place| self.weights(parameters, place));
                let weights: Vec<_> = weights.map(|weights| (weights.weight_ih, weights.bias_ih)).collect();
                let projected = recurrent::project(&read, &weights)?;
                let done = recurrent::forward(calls, projected, &mut output)?;
                for (index, last) in done.last.iter().enumerate() {
                    next.put(place + index, last)?;
                }
                saved.push(done);
            }
            input = self.leave(sequences, layer, &output, &input)?;
            keep(LayerTrace { x: read, output, directions: saved });
        }
        Ok((input, next.carried_by(self.model, self.first)))
    }

    /// The time loops at `places` of a layer, without their input; `masked` returns the masked W_hh of a
    /// place, if there is one.
    pub(super) fn calls<'a>(
        &'a self,
        parameters: &'a Parameters,
        initial: &'a State,
        places: Range<usize>,
        sequences: Sequences<'a>,
        masked: impl Fn(usize) -> Option<View<'a>>,
    ) -> Result<Vec<Call<'a>>> {
        let directions = self.description.directions.all();
        let call = |place: usize| {
            let mut weights = self.weights(parameters, place).recurrent;
            if let Some(masked) = masked(place) {
                weights.weight_hh = masked.named_as(weights.weight_hh);
            }
            let noise = self.noise(sequences.mode, place);
            Ok(Call {
                equations: Equations { noise, ..self.description.equations() },
                state_mask: self.state_mask(sequences.mode, place, initial.batch())?,
                weights,
                initial: initial.at(place)?,
                traversal: self.traversal(directions[place % directions.len()], sequences),
                column: place % directions.len() * self.description.hidden_width(),
            })
        };
        places.map(call).collect()
    }

    fn traversal<'a>(&self, direction: Direction, sequences: Sequences<'a>) -> Traversal<'a> {
        let Sequences { lengths, resets, first, .. } = sequences;
        Traversal { direction, lengths, resets, truncation: self.description.options.truncation, first }
    }

    /// Checks the operands of a forward pass; returns T and B.
    fn check(&self, parameters: &Parameters, x: &Tensor, state: &State) -> Result<[usize; 2]> {
        let Rnn { inputs, .. } = self.description;
        parameters.layout().expect_model("parameters", self.model)?;
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
        // The batch sizes of state and x differ: usually because x has its batch first.
        if state.batch() != batch && state.batch() == steps {
            let expected = format!("[time, batch, inputs] with a batch of {steps}, as the state has");
            let found = format!("{}: time comes first; time and batch seem to be swapped", x.shape());
            return Err(Error::shape("x", expected, found));
        }
        state.expect("the state", self.state_sizes(batch))?;
        // A learned state of other parameters would silently get no gradient.
        if state.is_learned_by(self.model, self.first) {
            state.expect_learned_from(parameters.layout().id())?;
        }
        if self.description.directions != Directions::Forward && state.is_carried_by(self.model, self.first) {
            return Err(Error::config(
                "the state and reverse or bidirectional",
                "cannot be combined: the reverse direction starts at the end of a window, but its previous state \
                 is of the beginning of the previous window; start each window from `zero_state`",
            ));
        }
        Ok([steps, batch])
    }
}
