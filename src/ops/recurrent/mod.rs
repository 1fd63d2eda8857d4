//! The time loop of a recurrent layer, in one direction or in both at once, over an input that is already projected; the
//! same for every [`Cell`].

mod back;
mod blocks;
mod both;
mod cell;
mod cells;
mod cpu;
mod custom;
mod gate;
mod given;
mod gpu;
mod gradients;
mod gru;
pub(crate) mod kernels;
mod lags;
mod lstm;
mod matrices;
pub(crate) mod normalised;
mod on_chip;
mod parts;
pub(crate) mod projection;
pub(crate) mod real_options;
mod sequence;
pub(crate) mod slices;
mod step;
mod stretch;
pub(crate) mod support;
mod tier;
mod twin;
mod walk;
mod windows;
mod zoneout;

pub(crate) use blocks::block_steps;
pub(crate) use both::{project, together};
pub use cell::Cell;
pub(crate) use cell::{CellOptions, Equations, Reset};
pub use custom::{CustomCell, UnitBackward, UnitForward, UnitMemory, UnitStep};
pub(crate) use gradients::Gradients;
pub(crate) use normalised::Norms;
pub(crate) use walk::{Direction, Truncation, Walk, Windows};

use both::part_of;
use matrices::Memory;

use crate::device::{Device, on_device};
use crate::gpu::Buffer;
use crate::ops::Mask;
use crate::tensor::{Real, Tensor, View};
use crate::{Error, Result};

/// The recurrent weights of one layer in one direction: weight_hh \[G·H, P\], bias_hh \[G·H\], peepholes \[3, H\]
/// (weight_ch), projection \[P, H\] (weight_hr). P is H where there is no projection.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
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
pub(crate) struct StateParts {
    pub(crate) hidden: Tensor,
    pub(crate) cell: Option<Tensor>,
}

impl Steps {
    /// The gates on the way back, where they have memory even if nobody reads them.
    fn take_gates(&mut self) -> Tensor {
        match self.gates.take() {
            Some(gates) => gates,
            None => unreachable!("backward gives them memory"),
        }
    }
}

impl StateView<'_> {
    /// The twin's copy; a cell state of zeros [B, `units`] where there is none.
    fn memory<F: Real>(&self, units: usize) -> Memory<F> {
        let hidden = self.hidden.array2::<F>().to_owned();
        let cell = match self.cell {
            Some(cell) => cell.array2().to_owned(),
            None => ndarray::Array2::zeros((hidden.nrows(), units)),
        };
        Memory { hidden, cell }
    }
}

impl StateParts {
    fn new<F: Real>(device: &Device, equations: &Equations, memory: Memory<F>) -> Result<Self> {
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
    pub(crate) weights: Weights<'a>,
    pub(crate) initial: StateView<'a>,
    pub(crate) walk: Walk<'a>,
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
    pub(crate) units: usize,
    /// Width of the hidden state.
    pub(crate) hidden: usize,
}

/// What the forward pass leaves for the backward one. Of two directions each array is [2, ..].
pub(crate) struct Steps {
    /// What backward needs of the gates \[T, B, G·H\], where it reads them.
    gates: Option<Tensor>,
    /// What it needs beside them \[T, B, H\], for the cells that have such; \[T, B, 2·H\] on the GPU where it is
    /// normalised.
    saved: Option<Tensor>,
    /// What each step made of h before its projection \[T, B, H\], on the GPU.
    unprojected: Option<Tensor>,
    /// W_ih x [T, B, G·H] where it is normalised and, on the GPU, W_hh h' likewise.
    entered: Option<Tensor>,
    product: Option<Tensor>,
    /// The marks of each step and row on the GPU, where rows differ.
    marks: Option<Buffer>,
    /// The state after each row's last step, of each direction.
    pub(crate) last: Vec<StateParts>,
}

fn check(call: &Call<'_>, gates: &Tensor, output: &Tensor) -> Result<Sizes> {
    let [steps, rows, width] = gates.shape().exactly("gates", "[time, batch, gates x hidden]")?;
    let units = width / call.equations.gates();
    let hidden = call.weights.projection.map_or(units, |projection| projection.shape().dimensions()[0]);
    let device = gates.device();
    device.expect_same("weight_hh", call.weights.weight_hh.device())?;
    device.expect_same("the initial state", call.initial.hidden.device())?;
    call.weights.weight_hh.shape().expect("weight_hh", &[call.equations.gates() * units, hidden])?;
    call.initial.hidden.shape().expect("the initial state", &[rows, hidden])?;
    output.shape().exactly("output", "[time, batch, hidden]").and_then(|[time, batch, _]| {
        Error::expect([time, batch] == [steps, rows], || {
            format!("an output {} of gates {}", output.shape(), gates.shape())
        })
    })?;
    call.walk.check(steps, rows)?;
    for indices in [call.walk.lengths, call.walk.resets].into_iter().flatten() {
        device.expect_same("lengths or resets", indices.device())?;
    }
    Ok(Sizes { steps, rows, units, hidden })
}

/// [`check`] of each direction.
fn check_all(calls: &[Call<'_>], gates: &Tensor, output: &Tensor) -> Result<Sizes> {
    let mut sizes = None;
    for (index, call) in calls.iter().enumerate() {
        sizes = Some(check(call, &part_of(gates, index, calls.len()), output)?);
    }
    let Some(sizes) = sizes else { unreachable!("a layer has a direction") };
    Ok(sizes)
}

/// Runs the cell over all steps: h_t = cell(projected_t, W_hh h' + b_hh), where h' is the state before step t.
///
/// projected \[T, B, G·H\] is consumed: its memory becomes the gates. The states are written to the column block of
/// `output` \[T, B, width\]; padding yields zeros. Two directions that go [`together`] are two calls, and projected is
/// \[2, T, B, G·H\].
pub(crate) fn forward(calls: &[Call<'_>], mut projected: Tensor, output: &mut Tensor) -> Result<Steps> {
    let sizes = check_all(calls, &projected, output)?;
    let call = &calls[0];
    let device = projected.device().clone();
    let reads_gates = call.equations.reads_gates();
    let mut entered = None;
    if let Some(norms) = &call.weights.norms {
        let seen = normalised::enter(call, norms, &projected)?;
        entered = Some(std::mem::replace(&mut projected, seen));
    }
    let mut made = on_device!(device,
        F, host => twin::forward::<F>(host, call, sizes, projected, entered, output),
        context => {
            let made = match &call.weights.norms {
                None => gpu::forward(context, calls, sizes, &mut projected, output)?,
                Some(norms) => {
                    normalised::gpu::forward(context, call, norms, sizes, &mut projected, output)?
                }
            };
            let gpu::Made { saved, unprojected, product, marks, last } = made;
            Ok(Steps { gates: Some(projected), saved, unprojected, entered, product, marks, last })
        },
    )?;
    made.gates = made.gates.filter(|_| reads_gates);
    Ok(made)
}

/// Back-propagation through the loop of [`forward`]. `output` is what it wrote to, d_output \[T, B, width\] the
/// gradient at that, d_last the one at the state after each row's last step.
///
/// The steps are consumed: the gates' memory becomes their gradient. So is `d_output`: on the GPU, what nobody else holds of
/// it is free for what comes after the loop. Gives the gradients of each direction.
pub(crate) fn backward(
    calls: &[Call<'_>],
    mut steps: Steps,
    output: &Tensor,
    d_output: Tensor,
    d_last: &[Option<StateView<'_>>],
) -> Result<Vec<Gradients>> {
    let call = &calls[0];
    let device = output.device().clone();
    let gates = match steps.gates.take() {
        Some(gates) => gates,
        // Only their gradients will stand there, and zeros in the padding, which the loop passes over.
        None => {
            let [time, rows, _] = output.shape().exactly("output", "[time, batch, width]")?;
            let sizes = [calls.len(), time, rows, call.weights.weight_hh.shape().rows()];
            let sizes = if calls.len() == 1 { &sizes[1..] } else { &sizes };
            match call.walk.lengths {
                Some(_) => Tensor::zeros(&device, sizes)?,
                None => Tensor::unwritten(&device, sizes)?,
            }
        }
    };
    let sizes = check_all(calls, &gates, output)?;
    steps.gates = Some(gates);
    device.expect_same("d_output", d_output.device())?;
    d_output.shape().expect("d_output", output.shape().dimensions())?;
    let entered = steps.entered.take();
    let norms = call.weights.norms.as_ref().zip(entered.as_ref());
    let made = on_device!(device,
        F, host => {
            let d_output = d_output.view();
            twin::backward::<F>(host, call, steps, sizes, output, d_output, d_last[0]).map(|made| vec![made])
        },
        context => match norms {
            None => back::backward(context, calls, sizes, steps, output, d_output, d_last),
            Some((norms, _)) => {
                let d_output = d_output.view();
                let upstream = normalised::gpu::Upstream { sizes, output, d_output, d_last: d_last[0] };
                normalised::gpu::backward(context, call, norms, steps, &upstream).map(|made| vec![made])
            }
        },
    )?;
    match norms {
        Some((norms, entered)) => {
            made.into_iter().map(|made| normalised::leave(call, norms, entered, made)).collect()
        }
        None => Ok(made),
    }
}
