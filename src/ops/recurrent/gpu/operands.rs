//! The small operands of a time loop on the GPU: initial states, options, peepholes and masks; the gradient of
//! the final states; the operands and the results of a backward pass.

use super::real_options::RealOptions;
use super::step_flags::StepFlags;
use crate::Result;
use crate::gpu::{Bound, Context, Span};
use crate::ops::dropout;
use crate::ops::elementwise::copy_into;
use crate::ops::recurrent::{Call, Sizes, StateTensors, StateView};
use crate::tensor::{Tensor, View};

/// The operands of a backward pass.
pub(crate) struct BackwardPass<'a> {
    pub(crate) context: &'a Context,
    /// One direction, or both.
    pub(crate) calls: &'a [Call<'a>],
    /// The first of `calls`.
    pub(crate) call: &'a Call<'a>,
    pub(crate) sizes: Sizes,
    pub(crate) step_flags: StepFlags<'a>,
    pub(crate) output: &'a Tensor,
    /// With a projection, m before it [T, B, H], where h = W_hr m.
    pub(crate) unprojected: Option<&'a Tensor>,
    pub(crate) d_output: View<'a>,
}

/// The results of the backward loop of one direction.
pub(crate) struct LoopGradients {
    pub(crate) d_projected: Tensor,
    /// The gradient of the last gate's recurrent part, where it differs from that of its input part (GRU).
    pub(crate) d_apart: Option<Tensor>,
    /// The gradient of h [T, B, P], with a projection.
    pub(crate) d_hidden: Option<Tensor>,
    pub(crate) d_initial: StateTensors,
}

/// What a step reads besides the arrays over time, in one binding: real-valued options, the initial states,
/// peepholes, the mask of the state. The initial state is bound directly where it is the only part.
pub(crate) struct InitialOperands<'a> {
    hidden: Span<'a>,
    /// A concatenated copy of all parts, where there is more than one.
    copy: Option<Tensor>,
    /// The offset of the hidden state.
    first: usize,
    cell: usize,
    peepholes: usize,
    mask: usize,
}

impl<'a> InitialOperands<'a> {
    /// The operands of one direction, or of both: then each part holds both directions.
    pub(crate) fn of(context: &Context, calls: &[Call<'a>], sizes: Sizes) -> Result<Self> {
        let hidden = calls[0].initial.hidden;
        let count = sizes.rows * sizes.projection_size;
        let mut masks = Vec::new();
        for mask in calls.iter().filter_map(|call| call.state_mask) {
            let ones = Tensor::from_slice(hidden.device(), hidden.shape().dimensions(), &vec![1.0; count])?;
            masks.push(dropout(&ones, mask)?);
        }
        let cells = calls.iter().filter_map(|call| call.initial.cell);
        let peepholes = calls.iter().filter_map(|call| call.weights.peepholes);
        let mut parts: Vec<View<'_>> = calls.iter().map(|call| call.initial.hidden).collect();
        // All directions have the same options.
        let options = RealOptions::of(&calls[0].equations);
        let first = if options.is_some() { RealOptions::COUNT } else { 0 };
        let end =
            |parts: &[View<'_>]| first + parts.iter().map(|part| part.shape().elements()).sum::<usize>();
        let cell = end(&parts);
        parts.extend(cells);
        let peepholes_at = end(&parts);
        parts.extend(peepholes);
        let mask = end(&parts);
        parts.extend(masks.iter().map(Tensor::view));
        let copy = match (parts.len(), &options) {
            (1, None) => None,
            _ => Some(joined_from(first, &parts)?),
        };
        if let (Some(options), Some(copy)) = (&options, &copy) {
            options.put(context, copy.view().span().slice(0..first))?;
        }
        Ok(Self { hidden: hidden.span(), copy, first, cell, peepholes: peepholes_at, mask })
    }

    pub(crate) fn bind(&self, context: &Context) -> Result<Bound<'_>> {
        context.bind(self.copy.as_ref().map_or(self.hidden, |copy| copy.view().span()))
    }

    /// The offsets of hidden state, cell state, peepholes and the state's dropout mask, for a buffer bound at `base`.
    pub(crate) fn offsets(&self, base: u32) -> [u32; 4] {
        [self.first, self.cell, self.peepholes, self.mask].map(|place| base + place as u32)
    }
}

/// Copies `x` to a tensor of shape `dimensions`.
pub(crate) fn copy(x: View<'_>, dimensions: &[usize]) -> Result<Tensor> {
    let mut copy = Tensor::unwritten(x.device(), dimensions)?;
    copy_into(copy.view_mut()?, x.reshaped(dimensions)?)?;
    Ok(copy)
}

/// Concatenates the values of all parts.
pub(crate) fn joined(parts: &[View<'_>]) -> Result<Tensor> {
    joined_from(0, parts)
}

/// As [`joined`], with `first` elements in front, which the caller writes.
fn joined_from(first: usize, parts: &[View<'_>]) -> Result<Tensor> {
    let total = first + parts.iter().map(|part| part.shape().elements()).sum::<usize>();
    let mut all = Tensor::unwritten(parts[0].device(), &[total])?;
    let mut place = first;
    for &part in parts {
        let count = part.shape().elements();
        copy_into(all.view_mut()?.outer(place..place + count)?, part.reshaped(&[count])?)?;
        place += count;
    }
    Ok(all)
}

/// The initial carry of a backward pass: the gradient of each row's final state, hidden [B, P] followed by
/// cell [B, H]; for both directions [2, B, P] followed by [2, B, H].
pub(crate) fn carry(calls: &[Call<'_>], sizes: Sizes, d_last: &[Option<StateView<'_>>]) -> Result<Tensor> {
    let device = calls[0].initial.hidden.device();
    let (hidden, cell) = carry_sizes(&calls[0], sizes);
    let count = calls.len();
    let mut carry = Tensor::zeros(device, &[count * (hidden + cell)])?;
    for (index, d_last) in d_last.iter().enumerate() {
        let Some(d_last) = d_last else { continue };
        let [first, first_cell] = [index * hidden, count * hidden + index * cell];
        copy_into(carry.view_mut()?.outer(first..first + hidden)?, d_last.hidden.reshaped(&[hidden])?)?;
        if let Some(d_cell) = d_last.cell {
            let target = first_cell..first_cell + cell;
            copy_into(carry.view_mut()?.outer(target)?, d_cell.reshaped(&[cell])?)?;
        }
    }
    Ok(carry)
}

/// The number of elements of the hidden and cell parts of a carry, per direction.
pub(crate) fn carry_sizes(call: &Call<'_>, sizes: Sizes) -> (usize, usize) {
    let cell = if call.equations.has_cell_state() { sizes.rows * sizes.hidden_size } else { 0 };
    (sizes.rows * sizes.projection_size, cell)
}
