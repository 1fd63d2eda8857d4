//! What a training step costs, counted in a dry run.
//!
//! The layers' own code runs forward and backward on a device that has shapes and counts bytes but has no memory and
//! computes nothing (`Device::dry`). So the counts follow each layer and option by construction.

use super::{Input, LayerConfig, Model, ModelState, ModelTrace, Parameters, RandomKey, Sequences};
use crate::Result;
use crate::device::Device;
use crate::loss::cross_entropy;
use crate::shape::Shape;
use crate::tensor::{Indices, Tensor};

/// What one pass of training over a window costs; see [`Model::cost`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// Multiply-adds of all matrix products, forward.
    pub forward: u64,
    /// Those of backward: each weight's gradient, and the gradient of each layer's input unless that is data; and the
    /// forward pass of all that a [checkpointed](super::Rnn::checkpointed) stack runs again.
    pub backward: u64,
    /// Bytes that a trace stores on the device until backward, in 32-bit floats: inputs, gates, states and outputs, each
    /// tensor once. For a checkpointed stack: the most that it stores at any time of backward.
    pub trace_bytes: u64,
    /// The most bytes that a training step has in use at once on a GPU, in 32-bit floats: weights, gradients, Adam's two
    /// moments, input, targets, traces, and the gradients of the backward pass.
    ///
    /// The step is forward, cross-entropy, [`zero_gradients`](super::Parameters::zero_gradients),
    /// [`backward_from`](super::ModelTrace::backward_from), clipping and Adam, where the logits are dropped as soon as there
    /// is a loss. With C features of the output, a caller that keeps the logits, or their gradient, adds up to T·B·C numbers
    /// for each.
    ///
    /// For a stack of L layers of H units in one direction, over data of I features and under a [`Linear`](super::Linear)
    /// head of C classes, with P parameters in all, it is
    ///
    /// 4 bytes · (4 P + T·B·(1 + I + L·K·H + M) + 3 L·B·S).
    ///
    /// K·H is what the trace stores of a step of a row: K is 1 for a vanilla cell of tanh, relu, sigmoid or identity, 5 for a
    /// GRU, 6 for an LSTM. M counts the gradients of the head and of its input, 2 max(C, H) for those vanilla cells and
    /// C + max(C, H) for the others. S is the size of a state, H or, of an LSTM, 2 H. In segments of Z steps
    /// ([`checkpointed`](super::Rnn::checkpointed)) it is
    ///
    /// 4 bytes · (4 P + T·B·(1 + I + H + C + max(C, H)) + Z·B·L·K·H + (⌈T/Z⌉ + 2) L·B·S).
    ///
    /// For C above H these are too large by P at most; for vanilla cells they are too small by some states.
    ///
    /// The count depends on shapes alone. Where an allocation depends on values, as the positions of tokens in the
    /// gradient of an embedding do, it is the largest possible one. Not counted are: split-K slices of weight gradients,
    /// on hardware up to 32 MiB; the exchange between workgroups of the persistent strategy, up to 16 MiB; rounding of
    /// allocations, up to a sixteenth of a buffer, a quarter of a reused one; uploads, and 1 MiB of kernel parameters on an adapter without
    /// immediates.
    pub training_bytes: u64,
}

impl Model {
    /// What a training pass over a window of `steps` steps and `batch` whole rows costs: multiply-adds of all matrix
    /// products, and memory. Element-wise work is not counted: it is a small part for all but the smallest layers.
    ///
    /// The counts come from a dry run of the layers' own code, which allocates no tensor. It takes about as long as
    /// recording a step whose time loops are empty; a [checkpointed](super::Rnn::checkpointed) stack, that for each segment.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for no steps or rows, and for a window in which a tensor would have more
    /// than 2³¹ elements; the other errors of a forward pass, such as a layer that cannot read the output of the one before;
    /// [`Error::Config`](crate::Error::Config) where a stack [checkpointed within](super::Rnn::checkpointed_within) a budget
    /// does not fit it.
    ///
    /// ```
    /// use refrain::nn::{Linear, Model};
    /// let mut model = Model::new(1);
    /// model.add("lower", Linear::new(3, 4))?;
    /// model.add("upper", Linear::new(4, 2))?;
    /// let cost = model.cost(10, 5)?;
    /// assert_eq!(cost.forward, 50 * (3 * 4 + 4 * 2));
    /// // The gradient at the first layer's input is not computed.
    /// assert_eq!(cost.backward, 50 * (3 * 4 + 2 * 4 * 2));
    /// assert_eq!(cost.trace_bytes, 50 * (3 + 4) * 4);
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn cost(&self, steps: usize, batch: usize) -> Result<Cost> {
        let window = [steps, batch];
        Shape::named("the window [steps, batch]", &window)?;
        if self.layers().is_empty() {
            return Ok(Cost::default());
        }
        let device = Device::dry();
        let parameters = Parameters::zeros(self.id(), self.specs(), &device)?;
        let before = device.counters().bytes_in_use;
        let mut trace = DryPass::of(self, &parameters, window)?.trace;
        let repeated = trace.extend()?;
        let trace_bytes = device.counters().bytes_in_use - before;
        drop(trace);
        self.dry_step(&parameters, window)?;
        let training_bytes = device.counters().peak_bytes_in_use;
        let [forward, backward] = self.products(window, &repeated);
        Ok(Cost { forward, backward, trace_bytes, training_bytes })
    }

    /// A training step with Adam, whose update itself allocates nothing.
    fn dry_step(&self, parameters: &Parameters, window: [usize; 2]) -> Result<()> {
        let _moments = [parameters.zero_gradients()?, parameters.zero_gradients()?];
        let targets = Indices::dry(parameters.device(), &window)?;
        let DryPass { logits, trace, input: _input, states: _states } =
            DryPass::of(self, parameters, window)?;
        let (_loss, d_logits) = cross_entropy(&logits, &targets)?;
        drop(logits);
        let mut gradients = parameters.zero_gradients()?;
        trace.backward_from(d_logits, &mut gradients)?;
        gradients.clip_norm(1.0).map(drop)
    }

    /// Multiply-adds of all matrix products forward and backward, where `repeated` steps of each layer run twice.
    fn products(&self, [steps, batch]: [usize; 2], repeated: &[usize]) -> [u64; 2] {
        let [mut forward, mut backward] = [0; 2];
        let mut reads_data = true;
        for (added, &repeated) in self.layers().iter().zip(repeated) {
            let [input, rest] = added.config.matrix_entries().map(|entries| entries as u64);
            let rows = |steps: usize| (steps * batch) as u64;
            forward += rows(steps) * (input + rest);
            // The gradients of both operands; that of data is not computed.
            let computed = 2 * (input + rest) - if reads_data { input } else { 0 };
            backward += rows(steps) * computed + rows(repeated) * (input + rest);
            reads_data &= matches!(added.config, LayerConfig::OneHot(_));
        }
        [forward, backward]
    }
}

impl LayerConfig {
    /// Entries of the matrices that are multiplied with the layer's input, and of all others.
    fn matrix_entries(&self) -> [usize; 2] {
        match self {
            Self::Embedding(_) | Self::OneHot(_) => [0, 0],
            Self::Rnn(layer) => layer.matrix_entries(),
            Self::Linear(layer) => [layer.entries(), 0],
        }
    }
}

/// A forward pass of training, with all that a caller holds.
struct DryPass<'p> {
    input: DryInput,
    /// Before the window and after it.
    states: [ModelState; 2],
    logits: Tensor,
    trace: ModelTrace<'p>,
}

enum DryInput {
    Tokens(Indices),
    Features(Tensor),
}

impl<'p> DryPass<'p> {
    fn of(model: &Model, parameters: &'p Parameters, [steps, batch]: [usize; 2]) -> Result<Self> {
        let device = parameters.device();
        let features = |features| Tensor::zeros(device, &[steps, batch, features]).map(DryInput::Features);
        let input = match &model.layers()[0].config {
            LayerConfig::Embedding(_) | LayerConfig::OneHot(_) => {
                DryInput::Tokens(Indices::dry(device, &[steps, batch])?)
            }
            LayerConfig::Rnn(layer) => features(layer.reads())?,
            LayerConfig::Linear(layer) => features(layer.reads())?,
        };
        let state = model.zero_state(device, batch)?;
        let read = match &input {
            DryInput::Tokens(tokens) => Input::Tokens(tokens),
            DryInput::Features(features) => Input::Features(features),
        };
        let training = Sequences::whole().training(RandomKey::new(0, 0));
        let (logits, next, trace) = model.forward_sequences(parameters, read, &state, training)?;
        Ok(Self { input, states: [state, next], logits, trace })
    }
}
