//! The operands of a pass of a recurrent layer, and the activations that the forward pass saves for the
//! backward pass.

use ndarray::{Array2, ArrayView2};

use super::{Equations, Traversal};
use crate::Result;
use crate::device::Device;
use crate::gpu::Buffer;
use crate::ops::Mask;
use crate::tensor::{Real, Tensor, View};

/// The recurrent weights of one layer in one direction: weight_hh \[G·H, P\], bias_hh \[G·H\], peepholes \[3,
/// H\] (weight_ch), projection \[P, H\] (weight_hr). P = H without a projection.
#[derive(Clone, Copy)]
pub(crate) struct RecurrentWeights<'a> {
    pub(crate) weight_hh: View<'a>,
    pub(crate) bias_hh: Option<View<'a>>,
    pub(crate) peepholes: Option<View<'a>>,
    pub(crate) projection: Option<View<'a>>,
    /// With layer normalisation.
    pub(crate) norms: Option<Norms<'a>>,
}

/// The gains of layer normalisation of one layer in one direction, and the bias that is added after the input's normalisation.
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a> {
    /// norm_ih \[G·H\].
    pub(crate) input: View<'a>,
    /// bias_ih \[G·H\].
    pub(crate) bias_ih: Option<View<'a>>,
    /// norm_hh \[G·H\].
    pub(crate) recurrent: View<'a>,
    /// norm_c \[2, H\]: gain and shift of an LSTM's cell state.
    pub(crate) cell: Option<View<'a>>,
}

/// The state of one layer in one direction, or its gradient: hidden \[B, P\], cell \[B, H\].
#[derive(Clone, Copy)]
pub(crate) struct StateView<'a> {
    pub(crate) hidden: View<'a>,
    /// None for a cell without cell state.
    pub(crate) cell: Option<View<'a>>,
}

/// The owned form of [`StateView`].
pub(crate) struct StateTensors {
    pub(crate) hidden: Tensor,
    pub(crate) cell: Option<Tensor>,
}

/// [`StateTensors`] as arrays on the CPU: h [B, P] and c [B, H], zeros for a cell without cell state.
#[derive(Clone)]
pub(crate) struct CellState<F> {
    pub(crate) hidden: Array2<F>,
    pub(crate) cell: Array2<F>,
}

impl<F: Real> CellState<F> {
    /// Zeros [rows, `hidden`] and [rows, `units`].
    pub(crate) fn zeros(rows: usize, hidden: usize, units: usize) -> Self {
        Self { hidden: Array2::zeros((rows, hidden)), cell: Array2::zeros((rows, units)) }
    }

    pub(crate) fn view(&self) -> CellStateView<'_, F> {
        CellStateView { hidden: self.hidden.view(), cell: self.cell.view() }
    }

    /// Copies a row of another state.
    pub(crate) fn take(&mut self, row: usize, from: CellStateView<'_, F>) {
        self.hidden.row_mut(row).assign(&from.hidden.row(row));
        self.cell.row_mut(row).assign(&from.cell.row(row));
    }

    pub(crate) fn clear(&mut self, row: usize) {
        self.hidden.row_mut(row).fill(F::zero());
        self.cell.row_mut(row).fill(F::zero());
    }
}

/// A view of a [`CellState`].
#[derive(Clone, Copy)]
pub(crate) struct CellStateView<'a, F> {
    pub(crate) hidden: ArrayView2<'a, F>,
    pub(crate) cell: ArrayView2<'a, F>,
}

impl<F: Real> CellStateView<'_, F> {
    pub(crate) fn to_owned(self) -> CellState<F> {
        CellState { hidden: self.hidden.to_owned(), cell: self.cell.to_owned() }
    }
}

impl SavedActivations {
    /// The buffer for the gates' gradients. It exists in a backward pass even if no gates were saved.
    pub(crate) fn take_gates(&mut self) -> Tensor {
        match self.gates.take() {
            Some(gates) => gates,
            None => unreachable!("backward gives them memory"),
        }
    }
}

impl StateView<'_> {
    /// Copies the state to arrays; without a cell state, the cell part is zeros [B, `units`].
    pub(crate) fn cell_state<F: Real>(&self, units: usize) -> CellState<F> {
        let hidden = self.hidden.array2::<F>().to_owned();
        let cell = match self.cell {
            Some(cell) => cell.array2().to_owned(),
            None => Array2::zeros((hidden.nrows(), units)),
        };
        CellState { hidden, cell }
    }
}

impl StateTensors {
    pub(crate) fn new<F: Real>(device: &Device, equations: &Equations, state: CellState<F>) -> Result<Self> {
        let cell = match equations.has_cell_state() {
            true => Some(Tensor::from_array(device, state.cell)?),
            false => None,
        };
        Ok(Self { hidden: Tensor::from_array(device, state.hidden)?, cell })
    }
}

/// The operands of one layer in one direction, except its input.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) equations: Equations<'a>,
    pub(crate) weights: RecurrentWeights<'a>,
    pub(crate) initial: StateView<'a>,
    pub(crate) traversal: Traversal<'a>,
    /// The dropout mask of the state [B, P] in the product with W_hh, the same at every step.
    pub(crate) state_mask: Option<Mask>,
    /// The first column of this direction in the output.
    pub(crate) column: usize,
}

/// A pass of a layer: forward computes gates from states, W h; backward computes gradients of states from those of gates,
/// dᵀ W.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    Backward,
}

/// T, B, H and P.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    /// H.
    pub(crate) hidden_size: usize,
    /// P; H without a projection.
    pub(crate) projection_size: usize,
}

/// What the forward pass saves for the backward pass. For two directions each array is [2, ..].
pub(crate) struct SavedActivations {
    /// The gates \[T, B, G·H\], if the backward pass reads them.
    pub(crate) gates: Option<Tensor>,
    /// Other values of a step \[T, B, H\] that the backward pass of the cell reads; on the GPU with layer
    /// normalisation \[T, B, 2·H\].
    pub(crate) saved: Option<Tensor>,
    /// With a projection on the GPU, m \[T, B, H\], where h = W_hr m.
    pub(crate) unprojected: Option<Tensor>,
    /// With layer normalisation, W_ih x [T, B, G·H] before it; `product` is W_hh h', on the GPU.
    pub(crate) entered: Option<Tensor>,
    pub(crate) product: Option<Tensor>,
    /// The step flags of each step and row on the GPU, where rows differ.
    pub(crate) step_flags: Option<Buffer>,
    /// The state after each row's last step, per direction.
    pub(crate) last: Vec<StateTensors>,
}
