//! Stacks of recurrent layers.

use serde::{Deserialize, Serialize};

use super::model::expect_size;
use super::{Cell, Gradients, Init, Layer, LayerConfig, ParameterSpec, Parameters};
use crate::device::Device;
use crate::ops::elementwise::{add_into, copy_into};
use crate::ops::matmul::matmul_into;
use crate::ops::recurrent::{self, Steps, Weights};
use crate::ops::{Form, matmul, sum_rows};
use crate::shape::Shape;
use crate::tensor::{Tensor, View};
use crate::{Error, Result};

/// A stack of L recurrent layers of H units over time, PyTorch's `nn.RNN`. Layer l reads the states of layer l − 1:
///
/// h_t = cell(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh)
///
/// Parameters of layer l, for a cell of G gates: `weight_ih_l{l}` \[G·H, I or H\], `weight_hh_l{l}` \[G·H, H\],
/// `bias_ih_l{l}` and `bias_hh_l{l}` \[G·H\], all drawn from U(±1/√H).
///
/// Sequences are \[T, B, I\]: time first, so that a step is contiguous. Data in another layout comes in through
/// [`permute`](crate::ops::permute).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rnn {
    cell: Cell,
    inputs: usize,
    hidden: usize,
    layers: usize,
    bias: bool,
}

/// The deepest stack.
const MAX_LAYERS: usize = 1024;

impl Rnn {
    /// One layer of `hidden` units over `inputs` features.
    pub fn new(cell: Cell, inputs: usize, hidden: usize) -> Self {
        Self { cell, inputs, hidden, layers: 1, bias: true }
    }

    /// With this many layers.
    pub fn layers(self, layers: usize) -> Self {
        Self { layers, ..self }
    }

    /// Without b_ih and b_hh.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// Units in each layer.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    pub(super) fn validate(&self, name: &str) -> Result<()> {
        self.cell.validate()?;
        expect_size(name, "inputs", self.inputs)?;
        expect_size(name, "hidden", self.hidden)?;
        // Each layer is described before the parameters are counted: a limit of its own.
        if (1..=MAX_LAYERS).contains(&self.layers) {
            return Ok(());
        }
        let message = format!("must be between 1 and {MAX_LAYERS}, not {}", self.layers);
        Err(Error::config(format!("{name}: layers"), message))
    }

    fn parameters_per_layer(&self) -> usize {
        if self.bias { 4 } else { 2 }
    }

    pub(super) fn parameters(&self, name: &str) -> Result<Vec<ParameterSpec>> {
        let init = Init::inverse_root(self.hidden);
        let rows = self.cell.gates() * self.hidden;
        let mut specs = Vec::new();
        let mut add = |parameter: String, dimensions: &[usize]| {
            let name = format!("{name}.{parameter}");
            specs.push(ParameterSpec { shape: Shape::named(&name, dimensions)?, name, init });
            Ok::<(), Error>(())
        };
        for layer in 0..self.layers {
            let inputs = if layer == 0 { self.inputs } else { self.hidden };
            add(format!("weight_ih_l{layer}"), &[rows, inputs])?;
            add(format!("weight_hh_l{layer}"), &[rows, self.hidden])?;
            if self.bias {
                add(format!("bias_ih_l{layer}"), &[rows])?;
                add(format!("bias_hh_l{layer}"), &[rows])?;
            }
        }
        Ok(specs)
    }
}

impl From<Rnn> for LayerConfig {
    fn from(layer: Rnn) -> Self {
        Self::Rnn(layer)
    }
}

/// What a stack carries from one window of time to the next, or the gradient at it. Values only: the history that
/// led to a state ends with it.
#[derive(Clone, Debug)]
pub struct State {
    hidden: Tensor,
}

impl State {
    /// A state from the hidden states of all layers \[L, B, H\].
    pub fn from_hidden(hidden: Tensor) -> Self {
        Self { hidden }
    }

    /// The hidden states of all layers \[L, B, H\].
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }
}

/// What [`Layer<Rnn>::forward`] leaves for backward: for each layer its input, gates and states.
pub struct RnnTrace<'p> {
    layer: Layer<Rnn>,
    parameters: &'p Parameters,
    initial: State,
    layers: Vec<LayerTrace>,
}

struct LayerTrace {
    x: Tensor,
    steps: Steps,
}

/// The parameters of one layer of the stack.
#[derive(Clone, Copy)]
struct LayerWeights<'a> {
    weight_ih: View<'a>,
    bias_ih: Option<View<'a>>,
    recurrent: Weights<'a>,
}

impl Layer<Rnn> {
    /// The state before a sequence begins: zeros \[L, B, H\].
    ///
    /// # Errors
    /// [`Error::Shape`] for a batch of zero; out of memory.
    pub fn zero_state(&self, device: &Device, batch: usize) -> Result<State> {
        let Rnn { layers, hidden, .. } = self.description;
        Ok(State { hidden: Tensor::zeros(device, &[layers, batch, hidden])? })
    }

    /// Outputs of the last layer \[T, B, H\] and the state after the last step, from x \[T, B, I\] and the state
    /// before the first step. Keeps nothing.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn infer(&self, parameters: &Parameters, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        let mut output = x.clone();
        let next = self.run(parameters, x, state, |_, steps| output = steps.output)?;
        Ok((output, next))
    }

    /// As [`Layer::<Rnn>::infer`], with the trace that backward needs.
    ///
    /// # Errors
    /// As [`Layer::<Rnn>::infer`].
    pub fn forward<'p>(
        &self,
        parameters: &'p Parameters,
        x: &Tensor,
        state: &State,
    ) -> Result<(Tensor, State, RnnTrace<'p>)> {
        let mut output = x.clone();
        let mut layers = Vec::with_capacity(self.description.layers);
        let next = self.run(parameters, x, state, |x, steps| {
            output = steps.output.clone();
            layers.push(LayerTrace { x, steps });
        })?;
        let trace = RnnTrace { layer: self.clone(), parameters, initial: state.clone(), layers };
        Ok((output, next, trace))
    }

    /// Runs layer after layer, handing the input and the steps of each to `keep`; returns the state at the end.
    fn run(
        &self,
        parameters: &Parameters,
        x: &Tensor,
        state: &State,
        mut keep: impl FnMut(Tensor, Steps),
    ) -> Result<State> {
        let [steps, batch] = self.check(parameters, x, state)?;
        let Rnn { cell, layers, hidden, .. } = self.description;
        let mut next = Tensor::unwritten(x.device(), &[layers, batch, hidden])?;
        let mut input = x.clone();
        for index in 0..layers {
            let weights = self.weights(parameters, index);
            let projected = matmul(input.view(), weights.weight_ih, Form::RightTransposed, weights.bias_ih)?;
            let initial = state.hidden.view().entry(index)?;
            let done = recurrent::forward(cell, projected, weights.recurrent, initial)?;
            copy_into(next.view_mut()?.entry(index)?, done.output.view().entry(steps - 1)?)?;
            let output = done.output.clone();
            keep(std::mem::replace(&mut input, output), done);
        }
        Ok(State { hidden: next })
    }

    /// Checks what comes in; returns T and B.
    fn check(&self, parameters: &Parameters, x: &Tensor, state: &State) -> Result<[usize; 2]> {
        let Rnn { inputs, hidden, layers, .. } = self.description;
        parameters.layout().expect("parameters", self.model)?;
        parameters.device().expect_same("x", x.device())?;
        parameters.device().expect_same("the state", state.hidden.device())?;
        let [steps, batch, features] = x.shape().exactly("x", "[time, batch, inputs]")?;
        if features != inputs {
            return Err(Error::shape(
                "x",
                format!("[time, batch, {inputs}] (the layer's inputs)"),
                x.shape(),
            ));
        }
        state.hidden.shape().expect("the state [layers, batch, hidden]", &[layers, batch, hidden])?;
        Ok([steps, batch])
    }

    fn weights<'p>(&self, parameters: &'p Parameters, index: usize) -> LayerWeights<'p> {
        let first = self.first_of(index);
        let bias = |place| self.description.bias.then(|| parameters.section(first + place));
        LayerWeights {
            weight_ih: parameters.section(first),
            bias_ih: bias(2),
            recurrent: Weights { weight_hh: parameters.section(first + 1), bias_hh: bias(3) },
        }
    }

    /// The place of the first parameter of layer `index`.
    fn first_of(&self, index: usize) -> usize {
        self.first + index * self.description.parameters_per_layer()
    }
}

impl RnnTrace<'_> {
    /// Back-propagation through time over the whole window (Werbos 1990).
    ///
    /// Takes the gradient at the outputs \[T, B, H\] and, where something was computed from it, at the final state;
    /// adds to the gradients of all weights; returns the gradients at x \[T, B, I\] and at the initial state.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::ModelMismatch`].
    pub fn backward(
        self,
        d_output: &Tensor,
        d_state: Option<&State>,
        gradients: &mut Gradients,
    ) -> Result<(Tensor, State)> {
        let Self { layer, parameters, initial, layers } = self;
        gradients.expect(layer.model, parameters.device())?;
        if let Some(state) = d_state {
            parameters.device().expect_same("d_state", state.hidden.device())?;
            state.hidden.shape().expect("d_state", initial.hidden.shape().dimensions())?;
        }
        let mut d_initial = Tensor::unwritten(parameters.device(), initial.hidden.shape().dimensions())?;
        let mut d_y = d_output.clone();
        for (index, LayerTrace { x, steps }) in layers.into_iter().enumerate().rev() {
            let weights = layer.weights(parameters, index);
            let d_last = d_state.map(|state| state.hidden.view().entry(index)).transpose()?;
            let output = steps.output.clone();
            let cell = layer.description.cell;
            let done = recurrent::backward(cell, steps, weights.recurrent, d_y.view(), d_last)?;
            copy_into(d_initial.view_mut()?.entry(index)?, done.d_initial.view())?;
            let initial = initial.hidden.view().entry(index)?;
            layer.accumulate(index, gradients, &done.d_gates, &x, &output, initial)?;
            d_y = matmul(done.d_gates.view(), weights.weight_ih, Form::Plain, None)?;
        }
        Ok((d_y, State { hidden: d_initial }))
    }
}

impl Layer<Rnn> {
    /// Adds layer `index`'s weight gradients, each one product of depth T·B:
    /// dW_ih += Σ_t dgates_tᵀ x_t, dW_hh += Σ_t dgates_tᵀ h_{t−1}, db += Σ_t dgates_t.
    fn accumulate(
        &self,
        index: usize,
        gradients: &mut Gradients,
        d_gates: &Tensor,
        x: &Tensor,
        output: &Tensor,
        initial: View<'_>,
    ) -> Result<()> {
        let first = self.first_of(index);
        let steps = d_gates.shape().dimensions()[0];
        let form = Form::LeftTransposed;
        let all = d_gates.view();
        matmul_into(gradients.section_mut(first), all.matrix()?, x.view().matrix()?, form)?;
        matmul_into(gradients.section_mut(first + 1), all.entry(0)?, initial, form)?;
        if steps > 1 {
            let later = all.outer(1..steps)?.matrix()?;
            let earlier = output.view().outer(0..steps - 1)?.matrix()?;
            matmul_into(gradients.section_mut(first + 1), later, earlier, form)?;
        }
        if self.description.bias {
            let sum = sum_rows(all)?;
            add_into(gradients.section_mut(first + 2), sum.view())?;
            add_into(gradients.section_mut(first + 3), sum.view())?;
        }
        Ok(())
    }
}
