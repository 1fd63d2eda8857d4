//! The recurrent stack, forward and backward through time.

mod kinks;
mod sequences;
mod stacks;

use super::{Case, Operation, Output, download};
use crate::Result;
use crate::check::draw::{CENTRED, Draw};
use crate::check::tolerance::Recurrence;
use crate::nn::{Cell, Layer, Model, Parameters, Rnn, State};
use crate::ops::Activation;
use crate::tensor::Tensor;
use sequences::{Batch, Rows};

/// T, B, I, H and L of a case, and what varies beside.
#[derive(Clone, Copy)]
struct Stack {
    cell: Cell,
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    layers: usize,
    directions: Directions,
    bias: Bias,
    rows: Rows,
    /// The steps between two places where gradients end.
    chunk: Option<usize>,
    /// Whether something was computed from the final state, so that a gradient comes from there.
    final_gradient: FinalGradient,
    /// The largest magnitude of x.
    magnitude: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Directions {
    Forward,
    Reverse,
    Both,
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
    cell: Cell::Vanilla(Activation::Tanh),
    steps: 7,
    batch: 3,
    inputs: 5,
    hidden: 17,
    layers: 1,
    directions: Directions::Forward,
    bias: Bias::With,
    rows: Rows::Whole,
    chunk: None,
    final_gradient: FinalGradient::Given,
    magnitude: 1.0,
};

/// # Errors
/// As the reference, on which cases near a kink are sorted out.
pub(super) fn operations() -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    for (name, stacks) in stacks::by_cell() {
        let mut forward = Vec::new();
        let mut backward = Vec::new();
        for (stack, seed) in stacks.into_iter().zip((1100..).step_by(100)) {
            let seed = stack.seed_off_kinks(seed)?;
            forward.push(Case::new(stack.label(), seed, move |draw| stack.forward(draw)));
            backward.push(Case::new(stack.label(), seed, move |draw| stack.backward(draw)));
        }
        operations.push(Operation::new(format!("{name} forward"), forward));
        operations.push(Operation::new(format!("{name} backward"), backward));
    }
    Ok(operations)
}

/// Everything a case draws, in this order.
struct Inputs {
    layer: Layer<Rnn>,
    model: Model,
    parameters: Parameters,
    batch: Batch,
    x: Tensor,
    initial: State,
}

impl Stack {
    fn label(self) -> String {
        let Self { steps, batch, inputs, hidden, layers, directions, bias, rows, .. } = self;
        let cell = self.cell.name();
        let chunk = self.chunk.map_or_else(String::new, |chunk| format!(", chunks of {chunk}"));
        format!(
            "{cell} T {steps}, B {batch}, I {inputs}, H {hidden}, L {layers}, {directions:?}, {rows:?} rows{chunk}, \
             {bias:?} bias, final gradient {:?}, |x| up to {}",
            self.final_gradient, self.magnitude
        )
    }

    fn description(self) -> Rnn {
        let description = Rnn::new(self.cell, self.inputs, self.hidden).layers(self.layers);
        let description = match self.directions {
            Directions::Forward => description,
            Directions::Reverse => description.reverse(),
            Directions::Both => description.bidirectional(),
        };
        let description = match self.chunk {
            Some(steps) => description.truncated(steps),
            None => description,
        };
        if self.bias == Bias::With { description } else { description.without_bias() }
    }

    fn recurrence(self) -> Recurrence {
        let Self { cell, steps, batch, layers, .. } = self;
        let terms = self.inputs.max(self.description().outputs()) + self.hidden;
        Recurrence { cell, steps, batch, layers, terms }
    }

    fn draw(self, draw: &Draw) -> Result<Inputs> {
        let mut model = Model::new(0);
        let layer = model.add("rnn", self.description())?;
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
        let batch = self.rows.draw(draw, self.steps, self.batch)?;
        let x = draw.values(self.steps * self.batch * self.inputs, -self.magnitude..self.magnitude);
        let x = batch.with_padding(draw, x, f32::NAN)?;
        let initial = self.draw_state(draw)?;
        Ok(Inputs { layer, model, parameters, batch, x, initial })
    }

    fn draw_state(self, draw: &Draw) -> Result<State> {
        let directions = self.description().outputs() / self.hidden;
        let part = || draw.tensor(&[self.layers * directions, self.batch, self.hidden], CENTRED);
        match self.cell.has_cell_state() {
            true => State::from_hidden_and_cell(&part()?, &part()?),
            false => State::from_hidden(&part()?),
        }
    }

    fn output(self, name: impl Into<String>, tensor: Tensor, roundings: f64) -> Output {
        Output::new(name, tensor, roundings).relative_to(self.smallest_scale())
    }

    /// The parts of a state, or of the gradient at one.
    fn state_outputs(self, name: &str, state: &State, roundings: f64) -> Vec<Output> {
        let mut outputs = vec![self.output(name, state.hidden(), roundings)];
        outputs.extend(state.cell().map(|cell| self.output(format!("{name}, cell"), cell, roundings)));
        outputs
    }

    fn forward(self, draw: &Draw) -> Result<Vec<Output>> {
        let Inputs { layer, parameters, batch, x, initial, .. } = self.draw(draw)?;
        let roundings = self.recurrence().forward();
        let (y, last) = layer.infer_sequences(&parameters, &x, &initial, batch.sequences())?;
        let mut outputs = self.state_outputs("final state", &last, roundings);
        outputs.extend(batch.padding_of(draw, "y", &y)?);
        outputs.push(self.output("y", y, roundings));
        Ok(outputs)
    }

    fn backward(self, draw: &Draw) -> Result<Vec<Output>> {
        let Inputs { layer, model, parameters, batch, x, initial } = self.draw(draw)?;
        let d_y = draw.values(self.steps * self.batch * layer.description().outputs(), CENTRED);
        // Garbage of its own, but finite: what a loss over whole rows sends back.
        let d_y = batch.with_padding(draw, d_y, 3.0)?;
        let d_last = self.draw_state(draw)?;
        let given = (self.final_gradient == FinalGradient::Given).then_some(&d_last);
        let mut gradients = parameters.zero_gradients()?;
        let (_, _, trace) = layer.forward_sequences(&parameters, &x, &initial, batch.sequences())?;
        let (d_x, d_initial) = trace.backward(&d_y, given, &mut gradients)?;
        let roundings = self.recurrence().backward();
        let mut results = self.state_outputs("d_initial", &d_initial, roundings);
        results.extend(batch.padding_of(draw, "d_x", &d_x)?);
        results.push(self.output("d_x", d_x, roundings));
        for spec in model.specs() {
            let gradient = download(draw, gradients.view(&spec.name)?)?;
            results.push(self.output(format!("gradient of {}", spec.name), gradient, roundings));
        }
        Ok(results)
    }

    /// A single unit may end near zero by cancellation of terms of its weights' size; elsewhere the largest of many
    /// results is the measure.
    fn smallest_scale(self) -> f64 {
        if self.hidden == 1 { 1.0 / (self.hidden as f64).sqrt() } else { 0.0 }
    }
}
