//! The valid steps of a case's rows, and the values in their padding.

use super::Output;
use crate::Result;
use crate::check::sampler::Sampler;
use crate::device::Device;
use crate::nn::Sequences;
use crate::tensor::{Indices, Tensor};

/// Whether rows end early, or are reset at some steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum CaseRows {
    Whole,
    Ragged,
    Reset,
    RaggedAndReset,
}

/// The lengths and resets of a batch of T steps and B rows.
pub(super) struct Batch {
    steps: usize,
    rows: usize,
    lengths: Option<Indices>,
    resets: Option<Indices>,
}

impl CaseRows {
    /// Samples lengths in any order that include 1, T and, with more than two rows, 0; a single row is shorter than T. A
    /// third of all steps are resets.
    pub(super) fn sampler(self, sampler: &Sampler, steps: usize, rows: usize) -> Result<Batch> {
        let mut lengths: Vec<u32> =
            sampler.integers(rows, steps).into_iter().map(|length| length + 1).collect();
        match lengths.as_mut_slice() {
            [only] => *only = steps.div_ceil(2) as u32,
            all => {
                (all[0], all[rows / 2]) = (1, steps as u32);
                if rows > 2 {
                    all[rows - 1] = 0;
                }
            }
        }
        let thirds = sampler.integers(steps * rows, 3);
        let resets: Vec<u32> = thirds.into_iter().map(|third| u32::from(third == 0)).collect();
        let ragged = matches!(self, Self::Ragged | Self::RaggedAndReset);
        let reset = matches!(self, Self::Reset | Self::RaggedAndReset);
        let device = sampler.device();
        let lengths = ragged.then(|| Indices::from_slice(device, &[rows], &lengths)).transpose()?;
        let resets = reset.then(|| Indices::from_slice(device, &[steps, rows], &resets)).transpose()?;
        Ok(Batch { steps, rows, lengths, resets })
    }
}

impl Batch {
    pub(super) fn sequences(&self) -> Sequences<'_> {
        let sequences = self.lengths.as_ref().map_or_else(Sequences::whole, Sequences::ragged);
        match &self.resets {
            Some(resets) => sequences.resets(resets),
            None => sequences,
        }
    }

    fn is_padding(&self, step: usize, row: usize) -> bool {
        self.lengths.as_ref().is_some_and(|lengths| step >= lengths.values()[row] as usize)
    }

    /// Multiplies the padding of `values` \[T, B, …\] by `garbage`, but sets it to zero on the reference: a result that
    /// depends on the padding differs between the two.
    pub(super) fn with_padding(
        &self,
        sampler: &Sampler,
        mut values: Vec<f32>,
        garbage: f32,
    ) -> Result<Tensor> {
        let features = values.len() / (self.steps * self.rows);
        let factor = if sampler.device() == &Device::reference() { 0.0 } else { garbage };
        for (place, values) in values.chunks_mut(features).enumerate() {
            if self.is_padding(place / self.rows, place % self.rows) {
                values.iter_mut().for_each(|value| *value *= factor);
            }
        }
        Tensor::from_slice(sampler.device(), &[self.steps, self.rows, features], &values)
    }

    /// The padding of `tensor` \[T, B, F\], which must be zero, as the reference's is assumed to be. `None` for rows without
    /// padding.
    pub(super) fn padding_of(
        &self,
        sampler: &Sampler,
        name: &str,
        tensor: &Tensor,
    ) -> Result<Option<Output>> {
        if self.lengths.is_none() {
            return Ok(None);
        }
        let mut values = tensor.download_f64()?;
        let features = tensor.shape().last();
        let on_reference = sampler.device() == &Device::reference();
        for (place, values) in values.chunks_mut(features).enumerate() {
            if on_reference || !self.is_padding(place / self.rows, place % self.rows) {
                values.fill(0.0);
            }
        }
        let padding = Tensor::from_slice_f64(sampler.device(), tensor.shape().dimensions(), &values)?;
        Ok(Some(Output::new(format!("the padding of {name}"), padding, 1.0)))
    }
}
