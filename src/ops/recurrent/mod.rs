//! The time loop of a recurrent layer, for every [`Cell`], in one direction or both:
//!
//! `h_t, c_t = cell(W_ih x_t + b_ih, W_hh h_{t-1} + b_hh, c_{t-1})`
//!
//! The input projection W_ih x + b_ih is computed for all steps before the loop. `cpu` is the reference,
//! `gpu` dispatches the shaders of `shaders/recurrent/`.

mod call;
mod cell;
pub(crate) mod cpu;
mod custom_cell;
pub(crate) mod gpu;
mod layer_norm;
mod time_blocks;
mod traversal;
mod weight_gradients;

pub(crate) use call::{
    Call, CellState, CellStateView, Norms, Pass, RecurrentWeights, SavedActivations, Sizes, StateTensors,
    StateView,
};
pub use cell::Cell;
pub(crate) use cell::{CellOptions, Equations, Reset};
pub use custom_cell::{CustomCell, UnitBackward, UnitEquations, UnitForward, UnitState, UnitStep};
pub(crate) use gpu::bidirectional::{project, together};
#[cfg(test)]
pub(crate) use gpu::kernels::custom_examples;
pub(crate) use time_blocks::block_steps;
pub(crate) use traversal::{Direction, SlidingWindows, Traversal, Truncation};
pub(crate) use weight_gradients::PassGradients;

use gpu::bidirectional::part_of;
use gpu::kernels::custom_kernels;

use crate::device::on_device;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// # Errors
/// [`Error::Config`] for invalid properties; of a user's own cell [`Error::MissingCell`] if it was read from a file, and
/// [`Error::Shader`] for WGSL that does not compile.
pub(crate) fn validate(cell: &Cell) -> Result<()> {
    match cell {
        Cell::Vanilla(activation) => activation.validate(),
        Cell::Lstm | Cell::Gru => Ok(()),
        Cell::Custom(cell) => cell.validate().and_then(|()| custom_kernels(cell).map(|_| ())),
    }
}

fn check(call: &Call<'_>, gates: &Tensor, output: &Tensor) -> Result<Sizes> {
    let [steps, rows, width] = gates.shape().exactly("gates", "[time, batch, gates x hidden]")?;
    let hidden_size = width / call.equations.gates();
    let projection_size =
        call.weights.projection.map_or(hidden_size, |projection| projection.shape().dimensions()[0]);
    let device = gates.device();
    device.expect_same("weight_hh", call.weights.weight_hh.device())?;
    device.expect_same("the initial state", call.initial.hidden.device())?;
    call.weights
        .weight_hh
        .shape()
        .expect("weight_hh", &[call.equations.gates() * hidden_size, projection_size])?;
    call.initial.hidden.shape().expect("the initial state", &[rows, projection_size])?;
    output.shape().exactly("output", "[time, batch, hidden]").and_then(|[time, batch, _]| {
        Error::expect([time, batch] == [steps, rows], || {
            format!("an output {} of gates {}", output.shape(), gates.shape())
        })
    })?;
    call.traversal.check(steps, rows)?;
    for indices in [call.traversal.lengths, call.traversal.resets].into_iter().flatten() {
        device.expect_same("lengths or resets", indices.device())?;
    }
    Ok(Sizes { steps, rows, hidden_size, projection_size })
}

/// [`check`] for each direction.
fn check_all(calls: &[Call<'_>], gates: &Tensor, output: &Tensor) -> Result<Sizes> {
    let mut sizes = None;
    for (index, call) in calls.iter().enumerate() {
        sizes = Some(check(call, &part_of(gates, index, calls.len()), output)?);
    }
    let Some(sizes) = sizes else { unreachable!("a layer has a direction") };
    Ok(sizes)
}

/// Runs the cell over all steps: h_t = cell(projected_t, W_hh h' + b_hh), where h' is the state before step
/// t.
///
/// `projected` \[T, B, G·H\] is consumed: its buffer becomes the gates. The hidden states are written to this
/// direction's columns of `output` \[T, B, width\], with zeros in the padding. Two directions that
/// [`together`] computes at once are two calls; projected is then \[2, T, B, G·H\].
pub(crate) fn forward(
    calls: &[Call<'_>],
    mut projected: Tensor,
    output: &mut Tensor,
) -> Result<SavedActivations> {
    let sizes = check_all(calls, &projected, output)?;
    let call = &calls[0];
    let device = projected.device().clone();
    let reads_gates = call.equations.reads_gates();
    let mut entered = None;
    if let Some(norms) = &call.weights.norms {
        let seen = layer_norm::enter(call, norms, &projected)?;
        entered = Some(std::mem::replace(&mut projected, seen));
    }
    let mut result = on_device!(device,
        F, host => cpu::forward::<F>(host, call, sizes, projected, entered, output),
        context => {
            let result = match &call.weights.norms {
                None => gpu::forward(context, calls, sizes, &mut projected, output)?,
                Some(norms) => {
                    gpu::layer_norm::forward(context, call, norms, sizes, &mut projected, output)?
                }
            };
            let gpu::ForwardOutput { saved, unprojected, product, step_flags, last } = result;
            Ok(SavedActivations { gates: Some(projected), saved, unprojected, entered, product, step_flags, last })
        },
    )?;
    result.gates = result.gates.filter(|_| reads_gates);
    Ok(result)
}

/// The backward pass of [`forward`]; returns the gradients of each direction. `output` is the output of
/// `forward`, d_output \[T, B, width\] its gradient, d_last the gradient of the state after each row's last
/// step.
///
/// The saved activations are consumed: the buffer of the gates becomes their gradient. So is `d_output`: on
/// the GPU its buffer is freed after the loop unless it is shared.
pub(crate) fn backward(
    calls: &[Call<'_>],
    mut steps: SavedActivations,
    output: &Tensor,
    d_output: Tensor,
    d_last: &[Option<StateView<'_>>],
) -> Result<Vec<PassGradients>> {
    let call = &calls[0];
    let device = output.device().clone();
    let gates = match steps.gates.take() {
        Some(gates) => gates,
        // The loop writes all gradients except those of the padding, which must be zero.
        None => {
            let [time, rows, _] = output.shape().exactly("output", "[time, batch, width]")?;
            let sizes = [calls.len(), time, rows, call.weights.weight_hh.shape().rows()];
            let sizes = if calls.len() == 1 { &sizes[1..] } else { &sizes };
            match call.traversal.lengths {
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
    let result = on_device!(device,
        F, host => {
            let d_output = d_output.view();
            cpu::backward::<F>(host, call, steps, sizes, output, d_output, d_last[0]).map(|result| vec![result])
        },
        context => match norms {
            None => gpu::backward(context, calls, sizes, steps, output, d_output, d_last),
            Some((norms, _)) => {
                let d_output = d_output.view();
                gpu::layer_norm::backward(context, call, norms, steps, sizes, output, d_output, d_last[0])
                    .map(|result| vec![result])
            }
        },
    )?;
    match norms {
        Some((norms, entered)) => {
            result.into_iter().map(|result| layer_norm::leave(call, norms, entered, result)).collect()
        }
        None => Ok(result),
    }
}
