//! What a stack computes around the time loops of a layer: masks, merges and residual connections, forward
//! and backward.
//!
//! Layer l reads x' = dropout(x) with one mask for all steps, runs its directions over x' with W_hh masked,
//! and returns y = dropout(merge(outputs)) + x, each if the stack has the option.

use super::sequences::Mode;
use super::{Rnn, Sequences};
use crate::nn::random_key::RandomPurpose;
use crate::nn::{Layer, Parameters};
use crate::ops::dropout::dropout_add_into;
use crate::ops::elementwise::add_into;
use crate::ops::{Binary, Mask, Merge, binary, dropout, merge, merge_backward};
use crate::random::Stream;
use crate::tensor::{Tensor, ViewMut};
use crate::{Error, Result};

impl Layer<Rnn> {
    /// Checks that `sequences` requests training or evaluation if the stack uses random numbers.
    pub(super) fn expect_mode(&self, sequences: Sequences<'_>) -> Result<()> {
        if sequences.mode.is_some() || !self.description.is_random() {
            return Ok(());
        }
        Err(Error::config(
            "sequences",
            "do not say whether this pass is training, in which the stack draws random numbers: choose `training(random_key)` or \
             `evaluation()`",
        ))
    }

    /// The mask of a layer and direction for `purpose`; none in evaluation.
    fn mask(
        &self,
        mode: Option<Mode>,
        [layer, direction]: [usize; 2],
        purpose: RandomPurpose,
    ) -> Result<Option<Mask>> {
        let Rnn { options, directions, layers, .. } = &self.description;
        let rate = match purpose {
            RandomPurpose::Outputs if layer + 1 == *layers => 0.0,
            RandomPurpose::Outputs => options.dropout,
            RandomPurpose::Inputs => options.input_dropout,
            RandomPurpose::Weights => options.weight_drop,
            RandomPurpose::States => options.recurrent_dropout,
            // The cell has the rates of zoneout.
            RandomPurpose::Zoneout => 0.0,
        };
        match mode {
            Some(Mode::Training(random_key)) if rate > 0.0 => {
                let first = self.first_of(layer * directions.all().len() + direction);
                Mask::new(random_key.stream(first, purpose), rate).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The mask of a layer's input \[T, B, F\], the same at each step.
    fn input_mask(&self, mode: Option<Mode>, layer: usize, x: &Tensor) -> Result<Option<Mask>> {
        let step = x.shape().inner().elements();
        self.mask(mode, [layer, 0], RandomPurpose::Inputs)?.map(|mask| mask.repeated(step)).transpose()
    }

    /// The mask of the state at `place`, the same at each step.
    pub(super) fn state_mask(&self, mode: Option<Mode>, place: usize, batch: usize) -> Result<Option<Mask>> {
        let directions = self.description.directions.all().len();
        let mask = self.mask(mode, [place / directions, place % directions], RandomPurpose::States)?;
        mask.map(|mask| mask.repeated(batch * self.description.hidden_width())).transpose()
    }

    /// The random stream of zoneout at `place`; none in evaluation.
    pub(super) fn noise(&self, mode: Option<Mode>, place: usize) -> Option<Stream> {
        match mode {
            Some(Mode::Training(random_key)) => {
                Some(random_key.stream(self.first_of(place), RandomPurpose::Zoneout))
            }
            _ => None,
        }
    }

    /// The mask of a layer's output \[T, B, F\], from the first of these steps on.
    fn output_mask(&self, sequences: Sequences<'_>, layer: usize, y: &Tensor) -> Result<Option<Mask>> {
        let earlier = sequences.first * y.shape().inner().elements();
        Ok(self.mask(sequences.mode, [layer, 0], RandomPurpose::Outputs)?.map(|mask| mask.after(earlier)))
    }

    /// The input of a layer's directions, from the layer's input.
    pub(super) fn enter(&self, mode: Option<Mode>, layer: usize, x: &Tensor) -> Result<Tensor> {
        dropped(x, self.input_mask(mode, layer, x)?)
    }

    /// The gradient of a layer's input, from the gradient of its directions' input and, for a residual layer,
    /// of its output.
    pub(super) fn enter_backward(
        &self,
        mode: Option<Mode>,
        layer: usize,
        d_read: Tensor,
        d_given: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut d_x = match self.input_mask(mode, layer, &d_read)? {
            Some(mask) => dropout(&d_read, mask)?,
            None => d_read,
        };
        if let Some(d_given) = d_given {
            add_into(d_x.view_mut()?, d_given.view())?;
        }
        Ok(d_x)
    }

    /// The output of a layer, from the outputs of its directions and its input.
    pub(super) fn leave(
        &self,
        sequences: Sequences<'_>,
        layer: usize,
        output: &Tensor,
        x: &Tensor,
    ) -> Result<Tensor> {
        let merged = match self.description.options.merge {
            Merge::Concat => output.clone(),
            way => merge(output, way)?,
        };
        let given = dropped(&merged, self.output_mask(sequences, layer, &merged)?)?;
        match self.description.is_residual(layer) {
            true => binary(&given, x, Binary::Add),
            false => Ok(given),
        }
    }

    /// The gradient of the outputs of a layer's directions, from the gradient of the layer's output.
    pub(super) fn leave_backward(
        &self,
        sequences: Sequences<'_>,
        layer: usize,
        output: &Tensor,
        d_given: &Tensor,
    ) -> Result<Tensor> {
        let d_merged = dropped(d_given, self.output_mask(sequences, layer, d_given)?)?;
        match self.description.options.merge {
            Merge::Concat => Ok(d_merged),
            way => merge_backward(output, &d_merged, way),
        }
    }

    /// The masked copy of W_hh at `place` for a window; none without weight_drop.
    pub(super) fn masked_weight(
        &self,
        mode: Option<Mode>,
        parameters: &Parameters,
        place: [usize; 2],
    ) -> Result<Option<MaskedWeight>> {
        let Some(mask) = self.mask(mode, place, RandomPurpose::Weights)? else { return Ok(None) };
        let place = place[0] * self.description.directions.all().len() + place[1];
        let copy = dropout(self.weights(parameters, place).recurrent.weight_hh, mask)?;
        Ok(Some(MaskedWeight { copy, mask }))
    }
}

/// A masked copy of W_hh.
pub(super) struct MaskedWeight {
    pub(super) copy: Tensor,
    mask: Mask,
}

/// A masked W_hh and its gradient, to which a pass adds.
pub(super) struct MaskedGradient {
    pub(super) weight: MaskedWeight,
    pub(super) d_copy: Tensor,
}

impl MaskedWeight {
    /// Adds a gradient of zero.
    pub(super) fn with_gradient(self) -> Result<MaskedGradient> {
        let d_copy = Tensor::zeros(self.copy.device(), self.copy.shape().dimensions())?;
        Ok(MaskedGradient { weight: self, d_copy })
    }
}

impl MaskedGradient {
    /// Adds it to the gradient of W_hh.
    pub(super) fn add_into(&self, d_weight_hh: ViewMut<'_>) -> Result<()> {
        dropout_add_into(d_weight_hh, self.d_copy.view(), self.weight.mask)
    }
}

fn dropped(x: &Tensor, mask: Option<Mask>) -> Result<Tensor> {
    match mask {
        Some(mask) => dropout(x, mask),
        None => Ok(x.clone()),
    }
}
