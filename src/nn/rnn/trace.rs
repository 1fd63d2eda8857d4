//! The backward pass of a stack.

use super::between::MaskedWeight;
use super::sequences::Mode;
use super::{Rnn, Sequences, State};
use crate::Result;
use crate::nn::{Gradients, Layer, Parameters};
use crate::ops::elementwise::add_into;
use crate::ops::matmul::matmul_into;
use crate::ops::recurrent::{self, Steps};
use crate::ops::{Form, matmul, zero_padding};
use crate::tensor::{Indices, Tensor};

/// What [`Layer<Rnn>::forward`](Layer) leaves for backward: for each layer its input, gates and states.
pub struct RnnTrace<'p> {
    pub(super) layer: Layer<Rnn>,
    pub(super) parameters: &'p Parameters,
    pub(super) initial: State,
    pub(super) lengths: Option<Indices>,
    pub(super) resets: Option<Indices>,
    pub(super) mode: Option<Mode>,
    pub(super) layers: Vec<LayerTrace>,
}

/// What one layer leaves.
pub(super) struct LayerTrace {
    /// What its directions read.
    pub(super) x: Tensor,
    /// What they gave, side by side.
    pub(super) output: Tensor,
    /// One for each direction.
    pub(super) directions: Vec<Steps>,
}

impl RnnTrace<'_> {
    /// Back-propagation through time over the whole window (Werbos 1990).
    ///
    /// Takes the gradient at the outputs \[T, B, outputs\] and, where something was computed from it, at the final state;
    /// adds to the gradients of all weights, and of the initial state where the pass started from a learned one; returns the gradients at x \[T, B, I\] and at the initial state.
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
        let Self { layer, parameters, initial, lengths, resets, mode, layers } = self;
        gradients.expect(layer.model, parameters.device())?;
        let sizes = layer.state_sizes(initial.hidden().shape().dimensions()[1]);
        if let Some(state) = d_state {
            parameters.device().expect_same("d_state", state.device())?;
            state.expect("d_state", sizes)?;
        }
        let sequences = Sequences { lengths: lengths.as_ref(), resets: resets.as_ref(), mode };
        let directions = layer.description.directions.all();
        let mut d_initial = State::unwritten(parameters.device(), sizes)?;
        let mut d_y = layer.d_output(d_output, &layers, sequences)?;
        for (index, LayerTrace { x, output, directions: steps }) in layers.into_iter().enumerate().rev() {
            let d_directions = layer.leave_backward(mode, index, &output, &d_y)?;
            let mut d_x: Option<Tensor> = None;
            for (number, (steps, &direction)) in steps.into_iter().zip(directions).enumerate() {
                let place = index * directions.len() + number;
                let d_last = d_state.map(|state| state.at(place)).transpose()?;
                let masked = layer.masked_weight(mode, parameters, [index, number])?;
                let mut call = layer.call(parameters, &initial, place, direction, sequences)?;
                if let Some(masked) = &masked {
                    call.weights.weight_hh = masked.copy.view();
                }
                let done = recurrent::backward(&call, steps, &output, d_directions.view(), d_last)?;
                d_initial.put(place, &done.d_initial)?;
                layer.accumulate(place, gradients, &done, &x, masked.as_ref())?;
                let weight_ih = layer.weights(parameters, place).weight_ih;
                match &mut d_x {
                    None => d_x = Some(matmul(done.d_projected.view(), weight_ih, Form::Plain, None)?),
                    Some(d_x) => {
                        let d_projected = done.d_projected.view().matrix()?;
                        matmul_into(d_x.view_mut()?.matrix()?, d_projected, weight_ih, Form::Plain)?;
                    }
                }
            }
            if let Some(d_x) = d_x {
                d_y = layer.enter_backward(mode, index, d_x, &d_y)?;
            }
        }
        layer.accumulate_initial(&initial, &d_initial, gradients)?;
        Ok((d_y, d_initial))
    }
}

impl Layer<Rnn> {
    /// The gradient at the stack's output, checked. What stands in its padding may be anything: the time loop passes
    /// over it, but a residual connection would not.
    fn d_output(&self, d_output: &Tensor, layers: &[LayerTrace], sequences: Sequences<'_>) -> Result<Tensor> {
        if let Some(last) = layers.last() {
            last.output.device().expect_same("d_output", d_output.device())?;
            let expected = last.output.shape().with_last(self.description.outputs())?;
            d_output.shape().expect("d_output", expected.dimensions())?;
        }
        match sequences.lengths {
            Some(lengths) if self.description.is_residual(layers.len().saturating_sub(1)) => {
                zero_padding(d_output, lengths)
            }
            _ => Ok(d_output.clone()),
        }
    }

    /// Adds the weight gradients at `place`, each one product of depth T·B: dW_ih += Σ_t dgates_tᵀ x_t,
    /// dW_hh += Σ_t dgates_tᵀ h'_t, db += Σ_t dgates_t.
    fn accumulate(
        &self,
        place: usize,
        gradients: &mut Gradients,
        done: &recurrent::Gradients,
        x: &Tensor,
        masked: Option<&MaskedWeight>,
    ) -> Result<()> {
        let first = self.first_of(place);
        let d_projected = done.d_projected.view();
        let d_weight_ih = gradients.section_mut(first);
        matmul_into(d_weight_ih, d_projected.matrix()?, x.view().matrix()?, Form::LeftTransposed)?;
        let d_weight_hh = gradients.section_mut(first + 1);
        match masked {
            Some(masked) => masked.accumulate(d_weight_hh, |d_copy| done.accumulate_weight(d_copy))?,
            None => done.accumulate_weight(d_weight_hh)?,
        }
        if self.description.bias {
            let sum = done.bias_ih()?;
            add_into(gradients.section_mut(first + 2), sum.view())?;
            done.accumulate_bias(gradients.section_mut(first + 3), &sum)?;
        }
        self.accumulate_norms(place, gradients, done)?;
        let [peepholes, projection] = self.extra_of(place);
        if let Some(index) = peepholes {
            done.accumulate_peepholes(gradients.section_mut(index))?;
        }
        if let Some(index) = projection {
            done.accumulate_projection(gradients.section_mut(index))?;
        }
        Ok(())
    }
}
