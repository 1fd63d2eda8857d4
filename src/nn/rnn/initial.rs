//! Learned initial states.

use super::{Rnn, State};
use crate::nn::{Gradients, Layer, Parameters};
use crate::ops::elementwise::{add_into, copy_into};
use crate::ops::{embedding, sum_rows};
use crate::tensor::{Indices, Tensor};
use crate::{Error, Result};

impl Layer<Rnn> {
    /// Returns the learned initial state of a stack with [`Rnn::learned_initial_state`], the same for each of
    /// `batch` rows.
    ///
    /// The state is a copy: create a new one after each step of the optimizer.
    /// [`RnnTrace::backward`](super::RnnTrace::backward) of a pass that starts from it adds the gradient,
    /// summed over the batch, to the gradients of the parameters.
    ///
    /// # Errors
    /// [`Error::Config`] for a stack without that option, [`Error::Shape`] for a batch of zero,
    /// [`Error::ModelMismatch`]; out of memory.
    ///
    /// ```
    /// use refrain::nn::{Cell, Model, Rnn};
    /// use refrain::{Device, Tensor};
    /// let device = Device::cpu();
    /// let mut model = Model::new(1);
    /// let rnn = model.add("rnn", Rnn::new(Cell::Gru, 3, 2).learned_initial_state())?;
    /// let mut parameters = model.initialize(&device)?;
    /// parameters.set("rnn.initial_hidden_l0", &[2], &[0.5, -1.0])?;
    /// let state = rnn.initial_state(&parameters, 2)?;
    /// assert_eq!(state.hidden().download()?, [0.5, -1.0, 0.5, -1.0]);
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn initial_state(&self, parameters: &Parameters, batch: usize) -> Result<State> {
        self.named(self.learned_state(parameters, batch))
    }

    fn learned_state(&self, parameters: &Parameters, batch: usize) -> Result<State> {
        parameters.layout().expect_model("parameters", self.model)?;
        if !self.description.options.learned_initial_state {
            return Err(Error::config(
                "initial_state",
                "is not among the parameters of this stack: describe it with `learned_initial_state()`, or take \
                 `zero_state`",
            ));
        }
        let hidden = self.learned_part(parameters, 0, batch)?;
        let cell = self.description.cell.has_cell_state().then(|| self.learned_part(parameters, 1, batch));
        let state = State::from_parts(&hidden, cell.transpose()?.as_ref())?;
        Ok(state.learned_by(self.model, self.first, parameters.layout().id()))
    }

    /// The learned initial state, or zeros for a stack without one.
    pub(crate) fn initial_or_zero_state(&self, parameters: &Parameters, batch: usize) -> Result<State> {
        match self.description.options.learned_initial_state {
            true => self.initial_state(parameters, batch),
            false => self.zero_state(parameters.device(), batch),
        }
    }

    /// Part `part` of the learned state of all layers and directions, repeated for each row of the batch
    /// \[L·D, B, H or P\].
    fn learned_part(&self, parameters: &Parameters, part: usize, batch: usize) -> Result<Tensor> {
        let places = self.places();
        let units = parameters.section(self.initial_of(0) + part).shape().elements();
        let mut whole = Tensor::unwritten(parameters.device(), &[places, batch, units])?;
        // Looks up row 0 of a table of one row for each row of the batch.
        let rows = Indices::from_slice(parameters.device(), &[batch], &vec![0; batch])?;
        for place in 0..places {
            let learned = parameters.section(self.initial_of(place) + part).reshaped(&[1, units])?;
            let copies = embedding(&rows, learned)?;
            copy_into(whole.view_mut()?.entry(place)?, copies.view())?;
        }
        Ok(whole)
    }

    /// Adds the gradient of a learned initial state to the gradients of its parameters; does nothing for
    /// other states.
    pub(super) fn accumulate_initial(
        &self,
        initial: &State,
        d_initial: &State,
        gradients: &mut Gradients,
    ) -> Result<()> {
        if !initial.is_learned_by(self.model, self.first) {
            return Ok(());
        }
        for place in 0..self.places() {
            let d_place = d_initial.at(place)?;
            for (part, d_part) in [Some(d_place.hidden), d_place.cell].into_iter().flatten().enumerate() {
                add_into(gradients.section_mut(self.initial_of(place) + part), sum_rows(d_part)?.view())?;
            }
        }
        Ok(())
    }

    /// The index of the first parameter of the initial state at `place`.
    fn initial_of(&self, place: usize) -> usize {
        self.first_of(place) + self.description.weights_per_direction()
    }

    /// Layers times directions.
    fn places(&self) -> usize {
        self.description.layers * self.description.directions.all().len()
    }
}
