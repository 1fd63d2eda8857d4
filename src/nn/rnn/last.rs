//! The outputs of the last valid step of each row.

use super::{Directions, Rnn};
use crate::nn::Layer;
use crate::ops::{Merge, embedding, embedding_backward, zero_padding};
use crate::shape::Shape;
use crate::tensor::{Indices, Tensor};
use crate::{Error, Result};

impl Layer<Rnn> {
    /// Returns the output of each direction at its last step of each row: step lengths_b − 1 in the forward
    /// direction, step 0 in reverse; zeros for a row of length 0. output \[T, B, D·H\], lengths \[B\] → \[B,
    /// D·H\].
    ///
    /// # Errors
    /// [`Error::Config`] for a stack whose directions are merged, since their last steps differ.
    /// [`Error::Index`] for a length beyond T; [`Error::Shape`], [`Error::DeviceMismatch`].
    ///
    /// ```
    /// use refrain::nn::{Cell, Model, Rnn, Sequences};
    /// use refrain::{Device, Indices, Tensor};
    /// let device = Device::cpu();
    /// let mut model = Model::new(1);
    /// let rnn = model.add("rnn", Rnn::new(Cell::Gru, 3, 8))?;
    /// let parameters = model.initialize(&device)?;
    /// let lengths = Indices::from_slice(&device, &[2], &[5, 2])?;
    /// let (x, zero) = (Tensor::zeros(&device, &[5, 2, 3])?, rnn.zero_state(&device, 2)?);
    /// let (y, state) = rnn.infer_sequences(&parameters, &x, &zero, Sequences::ragged(&lengths))?;
    /// assert_eq!(rnn.last_valid(&y, &lengths)?.download()?, state.hidden().download()?);
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn last_valid(&self, output: &Tensor, lengths: &Indices) -> Result<Tensor> {
        let [steps, batch, _] = output.shape().exactly("output", "[time, batch, features]")?;
        output.shape().expect("output", &[steps, batch, self.description.outputs()])?;
        output.device().expect_same("lengths", lengths.device())?;
        let places = self.last_places(steps, batch, lengths)?;
        let blocks = output.reshape(&[self.blocks(steps, batch), self.description.hidden_width()])?;
        let picked = embedding(&places, &blocks)?.reshape(&[batch, self.description.outputs()])?;
        but_empty_rows(picked, lengths)
    }

    /// The backward pass of [`Layer::<Rnn>::last_valid`]: the gradient of the output \[T, B, D·H\] of `steps`
    /// steps from d_last \[B, D·H\], zero elsewhere and for rows of length 0.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::last_valid`].
    pub fn last_valid_backward(&self, d_last: &Tensor, lengths: &Indices, steps: usize) -> Result<Tensor> {
        let [batch, _] = d_last.shape().exactly("d_last", "[batch, features]")?;
        d_last.shape().expect("d_last", &[batch, self.description.outputs()])?;
        d_last.device().expect_same("lengths", lengths.device())?;
        let places = self.last_places(steps, batch, lengths)?;
        let d_last = but_empty_rows(d_last.clone(), lengths)?;
        let d_blocks = d_last.reshape(&[places.shape().elements(), self.description.hidden_width()])?;
        let d_output = embedding_backward(&places, &d_blocks, self.blocks(steps, batch))?;
        d_output.reshape(&[steps, batch, self.description.outputs()])
    }

    /// The number of blocks of H features in an output of T steps and B rows.
    fn blocks(&self, steps: usize, batch: usize) -> usize {
        steps * batch * self.description.directions.all().len()
    }

    /// The index of each row's last block of H features in the output, direction by direction \[B·D\]; of
    /// step 0 for a row of length 0.
    fn last_places(&self, steps: usize, batch: usize, lengths: &Indices) -> Result<Indices> {
        let Rnn { options, directions, .. } = &self.description;
        if options.merge != Merge::Concat {
            let message = format!(
                "requires unmerged directions, but they are merged by {:?}: use the final state",
                options.merge
            );
            return Err(Error::config("last_valid and merge", message));
        }
        // Returns an error before the product of the sizes overflows.
        Shape::named("the output [steps, batch, features]", &[steps, batch, self.description.outputs()])?;
        lengths.shape().expect("lengths", &[batch])?;
        lengths.expect_below("lengths", steps + 1)?;
        let width = directions.all().len();
        let mut places = Vec::with_capacity(batch * width);
        for (row, &length) in lengths.values().iter().enumerate() {
            let last = (length as usize).saturating_sub(1);
            let place = |step: usize, direction: usize| ((step * batch + row) * width + direction) as u32;
            match directions {
                Directions::Forward => places.push(place(last, 0)),
                Directions::Reverse => places.push(place(0, 0)),
                Directions::Both => places.extend([place(last, 0), place(0, 1)]),
            }
        }
        Indices::from_slice(lengths.device(), &[places.len()], &places)
    }
}

/// `x` \[B, F\] with zeros in the rows of length 0.
fn but_empty_rows(x: Tensor, lengths: &Indices) -> Result<Tensor> {
    if !lengths.values().contains(&0) {
        return Ok(x);
    }
    let [batch, features] = x.shape().exactly("x", "[batch, features]")?;
    // A sequence of one step, which is padding in rows of length 0.
    zero_padding(&x.reshape(&[1, batch, features])?, lengths)?.reshape(&[batch, features])
}
