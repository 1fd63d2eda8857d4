//! A table of every option of a stack, and stacks with one or more of them over a batch: what `oracle` and `pairs` run.

use refrain::nn::{Cell, Layer, Merge, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::{Device, Indices, Result, Tensor};

use crate::support::{Build, components, dot, state_like, values, with_values};

pub(crate) const RATE: f32 = 0.4;
pub(crate) const BOUND: f32 = 0.05;

pub(crate) const ALL: &[Cell] = &[Cell::tanh(), Cell::Lstm, Cell::Gru];
const GATED: &[Cell] = &[Cell::Lstm, Cell::Gru];
const LSTM: &[Cell] = &[Cell::Lstm];
const GRU: &[Cell] = &[Cell::Gru];

/// One value of one option.
pub(crate) struct Choice {
    /// The option, by the name of its function.
    pub(crate) option: &'static str,
    pub(crate) value: &'static str,
    pub(crate) cells: &'static [Cell],
    build: Build,
    /// The option and value without which it has no sense.
    needs: Option<[&'static str; 2]>,
}

pub(crate) const LAYERS: [&str; 2] = ["layers", "2"];
pub(crate) const EVALUATION: [&str; 2] = ["mode", "evaluation"];
pub(crate) const LENGTHS: [&str; 2] = ["lengths", ""];
pub(crate) const RESETS: [&str; 2] = ["resets", ""];
pub(crate) const FINAL_GRADIENT: [&str; 2] = ["final gradient", ""];
const BOTH: [&str; 2] = ["direction", "bidirectional"];

const fn choice([option, value]: [&'static str; 2], cells: &'static [Cell], build: Build) -> Choice {
    Choice { option, value, cells, build, needs: None }
}

const fn with(needs: [&'static str; 2], choice: Choice) -> Choice {
    Choice { needs: Some(needs), ..choice }
}

pub(crate) static TABLE: [Choice; 37] = [
    choice(LAYERS, ALL, |stack| stack.layers(2)),
    choice(["direction", "reverse"], ALL, Rnn::reverse),
    choice(BOTH, ALL, Rnn::bidirectional),
    choice(["without_bias", ""], ALL, Rnn::without_bias),
    with(LAYERS, choice(["dropout", ""], ALL, |stack| stack.dropout(RATE))),
    choice(["input_dropout", ""], ALL, |stack| stack.input_dropout(RATE)),
    choice(["recurrent_dropout", ""], ALL, |stack| stack.recurrent_dropout(RATE)),
    choice(["zoneout", "hidden"], ALL, |stack| stack.zoneout(RATE, 0.0)),
    choice(["zoneout", "cell"], LSTM, |stack| stack.zoneout(0.25, RATE)),
    choice(["weight_drop", ""], ALL, |stack| stack.weight_drop(RATE)),
    with(BOTH, choice(["merge", "sum"], ALL, |stack| stack.merge(Merge::Sum))),
    with(BOTH, choice(["merge", "mean"], ALL, |stack| stack.merge(Merge::Mean))),
    with(BOTH, choice(["merge", "product"], ALL, |stack| stack.merge(Merge::Product))),
    with(LAYERS, choice(["residual", ""], ALL, Rnn::residual)),
    choice(["learned_initial_state", ""], ALL, Rnn::learned_initial_state),
    choice(["peepholes", ""], LSTM, Rnn::peepholes),
    choice(["coupled", ""], LSTM, Rnn::coupled),
    choice(["gate_activations", "smooth"], GATED, smooth_functions),
    choice(["gate_activations", "with kinks"], GATED, functions_with_kinks),
    choice(["clip_gates", ""], ALL, |stack| stack.clip_gates(0.7)),
    choice(["clip_cell", ""], LSTM, |stack| stack.clip_cell(0.4)),
    choice(["clip_gradient", "binds"], ALL, |stack| stack.clip_gradient(BOUND)),
    choice(["clip_gradient", "far off"], ALL, |stack| stack.clip_gradient(1e6)),
    choice(["reset_before", ""], GRU, Rnn::reset_before),
    choice(["projection", "1"], LSTM, |stack| stack.projection(1)),
    choice(["projection", "2"], LSTM, |stack| stack.projection(2)),
    choice(["layer_norm", ""], GATED, Rnn::layer_norm),
    choice(["truncation", "truncated"], ALL, |stack| stack.truncated(2)),
    choice(["truncation", "windowed"], ALL, |stack| stack.windowed(1)),
    choice(["truncation", "windowed 0"], ALL, |stack| stack.windowed(0)),
    choice(["truncation", "truncated_every 2 3"], ALL, |stack| stack.truncated_every(2, 3)),
    // The last of these windows has fewer outputs than the others.
    choice(["truncation", "truncated_every 3 3"], ALL, |stack| stack.truncated_every(3, 3)),
    choice(["checkpointed", ""], ALL, |stack| stack.checkpointed(2)),
    choice(LENGTHS, ALL, |stack| stack),
    choice(RESETS, ALL, |stack| stack),
    choice(FINAL_GRADIENT, ALL, |stack| stack),
    choice(EVALUATION, ALL, |stack| stack),
];

pub(crate) const SMOOTH: [Activation; 3] =
    [Activation::Softplus, Activation::Softsign, Activation::ScaledTanh { alpha: 1.7159, beta: 2.0 / 3.0 }];
pub(crate) const KINKED: [Activation; 3] = [
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::Relu,
    Activation::HardTanh { low: -0.5, high: 0.25 },
];

fn smooth_functions(stack: Rnn) -> Rnn {
    stack.gate_activations(SMOOTH[0], SMOOTH[1], SMOOTH[2])
}

fn functions_with_kinks(stack: Rnn) -> Rnn {
    stack.gate_activations(KINKED[0], KINKED[1], KINKED[2])
}

/// Options that exclude each other, by the words of a refusal.
const EXCLUDED: [(&str, &[&str]); 6] = [
    ("zoneout", &["projection", "peepholes", "layer_norm"]),
    (
        "layer_norm",
        &[
            "peepholes",
            "coupled",
            "projection",
            "clip_cell",
            "reset_before",
            "gate_activations",
            "clip_gates",
            "clip_gradient",
            "recurrent_dropout",
            "windowed",
            "truncated_every",
        ],
    ),
    ("checkpointed", &["layer_norm", "reverse", "bidirectional", "windowed", "truncated_every"]),
    ("windowed", &["reverse", "bidirectional"]),
    ("truncated_every", &["reverse", "bidirectional"]),
    ("merge", &["reverse"]),
];

impl Choice {
    /// The name of the option's function.
    pub(crate) fn function(&self) -> &'static str {
        match self.option {
            "direction" | "truncation" => self.value.split(' ').next().unwrap_or_default(),
            option => option,
        }
    }
}

/// Steps, rows of the batch, inputs and hidden units.
pub(crate) type Sizes = [usize; 4];

/// A stack with some options.
#[derive(Clone)]
pub(crate) struct Variant {
    pub(crate) cell: Cell,
    pub(crate) choices: Vec<&'static Choice>,
    pub(crate) sizes: Sizes,
    /// The functions of gates, candidate and output, unless they are the usual ones.
    pub(crate) functions: Option<[Activation; 3]>,
}

impl Variant {
    /// With these options and those that they need.
    pub(crate) fn new(cell: &Cell, choices: &[&'static Choice], sizes: Sizes) -> Self {
        let needed = choices.iter().filter_map(|choice| choice.needs);
        let variant = Self { cell: cell.clone(), choices: choices.to_vec(), sizes, functions: None };
        needed.fold(variant, Self::with)
    }

    /// The same with this option, unless it has another value of it.
    pub(crate) fn with(mut self, [option, value]: [&str; 2]) -> Self {
        if !self.has(option) {
            let chosen = TABLE.iter().find(|choice| [choice.option, choice.value] == [option, value]);
            self.choices.extend(chosen);
        }
        self
    }

    /// Every pair of options with every cell that has both.
    pub(crate) fn pairs(sizes: Sizes) -> Vec<Self> {
        let mut all = Vec::new();
        for (place, one) in TABLE.iter().enumerate() {
            for two in TABLE[place + 1..].iter().filter(|two| two.option != one.option) {
                for cell in one.cells.iter().filter(|cell| two.cells.contains(cell)) {
                    all.push(Self::new(cell, &[one, two], sizes));
                }
            }
        }
        all
    }

    /// What a refusal must name, where these options exclude each other.
    pub(crate) fn refusal(&self) -> Option<[&'static str; 2]> {
        let is_there = |word: &str| self.choices.iter().any(|choice| choice.function() == word);
        EXCLUDED
            .iter()
            .filter(|(one, _)| is_there(one))
            .find_map(|(one, others)| others.iter().find(|other| is_there(other)).map(|other| [*one, *other]))
    }

    pub(crate) fn value(&self, option: &str) -> Option<&'static str> {
        self.choices.iter().find(|choice| choice.option == option).map(|choice| choice.value)
    }

    pub(crate) fn has(&self, option: &str) -> bool {
        self.value(option).is_some()
    }

    pub(crate) fn name(&self) -> String {
        let names = self.choices.iter().map(|choice| format!("{} {}", choice.option, choice.value));
        let names: Vec<_> = names.map(|name| name.trim_end().to_owned()).collect();
        let functions = self.functions.map(|functions| format!("{functions:?} ")).unwrap_or_default();
        let [steps, batch, inputs, hidden] = self.sizes;
        let sizes = format!("T {steps}, B {batch}, I {inputs}, H {hidden}");
        format!("{} {functions}with [{}], {sizes}", self.cell.name(), names.join(", "))
    }

    pub(crate) fn stack(&self) -> Rnn {
        let [_, _, inputs, hidden] = self.sizes;
        let stack = Rnn::new(self.cell.clone(), inputs, hidden);
        let stack = match self.functions {
            Some([gates, candidate, output]) => stack.gate_activations(gates, candidate, output),
            None => stack,
        };
        self.choices.iter().fold(stack, |stack, choice| (choice.build)(stack))
    }

    /// Whether gradients are not those of the loss.
    pub(crate) fn bends_gradients(&self) -> bool {
        self.has("truncation") || self.has("clip_gradient")
    }

    /// The random numbers of training; none in evaluation.
    pub(crate) fn random_key(&self) -> Option<RandomKey> {
        (!self.has("mode")).then(|| RandomKey::new(17, 3))
    }

    /// Steps of each row: none, all and some in between.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let [steps, batch, ..] = self.sizes;
        let is_ragged = self.has("lengths");
        (0..batch).map(|row| if is_ragged { (row * 2 + steps / 2) % (steps + 1) } else { steps }).collect()
    }

    pub(crate) fn is_reset(&self, step: usize, row: usize) -> bool {
        self.has("resets") && (step * 2 + row) % 3 == 1
    }

    /// Whether this place of \[T, B\] lies beyond the end of its row.
    pub(crate) fn is_padding(&self, place: usize) -> bool {
        let [_, batch, ..] = self.sizes;
        place / batch >= self.lengths()[place % batch]
    }
}

/// A variant on one device with all that it reads.
pub(crate) struct Setting {
    pub(crate) variant: Variant,
    pub(crate) device: Device,
    pub(crate) model: Model,
    pub(crate) layer: Layer<Rnn>,
    lengths: Indices,
    resets: Indices,
}

/// The results of a pass by name, "d_" before those of the backward pass.
pub(crate) type NamedResults = Vec<(String, Vec<f64>)>;

impl Setting {
    pub(crate) fn new(device: &Device, variant: Variant) -> Result<Self> {
        let mut model = Model::new(5);
        let layer = model.add("rnn", variant.stack())?;
        let [steps, batch, ..] = variant.sizes;
        let lengths: Vec<u32> = variant.lengths().into_iter().map(|length| length as u32).collect();
        let is_reset = |place: usize| u32::from(variant.is_reset(place / batch, place % batch));
        let resets: Vec<u32> = (0..steps * batch).map(is_reset).collect();
        let lengths = Indices::from_slice(device, &[batch], &lengths)?;
        let resets = Indices::from_slice(device, &[steps, batch], &resets)?;
        Ok(Self { variant, device: device.clone(), model, layer, lengths, resets })
    }

    fn sequences(&self) -> Sequences<'_> {
        let ragged = self.variant.has("lengths");
        let sequences = if ragged { Sequences::ragged(&self.lengths) } else { Sequences::whole() };
        let sequences = if self.variant.has("resets") { sequences.resets(&self.resets) } else { sequences };
        match self.variant.random_key() {
            Some(random_key) => sequences.training(random_key),
            None => sequences.evaluation(),
        }
    }

    fn weights(&self) -> usize {
        self.model.specs().iter().map(|spec| spec.shape.elements()).sum()
    }

    fn inputs(&self) -> usize {
        self.variant.sizes[..3].iter().product()
    }

    fn zero_state(&self) -> Result<State> {
        self.layer.zero_state(&self.device, self.variant.sizes[1])
    }

    /// Numbers of a state's parts.
    pub(crate) fn state_sizes(&self) -> Result<[usize; 2]> {
        let sizes = components(&self.zero_state()?)?;
        Ok([sizes[0].len(), sizes.get(1).map_or(0, Vec::len)])
    }

    /// The numbers of a point: weights, x and, unless it is learned, the initial state.
    pub(crate) fn numbers(&self) -> Result<usize> {
        let is_learned = self.variant.has("learned_initial_state");
        let states = if is_learned { 0 } else { self.state_sizes()?.iter().sum() };
        Ok(self.weights() + self.inputs() + states)
    }

    /// A point of numbers that all devices hold exactly.
    pub(crate) fn sampled(&self, stream: u64) -> Result<Vec<f64>> {
        // What tan reads has to stay far from its poles, in all steps.
        let functions = self.variant.functions.iter().flatten().copied();
        let mut cells = functions.map(Cell::Vanilla).chain([self.variant.cell.clone()]);
        let size = if cells.any(|cell| cell == Cell::Vanilla(Activation::Tan)) { 0.5 } else { 1.0 };
        let (weights, units) = (self.weights(), self.variant.sizes[3] as f64);
        let scale = |place: usize| if place < weights { size / units.sqrt() } else { size };
        let drawn = values(stream, self.numbers()?, 1.0).into_iter().enumerate();
        Ok(drawn.map(|(place, value)| f64::from((scale(place) * value) as f32)).collect())
    }

    /// Weights, x and initial state.
    pub(crate) fn split<'p>(&self, point: &'p [f64]) -> [&'p [f64]; 3] {
        let (weights, rest) = point.split_at(self.weights());
        let (x, state) = rest.split_at(self.inputs());
        [weights, x, state]
    }

    pub(crate) fn tensors(&self, point: &[f64]) -> Result<(Parameters, Tensor, State)> {
        let [weights, x, state] = self.split(point);
        let [steps, batch, inputs, _] = self.variant.sizes;
        let parameters = with_values(&self.model, &self.device, weights)?;
        let x = Tensor::from_slice_f64(&self.device, &[steps, batch, inputs], x)?;
        let state = match self.variant.has("learned_initial_state") {
            true => self.layer.initial_state(&parameters, batch)?,
            false => state_like(&self.zero_state()?, state)?,
        };
        Ok((parameters, x, state))
    }

    pub(crate) fn d_y(&self) -> Vec<f64> {
        let [steps, batch, ..] = self.variant.sizes;
        values(61, steps * batch * self.layer.description().outputs(), 1.0)
    }

    /// The gradient at the final state, where the variant has one.
    pub(crate) fn d_last(&self) -> Result<Option<Vec<f64>>> {
        let count = self.state_sizes()?.iter().sum();
        Ok(self.variant.has("final gradient").then(|| values(62, count, 1.0)))
    }

    /// A random projection of the outputs and, where the variant has a gradient there, of the final state.
    pub(crate) fn value(&self, point: &[f64]) -> Result<f64> {
        let (parameters, x, initial) = self.tensors(point)?;
        let (y, last) = self.layer.infer_sequences(&parameters, &x, &initial, self.sequences())?;
        let from_last = match self.d_last()? {
            Some(d_last) => dot(&components(&last)?.concat(), &d_last),
            None => 0.0,
        };
        Ok(dot(&y.download_f64()?, &self.d_y()) + from_last)
    }

    pub(crate) fn pass(&self, point: &[f64]) -> Result<NamedResults> {
        let (parameters, x, initial) = self.tensors(point)?;
        self.pass_over(&parameters, &x, &initial, &self.d_y())
    }

    pub(crate) fn pass_over(
        &self,
        parameters: &Parameters,
        x: &Tensor,
        initial: &State,
        d_y: &[f64],
    ) -> Result<NamedResults> {
        let (y, last, trace) = self.layer.forward_sequences(parameters, x, initial, self.sequences())?;
        let d_y = Tensor::from_slice_f64(&self.device, y.shape().dimensions(), d_y)?;
        let d_last = self.d_last()?.map(|d_last| state_like(&last, &d_last)).transpose()?;
        let mut gradients = parameters.zero_gradients()?;
        let (d_x, d_initial) = trace.backward(&d_y, d_last.as_ref(), &mut gradients)?;
        let mut pass = vec![("y".to_owned(), y.download_f64()?)];
        let of_parts = |prefix: &str, state: &State| -> Result<NamedResults> {
            let names = ["hidden", "cell"].map(|name| format!("{prefix}{name}"));
            Ok(names.into_iter().zip(components(state)?).collect())
        };
        pass.extend(of_parts("", &last)?);
        pass.push(("d_x".to_owned(), d_x.download_f64()?));
        pass.extend(of_parts("d_", &d_initial)?);
        for name in parameters.names() {
            pass.push((format!("d_{name}"), gradients.view(name)?.download_f64()?));
        }
        Ok(pass)
    }
}
