//! A tutorial's network with a sliding window: the gradient of each output is propagated back through a fixed number of
//! steps.

use super::case::Outcome;
use super::elementwise::activation;
use super::layers::expect_kind;
use super::replay::Replay;
use super::rnn::{expect_plain, truncation};
use crate::check::tolerance::{Recurrence, sum};
use crate::nn::{Cell, Gradients, Layer, Linear, Model, Parameters, Rnn};
use crate::ops::recurrent::Truncation;
use crate::ops::{Binary, Form, binary, matmul, permute};
use crate::optim::{Sgd, SgdConfig};
use crate::tensor::Tensor;

/// Pairs of parameter names, in the case and here.
const PARAMETERS: [(&str, &str); 3] =
    [("U", "rnn.weight_ih_l0"), ("W", "rnn.weight_hh_l0"), ("V", "head.weight")];

/// The network, its weights and its inputs, time-major.
struct Network {
    rnn: Layer<Rnn>,
    head: Layer<Linear>,
    parameters: Parameters,
    x: Tensor,
    recurrence: Recurrence,
}

impl Network {
    /// s_t = f(U x_t + W s_{t−1}), o_t = V s_t, without biases, x batch-major.
    fn from_case(replay: &Replay<'_>, truncation: Truncation) -> Outcome<Self> {
        let (case, device) = (replay.case, replay.device);
        let cell = Cell::Vanilla(activation(case, case.required("nonlinearity")?)?);
        let x = permute(&case.tensor("X", device)?, &[1, 0, 2])?;
        let [steps, batch, inputs] = x.shape().exactly("X", "[batch, time, inputs]")?;
        let ([classes, hidden], _) = case.floats::<2>("V")?;
        let description = Rnn::new(cell.clone(), inputs, hidden).without_bias().with_truncation(truncation);
        let mut model = Model::new(0);
        let rnn = model.add("rnn", description)?;
        let head = model.add("head", Linear::new(hidden, classes).without_bias())?;
        let mut parameters = replay.initialize(&model)?;
        for (tensor, name) in PARAMETERS {
            let (shape, values) = case.floats::<2>(tensor)?;
            parameters.set(name, &shape, values)?;
        }
        let recurrence = Recurrence { cell, steps, batch, layers: 1, terms: inputs + hidden };
        Ok(Self { rnn, head, parameters, x, recurrence })
    }

    /// Computes the states s and the outputs from a zero initial state.
    fn infer(&self) -> Outcome<(Tensor, Tensor)> {
        let initial = self.rnn.zero_state(self.x.device(), self.recurrence.batch)?;
        let (states, _) = self.rnn.infer(&self.parameters, &self.x, &initial)?;
        let outputs = self.head.infer(&self.parameters, &states)?;
        Ok((states, outputs))
    }

    /// Computes the gradients of x and of all parameters from `d_outputs`.
    fn backward(&self, d_outputs: &Tensor) -> Outcome<(Tensor, Gradients)> {
        let initial = self.rnn.zero_state(self.x.device(), self.recurrence.batch)?;
        let mut gradients = self.parameters.zero_gradients()?;
        let (states, _, rnn) = self.rnn.forward(&self.parameters, &self.x, &initial)?;
        let (_, head) = self.head.forward(&self.parameters, &states)?;
        let d_states = head.backward(d_outputs, &mut gradients)?;
        let (d_x, _) = rnn.backward(&d_states, None, &mut gradients)?;
        Ok((d_x, gradients))
    }

    /// U x_t + W s_{t−1} for all steps.
    fn before_activation(&self, states: &Tensor) -> Outcome<Tensor> {
        let Recurrence { steps, batch, .. } = self.recurrence;
        let hidden = states.shape().last();
        let mut before = vec![0.0; batch * hidden];
        before.extend(states.download_f64()?);
        before.truncate(steps * batch * hidden);
        let before = Tensor::from_slice_f64(self.x.device(), &[steps, batch, hidden], &before)?;
        let product = |x: &Tensor, name| matmul(x, self.parameters.view(name)?, Form::RightTransposed, None);
        let (from_x, from_state) =
            (product(&self.x, "rnn.weight_ih_l0")?, product(&before, "rnn.weight_hh_l0")?);
        Ok(binary(&from_x, &from_state, Binary::Add)?)
    }
}

/// The states \[T, B, H\] with the zero state in another slot at the end, batch-major \[B, T + 1, H\].
pub(super) fn slots(states: &Tensor) -> Outcome<Tensor> {
    let [steps, batch, hidden] = states.shape().exactly("states", "[time, batch, hidden]")?;
    let mut slots = states.download_f64()?;
    slots.resize((steps + 1) * batch * hidden, 0.0);
    let slots = Tensor::from_slice_f64(states.device(), &[steps + 1, batch, hidden], &slots)?;
    Ok(permute(&slots, &[1, 0, 2])?)
}

/// Compares everything that the tutorial computes: `states` \[B, T + 1, H\], whose last slot is the zero state, the
/// pre-activations, `outputs`; from the upstream gradient `accum_grad` all gradients with the window, and
/// `accum_grad_next`, the gradient of X from the same step's output alone; the parameters after one step of SGD.
pub(super) fn run(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_kind(replay, "rnn")?;
    expect_plain(case)?;
    for (key, value) in [("layers", "1"), ("bias", "false"), ("layout", "batch_major")] {
        case.expect(key, value)?;
    }
    let mut network = Network::from_case(replay, truncation(case)?)?;
    let (forward, backward) = (network.recurrence.forward(), network.recurrence.backward());
    let batch_major = |tensor: &Tensor| permute(tensor, &[1, 0, 2]);

    let (states, outputs) = network.infer()?;
    let hidden = states.shape().last();
    replay.check("states", &slots(&states)?, forward)?;
    replay.check("state_input", &batch_major(&network.before_activation(&states)?)?, forward)?;
    replay.check("outputs", &batch_major(&outputs)?, forward + sum(hidden))?;

    let d_outputs = batch_major(&case.tensor("accum_grad", device)?)?;
    let of_head = sum(outputs.shape().last());
    let (d_x, gradients) = network.backward(&d_outputs)?;
    replay.check("grad_X_window", &batch_major(&d_x)?, backward + of_head)?;
    for (tensor, name) in PARAMETERS {
        replay.check(&format!("grad_{tensor}"), gradients.view(name)?, backward + of_head)?;
    }
    let (d_x, _) = Network::from_case(replay, Truncation::Chunks(1))?.backward(&d_outputs)?;
    replay.check("accum_grad_next", &batch_major(&d_x)?, backward + of_head)?;

    let mut descent = Sgd::new(&network.parameters, SgdConfig::new(case.value("sgd_lr")?))?;
    descent.step(&mut network.parameters, &gradients)?;
    for (tensor, name) in PARAMETERS {
        let after = network.parameters.view(name)?;
        replay.check(&format!("{tensor}_after_sgd"), after, backward + of_head + 2.0)?;
    }
    Ok(())
}
