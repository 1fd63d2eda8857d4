//! The recurrent stack, forward and backward through time.

mod choices;
mod kinks;
mod sequences;
mod stacks;

use super::{Case, Operation, Output, gradient_outputs};
use crate::Result;
use crate::check::sampler::{CENTRED, Sampler};
use crate::check::tolerance::{Recurrence, steepness};
use crate::nn::{Cell, Layer, Model, Parameters, Rnn, State};
use crate::ops::Activation;
use crate::ops::recurrent::Truncation;
use crate::tensor::Tensor;
use choices::{CellChoices, further_windows};
use sequences::{Batch, CaseRows};

/// T, B, I, H and L of a case, and its options.
#[derive(Clone, Copy)]
struct Stack {
    cell: &'static Cell,
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    layers: usize,
    directions: CaseDirections,
    bias: Bias,
    rows: CaseRows,
    choices: CellChoices,
    truncation: Truncation,
    /// Whether the final state has an upstream gradient.
    final_gradient: FinalGradient,
    /// The largest magnitude of x.
    magnitude: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum CaseDirections {
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
    cell: &Cell::Vanilla(Activation::Tanh),
    steps: 7,
    batch: 3,
    inputs: 5,
    hidden: 17,
    layers: 1,
    directions: CaseDirections::Forward,
    bias: Bias::With,
    rows: CaseRows::Whole,
    choices: CellChoices::NONE,
    truncation: Truncation::None,
    final_gradient: FinalGradient::Given,
    magnitude: 1.0,
};

pub(super) fn operations() -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    for (name, stacks) in stacks::by_cell() {
        let mut forward = Vec::new();
        let mut backward = Vec::new();
        for (stack, seed) in seeded(stacks) {
            let seed = seed?;
            forward.push(Case::new(stack.label(), seed, move |sampler| stack.forward(sampler)));
            backward.push(Case::new(stack.label(), seed, move |sampler| stack.backward(sampler)));
        }
        operations.push(Operation::new(format!("{name} forward"), forward));
        operations.push(Operation::new(format!("{name} backward"), backward));
    }
    Ok(operations)
}

/// Each stack with a seed whose numbers are not near a kink.
fn seeded(stacks: Vec<Stack>) -> impl Iterator<Item = (Stack, Result<u64>)> {
    let numbered = stacks.into_iter().zip((1100..).step_by(100));
    numbered.map(|(stack, seed)| (stack, stack.seed_off_kinks(seed)))
}

/// All inputs of a case, sampled in this order.
struct StackInputs {
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
        let choices = self.choices.words();
        let truncation =
            self.description().describe_truncation().map_or_else(String::new, |words| format!(", {words}"));
        format!(
            "{cell}{choices} T {steps}, B {batch}, I {inputs}, H {hidden}, L {layers}, {directions:?}, {rows:?} \
             rows{truncation}, {bias:?} bias, final gradient {:?}, |x| up to {}",
            self.final_gradient, self.magnitude
        )
    }

    fn description(self) -> Rnn {
        let description = Rnn::new(self.cell.clone(), self.inputs, self.hidden).layers(self.layers);
        let description = match self.directions {
            CaseDirections::Forward => description,
            CaseDirections::Reverse => description.reverse(),
            CaseDirections::Both => description.bidirectional(),
        };
        let description = self.choices.of(description).with_truncation(self.truncation);
        if self.bias == Bias::With { description } else { description.without_bias() }
    }

    /// A peephole adds a product to each gate, a projection a sum of H products to each step; both are counted per gate.
    fn recurrence(self) -> Recurrence {
        let Self { cell, steps, batch, layers, choices, .. } = self;
        let peephole = if choices.peepholes { 2 } else { 0 };
        let projection = if choices.projection.is_some() { self.hidden } else { 0 };
        let terms = self.inputs.max(self.description().outputs()) + self.hidden + peephole + projection;
        Recurrence { cell: cell.clone(), steps, batch, layers, terms }
    }

    /// The factor by which gate functions with derivatives above 1 let errors grow in time.
    fn growth(self) -> f64 {
        self.choices.activations.map_or(1.0, |functions| steepness(functions, self.steps))
    }

    fn sampler(self, sampler: &Sampler) -> Result<StackInputs> {
        let mut model = Model::new(0);
        let layer = model.add("rnn", self.description())?;
        let bound = 1.0 / (self.hidden as f64).sqrt();
        let parameters = sampler.parameters(&model, |_| -bound..bound)?;
        let batch = self.rows.sampler(sampler, self.steps, self.batch)?;
        let x = sampler.values(self.steps * self.batch * self.inputs, -self.magnitude..self.magnitude);
        let x = batch.with_padding(sampler, x, f32::NAN)?;
        let initial = self.sample_state(sampler)?;
        Ok(StackInputs { layer, model, parameters, batch, x, initial })
    }

    fn sample_state(self, sampler: &Sampler) -> Result<State> {
        let directions = if self.directions == CaseDirections::Both { 2 } else { 1 };
        let hidden = self.choices.projection.unwrap_or(self.hidden);
        let cell = self.cell.has_cell_state().then_some(self.hidden);
        sampler.state([self.layers * directions, self.batch, hidden], cell)
    }

    fn output(self, name: impl Into<String>, tensor: Tensor, roundings: f64) -> Output {
        Output::new(name, tensor, roundings).relative_to(self.smallest_scale())
    }

    /// The components of a state, or of the gradient of one.
    fn state_outputs(self, name: &str, state: &State, roundings: f64) -> Vec<Output> {
        let mut outputs = vec![self.output(name, state.hidden(), roundings)];
        outputs.extend(state.cell().map(|cell| self.output(format!("{name}, cell"), cell, roundings)));
        outputs
    }

    fn forward(self, sampler: &Sampler) -> Result<Vec<Output>> {
        let StackInputs { layer, parameters, batch, x, initial, .. } = self.sampler(sampler)?;
        let roundings = self.growth() * self.recurrence().forward();
        let (y, last) = layer.infer_sequences(&parameters, &x, &initial, batch.sequences())?;
        let mut outputs = self.state_outputs("final state", &last, roundings);
        outputs.extend(batch.padding_of(sampler, "y", &y)?);
        outputs.push(self.output("y", y, roundings));
        Ok(outputs)
    }

    fn backward(self, sampler: &Sampler) -> Result<Vec<Output>> {
        let StackInputs { layer, model, parameters, batch, x, initial } = self.sampler(sampler)?;
        let d_y = sampler.values(self.steps * self.batch * layer.description().outputs(), CENTRED);
        // Finite random values, as a loss over whole rows returns them for the padding.
        let d_y = batch.with_padding(sampler, d_y, 3.0)?;
        let d_last = self.sample_state(sampler)?;
        let given = (self.final_gradient == FinalGradient::Given).then_some(&d_last);
        let mut gradients = parameters.zero_gradients()?;
        let (_, _, trace) = layer.forward_sequences(&parameters, &x, &initial, batch.sequences())?;
        let (d_x, d_initial) = trace.backward(&d_y, given, &mut gradients)?;
        let windows = further_windows(self.truncation) as f64;
        let roundings = self.growth() * self.recurrence().backward() + windows;
        let mut results = self.state_outputs("d_initial", &d_initial, roundings);
        results.extend(batch.padding_of(sampler, "d_x", &d_x)?);
        results.push(self.output("d_x", d_x, roundings));
        let of_parameters = gradient_outputs(&model, &gradients, roundings)?;
        results.extend(of_parameters.into_iter().map(|output| output.relative_to(self.smallest_scale())));
        Ok(results)
    }

    /// The state of a single unit may be near zero, where terms as large as its weights cancel; in all other cases
    /// results are many, and the largest is the scale.
    fn smallest_scale(self) -> f64 {
        if self.hidden == 1 { 1.0 / (self.hidden as f64).sqrt() } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    fn results(stack: Stack, seed: u64) -> Vec<Vec<f64>> {
        let outputs = stack.backward(&Sampler::new(&Device::reference(), seed)).unwrap();
        outputs.iter().map(|output| output.tensor.download_f64().unwrap()).collect()
    }

    /// The stack without each of those options that do not affect the parameters.
    fn simpler(stack: Stack) -> Vec<(&'static str, Stack)> {
        let Stack { choices, .. } = stack;
        let with = |choices| Stack { choices, ..stack };
        let all = [
            ("reset before", with(CellChoices { reset_before: false, ..choices })),
            ("activations", with(CellChoices { activations: None, ..choices })),
            ("clip of gates", with(CellChoices { clip_gates: None, ..choices })),
            ("clip of the cell", with(CellChoices { clip_cell: None, ..choices })),
            ("clip of the gradient", with(CellChoices { clip_gradient: None, ..choices })),
        ];
        all.into_iter().filter(|(_, simple)| simple.choices != choices).collect()
    }

    #[test]
    fn every_option_of_every_case_changes_its_results_and_no_clip_holds_everywhere() {
        let mut seen = 0;
        for (_, stacks) in stacks::by_cell() {
            // A single number is either clipped or not.
            let tells = |stack: &Stack| {
                stack.choices != CellChoices::NONE && stack.steps * stack.batch * stack.hidden > 1
            };
            for (stack, seed) in seeded(stacks).filter(|(stack, _)| tells(stack)) {
                let (seed, label) = (seed.unwrap(), stack.label());
                let found = results(stack, seed);
                for (option, simple) in simpler(stack) {
                    assert_ne!(found, results(simple, seed), "{option}: {label}, seed {seed}");
                    seen += 1;
                }
                // If all gates of a layer exceeded their bound, no gradient would reach x.
                let d_x = stack.backward(&Sampler::new(&Device::reference(), seed)).unwrap();
                let d_x = d_x.iter().find(|output| output.name == "d_x").unwrap();
                assert!(d_x.tensor.download_f64().unwrap().iter().any(|value| *value != 0.0), "{label}");
            }
        }
        assert!(seen > 50, "only {seen} options were left out");
    }
}
