//! What a time loop on the GPU starts from: the initial state with peepholes and a mask, the gradient at the final one.

use super::{Call, Sizes, StateView};
use crate::Result;
use crate::gpu::{Bound, Context, Span};
use crate::ops::dropout;
use crate::ops::elementwise::copy_into;
use crate::tensor::{Tensor, View};

/// What a step reads beside the arrays over time: the initial state, and peepholes where there are such.
pub(super) struct Given<'a> {
    hidden: Span<'a>,
    /// A copy of all parts, one after the other, where there are more than one.
    copy: Option<Tensor>,
    cell: usize,
    peepholes: usize,
    mask: usize,
}

impl<'a> Given<'a> {
    pub(super) fn of(call: &Call<'a>, sizes: Sizes) -> Result<Self> {
        let hidden = call.initial.hidden;
        let cell = sizes.rows * sizes.hidden;
        let mask = match call.state_mask {
            Some(mask) => {
                let ones =
                    Tensor::from_slice(hidden.device(), hidden.shape().dimensions(), &vec![1.0; cell])?;
                Some(dropout(&ones, mask)?)
            }
            None => None,
        };
        let parts =
            [Some(hidden), call.initial.cell, call.weights.peepholes, mask.as_ref().map(|mask| mask.view())];
        let copy = match parts {
            [_, None, None, None] => None,
            _ => Some(joined(&parts)?),
        };
        let count = |part: Option<View<'_>>| part.map_or(0, |part| part.shape().elements());
        let peepholes = cell + count(parts[1]);
        Ok(Self { hidden: hidden.span(), copy, cell, peepholes, mask: peepholes + count(parts[2]) })
    }

    pub(super) fn bind(&self, context: &Context) -> Result<Bound<'_>> {
        context.bind(self.copy.as_ref().map_or(self.hidden, |copy| copy.view().span()))
    }

    /// Where the cell state begins, for what is bound at `base`.
    pub(super) fn cell(&self, base: u32) -> u32 {
        base + self.cell as u32
    }

    /// Where the mask of the state begins.
    pub(super) fn mask(&self, base: u32) -> u32 {
        base + self.mask as u32
    }

    /// Where the peepholes begin.
    pub(super) fn peepholes(&self, base: u32) -> u32 {
        base + self.peepholes as u32
    }
}

/// A copy of `x`, under another shape.
pub(super) fn copy(x: View<'_>, dimensions: &[usize]) -> Result<Tensor> {
    let mut copy = Tensor::unwritten(x.device(), dimensions)?;
    copy_into(copy.view_mut()?, x.reshaped(dimensions)?)?;
    Ok(copy)
}

/// The values of all parts, one after the other.
pub(super) fn joined(parts: &[Option<View<'_>>]) -> Result<Tensor> {
    let parts: Vec<View<'_>> = parts.iter().flatten().copied().collect();
    let total = parts.iter().map(|part| part.shape().elements()).sum();
    let mut all = Tensor::unwritten(parts[0].device(), &[total])?;
    let mut place = 0;
    for part in parts {
        let count = part.shape().elements();
        copy_into(all.view_mut()?.outer(place..place + count)?, part.reshaped(&[count])?)?;
        place += count;
    }
    Ok(all)
}

/// The gradient at each row's final state, on its way back through time: hidden [B, P], then cell [B, H].
pub(super) fn carry(call: &Call<'_>, sizes: Sizes, d_last: Option<StateView<'_>>) -> Result<Tensor> {
    let device = call.initial.hidden.device();
    let (hidden, cell) = carry_sizes(call, sizes);
    let mut carry = Tensor::zeros(device, &[hidden + cell])?;
    if let Some(d_last) = d_last {
        copy_into(carry.view_mut()?.outer(0..hidden)?, d_last.hidden.reshaped(&[hidden])?)?;
        if let Some(d_cell) = d_last.cell {
            copy_into(carry.view_mut()?.outer(hidden..hidden + cell)?, d_cell.reshaped(&[cell])?)?;
        }
    }
    Ok(carry)
}

/// Elements of the two parts of a carry.
pub(super) fn carry_sizes(call: &Call<'_>, sizes: Sizes) -> (usize, usize) {
    let cell = if call.equations.has_cell_state() { sizes.rows * sizes.units } else { 0 };
    (sizes.rows * sizes.hidden, cell)
}
