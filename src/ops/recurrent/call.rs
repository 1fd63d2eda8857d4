//! What one pass of a recurrent layer is asked for and what it saves.

use super::cpu::weights::CellState;
use super::{Equations, Norms, Traversal};
use crate::Result;
use crate::device::Device;
use crate::gpu::Buffer;
use crate::ops::Mask;
use crate::tensor::{Real, Tensor, View};

/// The recurrent weights of one layer in one direction: weight_hh \[G·H, P\], bias_hh \[G·H\], peepholes \[3, H\]
/// (weight_ch), projection \[P, H\] (weight_hr). P is H where there is no projection.
#[derive(Clone, Copy)]
pub(crate) struct RecurrentWeights<'a> {
    pub(crate) weight_hh: View<'a>,
    pub(crate) bias_hh: Option<View<'a>>,
    pub(crate) peepholes: Option<View<'a>>,
    pub(crate) projection: Option<View<'a>>,
    /// Where products are normalised.
    pub(crate) norms: Option<Norms<'a>>,
}

/// The state of one layer in one direction, or the gradient at it: hidden \[B, P\], cell \[B, H\].
#[derive(Clone, Copy)]
pub(crate) struct StateView<'a> {
    pub(crate) hidden: View<'a>,
    /// Where the cell has one.
    pub(crate) cell: Option<View<'a>>,
}

/// What a [`StateView`] borrows.
pub(crate) struct StateTensors {
    pub(crate) hidden: Tensor,
    pub(crate) cell: Option<Tensor>,
}

impl SavedActivations {
    /// The gates on the way back, where they have memory even if nobody reads them.
    pub(crate) fn take_gates(&mut self) -> Tensor {
        match self.gates.take() {
            Some(gates) => gates,
            None => unreachable!("backward gives them memory"),
        }
    }
}

impl StateView<'_> {
    /// The twin's copy; a cell state of zeros [B, `units`] where there is none.
    pub(crate) fn memory<F: Real>(&self, units: usize) -> CellState<F> {
        let hidden = self.hidden.array2::<F>().to_owned();
        let cell = match self.cell {
            Some(cell) => cell.array2().to_owned(),
            None => ndarray::Array2::zeros((hidden.nrows(), units)),
        };
        CellState { hidden, cell }
    }
}

impl StateTensors {
    pub(crate) fn new<F: Real>(device: &Device, equations: &Equations, memory: CellState<F>) -> Result<Self> {
        let cell = match equations.has_cell_state() {
            true => Some(Tensor::from_array(device, memory.cell)?),
            false => None,
        };
        Ok(Self { hidden: Tensor::from_array(device, memory.hidden)?, cell })
    }
}

/// A layer in one direction, before its input is known.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) equations: Equations,
    pub(crate) weights: RecurrentWeights<'a>,
    pub(crate) initial: StateView<'a>,
    pub(crate) traversal: Traversal<'a>,
    /// What is left out of the state [B, P] on its way into the product with W_hh, at every step alike.
    pub(crate) state_mask: Option<Mask>,
    /// The first column that this direction has in the output.
    pub(crate) column: usize,
}

/// T, B, H and P.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    /// Units of the cell.
    pub(crate) hidden_size: usize,
    /// Width of the projection_size state.
    pub(crate) projection_size: usize,
}

/// What the forward pass leaves for the backward one. Of two directions each array is [2, ..].
pub(crate) struct SavedActivations {
    /// What backward needs of the gates \[T, B, G·H\], where it reads them.
    pub(crate) gates: Option<Tensor>,
    /// What it needs beside them \[T, B, H\], for the cells that have such; \[T, B, 2·H\] on the GPU where it is
    /// normalised.
    pub(crate) saved: Option<Tensor>,
    /// What each step made of h before its projection \[T, B, H\], on the GPU.
    pub(crate) unprojected: Option<Tensor>,
    /// W_ih x [T, B, G·H] where it is normalised and, on the GPU, W_hh h' likewise.
    pub(crate) entered: Option<Tensor>,
    pub(crate) product: Option<Tensor>,
    /// The marks of each step and row on the GPU, where rows differ.
    pub(crate) step_flags: Option<Buffer>,
    /// The state after each row's last step, of each direction.
    pub(crate) last: Vec<StateTensors>,
}
