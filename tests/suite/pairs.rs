//! Every option of a stack, and every pair of them: accepted or refused by both names, with gradients that finite
//! differences or back-propagation by hand confirm, alike on all devices, and never without effect.
//!
//! The pairs come from one table. Long, because all claims about them share that table and what runs it.

use std::collections::BTreeMap;

use libtest_mimic::Failed;
use refrain::nn::{Cell, Layer, Merge, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::{Device, Error, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu_strategies};
use crate::gradients::{check, step};
use crate::steps::{ByHand, Plan, Time, parts};
use crate::support::{Tolerance, all_gradients, by_entry, expect_close, values};

const STEPS: usize = 4;
const BATCH: usize = 2;
/// As many as units, so that a first layer may be residual.
const INPUTS: usize = 3;
const HIDDEN: usize = 3;
const LENGTHS: [u32; BATCH] = [2, 4];
/// Where the state is reset, step by step.
const RESETS: [u32; STEPS * BATCH] = [0, 0, 1, 0, 0, 0, 0, 1];
const RATE: f32 = 0.4;
const BOUND: f32 = 0.05;

const ALL: &[Cell] = &[Cell::tanh(), Cell::Lstm, Cell::Gru];
const GATED: &[Cell] = &[Cell::Lstm, Cell::Gru];
const LSTM: &[Cell] = &[Cell::Lstm];
const GRU: &[Cell] = &[Cell::Gru];

/// Options that take away what others would show: random numbers, gradients, parameters.
const MUTING: [&str; 4] = ["mode", "without_bias", "clip_gradient", "truncation"];
/// Asks for all cases, where fewer prove the same.
const FULL_VARIABLE: &str = "REFRAIN_TEST_FULL";

/// A change of a description.
type Build = fn(Rnn) -> Rnn;

/// Where an option is at work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// In each layer and direction.
    Layer,
    /// Between layers, directions or steps.
    Stack,
    /// In how a batch is read.
    Batch,
}

/// One value of one option.
struct Choice {
    /// The option, by the name of its function.
    option: &'static str,
    value: &'static str,
    cells: &'static [Cell],
    place: Place,
    build: Build,
    /// The option and value without which it has no sense.
    needs: Option<[&'static str; 2]>,
}

const LAYERS: [&str; 2] = ["layers", "2"];
const EVALUATION: [&str; 2] = ["mode", "evaluation"];
const BOTH: [&str; 2] = ["direction", "bidirectional"];

const fn choice(
    [option, value]: [&'static str; 2],
    cells: &'static [Cell],
    place: Place,
    build: Build,
    needs: Option<[&'static str; 2]>,
) -> Choice {
    Choice { option, value, cells, place, build, needs }
}

static TABLE: [Choice; 34] = [
    choice(LAYERS, ALL, Place::Stack, |stack| stack.layers(2), None),
    choice(["direction", "reverse"], ALL, Place::Stack, Rnn::reverse, None),
    choice(BOTH, ALL, Place::Stack, Rnn::bidirectional, None),
    choice(["without_bias", ""], ALL, Place::Layer, Rnn::without_bias, None),
    choice(["dropout", ""], ALL, Place::Stack, |stack| stack.dropout(RATE), Some(LAYERS)),
    choice(["input_dropout", ""], ALL, Place::Layer, |stack| stack.input_dropout(RATE), None),
    choice(["recurrent_dropout", ""], ALL, Place::Layer, |stack| stack.recurrent_dropout(RATE), None),
    choice(["zoneout", "hidden"], ALL, Place::Layer, |stack| stack.zoneout(RATE, 0.0), None),
    choice(["zoneout", "cell"], LSTM, Place::Layer, |stack| stack.zoneout(0.2, RATE), None),
    choice(["weight_drop", ""], ALL, Place::Layer, |stack| stack.weight_drop(RATE), None),
    choice(["merge", "sum"], ALL, Place::Stack, |stack| stack.merge(Merge::Sum), Some(BOTH)),
    choice(["merge", "mean"], ALL, Place::Stack, |stack| stack.merge(Merge::Mean), Some(BOTH)),
    choice(["merge", "product"], ALL, Place::Stack, |stack| stack.merge(Merge::Product), Some(BOTH)),
    choice(["residual", ""], ALL, Place::Stack, Rnn::residual, Some(LAYERS)),
    choice(["learned_initial_state", ""], ALL, Place::Stack, Rnn::learned_initial_state, None),
    choice(["peepholes", ""], LSTM, Place::Layer, Rnn::peepholes, None),
    choice(["coupled", ""], LSTM, Place::Layer, Rnn::coupled, None),
    choice(["gate_activations", "smooth"], GATED, Place::Layer, smooth_functions, None),
    choice(["gate_activations", "with kinks"], GATED, Place::Layer, functions_with_kinks, None),
    choice(["clip_gates", ""], ALL, Place::Layer, |stack| stack.clip_gates(0.7), None),
    choice(["clip_cell", ""], LSTM, Place::Layer, |stack| stack.clip_cell(0.4), None),
    choice(["clip_gradient", "binds"], ALL, Place::Stack, |stack| stack.clip_gradient(BOUND), None),
    choice(["clip_gradient", "far off"], ALL, Place::Stack, |stack| stack.clip_gradient(1e6), None),
    choice(["reset_before", ""], GRU, Place::Layer, Rnn::reset_before, None),
    choice(["projection", "2"], LSTM, Place::Layer, |stack| stack.projection(2), None),
    choice(["truncation", "truncated"], ALL, Place::Stack, |stack| stack.truncated(2), None),
    choice(["truncation", "windowed"], ALL, Place::Stack, |stack| stack.windowed(1), None),
    choice(["truncation", "windowed 0"], ALL, Place::Stack, |stack| stack.windowed(0), None),
    choice(
        ["truncation", "truncated_every 2 3"],
        ALL,
        Place::Stack,
        |stack| stack.truncated_every(2, 3),
        None,
    ),
    // The last of these windows has fewer outputs than the others.
    choice(
        ["truncation", "truncated_every 3 3"],
        ALL,
        Place::Stack,
        |stack| stack.truncated_every(3, 3),
        None,
    ),
    choice(["lengths", ""], ALL, Place::Batch, |stack| stack, None),
    choice(["resets", ""], ALL, Place::Batch, |stack| stack, None),
    choice(["final gradient", ""], ALL, Place::Batch, |stack| stack, None),
    choice(EVALUATION, ALL, Place::Batch, |stack| stack, None),
];

fn smooth_functions(stack: Rnn) -> Rnn {
    let scaled = Activation::ScaledTanh { alpha: 1.7159, beta: 2.0 / 3.0 };
    stack.gate_activations(Activation::Softplus, Activation::Softsign, scaled)
}

fn functions_with_kinks(stack: Rnn) -> Rnn {
    let (low, high) = (-0.5, 0.25);
    let hard = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };
    stack.gate_activations(hard, Activation::Relu, Activation::HardTanh { low, high })
}

/// A stack with two options, and those that they need.
struct Variant {
    cell: &'static Cell,
    choices: Vec<&'static Choice>,
}

impl Variant {
    fn new(cell: &'static Cell, pair: [&'static Choice; 2]) -> Self {
        let needed = pair.iter().filter_map(|choice| choice.needs);
        needed.fold(Self { cell, choices: pair.to_vec() }, Self::with)
    }

    /// The same with this option, unless it has another value of it.
    fn with(mut self, [option, value]: [&str; 2]) -> Self {
        if !self.has(option) {
            let chosen = TABLE.iter().find(|choice| [choice.option, choice.value] == [option, value]);
            self.choices.extend(chosen);
        }
        self
    }

    /// Every pair of options with every cell that has both.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (place, one) in TABLE.iter().enumerate() {
            for two in TABLE[place + 1..].iter().filter(|two| two.option != one.option) {
                for cell in one.cells.iter().filter(|cell| two.cells.contains(cell)) {
                    all.push(Self::new(cell, [one, two]));
                }
            }
        }
        all
    }

    /// Those that the library takes.
    fn taken() -> impl Iterator<Item = Self> {
        Self::all().into_iter().filter(|variant| variant.refusal().is_none())
    }

    /// Stacks of many options at once, such that every pair of options that goes together is in one of them, for every cell: a
    /// covering array (Cohen et al. 1997, "The AETG system"), filled greedily. All pairs alone where the environment asks for all.
    fn covering() -> Vec<Self> {
        if std::env::var_os(FULL_VARIABLE).is_some() {
            return Self::taken().collect();
        }
        let mut stacks = Vec::new();
        for cell in ALL {
            let mut left: Vec<Self> = Self::taken().filter(|pair| pair.cell == cell).collect();
            while let Some(first) = left.first() {
                let seed = Self { cell, choices: first.choices.clone() };
                let stack = left.iter().fold(seed, |stack, pair| stack.and(pair).unwrap_or(stack));
                left.retain(|pair| !stack.covers(pair));
                stacks.push(stack);
            }
        }
        stacks
    }

    /// Whether this stack shows of a pair what the pair alone would: both options, and no other one that takes something away.
    fn covers(&self, pair: &Self) -> bool {
        let is_there = |choice: &&Choice| self.value(choice.option) == Some(choice.value);
        pair.choices.iter().copied().all(|choice| is_there(&choice))
            && MUTING.into_iter().all(|option| self.has(option) == pair.has(option))
    }

    /// The options of both, if the library takes them together.
    fn and(&self, pair: &Self) -> Option<Self> {
        let mutes_alike = MUTING.into_iter().all(|option| self.has(option) == pair.has(option));
        let mut choices = self.choices.clone();
        for &choice in &pair.choices {
            match self.value(choice.option) {
                None => choices.push(choice),
                Some(value) if value == choice.value => {}
                Some(_) => return None,
            }
        }
        let stack = Self { cell: self.cell, choices };
        let is_taken = || Model::new(1).add("rnn", stack.stack_of(INPUTS, |_| true)).is_ok();
        (mutes_alike && is_taken()).then_some(stack)
    }

    /// What a refusal must name, where these options exclude each other.
    fn refusal(&self) -> Option<[&'static str; 2]> {
        if self.has("zoneout") {
            let others = ["projection", "peepholes"].into_iter();
            if let Some(other) = others.into_iter().find(|other| self.has(other)) {
                return Some(["zoneout", other]);
            }
        }
        let direction = self.value("direction")?;
        match (self.value("truncation"), self.value("merge")) {
            (Some("windowed" | "windowed 0"), _) => Some(["windowed", direction]),
            (Some("truncated_every 2 3" | "truncated_every 3 3"), _) => Some(["truncated_every", direction]),
            (_, Some(_)) if direction == "reverse" => Some(["merge", "reverse"]),
            _ => None,
        }
    }

    fn value(&self, option: &str) -> Option<&'static str> {
        self.choices.iter().find(|choice| choice.option == option).map(|choice| choice.value)
    }

    fn has(&self, option: &str) -> bool {
        self.value(option).is_some()
    }

    fn name(&self) -> String {
        let names = self.choices.iter().map(|choice| format!("{} {}", choice.option, choice.value));
        format!("{} with {}", self.cell.name(), names.collect::<Vec<_>>().join(", "))
    }

    fn stack_of(&self, inputs: usize, fits: impl Fn(&Choice) -> bool) -> Rnn {
        let chosen = self.choices.iter().filter(|choice| fits(choice));
        chosen.fold(Rnn::new(self.cell.clone(), inputs, HIDDEN), |stack, choice| (choice.build)(stack))
    }

    /// Whether gradients are not those of the loss.
    fn bends_gradients(&self) -> bool {
        self.has("truncation") || self.has("clip_gradient")
    }

    fn has_kinks(&self) -> bool {
        ["gate_activations", "clip_gates", "clip_cell"].into_iter().any(|option| self.has(option))
    }

    /// The random numbers of training; none in evaluation.
    fn random_key(&self) -> Option<RandomKey> {
        (!self.has("mode")).then(|| RandomKey::new(17, 3))
    }

    fn directions(&self) -> &'static [Time] {
        match self.value("direction") {
            None => &[Time::Forward],
            Some("reverse") => &[Time::Reverse],
            Some(_) => &[Time::Forward, Time::Reverse],
        }
    }
}

/// A stack on one device with all that it reads.
struct Setting {
    variant: Variant,
    device: Device,
    model: Model,
    layer: Layer<Rnn>,
    lengths: Indices,
    resets: Indices,
}

/// What a pass yields.
#[derive(PartialEq)]
struct Pass {
    y: Vec<f64>,
    gradients: Vec<f64>,
    d_x: Vec<f64>,
    d_initial: Vec<f64>,
}

impl Setting {
    fn new(device: &Device, variant: Variant) -> Result<Self> {
        let mut model = Model::new(5);
        let layer = model.add("rnn", variant.stack_of(INPUTS, |_| true))?;
        let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
        let resets = Indices::from_slice(device, &[STEPS, BATCH], &RESETS)?;
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

    fn zero_state(&self) -> Result<State> {
        self.layer.zero_state(&self.device, BATCH)
    }

    fn state(&self, values: &[f64]) -> Result<State> {
        let zero = self.zero_state()?;
        let sizes = *zero.hidden().shape();
        let (hidden, cell) = values.split_at(sizes.elements());
        let hidden = Tensor::from_slice_f64(&self.device, sizes.dimensions(), hidden)?;
        match zero.cell() {
            Some(zero) => {
                let cell = Tensor::from_slice_f64(&self.device, zero.shape().dimensions(), cell)?;
                State::from_hidden_and_cell(&hidden, &cell)
            }
            None => State::from_hidden(&hidden),
        }
    }

    fn state_values(&self) -> Result<usize> {
        Ok(parts(&self.zero_state()?)?.iter().map(Vec::len).sum())
    }

    /// How many a point has.
    fn numbers(&self) -> Result<usize> {
        let states = if self.variant.has("learned_initial_state") { 0 } else { self.state_values()? };
        Ok(self.weights() + STEPS * BATCH * INPUTS + states)
    }

    /// Weights, x and, unless it is learned, the initial state as one vector, of numbers that all devices hold exactly.
    fn drawn(&self, stream: u64) -> Result<Vec<f64>> {
        let drawn = values(stream, self.numbers()?, 1.0);
        Ok(drawn.into_iter().map(|value| f64::from(value as f32)).collect())
    }

    /// Such numbers clear of all kinks, for 64-bit floats.
    fn point(&self) -> Result<Vec<f64>> {
        for stream in 460..480 {
            let point = self.drawn(stream)?;
            if !self.variant.has_kinks() || self.is_smooth(&point)? {
                return Ok(point);
            }
        }
        let message = "is near a kink wherever it is tried".to_owned();
        Err(Error::Config { what: self.variant.name(), message })
    }

    /// Whether no kink lies within a step of finite differences: (f(x + h) + f(x − h)) / 2 − f(x) is then h² f''/2, but
    /// at a kink h times half the jump of the derivative.
    fn is_smooth(&self, point: &[f64]) -> Result<bool> {
        let (mut moved, here) = (point.to_vec(), self.value(point)?);
        for (place, &x) in point.iter().enumerate() {
            moved[place] = x + step();
            let up = self.value(&moved)?;
            moved[place] = x - step();
            let down = self.value(&moved)?;
            moved[place] = x;
            if ((up + down) / 2.0 - here).abs() > 1e3 * step() * step() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn tensors(&self, point: &[f64]) -> Result<(Parameters, Tensor, State)> {
        let mut parameters = self.model.initialize(&self.device)?;
        let mut rest = point;
        let mut named = Vec::new();
        for spec in self.model.specs() {
            let (section, after) = rest.split_at(spec.shape.elements());
            named.push((spec.name.as_str(), spec.shape.dimensions(), section));
            rest = after;
        }
        parameters.set_all(named)?;
        let (x, state) = rest.split_at(STEPS * BATCH * INPUTS);
        let x = Tensor::from_slice_f64(&self.device, &[STEPS, BATCH, INPUTS], x)?;
        let state = match self.variant.has("learned_initial_state") {
            true => self.layer.initial_state(&parameters, BATCH)?,
            false => self.state(state)?,
        };
        Ok((parameters, x, state))
    }

    fn d_y(&self) -> Vec<f64> {
        values(61, STEPS * BATCH * self.layer.description().outputs(), 1.0)
    }

    fn d_last(&self) -> Result<Option<Vec<f64>>> {
        let given = self.variant.has("final gradient");
        Ok(if given { Some(values(62, self.state_values()?, 1.0)) } else { None })
    }

    /// A random projection of the outputs and, where the variant has a gradient there, of the final state.
    fn value(&self, point: &[f64]) -> Result<f64> {
        let (parameters, x, initial) = self.tensors(point)?;
        let (y, last) = self.layer.infer_sequences(&parameters, &x, &initial, self.sequences())?;
        let dot = |one: &[f64], two: &[f64]| one.iter().zip(two).map(|(a, b)| a * b).sum::<f64>();
        let from_last = match self.d_last()? {
            Some(d_last) => dot(&parts(&last)?.concat(), &d_last),
            None => 0.0,
        };
        Ok(dot(&y.download_f64()?, &self.d_y()) + from_last)
    }

    fn pass(&self, point: &[f64]) -> Result<Pass> {
        let (parameters, x, initial) = self.tensors(point)?;
        self.pass_over(&parameters, &x, &initial, &self.d_y())
    }

    fn pass_over(&self, parameters: &Parameters, x: &Tensor, initial: &State, d_y: &[f64]) -> Result<Pass> {
        let (y, _, trace) = self.layer.forward_sequences(parameters, x, initial, self.sequences())?;
        let d_y = Tensor::from_slice_f64(&self.device, y.shape().dimensions(), d_y)?;
        let d_last = self.d_last()?.map(|d_last| self.state(&d_last)).transpose()?;
        let mut gradients = parameters.zero_gradients()?;
        let (d_x, d_initial) = trace.backward(&d_y, d_last.as_ref(), &mut gradients)?;
        Ok(Pass {
            y: y.download_f64()?,
            gradients: all_gradients(parameters, &gradients)?,
            d_x: d_x.download_f64()?,
            d_initial: parts(&d_initial)?.concat(),
        })
    }

    fn plan(&self) -> Plan {
        let (every, depth) = match self.variant.value("truncation") {
            None => (STEPS, STEPS),
            Some("truncated") => (2, 2),
            Some("windowed") => (1, 2),
            Some("windowed 0") => (1, 1),
            Some("truncated_every 2 3") => (2, 3),
            Some(_) => (3, 3),
        };
        let binds = self.variant.value("clip_gradient") == Some("binds");
        Plan { every, depth, bound: binds.then_some(BOUND.into()) }
    }

    /// The same pass by hand.
    fn pass_by_hand(&self, point: &[f64]) -> Result<Pass> {
        let (parameters, x, initial) = self.tensors(point)?;
        let (variant, initial) = (&self.variant, parts(&initial)?);
        let length = |row: usize| if variant.has("lengths") { LENGTHS[row] as usize } else { STEPS };
        let by_hand = ByHand {
            describe: &|inputs| variant.stack_of(inputs, |choice| choice.place == Place::Layer),
            parameters: &parameters,
            layers: if variant.has("layers") { 2 } else { 1 },
            directions: variant.directions(),
            merge: match variant.value("merge") {
                None => Merge::Concat,
                Some("sum") => Merge::Sum,
                Some("mean") => Merge::Mean,
                Some(_) => Merge::Product,
            },
            residual: variant.has("residual"),
            mask: match (variant.has("dropout"), variant.random_key()) {
                (true, Some(random_key)) => Some(self.mask(random_key)?),
                _ => None,
            },
            random_key: variant.random_key(),
            steps: STEPS,
            lengths: (0..BATCH).map(length).collect(),
            resets: variant.has("resets").then(|| RESETS.to_vec()),
            plan: self.plan(),
        };
        let d_last = match self.d_last()? {
            Some(d_last) => Some(parts(&self.state(&d_last)?)?),
            None => None,
        };
        let result = by_hand.pass(&x.download_f64()?, &initial, &self.d_y(), d_last.as_deref())?;
        let gradients = with_learned(result.gradients, &result.d_initial);
        let ordered = parameters.names().map(|name| gradients.get(name).cloned().unwrap_or_default());
        Ok(Pass {
            y: result.y,
            gradients: ordered.collect::<Vec<_>>().concat(),
            d_x: result.d_x,
            d_initial: result.d_initial.concat(),
        })
    }

    /// What dropout multiplies the outputs of the first layer by: those of a stack whose first layer gives ones and whose
    /// second one gives what it reads.
    fn mask(&self, random_key: RandomKey) -> Result<Vec<f64>> {
        let mut model = Model::new(0);
        let width = self.layer.description().outputs();
        let copying = Cell::Vanilla(Activation::Identity);
        let layer = model.add("rnn", Rnn::new(copying, 1, width).layers(2).dropout(RATE))?;
        let mut parameters = model.initialize(&Device::reference())?;
        for spec in model.specs() {
            let count = spec.shape.elements();
            let filled = match spec.name.as_str() {
                "rnn.bias_ih_l0" => vec![1.0; count],
                "rnn.weight_ih_l1" => {
                    (0..count).map(|place| if place % (width + 1) == 0 { 1.0 } else { 0.0 }).collect()
                }
                _ => vec![0.0; count],
            };
            parameters.set_all([(spec.name.as_str(), spec.shape.dimensions(), filled.as_slice())])?;
        }
        let device = Device::reference();
        let x = Tensor::zeros(&device, &[STEPS, BATCH, 1])?;
        let training = Sequences::whole().training(random_key);
        let zero = layer.zero_state(&device, BATCH)?;
        layer.infer_sequences(&parameters, &x, &zero, training)?.0.download_f64()
    }
}

/// The gradient at a learned initial state is the sum over the batch of that at the state, of one layer and direction.
fn with_learned(
    mut gradients: BTreeMap<String, Vec<f64>>,
    d_initial: &[Vec<f64>],
) -> BTreeMap<String, Vec<f64>> {
    for (part, d_part) in ["hidden", "cell"].into_iter().zip(d_initial) {
        let width = d_part.len() / BATCH;
        let sum = (0..width).map(|unit| d_part.iter().skip(unit).step_by(width).sum());
        gradients.insert(format!("rnn.initial_{part}_l0"), sum.collect());
    }
    gradients
}

fn every_pair_of_options_is_taken_or_refused_by_both_names() -> Outcome {
    let mut refused = 0;
    for variant in Variant::all() {
        let result = Model::new(1).add("rnn", variant.stack_of(INPUTS, |_| true)).map(drop);
        match (result, variant.refusal()) {
            (Ok(()), None) => {}
            (Err(Error::Config { what, message }), Some(names)) => {
                let message = format!("{what} {message}");
                assert!(names.iter().all(|name| message.contains(name)), "{message} does not say {names:?}");
                refused += 1;
            }
            (result, expected) => panic!("{}: {result:?}, expected {expected:?}", variant.name()),
        }
    }
    assert!(refused > 0, "no pair was refused");
    Ok(())
}

/// Of a direction or a truncation a stack has one: a second one does not silently take its place.
fn options_that_exclude_each_other_are_refused_by_both_names() -> Outcome {
    let named = |option, value| TABLE.iter().find(|choice| [choice.option, choice.value] == [option, value]);
    let truncations = ["truncated", "windowed", "truncated_every 2 3"].map(|value| ("truncation", value));
    let directions = ["reverse", "bidirectional"].map(|value| ("direction", value));
    let checkpoints: [(&str, Build); 2] = [
        ("checkpointed", |stack| stack.checkpointed(2)),
        ("checkpointed_within", |stack| stack.checkpointed_within(1 << 20)),
    ];
    let chosen = truncations.into_iter().chain(directions).filter_map(|(option, value)| {
        let kind = value.split(' ').next()?;
        Some((option, kind, named(option, value)?.build))
    });
    let all: Vec<_> = chosen.chain(checkpoints.map(|(name, build)| ("checkpoints", name, build))).collect();
    let mut refused = 0;
    for (option, one, first) in &all {
        for (_, two, second) in all.iter().filter(|(other, two, _)| other == option && two != one) {
            match Model::new(1).add("rnn", second(first(Rnn::new(Cell::Gru, INPUTS, HIDDEN)))) {
                Err(Error::Config { what, .. }) => assert_eq!(what, format!("rnn: {one} and {two}")),
                other => panic!("{one} and {two} give {:?}", other.map(drop)),
            }
            refused += 1;
        }
        Model::new(1).add("rnn", first(first(Rnn::new(Cell::Gru, INPUTS, HIDDEN))))?;
    }
    assert_eq!(refused, 6 + 2 + 2);
    Ok(())
}

fn options_of_other_cells_are_refused_by_both_names() -> Outcome {
    for choice in &TABLE {
        for cell in ALL.iter().filter(|cell| !choice.cells.contains(cell)) {
            match Model::new(1).add("rnn", (choice.build)(Rnn::new(cell.clone(), INPUTS, HIDDEN))) {
                Err(error @ Error::Config { .. }) => {
                    let message = error.to_string();
                    let names = [choice.option, cell.name()];
                    assert!(
                        names.iter().all(|name| message.contains(name)),
                        "{message} does not say {names:?}"
                    );
                }
                other => panic!("{} on {cell:?} gives {:?}", choice.option, other.map(drop)),
            }
        }
    }
    Ok(())
}

fn every_pair_of_options_matches_finite_differences() -> Outcome {
    for variant in Variant::taken().filter(|variant| !variant.bends_gradients()) {
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = setting.point()?;
        let Pass { mut gradients, d_x, d_initial, .. } = setting.pass(&point)?;
        gradients.extend(d_x);
        if !setting.variant.has("learned_initial_state") {
            gradients.extend(d_initial);
        }
        check(&setting.variant.name(), &point, &gradients, |point| setting.value(point))?;
    }
    Ok(())
}

/// What the covering array is for, and that it is one.
fn few_stacks_cover_every_pair_of_options() -> Outcome {
    let stacks = Variant::covering();
    let pairs: Vec<_> = Variant::taken().collect();
    for pair in &pairs {
        let covered = stacks.iter().any(|stack| stack.cell == pair.cell && stack.covers(pair));
        assert!(covered, "no stack has {}", pair.name());
    }
    let is_full = std::env::var_os(FULL_VARIABLE).is_some();
    assert!(is_full || 5 * stacks.len() < pairs.len(), "{} stacks for {} pairs", stacks.len(), pairs.len());
    Ok(())
}

/// Two orders of the same sums of 64-bit numbers of order one to a hundred, some hundred roundings each.
const SAME: f64 = 1e-11;

fn every_pair_with_bent_gradients_matches_back_propagation_by_hand() -> Outcome {
    for variant in Variant::taken().filter(Variant::bends_gradients) {
        // By hand each step is a first one, and has the numbers of that: those of zoneout differ from step to step.
        let variant = if variant.has("zoneout") { variant.with(EVALUATION) } else { variant };
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = setting.point()?;
        expect_same(&setting.variant.name(), &setting.pass_by_hand(&point)?, &setting.pass(&point)?, |_| {
            SAME.into()
        })?;
    }
    Ok(())
}

/// The reference of the claim above, where finite differences confirm it too.
fn back_propagation_by_hand_is_that_of_the_library_where_nothing_is_bent() -> Outcome {
    for variant in Variant::taken().filter(|variant| !variant.bends_gradients()) {
        // By hand, masks and learned states are those of the first layer forward, over all rows.
        let has = |options: &[&str]| options.iter().any(|option| variant.has(option));
        let of_first = has(&["input_dropout", "recurrent_dropout", "weight_drop", "learned_initial_state"]);
        if of_first && has(&["layers", "direction", "lengths"]) {
            continue;
        }
        let variant = if variant.has("zoneout") { variant.with(EVALUATION) } else { variant };
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = setting.point()?;
        expect_same(&setting.variant.name(), &setting.pass_by_hand(&point)?, &setting.pass(&point)?, |_| {
            SAME.into()
        })?;
    }
    Ok(())
}

/// Windows over the whole sequence cut nothing, whatever numbers are drawn.
fn windows_as_deep_as_the_sequence_change_nothing() -> Outcome {
    let depths: [fn(Rnn) -> Rnn; 2] =
        [|stack| stack.windowed(STEPS - 1), |stack| stack.truncated_every(STEPS, STEPS)];
    let device = Device::reference();
    let fits = |variant: &Variant| !variant.bends_gradients() && !variant.has("direction");
    for variant in Variant::taken().filter(fits) {
        let mut setting = Setting::new(&device, variant)?;
        let point = setting.drawn(460)?;
        let expected = setting.pass(&point)?;
        for build in depths {
            setting.model = Model::new(5);
            let stack = build(setting.variant.stack_of(INPUTS, |_| true));
            setting.layer = setting.model.add("rnn", stack)?;
            expect_same(&setting.variant.name(), &expected, &setting.pass(&point)?, |_| SAME.into())?;
        }
    }
    Ok(())
}

/// Values and gradients, entry by entry. A gradient of one tensor comes from those at all others, whose size its roundings
/// have: `tolerance` is asked of all gradients together.
fn expect_same(
    name: &str,
    expected: &Pass,
    found: &Pass,
    tolerance: impl Fn(&[f64]) -> Tolerance,
) -> Outcome {
    expect_close(&format!("{name}: y"), &expected.y, &found.y, tolerance(&expected.y))?;
    let of_all = tolerance(&[&*expected.gradients, &expected.d_x, &expected.d_initial].concat());
    for (what, expected, found) in [
        ("gradients", &expected.gradients, &found.gradients),
        ("d_x", &expected.d_x, &found.d_x),
        ("d_initial", &expected.d_initial, &found.d_initial),
    ] {
        expect_close(&format!("{name}: {what}"), expected, found, of_all)?;
    }
    Ok(())
}

/// Both options of a pair are at work: without either, where the parameters stay the same, results are others.
fn no_option_of_a_pair_is_ignored() -> Outcome {
    let device = Device::reference();
    let mut compared = 0;
    for variant in Variant::taken() {
        let (cell, choices) = (variant.cell, variant.choices.clone());
        let with = Setting::new(&device, variant)?;
        let point = with.point()?;
        // In evaluation only zoneout is at work, and no bound that is far off ever.
        let random = ["dropout", "input_dropout", "recurrent_dropout", "weight_drop", "mode"];
        let evaluated = with.variant.has("mode") && !with.variant.has("zoneout");
        let idle =
            |choice: &Choice| choice.value == "far off" || evaluated && random.contains(&choice.option);
        for left_out in choices.iter().filter(|choice| !idle(choice)) {
            let others = choices.iter().copied().filter(|choice| choice.option != left_out.option);
            let without = Variant { cell, choices: others.collect() };
            let Ok(without) = Setting::new(&device, without) else { continue };
            let same = without.model.specs() == with.model.specs()
                && without.layer.description().outputs() == with.layer.description().outputs();
            if !same || without.numbers()? != point.len() {
                continue;
            }
            let name = format!("{}: {} {}", with.variant.name(), left_out.option, left_out.value);
            assert!(without.pass(&point)? != with.pass(&point)?, "{name} changes nothing");
            compared += 1;
        }
    }
    assert!(compared > 500, "only {compared} options were left out");
    Ok(())
}

/// K terms of at most T·B + H + I a sum, over T steps and two layers, in numbers of the size of `values`.
fn rounding(values: &[f64]) -> Tolerance {
    let terms = (STEPS * BATCH + HIDDEN + INPUTS) * STEPS * 2;
    by_entry(terms as f64 * f64::from(f32::EPSILON), values)
}

fn agree_with_the_reference(device: &Device, variants: impl Iterator<Item = Variant>) -> Outcome {
    for variant in variants {
        let choices = variant.choices.clone();
        let reference = Setting::new(&Device::reference(), variant)?;
        let point = reference.point()?;
        let expected = reference.pass(&point)?;
        let found = Setting::new(device, Variant { cell: reference.variant.cell, choices })?.pass(&point)?;
        expect_same(&reference.variant.name(), &expected, &found, rounding)?;
    }
    Ok(())
}

fn every_pair_of_options_agrees_with_the_reference() -> Outcome {
    agree_with_the_reference(&Device::cpu(), Variant::taken())
}

fn every_pair_of_options_agrees_with_the_reference_on_the_gpu(adapter: &Adapter) -> Outcome {
    agree_with_the_reference(&adapter.open()?, Variant::covering().into_iter())
}

fn values_in_the_padding_change_nothing_on(
    device: &Device,
    variants: impl Iterator<Item = Variant>,
) -> Outcome {
    let is_padding = |place: usize| place / BATCH >= LENGTHS[place % BATCH] as usize;
    let spoil = |values: &mut [f64], width: usize, garbage: f64| {
        let padding = values.chunks_mut(width).enumerate().filter(|(place, _)| is_padding(*place));
        padding.for_each(|(_, values)| values.fill(garbage));
    };
    for variant in variants.filter(|variant| variant.has("lengths")) {
        let setting = Setting::new(device, variant)?;
        let name = setting.variant.name();
        let (parameters, x, initial) = setting.tensors(&setting.drawn(460)?)?;
        let mut passes = Vec::new();
        for garbage in [0.0, f64::NAN] {
            let (mut x, mut d_y) = (x.download_f64()?, setting.d_y());
            spoil(&mut x, INPUTS, garbage);
            spoil(&mut d_y, setting.layer.description().outputs(), garbage);
            let x = Tensor::from_slice_f64(device, &[STEPS, BATCH, INPUTS], &x)?;
            passes.push(setting.pass_over(&parameters, &x, &initial, &d_y)?);
        }
        assert!(passes[0] == passes[1], "{name}: garbage in the padding changes results");
        for values in [&passes[0].y, &passes[0].d_x] {
            let width = values.len() / STEPS / BATCH;
            let mut padding = values.chunks(width).enumerate().filter(|(place, _)| is_padding(*place));
            let is_zero = padding.all(|(_, values)| values.iter().all(|value| *value == 0.0));
            if !is_zero {
                return Err(Failed::from(format!("{name}: the padding is not zero")));
            }
        }
    }
    Ok(())
}

fn values_in_the_padding_change_nothing() -> Outcome {
    values_in_the_padding_change_nothing_on(&Device::cpu(), Variant::taken())
}

fn values_in_the_padding_change_nothing_on_the_gpu(adapter: &Adapter) -> Outcome {
    values_in_the_padding_change_nothing_on(&adapter.open()?, Variant::covering().into_iter())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        every_pair_of_options_is_taken_or_refused_by_both_names,
        options_that_exclude_each_other_are_refused_by_both_names,
        options_of_other_cells_are_refused_by_both_names,
        few_stacks_cover_every_pair_of_options,
        every_pair_of_options_matches_finite_differences,
        every_pair_with_bent_gradients_matches_back_propagation_by_hand,
        back_propagation_by_hand_is_that_of_the_library_where_nothing_is_bent,
        windows_as_deep_as_the_sequence_change_nothing,
        no_option_of_a_pair_is_ignored,
        every_pair_of_options_agrees_with_the_reference,
        values_in_the_padding_change_nothing,
    );
    on_gpu_strategies!(
        suite,
        every_pair_of_options_agrees_with_the_reference_on_the_gpu,
        values_in_the_padding_change_nothing_on_the_gpu,
    );
}
