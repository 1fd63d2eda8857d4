//! The backward pass of a stack.

use super::between::MaskedGradient;
use super::checkpoints::{Joined, Segment};
use super::sequences::Mode;
use super::{Rnn, Sequences, State};
use crate::Result;
use crate::nn::{Gradients, Layer, Parameters};
use crate::ops::matmul::matmul_into;
use crate::ops::recurrent::{self, SavedActivations};
use crate::ops::{Form, matmul, zero_padding};
use crate::tensor::Tensor;

/// The trace of [`Layer<Rnn>::forward`](Layer): for each layer its input, gates and states. For a
/// [checkpointed](Rnn::checkpointed) stack, those of the last segment, and the initial states of all
/// segments.
pub struct RnnTrace<'p> {
    pub(super) layer: Layer<Rnn>,
    pub(super) parameters: &'p Parameters,
    pub(super) mode: Option<Mode>,
    /// The input of all steps, where segments are recomputed.
    pub(super) x: Option<Tensor>,
    /// One segment for all steps, unless the stack is checkpointed.
    pub(super) segments: Vec<Segment>,
    /// The layers' traces of the last segment.
    pub(super) layers: Vec<LayerTrace>,
}

/// The trace of one layer.
pub(super) struct LayerTrace {
    /// The input of its directions.
    pub(super) x: Tensor,
    /// The outputs of its directions, concatenated.
    pub(super) output: Tensor,
    /// One for each direction, or one for both where they run together.
    pub(super) directions: Vec<SavedActivations>,
}

impl RnnTrace<'_> {
    /// Back-propagation through time over the whole window (Werbos 1990).
    ///
    /// `d_output` is the gradient of the outputs \[T, B, outputs\], and `d_state` the gradient of the final
    /// state if something was computed from it. Adds to the gradients of all weights, and of a learned
    /// initial state if the pass started from it; returns the gradients of x \[T, B, I\] and of the initial
    /// state.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DeviceMismatch`](crate::Error::DeviceMismatch),
    /// [`Error::ModelMismatch`](crate::Error::ModelMismatch).
    pub fn backward(
        self,
        d_output: &Tensor,
        d_state: Option<&State>,
        gradients: &mut Gradients,
    ) -> Result<(Tensor, State)> {
        let steps = self.check(d_output, d_state, gradients)?;
        let mut d_x = Joined::new(steps);
        let d_initial = self.run(d_output.clone(), d_state, gradients, Some(&mut d_x))?;
        Ok((d_x.whole(), d_initial))
    }

    /// As [`RnnTrace::backward`] from the gradient of the outputs alone; returns the gradient of x. Frees the
    /// gradient of the outputs once it is no longer read.
    pub(in crate::nn) fn backward_outputs(
        self,
        d_output: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let steps = self.check(&d_output, None, gradients)?;
        let mut d_x = Joined::new(steps);
        self.run(d_output, None, gradients, Some(&mut d_x))?;
        Ok(d_x.whole())
    }

    /// As [`RnnTrace::backward`] from the gradient of the outputs alone, without the gradients of x and of
    /// the initial state. This saves a matrix product where x is data and the initial state is not an output
    /// of another computation.
    ///
    /// # Errors
    /// As [`RnnTrace::backward`].
    pub fn backward_parameters(self, d_output: &Tensor, gradients: &mut Gradients) -> Result<()> {
        self.parameters_from(d_output.clone(), gradients)
    }

    /// As [`RnnTrace::backward_parameters`]; frees the gradient of the outputs once it is no longer read.
    pub(in crate::nn) fn parameters_from(self, d_output: Tensor, gradients: &mut Gradients) -> Result<()> {
        self.check(&d_output, None, gradients)?;
        self.run(d_output, None, gradients, None).map(drop)
    }

    /// Extends the trace to its size at the largest in a backward pass, when the layers have saved the first segment;
    /// returns how many steps a backward pass runs again.
    pub(in crate::nn) fn extend(&mut self) -> Result<usize> {
        let (Some(x), [first, .., last]) = (&self.x, &self.segments[..]) else { return Ok(0) };
        self.layers.clear();
        self.layers = self.layer.retrace(self.parameters, x, first, self.mode)?;
        Ok(last.steps.start)
    }

    /// Runs the backward pass of all segments; writes the gradient of x to `d_x` and returns that of the
    /// initial state.
    fn run(
        self,
        d_output: Tensor,
        d_state: Option<&State>,
        gradients: &mut Gradients,
        d_x: Option<&mut Joined>,
    ) -> Result<State> {
        let layer = self.layer.clone();
        layer.named(self.run_segments(d_output, d_state, gradients, d_x))
    }

    fn run_segments(
        self,
        d_output: Tensor,
        d_state: Option<&State>,
        gradients: &mut Gradients,
        mut d_x: Option<&mut Joined>,
    ) -> Result<State> {
        let Self { layer, parameters, mode, x, segments, layers } = self;
        let masked = layer.masked(parameters, mode)?;
        let reads = if d_x.is_some() { Entry::Computed } else { Entry::Data };
        let mut pass = TracePass { layer: &layer, parameters, mode, masked, gradients, reads };
        let mut d_later = d_state.cloned();
        let mut kept = Some(layers);
        let mut initial = None;
        let mut d_output = Some(d_output);
        for segment in segments.into_iter().rev() {
            let layers = match (kept.take(), &x) {
                (Some(layers), _) => layers,
                (None, Some(x)) => layer.retrace(parameters, x, &segment, mode)?,
                (None, None) => unreachable!("the only segment's trace is kept"),
            };
            // The first segment in time is the last to read it.
            let whole = if segment.steps.start == 0 { d_output.take() } else { d_output.clone() };
            let Some(whole) = whole else { unreachable!("one segment begins at the first step") };
            let d_own = whole.outer(segment.steps.clone())?;
            drop(whole);
            let (d_part, d_initial) = pass.segment(&segment, layers, d_own, d_later.as_ref())?;
            if let (Some(d_x), Some(d_part)) = (&mut d_x, d_part) {
                d_x.put(segment.steps, d_part)?;
            }
            d_later = Some(d_initial);
            initial = Some(segment.initial);
        }
        pass.add_masked()?;
        let (Some(d_initial), Some(initial)) = (d_later, initial) else {
            unreachable!("a pass has at least one segment");
        };
        layer.accumulate_initial(&initial, &d_initial, gradients)?;
        Ok(d_initial)
    }

    /// Checks the operands of a backward pass; returns T.
    fn check(&self, d_output: &Tensor, d_state: Option<&State>, gradients: &Gradients) -> Result<usize> {
        self.layer.named(self.check_shapes(d_output, d_state, gradients))
    }

    fn check_shapes(
        &self,
        d_output: &Tensor,
        d_state: Option<&State>,
        gradients: &Gradients,
    ) -> Result<usize> {
        let Self { layer, parameters, segments, .. } = self;
        gradients.expect_of(parameters)?;
        let Some(last) = segments.last() else { unreachable!("a pass has at least one segment") };
        let batch = last.initial.batch();
        if let Some(state) = d_state {
            parameters.device().expect_same("d_state", state.device())?;
            state.expect("d_state", layer.state_sizes(batch))?;
        }
        parameters.device().expect_same("d_output", d_output.device())?;
        let steps = last.steps.end;
        d_output.shape().expect_time_first("d_output", &[steps, batch, layer.description.outputs()])?;
        Ok(steps)
    }
}

/// The input of the first layer.
#[derive(Clone, Copy, PartialEq)]
enum Entry {
    /// The output of other layers: its gradient is computed.
    Computed,
    /// Data: its gradient is not computed.
    Data,
}

/// The state of a backward pass over the segments.
struct TracePass<'a> {
    layer: &'a Layer<Rnn>,
    parameters: &'a Parameters,
    mode: Option<Mode>,
    /// For each layer and direction.
    masked: Vec<Option<MaskedGradient>>,
    gradients: &'a mut Gradients,
    reads: Entry,
}

impl TracePass<'_> {
    /// Computes the backward pass of one segment from the gradients of its outputs and of its final state.
    /// Returns the gradients of its input, unless that is data, and of its initial state.
    fn segment(
        &mut self,
        segment: &Segment,
        mut layers: Vec<LayerTrace>,
        d_output: Tensor,
        d_state: Option<&State>,
    ) -> Result<(Option<Tensor>, State)> {
        let Self { layer, parameters, mode, .. } = *self;
        let sequences = segment.sequences(mode);
        let directions = layer.description.directions.all().len();
        let mut d_initial =
            State::unwritten(parameters.device(), layer.state_sizes(segment.initial.batch()))?;
        let mut d_y = Some(layer.d_output(d_output, sequences)?);
        while let Some(LayerTrace { x, output, directions: steps }) = layers.pop() {
            let Some(d_given) = d_y.take() else { unreachable!("only the first layer computes none") };
            let index = layers.len();
            let d_output = layer.leave_backward(sequences, index, &output, &d_given)?;
            let d_given = layer.description.is_residual(index).then_some(d_given);
            // The last direction consumes what both read, so that its memory can be reused.
            let mut shared = Some((output, d_output));
            let mut d_x: Option<Tensor> = None;
            let passes = steps.len();
            let together = directions / passes;
            for (number, steps) in steps.into_iter().enumerate() {
                let first = index * directions + number * together;
                let places = first..first + together;
                let d_last = places.clone().map(|place| d_state.map(|state| state.at(place)).transpose());
                let d_last = d_last.collect::<Result<Vec<_>>>()?;
                let weight = |place: usize| self.masked[place].as_ref().map(|one| one.weight.copy.view());
                let calls = layer.calls(parameters, &segment.initial, places, sequences, weight)?;
                let both = if number + 1 == passes { shared.take() } else { shared.clone() };
                let Some((output, d_output)) = both else { unreachable!("only the last pass takes it") };
                let done = recurrent::backward(&calls, steps, &output, d_output, &d_last)?;
                drop((calls, output));
                for (place, done) in (first..).zip(done) {
                    d_initial.put(place, &done.d_initial)?;
                    self.accumulate(place, &done, &x)?;
                    if index > 0 || self.reads == Entry::Computed {
                        let d_projected = done.d_projected;
                        self.add_d_x(place, &d_projected, &mut d_x)?;
                    }
                }
            }
            drop(x);
            d_y = d_x.map(|d_x| layer.enter_backward(mode, index, d_x, d_given.as_ref())).transpose()?;
        }
        Ok((d_y, d_initial))
    }

    /// Adds dgates_t W_ih of the direction at `place` to the gradient of the layer's input.
    fn add_d_x(&self, place: usize, d_projected: &Tensor, d_x: &mut Option<Tensor>) -> Result<()> {
        let weight_ih = self.layer.weights(self.parameters, place).weight_ih;
        match d_x {
            None => *d_x = Some(matmul(d_projected, weight_ih, Form::Plain, None)?),
            Some(d_x) => {
                let d_projected = d_projected.view().matrix()?;
                matmul_into(d_x.view_mut()?.matrix()?, d_projected, weight_ih, Form::Plain)?;
            }
        }
        Ok(())
    }

    /// Adds the weight gradients at `place`, each a sum over T·B: dW_ih += Σ_t dgates_tᵀ x_t,
    /// dW_hh += Σ_t dgates_tᵀ h'_t, db += Σ_t dgates_t.
    fn accumulate(&mut self, place: usize, done: &recurrent::PassGradients, x: &Tensor) -> Result<()> {
        let Self { layer, gradients, .. } = self;
        let first = layer.first_of(place);
        done.accumulate_input_weight(gradients.section_mut(first), x.view())?;
        match &mut self.masked[place] {
            Some(masked) => done.accumulate_weight(masked.d_copy.view_mut()?)?,
            None => done.accumulate_weight(gradients.section_mut(first + 1))?,
        }
        if layer.description.bias {
            let sums = done.sums()?;
            sums.add_into(gradients.section_mut(first + 2))?;
            done.accumulate_bias(gradients.section_mut(first + 3), &sums)?;
        }
        layer.accumulate_norms(place, gradients, done)?;
        let [peepholes, projection] = layer.extra_of(place);
        if let Some(index) = peepholes {
            done.accumulate_peepholes(gradients.section_mut(index))?;
        }
        if let Some(index) = projection {
            done.accumulate_projection(gradients.section_mut(index))?;
        }
        Ok(())
    }

    /// Adds the gradients of masked weights to those of the weights.
    fn add_masked(&mut self) -> Result<()> {
        for (place, masked) in self.masked.iter().enumerate() {
            if let Some(masked) = masked {
                masked.add_into(self.gradients.section_mut(self.layer.first_of(place) + 1))?;
            }
        }
        Ok(())
    }
}

impl Layer<Rnn> {
    /// The gradient of the stack's output with zeros in the padding: the time loop ignores padding, a
    /// residual connection does not.
    fn d_output(&self, d_output: Tensor, sequences: Sequences<'_>) -> Result<Tensor> {
        match sequences.lengths {
            Some(lengths) if self.description.is_residual(self.description.layers - 1) => {
                zero_padding(&d_output, lengths)
            }
            _ => Ok(d_output),
        }
    }

    /// The masked weights of all layers and directions, with gradients of zero; none where a weight is not
    /// masked.
    fn masked(&self, parameters: &Parameters, mode: Option<Mode>) -> Result<Vec<Option<MaskedGradient>>> {
        let Rnn { layers, directions, .. } = &self.description;
        let places =
            (0..*layers).flat_map(|layer| (0..directions.all().len()).map(move |index| [layer, index]));
        let masked =
            |place| self.masked_weight(mode, parameters, place)?.map(|one| one.with_gradient()).transpose();
        places.map(masked).collect()
    }
}
