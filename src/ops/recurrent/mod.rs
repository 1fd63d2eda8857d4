//! The time loop of a recurrent layer in one direction, over an input that is already projected; the same for every
//! [`Cell`].

mod cell;
mod cells;
mod cpu;
mod custom;
pub(crate) mod gpu;
mod stretch;
pub(crate) mod support;
mod walk;

pub use cell::Cell;
pub use custom::{CustomCell, UnitBackward, UnitForward, UnitMemory, UnitStep};
pub(crate) use walk::{Direction, Walk};

use cells::Memory;

use super::elementwise::add_into;
use super::matmul::{matmul_columns_into, matmul_into};
use super::{Form, sum_rows};
use crate::Result;
use crate::device::{Device, on_device};
use crate::gpu::Buffer;
use crate::tensor::{Real, Tensor, View, ViewMut};

/// The recurrent weights of one layer in one direction: weight_hh \[G·H, H\], bias_hh \[G·H\].
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) weight_hh: View<'a>,
    pub(crate) bias_hh: Option<View<'a>>,
}

/// The state of one layer in one direction, or the gradient at it; each part \[B, H\].
#[derive(Clone, Copy)]
pub(crate) struct StateView<'a> {
    pub(crate) hidden: View<'a>,
    /// Where the cell has one.
    pub(crate) cell: Option<View<'a>>,
}

impl<'a> StateView<'a> {
    /// The parts of `planes` \[parts, B, H\].
    fn of(planes: View<'a>) -> Result<Self> {
        let cell = match planes.shape().dimensions()[0] {
            1 => None,
            _ => Some(planes.entry(1)?),
        };
        Ok(Self { hidden: planes.entry(0)?, cell })
    }

    fn memory<F: Real>(&self) -> Memory<F> {
        let hidden = self.hidden.array2::<F>().to_owned();
        let cell = match self.cell {
            Some(cell) => cell.array2().to_owned(),
            None => ndarray::Array2::zeros(hidden.raw_dim()),
        };
        Memory { hidden, cell }
    }
}

/// A layer in one direction, before its input is known.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) cell: Cell,
    pub(crate) weights: Weights<'a>,
    pub(crate) initial: StateView<'a>,
    pub(crate) walk: Walk<'a>,
    /// The first column that this direction has in the output.
    pub(crate) column: usize,
}

/// T, B and H.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    pub(crate) hidden: usize,
}

/// What the forward pass leaves for the backward one.
pub(crate) struct Steps {
    /// What backward needs of the gates \[T, B, G·H\].
    gates: Tensor,
    /// What it needs beside them \[T, B, H\], for the cells that have such.
    saved: Option<Tensor>,
    /// The marks of each step and row on the GPU, where rows differ.
    marks: Option<Buffer>,
    /// The state after each row's last step \[parts, B, H\].
    pub(crate) last: Tensor,
}

/// What the backward pass yields.
pub(crate) struct Gradients {
    /// At W_ih x + b_ih \[T, B, G·H\].
    pub(crate) d_projected: Tensor,
    /// At the recurrent part of the last gate \[T, B, H\], for the cell where it is not the same.
    d_apart: Option<Tensor>,
    /// The hidden state that each step started from \[T, B, H\].
    previous: Tensor,
    /// At the initial state \[parts, B, H\].
    pub(crate) d_initial: Tensor,
}

fn check(call: &Call<'_>, gates: &Tensor, output: &Tensor) -> Result<Sizes> {
    let [steps, rows, width] = gates.shape().exactly("gates", "[time, batch, gates x hidden]")?;
    let hidden = width / call.cell.gates();
    let device = gates.device();
    device.expect_same("weight_hh", call.weights.weight_hh.device())?;
    device.expect_same("the initial state", call.initial.hidden.device())?;
    call.weights.weight_hh.shape().expect("weight_hh", &[call.cell.gates() * hidden, hidden])?;
    call.initial.hidden.shape().expect("the initial state", &[rows, hidden])?;
    debug_assert_eq!(&output.shape().dimensions()[..2], &[steps, rows]);
    call.walk.check(steps, rows)?;
    for indices in [call.walk.lengths, call.walk.resets].into_iter().flatten() {
        device.expect_same("lengths or resets", indices.device())?;
    }
    Ok(Sizes { steps, rows, hidden })
}

/// Runs the cell over all steps: h_t = cell(projected_t, W_hh h' + b_hh), where h' is the state before step t.
///
/// projected \[T, B, G·H\] is consumed: its memory becomes the gates. The states are written to the column block of
/// `output` \[T, B, width\]; padding yields zeros.
pub(crate) fn forward(call: &Call<'_>, mut projected: Tensor, output: &mut Tensor) -> Result<Steps> {
    let sizes = check(call, &projected, output)?;
    let device = projected.device().clone();
    on_device!(device,
        F => {
            let initial = call.initial.memory::<F>();
            let columns = call.column..call.column + sizes.hidden;
            let mut whole = output.view_mut()?;
            let target = whole.array3::<F>().slice_move(ndarray::s![.., .., columns]);
            let made =
                cpu::forward(call.cell, projected.view().array3(), call.weights, &initial, &call.walk, target);
            Ok(Steps {
                gates: Tensor::from_array(&device, made.gates)?,
                saved: made.saved.map(|saved| Tensor::from_array(&device, saved)).transpose()?,
                marks: None,
                last: planes(&device, call.cell, made.last)?,
            })
        },
        context => {
            let made = gpu::forward(context, call, sizes, &mut projected, output)?;
            Ok(Steps { gates: projected, saved: made.saved, marks: made.marks, last: made.last })
        },
    )
}

/// A twin's state as one tensor [parts, B, H].
fn planes<F: Real>(device: &Device, cell: Cell, memory: Memory<F>) -> Result<Tensor> {
    let parts = match cell.has_cell_state() {
        true => vec![memory.hidden.view(), memory.cell.view()],
        false => vec![memory.hidden.view()],
    };
    match ndarray::stack(ndarray::Axis(0), &parts) {
        Ok(stacked) => Tensor::from_array(device, stacked),
        Err(error) => unreachable!("both parts are [B, H]: {error}"),
    }
}

/// Back-propagation through the loop of [`forward`]. `output` is what it wrote to, d_output \[T, B, width\] the
/// gradient at that, d_last the one at the state after each row's last step.
///
/// The steps are consumed: the gates' memory becomes their gradient.
pub(crate) fn backward(
    call: &Call<'_>,
    steps: Steps,
    output: &Tensor,
    d_output: View<'_>,
    d_last: Option<StateView<'_>>,
) -> Result<Gradients> {
    let sizes = check(call, &steps.gates, output)?;
    let device = steps.gates.device().clone();
    device.expect_same("d_output", d_output.device())?;
    d_output.shape().expect("d_output", output.shape().dimensions())?;
    on_device!(device,
        F => {
            let Sizes { rows, hidden, .. } = sizes;
            let columns = call.column..call.column + hidden;
            let cut = |array: ndarray::ArrayView3<'_, F>| {
                array.slice(ndarray::s![.., .., columns.clone()]).to_owned()
            };
            let nothing = || Memory {
                hidden: ndarray::Array2::zeros((rows, hidden)),
                cell: ndarray::Array2::zeros((rows, hidden)),
            };
            let initial = call.initial.memory::<F>();
            let own = cut(output.view().array3());
            let kept = cpu::Kept {
                gates: steps.gates.view().array3(),
                saved: steps.saved.as_ref().map(|saved| saved.view().array3()),
                output: own.view(),
                initial: &initial,
            };
            let d_last = d_last.map_or_else(nothing, |d_last| d_last.memory());
            let d_own = cut(d_output.array3());
            let weight_hh = call.weights.weight_hh.array2();
            let made = cpu::backward(call.cell, &kept, weight_hh, d_own.view(), &d_last, &call.walk);
            let last_gate = (call.cell.gates() - 1) * hidden..;
            let apart = made.d_recurrent.slice(ndarray::s![.., .., last_gate]).to_owned();
            Ok(Gradients {
                d_projected: Tensor::from_array(&device, made.d_projected)?,
                d_apart: match call.cell.last_gate_apart() {
                    true => Some(Tensor::from_array(&device, apart)?),
                    false => None,
                },
                previous: Tensor::from_array(&device, cpu::all_previous(call.cell, &kept, &call.walk))?,
                d_initial: planes(&device, call.cell, made.d_initial)?,
            })
        },
        context => gpu::backward(context, call, sizes, steps, output, d_output, d_last),
    )
}

impl Gradients {
    /// dW_hh += Σ_t d(W_hh h')_tᵀ h'_t and db_hh += Σ_t d(b_hh)_t, each one product or sum of depth T·B.
    pub(crate) fn accumulate_weight(&self, mut d_weight_hh: ViewMut<'_>) -> Result<()> {
        let previous = self.previous.view().matrix()?;
        let all = self.d_projected.view().matrix()?;
        let Some(apart) = &self.d_apart else {
            return matmul_into(d_weight_hh, all, previous, Form::LeftTransposed);
        };
        // All gates but the last share their gradient with the projected input.
        let split = all.shape().last() - apart.shape().last();
        let rows = d_weight_hh.shape().dimensions()[0];
        matmul_columns_into(d_weight_hh.outer(0..split)?, all, 0..split, previous)?;
        matmul_into(d_weight_hh.outer(split..rows)?, apart.view().matrix()?, previous, Form::LeftTransposed)
    }

    /// See [`Gradients::accumulate_weight`].
    pub(crate) fn accumulate_bias(&self, mut d_bias_hh: ViewMut<'_>, projected_sum: &Tensor) -> Result<()> {
        let Some(apart) = &self.d_apart else { return add_into(d_bias_hh, projected_sum.view()) };
        let split = projected_sum.shape().last() - apart.shape().last();
        let rows = d_bias_hh.shape().elements();
        add_into(d_bias_hh.outer(0..split)?, projected_sum.view().outer(0..split)?)?;
        add_into(d_bias_hh.outer(split..rows)?, sum_rows(apart)?.view())
    }
}
