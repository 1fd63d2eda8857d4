//! Both CPU backends, the fast one in 32-bit floats and the reference in 64-bit ones, against an oracle that shares no
//! code with either: [`layer`] is the textbook's loop over one row, and [`number`] differentiates it. Every cell with every
//! option, every pair of options, over small batches: outputs, final states, and the gradients at x, at all parameters and at
//! the initial state.

mod layer;
mod number;

use std::collections::BTreeMap;

use refrain::nn::{Cell, Merge, Model, RandomKey, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::{Device, Error, Indices, Result, Tensor};

use self::layer::{Options, Outputs, Stack, Time};
use self::number::{Number, derivatives};
use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::{by_entry, expect_close, root_mean_square, values, with_values};

/// The most roundings on the way to any result: 5 steps of 2 layers with 4 gates, each a sum of up to 5 products with x and 5
/// with h, a bias, a peephole and the evaluation of a function (as 8), and the same once more backwards.
const ROUNDINGS: f64 = 2.0 * 5.0 * 2.0 * 4.0 * (5.0 + 5.0 + 1.0 + 1.0 + 8.0);
/// √[`ROUNDINGS`] roundings of one sign, which is what errors of random sign add up to, times 6 for the confidence
/// (Higham & Mary 2019), and times 4 for functions steeper than one: relative to an entry and its tensor.
fn tolerance(unit: f64) -> f64 {
    4.0 * 6.0 * ROUNDINGS.sqrt() * unit
}
/// Layer normalisation divides by the deviation of a row, which of a few entries may be this much smaller than they are.
const DEVIATION: f64 = 16.0;
/// How far from any kink all numbers are: farther than an f32 of order one errs on the way to it.
const MARGIN: f64 = 1e-4;
/// The typical size of a tensor's entries: below, what they are computed from has cancelled; above, it has grown through
/// functions without bound, and no distance from a kink is far.
const SIZES_OF_RESULTS: std::ops::Range<f64> = 1e-3..1e3;
const RATE: f32 = 0.4;

/// A way to ask for an option, of the library and of the oracle.
struct Choice {
    option: &'static str,
    fits: fn(&Cell) -> bool,
    build: fn(Rnn) -> Rnn,
    tell: fn(&mut Options),
}

const fn choice(
    option: &'static str,
    fits: fn(&Cell) -> bool,
    build: fn(Rnn) -> Rnn,
    tell: fn(&mut Options),
) -> Choice {
    Choice { option, fits, build, tell }
}

fn any(_: &Cell) -> bool {
    true
}

fn lstm(cell: &Cell) -> bool {
    *cell == Cell::Lstm
}

fn gated(cell: &Cell) -> bool {
    matches!(cell, Cell::Lstm | Cell::Gru)
}

const SMOOTH: [Activation; 3] =
    [Activation::Softplus, Activation::Softsign, Activation::ScaledTanh { alpha: 1.7159, beta: 2.0 / 3.0 }];
const KINKED: [Activation; 3] = [
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::LeakyRelu { slope: 0.1 },
    Activation::HardTanh { low: -0.5, high: 0.25 },
];
const BOTH: [Time; 2] = [Time::Forward, Time::Reverse];

/// Every option; in a pair those that stand further down are asked for later.
static CHOICES: [Choice; 30] = [
    choice("nothing", any, |rnn| rnn, |_| ()),
    choice("reverse", any, Rnn::reverse, |options| options.directions = vec![Time::Reverse]),
    choice("bidirectional", any, Rnn::bidirectional, |options| options.directions = BOTH.to_vec()),
    choice(
        "merge sum",
        any,
        |rnn| rnn.bidirectional().merge(Merge::Sum),
        |options| {
            (options.directions, options.merge) = (BOTH.to_vec(), Merge::Sum);
        },
    ),
    choice(
        "merge mean",
        any,
        |rnn| rnn.bidirectional().merge(Merge::Mean),
        |options| {
            (options.directions, options.merge) = (BOTH.to_vec(), Merge::Mean);
        },
    ),
    choice(
        "merge product",
        any,
        |rnn| rnn.bidirectional().merge(Merge::Product),
        |options| {
            (options.directions, options.merge) = (BOTH.to_vec(), Merge::Product);
        },
    ),
    choice("layers", any, |rnn| rnn.layers(2), |options| options.layers = 2),
    choice(
        "residual",
        any,
        |rnn| rnn.layers(2).residual(),
        |options| {
            (options.layers, options.residual) = (2, true);
        },
    ),
    choice("without_bias", any, Rnn::without_bias, |_| ()),
    choice("learned_initial_state", any, Rnn::learned_initial_state, |_| ()),
    choice("peepholes", lstm, Rnn::peepholes, |_| ()),
    choice("coupled", lstm, Rnn::coupled, |options| options.coupled = true),
    choice("projection 1", lstm, |rnn| rnn.projection(1), |_| ()),
    choice("projection 3", lstm, |rnn| rnn.projection(3), |_| ()),
    choice(
        "smooth functions",
        gated,
        |rnn| rnn.gate_activations(SMOOTH[0], SMOOTH[1], SMOOTH[2]),
        |options| {
            options.functions = SMOOTH;
        },
    ),
    choice(
        "functions with kinks",
        gated,
        |rnn| rnn.gate_activations(KINKED[0], KINKED[1], KINKED[2]),
        |options| {
            options.functions = KINKED;
        },
    ),
    choice("clip_gates", any, |rnn| rnn.clip_gates(0.5), |options| options.clip_gates = 0.5),
    choice("clip_cell", lstm, |rnn| rnn.clip_cell(0.25), |options| options.clip_cell = 0.25),
    choice("clip_gradient", any, |rnn| rnn.clip_gradient(0.125), |options| options.clip_gradient = 0.125),
    choice(
        "reset_before",
        |cell| *cell == Cell::Gru,
        Rnn::reset_before,
        |options| options.reset_before = true,
    ),
    choice("zoneout of h", any, |rnn| rnn.zoneout(RATE, 0.0), |options| options.zoneout = [RATE.into(), 0.0]),
    choice(
        "zoneout of c",
        lstm,
        |rnn| rnn.zoneout(0.25, RATE),
        |options| options.zoneout = [0.25, RATE.into()],
    ),
    choice("layer_norm", gated, Rnn::layer_norm, |_| ()),
    choice("truncated", any, |rnn| rnn.truncated(2), |options| options.truncated = Some(2)),
    choice("windowed", any, |rnn| rnn.windowed(1), |options| options.windows = Some([1, 2])),
    choice(
        "truncated_every 2 3",
        any,
        |rnn| rnn.truncated_every(2, 3),
        |options| options.windows = Some([2, 3]),
    ),
    choice(
        "truncated_every 3 3",
        any,
        |rnn| rnn.truncated_every(3, 3),
        |options| options.windows = Some([3, 3]),
    ),
    choice("checkpointed", any, |rnn| rnn.checkpointed(2), |_| ()),
    choice(
        "recurrent_dropout",
        any,
        |rnn| rnn.recurrent_dropout(RATE),
        |options| options.state_mask = vec![Vec::new()],
    ),
    choice(
        "dropout and all else in evaluation",
        any,
        |rnn| rnn.layers(2).dropout(RATE).input_dropout(RATE).weight_drop(RATE),
        |options| options.layers = 2,
    ),
];

/// Steps, batch, inputs and hidden units.
const SIZES: [[usize; 4]; 6] =
    [[1, 1, 1, 1], [2, 3, 2, 1], [3, 1, 3, 5], [4, 2, 5, 3], [5, 3, 4, 4], [3, 2, 4, 2]];

/// A stack of some size with some options over a batch.
struct Case<'a> {
    name: String,
    cell: Cell,
    choices: Vec<&'a Choice>,
    sizes: [usize; 4],
    ragged: bool,
    reset: bool,
    /// The functions of gates, candidate and output.
    functions: Option<[Activation; 3]>,
}

/// All that a pass yields, by names.
type Pass = Vec<(String, Vec<f64>)>;

/// Whether an error of a result says something of it: where a tensor is not zero throughout, it is neither small nor large.
fn is_telling((_, values): &(String, Vec<f64>)) -> bool {
    values.iter().all(|value| *value == 0.0) || SIZES_OF_RESULTS.contains(&root_mean_square(values))
}

/// Numbers that f32 holds.
fn drawn(stream: u64, count: usize, scale: f64) -> Vec<f64> {
    values(stream, count, scale).into_iter().map(|value| f64::from(value as f32)).collect()
}

impl Case<'_> {
    fn rnn(&self) -> Rnn {
        let [_, _, inputs, hidden] = self.sizes;
        let mut rnn = Rnn::new(self.cell.clone(), inputs, hidden);
        if let Some([gates, candidate, output]) = self.functions {
            rnn = rnn.gate_activations(gates, candidate, output);
        }
        self.choices.iter().fold(rnn, |rnn, choice| (choice.build)(rnn))
    }

    fn has(&self, option: &str) -> bool {
        self.choices.iter().any(|choice| choice.option == option)
    }

    fn lengths(&self) -> Vec<usize> {
        let [steps, batch, ..] = self.sizes;
        // None, all, and some in between.
        (0..batch).map(|row| if self.ragged { (row * 3 + steps / 2) % (steps + 1) } else { steps }).collect()
    }

    fn is_reset(&self, step: usize, row: usize) -> bool {
        self.reset && (step * 2 + row) % 3 == 1
    }

    /// The random numbers of training, where there are any.
    fn draw(&self) -> Option<RandomKey> {
        self.has("recurrent_dropout").then(|| RandomKey::new(11, 4))
    }

    /// The mask of a layer of this size: h of a layer that copies its initial state of ones.
    fn state_mask(&self, width: usize) -> Result<Vec<Vec<f64>>> {
        let (Some(draw), [_, batch, ..]) = (self.draw(), self.sizes) else { return Ok(Vec::new()) };
        let device = Device::reference();
        let mut model = Model::new(0);
        let copying = Cell::Vanilla(Activation::Identity);
        let layer = model.add("rnn", Rnn::new(copying, 1, width).without_bias().recurrent_dropout(RATE))?;
        let mut parameters = model.initialize(&device)?;
        let one: Vec<f64> = (0..width * width).map(|at| f64::from(u8::from(at % (width + 1) == 0))).collect();
        parameters.set_all([("rnn.weight_hh_l0", &[width, width][..], one.as_slice())])?;
        let ones = Tensor::from_slice_f64(&device, &[1, batch, width], &vec![1.0; batch * width])?;
        let x = Tensor::zeros(&device, &[1, batch, 1])?;
        let training = Sequences::whole().training(draw);
        let (y, _) = layer.infer_sequences(&parameters, &x, &State::from_hidden(&ones)?, training)?;
        Ok(y.download_f64()?.chunks(width).map(<[f64]>::to_vec).collect())
    }

    fn options(&self, hidden_width: usize) -> Result<Options> {
        let [_, _, _, hidden] = self.sizes;
        let mut options = Options {
            cell: self.cell.clone(),
            hidden,
            layers: 1,
            directions: vec![Time::Forward],
            merge: Merge::Concat,
            residual: false,
            functions: self.functions.unwrap_or([Activation::Sigmoid, Activation::Tanh, Activation::Tanh]),
            coupled: false,
            reset_before: false,
            clip_gates: f64::INFINITY,
            clip_cell: f64::INFINITY,
            clip_gradient: f64::INFINITY,
            zoneout: [0.0; 2],
            state_mask: Vec::new(),
            truncated: None,
            windows: None,
        };
        self.choices.iter().for_each(|choice| (choice.tell)(&mut options));
        if !options.state_mask.is_empty() {
            options.state_mask = self.state_mask(hidden_width)?;
        }
        Ok(options)
    }

    /// Whether the oracle covers it: windows that overlap in one layer; in training the mask of one layer, and no zoneout.
    fn is_covered(&self, options: &Options) -> bool {
        let single = options.layers == 1 && options.directions == [Time::Forward];
        let (draws, zones_out) = (!options.state_mask.is_empty(), options.zoneout != [0.0; 2]);
        single && !(draws && zones_out) || !draws && options.windows.is_none()
    }

    /// Compares one device with the oracle; `false` where the library refuses the stack or the oracle does not cover it.
    fn agrees(&self, devices: &[(Device, f64)]) -> Result<bool, libtest_mimic::Failed> {
        let mut model = Model::new(7);
        match model.add("rnn", self.rnn()) {
            Ok(_) => {}
            Err(Error::Config { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        for seed in 0..1000 {
            let Some(expected) = self.expected(&model, seed)? else { continue };
            if expected.is_empty() {
                return Ok(false);
            }
            for (device, unit) in devices {
                let found = self.found(device, seed)?;
                assert_eq!(expected.len(), found.len(), "{}", self.name);
                for ((name, expected), (same, found)) in expected.iter().zip(&found) {
                    assert_eq!(name, same);
                    let what = format!("{} on {device:?}, seed {seed}: {name}", self.name);
                    let growth = if self.has("layer_norm") { DEVIATION } else { 1.0 };
                    expect_close(&what, found, expected, by_entry(growth * tolerance(*unit), expected))?;
                }
            }
            return Ok(true);
        }
        Err(format!("{}: no point is clear of kinks and cancellation", self.name).into())
    }

    /// Parameters, x, hidden and cell states and the gradients at outputs and at final states.
    fn point(&self, model: &Model, seed: u64, widths: [usize; 4]) -> [Vec<f64>; 7] {
        let [steps, batch, inputs, units] = self.sizes;
        let [places, outputs, hidden, cell] = widths;
        let weights = model.specs().iter().map(|spec| spec.shape.elements()).sum();
        let counts = [
            weights,
            steps * batch * inputs,
            places * batch * hidden,
            places * batch * cell,
            steps * batch * outputs,
            places * batch * hidden,
            places * batch * cell,
        ];
        // What tan sees has to stay far from its poles, in all steps.
        let is_tan = |function: &Activation| *function == Activation::Tan;
        let has_tan =
            self.cell == Cell::Vanilla(Activation::Tan) || self.functions.iter().flatten().any(is_tan);
        let size = if has_tan { 0.5 } else { 1.0 };
        let weight = size / (units as f64).sqrt();
        let scales = [weight, size, size, size, 1.0, 1.0, 1.0];
        [0, 1, 2, 3, 4, 5, 6].map(|what| drawn(5000 + seed * 8 + what as u64, counts[what], scales[what]))
    }

    /// Layers times directions, and the widths of outputs, hidden and cell states.
    fn widths(&self, layer: &refrain::nn::Layer<Rnn>) -> Result<[usize; 4]> {
        let zero = layer.zero_state(&Device::reference(), 1)?;
        let [places, _, hidden] = zero.hidden().shape().dimensions().try_into().expect("three dimensions");
        let cell = zero.cell().map_or(0, |cell| cell.shape().last());
        Ok([places, layer.description().outputs(), hidden, cell])
    }

    /// What the oracle yields; `None` at a point that is not usable, nothing where it does not cover the stack.
    fn expected(&self, model: &Model, seed: u64) -> Result<Option<Pass>> {
        let mut own = Model::new(7);
        let layer = own.add("rnn", self.rnn())?;
        let widths = self.widths(&layer)?;
        let [places, outputs, hidden, cell] = widths;
        let options = self.options(hidden)?;
        if !self.is_covered(&options) {
            return Ok(Some(Vec::new()));
        }
        let [steps, batch, inputs, _] = self.sizes;
        let lengths = self.lengths();
        let windows = options.windows.map_or(1, |[every, _]| steps.div_ceil(every));
        let [weights, x, h, c, d_y, d_h, d_c] = self.point(model, seed, widths);
        let (mut values, mut sums) = (Pass::new(), Pass::new());
        for window in 0..windows {
            number::begin();
            let numbers =
                |all: &[f64]| -> Vec<Number> { all.iter().map(|&value| Number::constant(value)).collect() };
            let rows = |all: &[Number], width: usize| -> Vec<Vec<Number>> {
                (0..batch).map(|row| all[row * width..][..width].to_vec()).collect()
            };
            let (mut parameters, mut rest) = (BTreeMap::new(), numbers(&weights));
            for spec in model.specs() {
                let after = rest.split_off(spec.shape.elements());
                parameters.insert(spec.name.clone(), std::mem::replace(&mut rest, after));
            }
            let x = numbers(&x);
            let mut start = [numbers(&h), numbers(&c)];
            if self.has("learned_initial_state") {
                for (part, (what, width)) in [("hidden", hidden), ("cell", cell)].into_iter().enumerate() {
                    for (at, number) in start[part].iter_mut().enumerate() {
                        let (place, directions) = (at / (batch * width), options.directions.len());
                        let reverse = options.directions[place % directions] == Time::Reverse;
                        let suffix = if reverse { "_reverse" } else { "" };
                        let learned =
                            &parameters[&format!("rnn.initial_{what}_l{}{suffix}", place / directions)];
                        *number = learned[at % width].bounded_gradient(f64::INFINITY);
                    }
                }
            }
            let by_place = |place: usize| {
                [0, 1].map(|part| {
                    let width = [hidden, cell][part];
                    rows(&start[part][place * batch * width..], width)
                })
            };
            let initial: Vec<_> = (0..places).map(by_place).collect();
            let sequence: Vec<_> = x.chunks(batch * inputs).map(|step| rows(step, inputs)).collect();
            let resets: Vec<Vec<bool>> =
                (0..steps).map(|step| (0..batch).map(|row| self.is_reset(step, row)).collect()).collect();
            let stack = Stack {
                options: &options,
                parameters: &parameters,
                x: &sequence,
                lengths: &lengths,
                resets: &resets,
                initial: &initial,
                window,
            };
            let Outputs { y, last } = stack.run();
            let mut loss = Number::constant(0.0);
            let mut add = |numbers: &[Number], upstream: &[f64]| {
                for (&number, &upstream) in numbers.iter().zip(upstream) {
                    loss = loss + upstream * number;
                }
            };
            for row in 0..batch {
                let own = stack.window(row).0;
                for step in own.clone() {
                    add(&y[step][row], &d_y[(step * batch + row) * outputs..]);
                }
                let is_last =
                    own.end == lengths[row] && (!own.is_empty() || lengths[row] == 0 && window == 0);
                for (place, [h, c]) in last.iter().enumerate().filter(|_| is_last) {
                    add(&h[row], &d_h[(place * batch + row) * hidden..]);
                    add(&c[row], &d_c[(place * batch + row) * cell..]);
                }
            }
            let slopes = derivatives(loss);
            let mut gradients = vec![("d_x".to_owned(), slopes.at(&x))];
            gradients.push(("d_hidden".to_owned(), slopes.at(&start[0])));
            gradients.push(("d_cell".to_owned(), slopes.at(&start[1])));
            for spec in model.specs() {
                gradients.push((format!("d_{}", spec.name), slopes.at(&parameters[&spec.name])));
            }
            if number::margin() < MARGIN {
                return Ok(None);
            }
            if window == 0 {
                let flat = |part: usize| -> Vec<f64> {
                    last.iter().flat_map(|state| state[part].iter().flatten().map(|h| h.value)).collect()
                };
                let padded = |units: &Vec<Number>| -> Vec<f64> {
                    (0..outputs).map(|unit| units.get(unit).map_or(0.0, |y| y.value)).collect()
                };
                values.push(("y".to_owned(), y.iter().flatten().flat_map(padded).collect()));
                values.extend([("hidden".to_owned(), flat(0)), ("cell".to_owned(), flat(1))]);
                sums = gradients;
            } else {
                for ((_, sum), (_, more)) in sums.iter_mut().zip(&gradients) {
                    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                }
            }
        }
        let pass = [values, sums].concat();
        Ok(pass.iter().all(is_telling).then_some(pass))
    }

    /// What the library yields.
    fn found(&self, device: &Device, seed: u64) -> Result<Pass> {
        let mut model = Model::new(7);
        let layer = model.add("rnn", self.rnn())?;
        let widths = self.widths(&layer)?;
        let [places, outputs, hidden, cell] = widths;
        let [steps, batch, inputs, _] = self.sizes;
        let [weights, x, h, c, d_y, d_h, d_c] = self.point(&model, seed, widths);
        let parameters = with_values(&model, device, &weights)?;
        let state = |h: &[f64], c: &[f64]| -> Result<State> {
            let h = Tensor::from_slice_f64(device, &[places, batch, hidden], h)?;
            if cell == 0 {
                return State::from_hidden(&h);
            }
            State::from_hidden_and_cell(&h, &Tensor::from_slice_f64(device, &[places, batch, cell], c)?)
        };
        let parts = |state: &State| -> Result<[Vec<f64>; 2]> {
            let cell = state.cell().map(|cell| cell.download_f64()).transpose()?;
            Ok([state.hidden().download_f64()?, cell.unwrap_or_default()])
        };
        let x = Tensor::from_slice_f64(device, &[steps, batch, inputs], &x)?;
        let initial = match self.has("learned_initial_state") {
            true => layer.initial_state(&parameters, batch)?,
            false => state(&h, &c)?,
        };
        let lengths: Vec<u32> = self.lengths().into_iter().map(|length| length as u32).collect();
        let lengths = Indices::from_slice(device, &[batch], &lengths)?;
        let resets: Vec<u32> =
            (0..steps * batch).map(|at| u32::from(self.is_reset(at / batch, at % batch))).collect();
        let resets = Indices::from_slice(device, &[steps, batch], &resets)?;
        let sequences = if self.ragged { Sequences::ragged(&lengths) } else { Sequences::whole() };
        let sequences = if self.reset { sequences.resets(&resets) } else { sequences };
        let sequences = match self.draw() {
            Some(draw) => sequences.training(draw),
            None => sequences.evaluation(),
        };
        let (y, last, trace) = layer.forward_sequences(&parameters, &x, &initial, sequences)?;
        let d_y = Tensor::from_slice_f64(device, &[steps, batch, outputs], &d_y)?;
        let mut gradients = parameters.zero_gradients()?;
        let (d_x, d_initial) = trace.backward(&d_y, Some(&state(&d_h, &d_c)?), &mut gradients)?;
        let ([hidden, cell], [d_hidden, d_cell]) = (parts(&last)?, parts(&d_initial)?);
        let mut pass = vec![("y".to_owned(), y.download_f64()?)];
        for (name, part) in [("hidden", hidden), ("cell", cell), ("d_x", d_x.download_f64()?)] {
            pass.push((name.to_owned(), part));
        }
        pass.extend([("d_hidden".to_owned(), d_hidden), ("d_cell".to_owned(), d_cell)]);
        for name in parameters.names() {
            pass.push((format!("d_{name}"), gradients.view(name)?.download_f64()?));
        }
        Ok(pass)
    }
}

/// Both CPU backends and the unit roundoff of each.
fn backends() -> [(Device, f64); 2] {
    [(Device::cpu(), f64::from(f32::EPSILON) / 2.0), (Device::reference(), f64::EPSILON / 2.0)]
}

fn cells() -> impl Iterator<Item = Cell> {
    Activation::ALL.into_iter().map(Cell::Vanilla).chain([Cell::Lstm, Cell::Gru])
}

fn every_cell_and_option_has_the_values_of_the_textbook() -> Outcome {
    let backends = backends();
    let mut compared = 0;
    for cell in cells() {
        for choice in CHOICES.iter().filter(|choice| (choice.fits)(&cell)) {
            let mut covered = 0;
            for (number, sizes) in SIZES.into_iter().enumerate() {
                for marks in 0..4 {
                    // Of vanilla cells that differ in one function each option sees each size once.
                    let other = !matches!(cell, Cell::Vanilla(Activation::Tanh) | Cell::Lstm | Cell::Gru);
                    if other && marks != number % 4 {
                        continue;
                    }
                    let (ragged, reset) = (marks & 1 == 1, marks & 2 == 2);
                    let name = format!("{} with {}, {sizes:?}, {ragged} {reset}", cell.name(), choice.option);
                    let cell = cell.clone();
                    let case =
                        Case { name, cell, choices: vec![choice], sizes, ragged, reset, functions: None };
                    covered += usize::from(case.agrees(&backends)?);
                }
            }
            assert!(covered > 0, "{} with {} was never compared", cell.name(), choice.option);
            compared += covered;
        }
    }
    assert!(compared > 3000, "only {compared} cases");
    Ok(())
}

fn every_pair_of_options_has_the_values_of_the_textbook() -> Outcome {
    let backends = backends();
    let mut compared = 0;
    for cell in [Cell::tanh(), Cell::Lstm, Cell::Gru] {
        let choices: Vec<_> = CHOICES.iter().filter(|choice| (choice.fits)(&cell)).collect();
        for (place, one) in choices.iter().enumerate() {
            for two in &choices[place + 1..] {
                // Sizes large enough for every option, by turns.
                let sizes = SIZES[2 + compared % 3];
                let (ragged, reset) = (compared % 2 == 1, compared % 4 >= 2);
                let name = format!(
                    "{} with {} and {}, {sizes:?}, {ragged} {reset}",
                    cell.name(),
                    one.option,
                    two.option
                );
                let cell = cell.clone();
                let case =
                    Case { name, cell, choices: vec![*one, *two], sizes, ragged, reset, functions: None };
                compared += usize::from(case.agrees(&backends)?);
            }
        }
    }
    assert!(compared > 500, "only {compared} pairs");
    Ok(())
}

/// Every function in every place of a gated cell.
fn every_function_of_a_gate_has_the_values_of_the_textbook() -> Outcome {
    let backends = backends();
    let all = Activation::ALL;
    for place in 0..all.len() {
        let functions = [0, 1, 2].map(|later| all[(place + later) % all.len()]);
        for cell in [Cell::Lstm, Cell::Gru] {
            for (number, sizes) in SIZES.into_iter().enumerate() {
                let name = format!("{} with {functions:?}, {sizes:?}", cell.name());
                let (ragged, reset) = (number % 2 == 1, number % 4 >= 2);
                let case = Case {
                    name,
                    cell: cell.clone(),
                    choices: Vec::new(),
                    sizes,
                    ragged,
                    reset,
                    functions: Some(functions),
                };
                assert!(case.agrees(&backends)?, "{} is refused", case.name);
            }
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        every_cell_and_option_has_the_values_of_the_textbook,
        every_pair_of_options_has_the_values_of_the_textbook,
        every_function_of_a_gate_has_the_values_of_the_textbook,
    );
}
