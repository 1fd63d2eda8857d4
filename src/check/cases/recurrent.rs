//! The recurrent stack, forward and backward through time.

use super::{Case, Operation, Output, download};
use crate::Result;
use crate::check::draw::{CENTRED, Draw};
use crate::check::tolerance::Recurrence;
use crate::device::Device;
use crate::nn::{Cell, Layer, Model, Parameters, Rnn, State};
use crate::ops::{Activation, Binary, Form, binary, matmul};
use crate::tensor::Tensor;

/// T, B, I, H and L of a case, and what varies beside.
#[derive(Clone, Copy)]
struct Stack {
    activation: Activation,
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    layers: usize,
    bias: Bias,
    /// Whether something was computed from the final state, so that a gradient comes from there.
    final_gradient: FinalGradient,
    /// The largest magnitude of x.
    magnitude: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bias {
    With,
    Without,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum FinalGradient {
    Given,
    None,
}

const PLAIN: Stack = Stack {
    activation: Activation::Tanh,
    steps: 7,
    batch: 3,
    inputs: 5,
    hidden: 17,
    layers: 1,
    bias: Bias::With,
    final_gradient: FinalGradient::Given,
    magnitude: 1.0,
};

/// T, B, I, H, L: one of each, and all around the edges of tiles.
const SHAPES: [[usize; 5]; 12] = [
    [1, 1, 1, 1, 1],
    [1, 4, 5, 7, 2],
    [9, 1, 5, 31, 1],
    [6, 5, 3, 1, 2],
    [17, 15, 16, 15, 1],
    [5, 16, 17, 16, 2],
    [4, 17, 1, 33, 3],
    [3, 31, 33, 32, 1],
    [2, 33, 31, 63, 2],
    [3, 2, 65, 64, 1],
    [33, 2, 9, 65, 1],
    [70, 1, 2, 33, 3],
];

fn stacks() -> Vec<Stack> {
    let mut stacks = Vec::new();
    for (place, [steps, batch, inputs, hidden, layers]) in SHAPES.into_iter().enumerate() {
        let bias = if place % 3 == 1 { Bias::Without } else { Bias::With };
        let final_gradient = if place % 2 == 1 { FinalGradient::None } else { FinalGradient::Given };
        stacks.push(Stack { steps, batch, inputs, hidden, layers, bias, final_gradient, ..PLAIN });
    }
    stacks.extend(Activation::ALL.map(|activation| Stack { activation, ..PLAIN }));
    // Saturated: every state is at a limit of tanh, every gradient through it zero.
    stacks.push(Stack { magnitude: 1e4, steps: 3, batch: 2, hidden: 8, ..PLAIN });
    stacks.push(Stack { magnitude: 1e4, activation: Activation::Relu, ..PLAIN });
    stacks
}

/// # Errors
/// As the reference, on which cases near a kink are sorted out.
pub(super) fn operations() -> Result<Vec<Operation>> {
    let mut forward = Vec::new();
    let mut backward = Vec::new();
    for (stack, seed) in stacks().into_iter().zip((1100..).step_by(100)) {
        let seed = stack.seed_off_kinks(seed)?;
        forward.push(Case::new(stack.label(), seed, move |draw| stack.forward(draw)));
        backward.push(Case::new(stack.label(), seed, move |draw| stack.backward(draw)));
    }
    Ok(vec![Operation::new("rnn forward", forward), Operation::new("rnn backward", backward)])
}

/// Everything a case draws, in this order.
struct Inputs {
    layer: Layer<Rnn>,
    model: Model,
    parameters: Parameters,
    x: Tensor,
    initial: State,
}

impl Stack {
    fn label(self) -> String {
        let Self { activation, steps, batch, inputs, hidden, layers, bias, final_gradient, magnitude } = self;
        format!(
            "{} T {steps}, B {batch}, I {inputs}, H {hidden}, L {layers}, {bias:?} bias, final gradient \
             {final_gradient:?}, |x| up to {magnitude}",
            activation.name()
        )
    }

    fn recurrence(self) -> Recurrence {
        let slope = match self.activation {
            // 1.0507 · 1.6733, left of zero.
            Activation::Selu => 1.76,
            _ => 1.0,
        };
        let terms = self.inputs.max(self.hidden) + self.hidden;
        Recurrence { steps: self.steps, batch: self.batch, layers: self.layers, terms, slope }
    }

    fn draw(self, draw: &Draw) -> Result<Inputs> {
        let description =
            Rnn::new(Cell::Vanilla(self.activation), self.inputs, self.hidden).layers(self.layers);
        let description = if self.bias == Bias::With { description } else { description.without_bias() };
        let mut model = Model::new(0);
        let layer = model.add("rnn", description)?;
        let mut parameters = model.initialize(draw.device())?;
        let bound = 1.0 / (self.hidden as f64).sqrt();
        let drawn: Vec<(String, Vec<f64>)> = model
            .specs()
            .iter()
            .map(|spec| {
                let values = draw.values(spec.shape.elements(), -bound..bound);
                (spec.name.clone(), values.into_iter().map(f64::from).collect())
            })
            .collect();
        parameters.set_all(drawn.iter().map(|(name, values)| (name.as_str(), values.as_slice())))?;
        let x = draw.tensor(&[self.steps, self.batch, self.inputs], -self.magnitude..self.magnitude)?;
        let initial = State::from_hidden(draw.tensor(&[self.layers, self.batch, self.hidden], CENTRED)?);
        Ok(Inputs { layer, model, parameters, x, initial })
    }

    fn forward(self, draw: &Draw) -> Result<Vec<Output>> {
        let Inputs { layer, parameters, x, initial, .. } = self.draw(draw)?;
        let roundings = self.recurrence().forward();
        let (y, last) = layer.infer(&parameters, &x, &initial)?;
        Ok(vec![
            Output::new("y", y, roundings).relative_to(self.smallest_scale()),
            Output::new("final state", last.hidden().clone(), roundings).relative_to(self.smallest_scale()),
        ])
    }

    fn backward(self, draw: &Draw) -> Result<Vec<Output>> {
        let Inputs { layer, model, parameters, x, initial } = self.draw(draw)?;
        let d_y = draw.tensor(&[self.steps, self.batch, self.hidden], CENTRED)?;
        let d_last = State::from_hidden(draw.tensor(&[self.layers, self.batch, self.hidden], CENTRED)?);
        let given = (self.final_gradient == FinalGradient::Given).then_some(&d_last);
        let mut gradients = parameters.zero_gradients()?;
        let (_, _, trace) = layer.forward(&parameters, &x, &initial)?;
        let (d_x, d_initial) = trace.backward(&d_y, given, &mut gradients)?;
        let roundings = self.recurrence().backward();
        let mut results = vec![
            Output::new("d_x", d_x, roundings).relative_to(self.smallest_scale()),
            Output::new("d_initial", d_initial.hidden().clone(), roundings)
                .relative_to(self.smallest_scale()),
        ];
        for spec in model.specs() {
            let gradient = download(draw, gradients.view(&spec.name)?)?;
            let result = Output::new(format!("gradient of {}", spec.name), gradient, roundings);
            results.push(result.relative_to(self.smallest_scale()));
        }
        Ok(results)
    }

    /// A single unit may end near zero by cancellation of terms of its weights' size; elsewhere the largest of many
    /// results is the measure.
    fn smallest_scale(self) -> f64 {
        if self.hidden == 1 { 1.0 / (self.hidden as f64).sqrt() } else { 0.0 }
    }

    /// The first seed from `seed` on for which no pre-activation comes near a kink of f, where a rounding decides
    /// between two derivatives: both sides would be right. Saturated cases keep clear of the whole curved part.
    fn seed_off_kinks(self, seed: u64) -> Result<u64> {
        let (kinks, margin) = match self.activation {
            Activation::Relu | Activation::LeakyRelu { .. } | Activation::Elu { .. } | Activation::Selu => {
                (vec![0.0], 1e-4 * self.magnitude)
            }
            Activation::HardSigmoid { alpha, beta } => {
                (vec![f64::from(-beta / alpha), f64::from((1.0 - beta) / alpha)], 1e-4)
            }
            // From 20 on tanh is 1 in both precisions.
            Activation::Tanh if self.magnitude > 1.0 => (vec![0.0], 20.0),
            _ => return Ok(seed),
        };
        for seed in seed..seed + 99 {
            let gates = self.pre_activations(&Draw::new(&Device::reference(), seed))?;
            if gates.iter().all(|gate| kinks.iter().all(|kink| (gate - kink).abs() > margin)) {
                return Ok(seed);
            }
        }
        Err(crate::Error::config(self.label(), "has a pre-activation near a kink under every seed"))
    }

    /// W_ih x_t + b_ih + W_hh h_{t−1} + b_hh of a stack of one layer \[T, B, H\].
    fn pre_activations(self, draw: &Draw) -> Result<Vec<f64>> {
        debug_assert_eq!(self.layers, 1);
        let Inputs { layer, parameters, x, initial, .. } = self.draw(draw)?;
        let (y, _) = layer.infer(&parameters, &x, &initial)?;
        let mut before = initial.hidden().download_f64()?;
        before.extend(y.download_f64()?);
        before.truncate(y.shape().elements());
        let before = Tensor::from_slice_f64(draw.device(), y.shape().dimensions(), &before)?;
        let bias = |name| (self.bias == Bias::With).then(|| parameters.view(name)).transpose();
        let transposed = Form::RightTransposed;
        let from_x = matmul(&x, parameters.view("rnn.weight_ih_l0")?, transposed, bias("rnn.bias_ih_l0")?)?;
        let from_h =
            matmul(&before, parameters.view("rnn.weight_hh_l0")?, transposed, bias("rnn.bias_hh_l0")?)?;
        binary(&from_x, &from_h, Binary::Add)?.download_f64()
    }
}
