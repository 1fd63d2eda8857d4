//! The time loop of a recurrent layer, over an input that is already projected; the same for every [`Cell`].

pub(crate) mod cpu;
pub(crate) mod gpu;

use serde::{Deserialize, Serialize};

use super::elementwise::Activation;
use crate::Result;
use crate::device::on_device;
use crate::shape::Shape;
use crate::tensor::{Tensor, View};

/// The pointwise equations of a recurrent layer: what a step does with its gates.
///
/// A cell is the only thing that tells one recurrent layer from another: one file in `shaders/cells/` and one arm
/// in each of the twin's two functions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cell {
    /// h = f(W_ih x + b_ih + W_hh h' + b_hh) (Elman 1990, "Finding structure in time").
    Vanilla(Activation),
}

impl Cell {
    /// The vanilla cell with tanh: PyTorch's default `nn.RNN`.
    pub const fn tanh() -> Self {
        Self::Vanilla(Activation::Tanh)
    }

    /// The vanilla cell with relu.
    pub const fn relu() -> Self {
        Self::Vanilla(Activation::Relu)
    }

    /// How many blocks of `hidden` rows its weights have.
    pub fn gates(self) -> usize {
        match self {
            Self::Vanilla(_) => 1,
        }
    }

    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Vanilla(activation) => activation.validate(),
        }
    }
}

/// The recurrent weights of one layer in one direction: weight_hh \[G·H, H\], bias_hh \[G·H\].
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) weight_hh: View<'a>,
    pub(crate) bias_hh: Option<View<'a>>,
}

/// What the forward pass leaves for the backward one.
pub(crate) struct Steps {
    /// The gates before their activation \[T, B, G·H\].
    pub(crate) gates: Tensor,
    /// The hidden state of every step \[T, B, H\].
    pub(crate) output: Tensor,
}

/// What the backward pass yields.
pub(crate) struct Gradients {
    /// At the gates before their activation \[T, B, G·H\].
    pub(crate) d_gates: Tensor,
    /// At the initial state \[B, H\].
    pub(crate) d_initial: Tensor,
}

/// T, B and H.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    pub(crate) hidden: usize,
}

fn sizes(gates: &Tensor, cell: Cell) -> Result<Sizes> {
    let [steps, rows, width] = gates.shape().exactly("gates", "[time, batch, gates x hidden]")?;
    Ok(Sizes { steps, rows, hidden: width / cell.gates() })
}

/// h_t = cell(projected_t + W_hh h_{t−1} + b_hh) for t = 0..T, h_{−1} = initial.
///
/// projected \[T, B, G·H\] is consumed: its memory becomes the gates. initial \[B, H\].
pub(crate) fn forward(
    cell: Cell,
    mut projected: Tensor,
    weights: Weights<'_>,
    initial: View<'_>,
) -> Result<Steps> {
    let sizes = sizes(&projected, cell)?;
    let Sizes { steps, rows, hidden } = sizes;
    let device = projected.device().clone();
    device.expect_same("weight_hh", weights.weight_hh.device())?;
    device.expect_same("the initial state", initial.device())?;
    weights.weight_hh.shape().expect("weight_hh", &[cell.gates() * hidden, hidden])?;
    if let Some(bias) = weights.bias_hh {
        bias.shape().expect("bias_hh", &[cell.gates() * hidden])?;
    }
    initial.shape().expect("the initial state", &[rows, hidden])?;
    on_device!(device,
        F => {
            let (gates, output) = cpu::forward::<F>(cell, projected.view().array3(), weights, initial.array2());
            Ok(Steps {
                gates: Tensor::from_array(&device, gates)?,
                output: Tensor::from_array(&device, output)?,
            })
        },
        context => {
            let output = Tensor::uninitialized(context, &device, Shape::new(&[steps, rows, hidden])?)?;
            let call = gpu::Forward { cell, sizes, weights, initial: initial.span() };
            gpu::forward(context, &call, projected.view_mut()?.span(), output.view().span())?;
            Ok(Steps { gates: projected, output })
        },
    )
}

/// Back-propagation through the loop of [`forward`]: with dh_t = dy_t + W_hhᵀ dgates_{t+1} (at the end plus
/// d_last), dgates_t is dh_t through the cell's derivative.
///
/// d_output \[T, B, H\], d_last \[B, H\]. The steps are consumed: the gates' memory becomes their gradient.
pub(crate) fn backward(
    cell: Cell,
    steps: Steps,
    weights: Weights<'_>,
    d_output: View<'_>,
    d_last: Option<View<'_>>,
) -> Result<Gradients> {
    let Steps { mut gates, output } = steps;
    let sizes = sizes(&gates, cell)?;
    let device = gates.device().clone();
    device.expect_same("d_output", d_output.device())?;
    d_output.shape().expect("d_output", output.shape().dimensions())?;
    if let Some(d_last) = d_last {
        device.expect_same("d_state", d_last.device())?;
        d_last.shape().expect("d_state", &[sizes.rows, sizes.hidden])?;
    }
    on_device!(device,
        F => {
            let d_last = d_last.map(|d_last| d_last.array2());
            let steps = (gates.view().array3(), output.view().array3());
            let (d_gates, d_initial) = cpu::backward::<F>(cell, steps, weights, d_output.array3(), d_last);
            Ok(Gradients {
                d_gates: Tensor::from_array(&device, d_gates)?,
                d_initial: Tensor::from_array(&device, d_initial)?,
            })
        },
        context => {
            let call = gpu::Backward {
                cell,
                sizes,
                weight_hh: weights.weight_hh.span(),
                output: output.view().span(),
                d_output: d_output.span(),
                d_last: d_last.map(|d_last| d_last.span()),
            };
            gpu::backward(context, &call, gates.view_mut()?.span())?;
            // dh_{-1} = dgates_0 W_hh.
            let first = gates.view().entry(0)?;
            let d_initial = super::matmul(first, weights.weight_hh, super::Form::Plain, None)?;
            Ok(Gradients { d_gates: gates, d_initial })
        },
    )
}
