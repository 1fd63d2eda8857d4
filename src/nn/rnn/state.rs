//! What a stack carries from one window of time to the next.

use crate::Result;
use crate::device::Device;
use crate::nn::parameters::ModelId;
use crate::ops::elementwise::copy_into;
use crate::ops::recurrent::StateView;
use crate::tensor::Tensor;

/// What a stack carries from one window of time to the next, or the gradient at it. Values only: the history that
/// led to a state ends with it.
///
/// Its parts are \[L·D, B, H\] as in PyTorch: layer by layer, forward before reverse.
#[derive(Clone, Debug)]
pub struct State {
    /// The hidden state, then the cell state where there is one [parts, L·D, B, H].
    planes: Tensor,
    /// The model and the first parameter of the layer whose learned initial state this is.
    learned: Option<(ModelId, usize)>,
}

impl State {
    /// A state from the hidden states of all layers \[L·D, B, H\], for cells that have no other.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) unless there are three dimensions.
    pub fn from_hidden(hidden: &Tensor) -> Result<Self> {
        let [places, batch, units] = hidden.shape().exactly("the hidden state", "[layers, batch, hidden]")?;
        Ok(Self { planes: hidden.reshape(&[1, places, batch, units])?, learned: None })
    }

    /// A state from the hidden and the cell states of all layers, each \[L·D, B, H\], for an LSTM.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DeviceMismatch`](crate::Error::DeviceMismatch).
    pub fn from_hidden_and_cell(hidden: &Tensor, cell: &Tensor) -> Result<Self> {
        let [places, batch, units] = hidden.shape().exactly("the hidden state", "[layers, batch, hidden]")?;
        hidden.device().expect_same("the cell state", cell.device())?;
        cell.shape().expect("the cell state", hidden.shape().dimensions())?;
        let mut state = Self::unwritten(hidden.device(), [2, places, batch, units])?;
        copy_into(state.planes.view_mut()?.entry(0)?, hidden.view())?;
        copy_into(state.planes.view_mut()?.entry(1)?, cell.view())?;
        Ok(state)
    }

    pub(super) fn zeros(device: &Device, sizes: [usize; 4]) -> Result<Self> {
        Ok(Self { planes: Tensor::zeros(device, &sizes)?, learned: None })
    }

    /// A state whose places are all about to be [`put`](State::put).
    pub(super) fn unwritten(device: &Device, sizes: [usize; 4]) -> Result<Self> {
        Ok(Self { planes: Tensor::unwritten(device, &sizes)?, learned: None })
    }

    /// The hidden states of all layers \[L·D, B, H\].
    pub fn hidden(&self) -> Tensor {
        self.planes.entry(0)
    }

    /// The cell states of all layers \[L·D, B, H\], for an LSTM.
    pub fn cell(&self) -> Option<Tensor> {
        (self.planes.shape().dimensions()[0] > 1).then(|| self.planes.entry(1))
    }

    /// The same values, as the learned initial state of a layer.
    pub(super) fn learned_by(self, model: ModelId, first: usize) -> Self {
        Self { learned: Some((model, first)), ..self }
    }

    pub(super) fn is_learned_by(&self, model: ModelId, first: usize) -> bool {
        self.learned == Some((model, first))
    }

    pub(super) fn planes(&self) -> &Tensor {
        &self.planes
    }

    /// The state at `place`: layer times directions, plus direction.
    pub(super) fn at(&self, place: usize) -> Result<StateView<'_>> {
        let part = |index| self.planes.view().entry(index)?.entry(place);
        let cell = match self.planes.shape().dimensions()[0] {
            1 => None,
            _ => Some(part(1)?),
        };
        Ok(StateView { hidden: part(0)?, cell })
    }

    /// Replaces the state at `place` by `planes` [parts, B, H].
    pub(super) fn put(&mut self, place: usize, planes: &Tensor) -> Result<()> {
        for part in 0..planes.shape().dimensions()[0] {
            let target = self.planes.view_mut()?.entry(part)?.entry(place)?;
            copy_into(target, planes.view().entry(part)?)?;
        }
        Ok(())
    }
}
