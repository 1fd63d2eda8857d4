//! The state of a stack between two windows of time.

use crate::device::Device;
use crate::nn::parameters::{ModelId, ParametersId};
use crate::ops::elementwise::copy_into;
use crate::ops::recurrent::{StateTensors, StateView};
use crate::ops::zero_padding;
use crate::tensor::{Indices, Tensor};
use crate::{Error, Result};

/// The state of a stack between two windows of time, or its gradient. It holds values only: gradients do not
/// flow through it to the previous window.
///
/// Its parts have an entry for each layer and direction, as in PyTorch: layer by layer, forward before
/// reverse.
#[derive(Clone, Debug)]
pub struct State {
    /// \[L·D, B, H\], or \[L·D, B, P\] with a projection.
    hidden: Tensor,
    /// \[L·D, B, H\].
    cell: Option<Tensor>,
    origin: StateOrigin,
}

/// The origin of a state. A layer is identified by its model and its first parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
enum StateOrigin {
    Given,
    /// The learned initial state of a layer, copied from these parameters.
    Learned(ModelId, usize, ParametersId),
    /// The final state of a layer in a window.
    Carried(ModelId, usize),
}

/// The sizes of a stack's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateSizes {
    /// Layers times directions.
    pub(super) places: usize,
    pub(super) batch: usize,
    /// Width of the hidden state.
    pub(super) hidden: usize,
    /// Width of the cell state.
    pub(super) cell: Option<usize>,
}

impl State {
    /// Creates a state from the hidden states of all layers \[L·D, B, H\], for cells without a cell state.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are three dimensions.
    pub fn from_hidden(hidden: &Tensor) -> Result<Self> {
        hidden.shape().exactly::<3>("the hidden state", "[layers, batch, hidden]")?;
        Ok(Self { hidden: hidden.clone(), cell: None, origin: StateOrigin::Given })
    }

    /// Creates a state from the hidden states \[L·D, B, H\] and cell states \[L·D, B, H\] of all layers, for
    /// an LSTM. With a projection the hidden states are \[L·D, B, P\].
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`].
    pub fn from_hidden_and_cell(hidden: &Tensor, cell: &Tensor) -> Result<Self> {
        let [places, batch, _] = hidden.shape().exactly("the hidden state", "[layers, batch, hidden]")?;
        let [cell_places, cell_batch, _] =
            cell.shape().exactly("the cell state", "[layers, batch, hidden]")?;
        hidden.device().expect_same("the cell state", cell.device())?;
        if [places, batch] != [cell_places, cell_batch] {
            let expected = format!("[{places}, {batch}, hidden], as many as there are hidden states");
            return Err(Error::shape("the cell state", expected, cell.shape()));
        }
        Ok(Self { hidden: hidden.clone(), cell: Some(cell.clone()), origin: StateOrigin::Given })
    }

    /// As [`State::from_hidden`] or [`State::from_hidden_and_cell`].
    pub(crate) fn from_parts(hidden: &Tensor, cell: Option<&Tensor>) -> Result<Self> {
        match cell {
            Some(cell) => Self::from_hidden_and_cell(hidden, cell),
            None => Self::from_hidden(hidden),
        }
    }

    pub(super) fn zeros(device: &Device, sizes: StateSizes) -> Result<Self> {
        Self::of_sizes(sizes, |dimensions| Tensor::zeros(device, dimensions))
    }

    /// A state with uninitialized values, every entry of which must be written by [`put`](State::put).
    pub(super) fn unwritten(device: &Device, sizes: StateSizes) -> Result<Self> {
        Self::of_sizes(sizes, |dimensions| Tensor::unwritten(device, dimensions))
    }

    fn of_sizes(sizes: StateSizes, create: impl Fn(&[usize]) -> Result<Tensor>) -> Result<Self> {
        let part = |width| create(&[sizes.places, sizes.batch, width]);
        let (hidden, cell) = (part(sizes.hidden)?, sizes.cell.map(part).transpose()?);
        Ok(Self { hidden, cell, origin: StateOrigin::Given })
    }

    /// The hidden states of all layers \[L·D, B, H\]; \[L·D, B, P\] with a projection.
    pub fn hidden(&self) -> Tensor {
        self.hidden.clone()
    }

    /// The cell states of all layers \[L·D, B, H\], for a cell that has one.
    pub fn cell(&self) -> Option<Tensor> {
        self.cell.clone()
    }

    /// The hidden state of one layer in one direction \[B, H\]: `place` is layer times directions, plus direction.
    ///
    /// # Errors
    /// [`Error::Config`] for a place that the state does not have.
    pub fn hidden_at(&self, place: usize) -> Result<Tensor> {
        Self::expect_place(&self.hidden, place)
    }

    /// The cell state of one layer in one direction \[B, H\], for a cell that has one.
    ///
    /// # Errors
    /// As [`State::hidden_at`].
    pub fn cell_at(&self, place: usize) -> Result<Option<Tensor>> {
        self.cell.as_ref().map(|cell| Self::expect_place(cell, place)).transpose()
    }

    /// The same values, marked as the learned initial state of a layer.
    pub(super) fn learned_by(self, model: ModelId, first: usize, from: ParametersId) -> Self {
        Self { origin: StateOrigin::Learned(model, first, from), ..self }
    }

    pub(super) fn is_learned_by(&self, model: ModelId, first: usize) -> bool {
        matches!(self.origin, StateOrigin::Learned(of, at, _) if (of, at) == (model, first))
    }

    /// Checks that a learned initial state was copied from the parameters `from`.
    pub(super) fn expect_learned_from(&self, from: ParametersId) -> Result<()> {
        match self.origin {
            StateOrigin::Learned(_, _, other) if other != from => {
                Err(Error::ModelMismatch { what: "the learned initial state".to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// The same values, marked as the final state of a layer.
    pub(super) fn carried_by(self, model: ModelId, first: usize) -> Self {
        Self { origin: StateOrigin::Carried(model, first), ..self }
    }

    pub(super) fn is_carried_by(&self, model: ModelId, first: usize) -> bool {
        self.origin == StateOrigin::Carried(model, first)
    }

    /// Returns a copy with zeros in the rows of the batch where `resets` \[B\] is not zero: where one
    /// sequence of a row ends and another begins between two windows. For resets inside a window see
    /// [`Sequences::resets`](super::Sequences::resets).
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`]; out of memory.
    ///
    /// ```
    /// use refrain::nn::{Cell, Model, Rnn};
    /// use refrain::{Device, Indices, Tensor};
    /// let device = Device::cpu();
    /// let mut model = Model::new(1);
    /// let rnn = model.add("rnn", Rnn::new(Cell::Gru, 3, 8))?;
    /// let parameters = model.initialize(&device)?;
    /// let x = Tensor::zeros(&device, &[5, 2, 3])?;
    /// let (_, state) = rnn.infer(&parameters, &x, &rnn.zero_state(&device, 2)?)?;
    /// // The next window continues in row 0 and restarts in row 1.
    /// let state = state.reset(&Indices::from_slice(&device, &[2], &[0, 1])?)?;
    /// assert_eq!(state.hidden().download()?[8..], [0.0; 8]);
    /// # let _ = rnn.infer(&parameters, &x, &state)?;
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn reset(&self, resets: &Indices) -> Result<Self> {
        let [places, batch, _] = self.hidden.shape().exactly("the state", "[layers, batch, hidden]")?;
        resets.shape().expect("resets", &[batch])?;
        self.device().expect_same("resets", resets.device())?;
        // Treats layers as time steps: all of them are padding in a row that is reset.
        let kept: Vec<u32> =
            resets.values().iter().map(|&reset| if reset == 0 { places as u32 } else { 0 }).collect();
        let kept = Indices::from_slice(self.device(), &[batch], &kept)?;
        Ok(Self {
            hidden: zero_padding(&self.hidden, &kept)?,
            cell: self.cell.as_ref().map(|cell| zero_padding(cell, &kept)).transpose()?,
            origin: self.origin,
        })
    }

    fn expect_place(part: &Tensor, place: usize) -> Result<Tensor> {
        let places = part.shape().dimensions()[0];
        if place < places {
            return Ok(part.entry(place));
        }
        Err(Error::config(
            "place",
            format!("must be below {places}, the layers times directions, not {place}"),
        ))
    }

    /// B.
    pub(super) fn batch(&self) -> usize {
        self.hidden.shape().dimensions()[1]
    }

    pub(super) fn device(&self) -> &Device {
        self.hidden.device()
    }

    /// Checks the sizes of this state.
    pub(super) fn expect(&self, what: &str, sizes: StateSizes) -> Result<()> {
        let StateSizes { places, batch, hidden, cell } = sizes;
        let part = |name: &str, part: &Tensor, width: usize| {
            let name = format!("{what}: {name} [layers x directions, batch, hidden]");
            part.shape().expect(&name, &[places, batch, width])
        };
        part("hidden", &self.hidden, hidden)?;
        match (&self.cell, cell) {
            (Some(found), Some(width)) => part("cell", found, width),
            (None, None) => Ok(()),
            (found, _) => {
                let describe = |has| if has { "a hidden and a cell state" } else { "a hidden state alone" };
                Err(Error::shape(what, describe(cell.is_some()), describe(found.is_some())))
            }
        }
    }

    /// The state at `place`: layer times directions, plus direction.
    pub(super) fn at(&self, place: usize) -> Result<StateView<'_>> {
        let cell = self.cell.as_ref().map(|cell| cell.view().entry(place)).transpose()?;
        Ok(StateView { hidden: self.hidden.view().entry(place)?, cell })
    }

    /// Overwrites the state at `place`.
    pub(super) fn put(&mut self, place: usize, parts: &StateTensors) -> Result<()> {
        copy_into(self.hidden.view_mut()?.entry(place)?, parts.hidden.view())?;
        if let (Some(cell), Some(part)) = (&mut self.cell, &parts.cell) {
            copy_into(cell.view_mut()?.entry(place)?, part.view())?;
        }
        Ok(())
    }
}
