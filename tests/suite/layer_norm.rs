//! Layer normalisation as an operation, and inside LSTMs and GRUs: by hand, against the equations written out, against
//! finite differences, and between devices; with every option that it goes with, and a refusal for every other.
//!
//! Long, because all claims about stacks share one description of a stack and its batch.

use refrain::nn::{Cell, Layer, Merge, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::ops::{self, Activation, LAYER_NORM_EPSILON};
use refrain::{Device, Error, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::gradients::check;
use crate::support::{Tolerance, all_gradients, by_entry, expect_close, largest, random, values, wide};

const CELLS: [&Cell; 2] = [&Cell::Lstm, &Cell::Gru];
const INPUTS: usize = 3;

/// What is asked of a stack beside layer normalisation.
type Build = fn(Rnn) -> Rnn;

fn dot(one: &[f64], two: &[f64]) -> f64 {
    one.iter().zip(two).map(|(a, b)| a * b).sum()
}

fn reference(dimensions: &[usize], data: &[f64]) -> Result<Tensor> {
    Tensor::from_slice_f64(&Device::reference(), dimensions, data)
}

/// Mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5; then a group of one entry, which equals its mean, and one of
/// three with mean 11/3 and variance 26/9.
fn a_row_is_normalised_as_by_hand() -> Outcome {
    let x = reference(&[1, 4], &[1.0, 2.0, 3.0, 6.0])?;
    let gain = reference(&[4], &[1.0, 2.0, 3.0, -1.0])?;
    let shift = reference(&[4], &[0.5, 0.0, 7.0, 0.0])?;
    let epsilon = f64::from(LAYER_NORM_EPSILON);
    let scale = 1.0 / (3.5 + epsilon).sqrt();
    let expected = [0.5 - 2.0 * scale, -2.0 * scale, 7.0, -3.0 * scale];
    let y = ops::layer_norm(&x, &gain, Some(shift.view()), &[4])?;
    expect_close("a whole row", &expected, &y.download_f64()?, 1e-14)?;
    let scale = 1.0 / (26.0 / 9.0 + epsilon).sqrt();
    let expected = [0.0, 2.0 * (-5.0 / 3.0) * scale, 3.0 * (-2.0 / 3.0) * scale, -7.0 / 3.0 * scale];
    let y = ops::layer_norm(&x, &gain, None, &[1, 3])?;
    expect_close("two groups", &expected, &y.download_f64()?, 1e-14)
}

fn layer_norm_backward_matches_finite_differences() -> Outcome {
    const ROWS: usize = 3;
    for groups in [&[5][..], &[1, 4], &[2, 3]] {
        let point = values(90, ROWS * 5 + 5, 1.0);
        let d_y = values(91, ROWS * 5, 1.0);
        let (x, gain) = point.split_at(ROWS * 5);
        let (d_x, d_gain) = ops::layer_norm_backward(
            &reference(&[ROWS, 5], x)?,
            &reference(&[5], gain)?,
            &reference(&[ROWS, 5], &d_y)?,
            groups,
        )?;
        let analytic = [d_x.download_f64()?, d_gain.download_f64()?].concat();
        check(&format!("{groups:?}"), &point, &analytic, |point| {
            let (x, gain) = point.split_at(ROWS * 5);
            let y = ops::layer_norm(&reference(&[ROWS, 5], x)?, &reference(&[5], gain)?, None, groups)?;
            Ok(dot(&y.download_f64()?, &d_y))
        })?;
    }
    Ok(())
}

/// Sums of K terms and their quotients: K ε of the largest result. Entries between ±3 have variances around 3, so that
/// nothing is enlarged, but for rows of two that may lie close together.
fn the_operation_agrees_with_the_reference_on(device: &Device) -> Outcome {
    for rows in [1, 3, 70] {
        for groups in [&[1][..], &[3], &[33], &[257], &[700], &[64, 32], &[1, 1, 255]] {
            let columns: usize = groups.iter().sum();
            let mut results = Vec::new();
            for device in [&Device::reference(), device] {
                let random_key =
                    |stream, dimensions: &[usize], scale| random(&Device::cpu(), stream, dimensions, scale);
                let x = random_key(92, &[rows, columns], 3.0)?.to_device(device)?;
                let d_y = random_key(93, &[rows, columns], 1.0)?.to_device(device)?;
                let gain = random_key(94, &[columns], 1.0)?.to_device(device)?;
                let shift = random_key(95, &[columns], 1.0)?.to_device(device)?;
                let y = ops::layer_norm(&x, &gain, Some(shift.view()), groups)?;
                let (d_x, d_gain) = ops::layer_norm_backward(&x, &gain, &d_y, groups)?;
                results.push([y.download_f64()?, d_x.download_f64()?, d_gain.download_f64()?]);
            }
            for (place, what) in ["y", "d_x", "d_gain"].into_iter().enumerate() {
                let expected = &results[0][place];
                let terms = (columns + rows + 16) as f64;
                let allowed = by_entry(terms * f64::from(f32::EPSILON), expected);
                let name = format!("{what} of {rows} rows, {groups:?}");
                expect_close(&name, expected, &results[1][place], allowed)?;
            }
        }
    }
    Ok(())
}

fn the_operation_agrees_with_the_reference() -> Outcome {
    the_operation_agrees_with_the_reference_on(&Device::cpu())
}

fn the_operation_agrees_with_the_reference_on_the_gpu(adapter: &Adapter) -> Outcome {
    the_operation_agrees_with_the_reference_on(&adapter.open()?)
}

/// Asserts that a result is a configuration or shape error whose message has all these parts.
fn expect_refusal<T>(result: Result<T>, parts: &[&str]) {
    match result.map(drop) {
        Err(error @ (Error::Config { .. } | Error::Shape { .. })) => {
            let message = error.to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "`{message}` does not say {parts:?}");
        }
        other => panic!("{other:?} is no refusal that says {parts:?}"),
    }
}

fn what_does_not_fit_is_refused() -> Outcome {
    let (x, gain) = (reference(&[2, 4], &[0.0; 8])?, reference(&[4], &[1.0; 4])?);
    for groups in [&[][..], &[3], &[4, 0], &[usize::MAX, 5]] {
        expect_refusal(ops::layer_norm(&x, &gain, None, groups), &["groups", "4 columns"]);
        expect_refusal(ops::layer_norm_backward(&x, &gain, &x, groups), &["groups", "4 columns"]);
    }
    let short = reference(&[3], &[1.0; 3])?;
    expect_refusal(ops::layer_norm(&x, &short, None, &[4]), &["gain", "[4]", "[3]"]);
    expect_refusal(ops::layer_norm(&x, &gain, Some(short.view()), &[4]), &["shift", "[4]", "[3]"]);
    expect_refusal(ops::layer_norm_backward(&x, &gain, &gain, &[4]), &["d_y", "[2, 4]", "[4]"]);

    let mut model = Model::new(1);
    for cell in [&Cell::tanh(), &Cell::relu()] {
        let stack = Rnn::new(cell.clone(), 2, 3).layer_norm();
        expect_refusal(model.add("rnn", stack), &["layer_norm", "Cell::Lstm or Cell::Gru", cell.name()]);
    }
    let sigmoid =
        |stack: Rnn| stack.gate_activations(Activation::Sigmoid, Activation::Tanh, Activation::Tanh);
    let builds: [(Cell, &str, Build); 12] = [
        (Cell::Lstm, "peepholes", Rnn::peepholes),
        (Cell::Lstm, "coupled", Rnn::coupled),
        (Cell::Lstm, "projection", |stack| stack.projection(2)),
        (Cell::Lstm, "clip_cell", |stack| stack.clip_cell(1.0)),
        (Cell::Gru, "reset_before", Rnn::reset_before),
        (Cell::Gru, "gate_activations", sigmoid),
        (Cell::Gru, "clip_gates", |stack| stack.clip_gates(1.0)),
        (Cell::Gru, "clip_gradient", |stack| stack.clip_gradient(1.0)),
        (Cell::Gru, "zoneout", |stack| stack.zoneout(0.1, 0.0)),
        (Cell::Gru, "recurrent_dropout", |stack| stack.recurrent_dropout(0.1)),
        (Cell::Gru, "windowed", |stack| stack.windowed(2)),
        (Cell::Gru, "truncated_every", |stack| stack.truncated_every(2, 3)),
    ];
    for (cell, option, build) in builds {
        let stack = build(Rnn::new(cell, 2, 3));
        expect_refusal(model.add("rnn", stack.clone().layer_norm()), &["rnn", "layer_norm", option]);
        // Without it the option is one.
        Model::new(1).add("rnn", stack)?;
    }
    assert!(model.specs().is_empty(), "what was refused was not added");
    Ok(())
}

fn parameters_have_names_sizes_and_first_values() -> Outcome {
    for cell in CELLS {
        let mut model = Model::new(1);
        model
            .add("rnn", Rnn::new(cell.clone(), 2, 3).layers(2).bidirectional().without_bias().layer_norm())?;
        let parameters = model.initialize(&Device::cpu())?;
        let mut names = Vec::new();
        for place in ["l0", "l0_reverse", "l1", "l1_reverse"] {
            let mut of_place = vec!["weight_ih", "weight_hh", "norm_ih", "norm_hh"];
            if *cell == Cell::Lstm {
                of_place.push("norm_c");
                let state = parameters.view(&format!("rnn.norm_c_{place}"))?;
                assert_eq!(state.shape().dimensions(), [2, 3]);
                assert_eq!(state.download()?, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
            }
            for name in ["norm_ih", "norm_hh"] {
                let gain = parameters.view(&format!("rnn.{name}_{place}"))?;
                assert_eq!(gain.download()?, vec![1.0; cell.gates() * 3], "{name}_{place}");
            }
            names.extend(of_place.into_iter().map(|name| format!("rnn.{name}_{place}")));
        }
        assert_eq!(parameters.names().collect::<Vec<_>>(), names);
    }
    Ok(())
}

/// A stack with layer normalisation and its batch.
#[derive(Clone, Copy)]
struct Variant {
    cell: &'static Cell,
    name: &'static str,
    build: Build,
    hidden: usize,
    steps: usize,
    batch: usize,
    ragged: bool,
    reset: bool,
    training: bool,
}

impl Variant {
    fn of(cell: &'static Cell, name: &'static str, build: Build) -> Self {
        let (hidden, steps, batch) = (4, 4, 3);
        Self { cell, name, build, hidden, steps, batch, ragged: false, reset: false, training: false }
    }

    fn describe(&self) -> String {
        let Self { cell, name, hidden, steps, batch, ragged, reset, training, .. } = self;
        format!(
            "{} {name}, H {hidden}, T {steps}, B {batch}, ragged {ragged}, reset {reset}, training {training}",
            cell.name()
        )
    }

    /// Every way through time and every option, over whole and ragged rows, with and without resets.
    fn all() -> Vec<Self> {
        let builds: [(&str, Build); 11] = [
            ("plain", |stack| stack),
            ("reverse", Rnn::reverse),
            ("without bias", |stack| stack.without_bias().bidirectional()),
            ("two layers", |stack| stack.layers(2).bidirectional()),
            ("dropout", |stack| stack.layers(2).dropout(0.4)),
            ("input dropout", |stack| stack.input_dropout(0.3)),
            ("weight drop", |stack| stack.bidirectional().weight_drop(0.4)),
            ("merge", |stack| stack.layers(2).bidirectional().merge(Merge::Product)),
            ("residual", |stack| stack.layers(2).residual()),
            ("learned initial state", |stack| stack.bidirectional().learned_initial_state()),
            ("all together", |stack| {
                let masked = stack.layers(2).dropout(0.4).input_dropout(0.3).weight_drop(0.25);
                masked.bidirectional().merge(Merge::Sum).residual()
            }),
        ];
        let mut all = Vec::new();
        for cell in CELLS {
            for (name, build) in builds {
                for bits in 0..4 {
                    let (ragged, reset) = (bits & 1 == 1, bits & 2 == 2);
                    all.push(Self { ragged, reset, training: true, ..Self::of(cell, name, build) });
                }
            }
        }
        all
    }

    fn stack(&self) -> Rnn {
        (self.build)(Rnn::new(self.cell.clone(), INPUTS, self.hidden).layer_norm())
    }
}

/// A variant on one device.
struct Setting {
    variant: Variant,
    device: Device,
    model: Model,
    layer: Layer<Rnn>,
    lengths: Indices,
    resets: Indices,
}

/// What a pass yields; the final state and the gradient at the initial one hidden first.
struct Pass {
    y: Vec<f64>,
    last: Vec<f64>,
    gradients: Vec<f64>,
    d_x: Vec<f64>,
    d_initial: Vec<f64>,
}

fn state_values(state: &State) -> Result<Vec<f64>> {
    let cell = state.cell().map(|cell| cell.download_f64()).transpose()?;
    Ok([state.hidden().download_f64()?, cell.unwrap_or_default()].concat())
}

impl Setting {
    fn new(device: &Device, variant: Variant) -> Result<Self> {
        let Variant { steps, batch, .. } = variant;
        let mut model = Model::new(5);
        let layer = model.add("rnn", variant.stack())?;
        // Resets inside rows and at the first step of one, lengths of all sorts.
        let resets: Vec<u32> = (0..steps * batch).map(|place| u32::from(place % 3 == 1)).collect();
        let lengths: Vec<u32> = (0..batch).map(|row| (1 + (row * 3 + 1) % steps) as u32).collect();
        Ok(Self {
            variant,
            device: device.clone(),
            model,
            layer,
            lengths: Indices::from_slice(device, &[batch], &lengths)?,
            resets: Indices::from_slice(device, &[steps, batch], &resets)?,
        })
    }

    fn sequences(&self) -> Sequences<'_> {
        let Variant { ragged, reset, training, .. } = self.variant;
        let sequences = if ragged { Sequences::ragged(&self.lengths) } else { Sequences::whole() };
        let sequences = if reset { sequences.resets(&self.resets) } else { sequences };
        if training { sequences.training(RandomKey::new(17, 5)) } else { sequences.evaluation() }
    }

    fn inputs(&self) -> usize {
        self.variant.steps * self.variant.batch * INPUTS
    }

    /// Weights, x and the initial state as one vector, all of which f32 holds exactly.
    fn point(&self) -> Result<Vec<f64>> {
        let weights: usize = self.model.specs().iter().map(|spec| spec.shape.elements()).sum();
        let states = state_values(&self.layer.zero_state(&self.device, self.variant.batch)?)?.len();
        let all = values(60, weights + self.inputs() + states, 1.0);
        Ok(all.into_iter().map(|value| f64::from(value as f32)).collect())
    }

    fn tensors(&self, point: &[f64]) -> Result<(Parameters, Tensor, State)> {
        let Variant { steps, batch, cell, .. } = self.variant;
        let mut parameters = self.model.initialize(&self.device)?;
        let mut rest = point;
        let mut take = |count: usize| {
            let (section, after) = rest.split_at(count);
            rest = after;
            section
        };
        let specs = self.model.specs().iter();
        parameters.set_all(
            specs.map(|spec| (spec.name.as_str(), spec.shape.dimensions(), take(spec.shape.elements()))),
        )?;
        let x = Tensor::from_slice_f64(&self.device, &[steps, batch, INPUTS], take(self.inputs()))?;
        let zero = self.layer.zero_state(&self.device, batch)?.hidden();
        let sizes = zero.shape().dimensions();
        let mut part = || Tensor::from_slice_f64(&self.device, sizes, take(sizes.iter().product()));
        let state = match cell.has_cell_state() {
            true => State::from_hidden_and_cell(&part()?, &part()?)?,
            false => State::from_hidden(&part()?)?,
        };
        Ok((parameters, x, state))
    }

    fn d_y(&self) -> Vec<f64> {
        let outputs = self.layer.description().outputs();
        values(61, self.variant.steps * self.variant.batch * outputs, 1.0)
    }

    /// The gradient at the final state.
    fn d_last(&self, point: &[f64]) -> Result<(Vec<f64>, State)> {
        let (_, _, initial) = self.tensors(point)?;
        let count = state_values(&initial)?.len();
        let all = values(62, count, 1.0);
        let sizes = initial.hidden().shape().dimensions().to_vec();
        let parts: Vec<Tensor> = all
            .chunks(sizes.iter().product())
            .map(|part| Tensor::from_slice_f64(&self.device, &sizes, part))
            .collect::<Result<_>>()?;
        let state = match parts.as_slice() {
            [hidden, cell] => State::from_hidden_and_cell(hidden, cell)?,
            _ => State::from_hidden(&parts[0])?,
        };
        Ok((all, state))
    }

    fn value(&self, point: &[f64]) -> Result<f64> {
        let (parameters, x, initial) = self.tensors(point)?;
        let (y, last) = self.layer.infer_sequences(&parameters, &x, &initial, self.sequences())?;
        Ok(dot(&y.download_f64()?, &self.d_y()) + dot(&state_values(&last)?, &self.d_last(point)?.0))
    }

    fn pass(&self, point: &[f64]) -> Result<Pass> {
        let (parameters, x, initial) = self.tensors(point)?;
        let (y, last, trace) = self.layer.forward_sequences(&parameters, &x, &initial, self.sequences())?;
        let d_y = Tensor::from_slice_f64(&self.device, y.shape().dimensions(), &self.d_y())?;
        let mut gradients = parameters.zero_gradients()?;
        let (_, d_last) = self.d_last(point)?;
        let (d_x, d_initial) = trace.backward(&d_y, Some(&d_last), &mut gradients)?;
        Ok(Pass {
            y: y.download_f64()?,
            last: state_values(&last)?,
            gradients: all_gradients(&parameters, &gradients)?,
            d_x: d_x.download_f64()?,
            d_initial: state_values(&d_initial)?,
        })
    }
}

/// Inputs are measured in this unit where differences are taken. A function of x / σ has third derivatives in 1 / σ³, and
/// the deviation of a few cell states may be as small as this.
const UNIT: f64 = 0.1;

fn gradients_match_finite_differences() -> Outcome {
    for variant in Variant::all() {
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = setting.point()?;
        let pass = setting.pass(&point)?;
        // The learned state takes no part here: the pass starts from another one.
        let analytic = [pass.gradients, pass.d_x, pass.d_initial].concat();
        let in_units: Vec<f64> = point.iter().map(|value| value / UNIT).collect();
        let analytic: Vec<f64> = analytic.iter().map(|slope| slope * UNIT).collect();
        check(&variant.describe(), &in_units, &analytic, |in_units| {
            setting.value(&in_units.iter().map(|value| value * UNIT).collect::<Vec<_>>())
        })?;
    }
    Ok(())
}

fn a_learned_initial_state_has_its_gradient_summed_over_the_batch() -> Outcome {
    for cell in CELLS {
        let variant = Variant::of(cell, "learned", Rnn::learned_initial_state);
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = setting.point()?;
        let (parameters, x, _) = setting.tensors(&point)?;
        let initial = setting.layer.initial_state(&parameters, variant.batch)?;
        let (y, _, trace) = setting.layer.forward(&parameters, &x, &initial)?;
        let d_y = reference(y.shape().dimensions(), &setting.d_y())?;
        let mut gradients = parameters.zero_gradients()?;
        let (_, d_initial) = trace.backward(&d_y, None, &mut gradients)?;
        let d_hidden = ops::sum_rows(&d_initial.hidden())?.download_f64()?;
        let found = gradients.view("rnn.initial_hidden_l0")?.download_f64()?;
        assert!(largest(&found) > 0.0, "{cell:?}: nothing reaches the initial state");
        expect_close(cell.name(), &d_hidden, &found, 1e-12)?;
    }
    Ok(())
}

/// (x − μ) / √(σ² + ε), entry by entry.
fn standard(x: &[f64]) -> Vec<f64> {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    x.iter().map(|x| (x - mean) / (variance + f64::from(LAYER_NORM_EPSILON)).sqrt()).collect()
}

/// Rows of `weight` times x, normalised in the groups of the cell, times the gain, plus the bias.
fn normalised_product(cell: &Cell, weight: &[f64], x: &[f64], gain: &[f64], bias: &[f64]) -> Vec<f64> {
    let product: Vec<f64> = weight.chunks(x.len()).map(|row| dot(row, x)).collect();
    let joint = if *cell == Cell::Gru { product.len() / 3 * 2 } else { product.len() };
    let parts = [standard(&product[..joint]), standard(&product[joint..])].concat();
    parts.iter().zip(gain).zip(bias).map(|((x, gain), bias)| gain * x + bias).collect()
}

/// One row of the batch through the equations of the paper, number by number.
fn textbook(cell: &Cell, weights: &[Vec<f64>], x: &[Vec<f64>], hidden: &[f64], state: &[f64]) -> Vec<f64> {
    let sigmoid = |a: f64| 1.0 / (1.0 + (-a).exp());
    let units = hidden.len();
    let (mut h, mut c, mut all) = (hidden.to_vec(), state.to_vec(), Vec::new());
    for x in x {
        let u = normalised_product(cell, &weights[0], x, &weights[4], &weights[2]);
        let q = normalised_product(cell, &weights[1], &h, &weights[5], &weights[3]);
        let a = |gate: usize, unit: usize| u[gate * units + unit] + q[gate * units + unit];
        if *cell == Cell::Lstm {
            c = (0..units)
                .map(|unit| sigmoid(a(1, unit)) * c[unit] + sigmoid(a(0, unit)) * a(2, unit).tanh())
                .collect();
            let seen = standard(&c);
            let (gain, shift) = weights[6].split_at(units);
            h = (0..units)
                .map(|unit| sigmoid(a(3, unit)) * (gain[unit] * seen[unit] + shift[unit]).tanh())
                .collect();
        } else {
            let candidate =
                |unit: usize| (u[2 * units + unit] + sigmoid(a(0, unit)) * q[2 * units + unit]).tanh();
            h = (0..units)
                .map(|unit| {
                    let z = sigmoid(a(1, unit));
                    (1.0 - z) * candidate(unit) + z * h[unit]
                })
                .collect();
        }
        all.extend(&h);
    }
    all
}

fn outputs_are_those_of_the_equations_written_out() -> Outcome {
    for cell in CELLS {
        let variant = Variant::of(cell, "plain", |stack| stack);
        let setting = Setting::new(&Device::reference(), variant)?;
        let point = setting.point()?;
        let (parameters, x, initial) = setting.tensors(&point)?;
        let weights = setting
            .model
            .specs()
            .iter()
            .map(|spec| parameters.view(&spec.name)?.download_f64())
            .collect::<Result<Vec<_>>>()?;
        let (y, _) = setting.layer.infer(&parameters, &x, &initial)?;
        let (y, x) = (y.download_f64()?, x.download_f64()?);
        let all = state_values(&initial)?;
        let Variant { hidden, batch, .. } = variant;
        for row in 0..batch {
            let of_row = |values: &[f64], width: usize| -> Vec<Vec<f64>> {
                values.chunks(width).skip(row).step_by(batch).map(<[f64]>::to_vec).collect()
            };
            let state = all.chunks(batch * hidden).map(|part| part[row * hidden..][..hidden].to_vec());
            let state: Vec<Vec<f64>> = state.collect();
            let rows = of_row(&x, INPUTS);
            let expected = textbook(cell, &weights, &rows, &state[0], &state[state.len() - 1]);
            expect_close(&variant.describe(), &expected, &of_row(&y, hidden).concat(), 1e-12)?;
        }
    }
    Ok(())
}

/// A division by the deviation of a row: that of a few entries may be this much smaller than they are.
const DEVIATION: f64 = 8.0;

/// K terms of at most T·B + 4·H + I a sum, over T steps and two layers, each rounded relative to results of the size of
/// `values`.
fn rounding(variant: &Variant, values: &[f64]) -> Tolerance {
    let Variant { hidden, steps, batch, .. } = variant;
    let terms = (steps * batch + 4 * hidden + INPUTS) * steps * 2;
    by_entry(DEVIATION * terms as f64 * f64::from(f32::EPSILON), values)
}

fn expect_agreement(device: &Device, variant: Variant) -> Outcome {
    let expected = Setting::new(&Device::reference(), variant)?;
    let point = expected.point()?;
    let expected = expected.pass(&point)?;
    let found = Setting::new(device, variant)?.pass(&point)?;
    // A gradient of one tensor comes from those at all others, whose size its roundings have.
    let of_gradients = [&*expected.gradients, &expected.d_x, &expected.d_initial].concat();
    for (what, expected, found) in
        [("y", &expected.y, &found.y), ("the final state", &expected.last, &found.last)]
    {
        let name = format!("{what} of {}", variant.describe());
        expect_close(&name, expected, found, rounding(&variant, expected))?;
    }
    for (what, expected, found) in [
        ("gradients", &expected.gradients, &found.gradients),
        ("d_x", &expected.d_x, &found.d_x),
        ("d_initial", &expected.d_initial, &found.d_initial),
    ] {
        let name = format!("{what} of {}", variant.describe());
        expect_close(&name, expected, found, rounding(&variant, &of_gradients))?;
    }
    Ok(())
}

fn stacks_agree_with_the_reference_on(device: &Device) -> Outcome {
    for variant in Variant::all() {
        expect_agreement(device, variant)?;
    }
    for cell in CELLS {
        for hidden in [1, 3, 17, 33, 65] {
            for (steps, batch) in [(1, 1), (1, 5), (4, 1), (4, 5)] {
                for marked in [false, true] {
                    let builds: [(&str, Build); 2] = [
                        ("both directions", |stack| stack.bidirectional()),
                        ("truncated", |stack| stack.reverse().truncated(2)),
                    ];
                    for (name, build) in builds {
                        let plain = Variant::of(cell, name, build);
                        let (ragged, reset) = (marked, marked);
                        expect_agreement(device, Variant { hidden, steps, batch, ragged, reset, ..plain })?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn stacks_agree_with_the_reference() -> Outcome {
    stacks_agree_with_the_reference_on(&Device::cpu())
}

fn stacks_agree_with_the_reference_on_the_gpu(adapter: &Adapter) -> Outcome {
    stacks_agree_with_the_reference_on(&adapter.open()?)
}

/// A cut every 2 of 4 steps: the gradients of two windows of 2 steps, the second of which starts from values only.
fn truncation_equals_windows_run_by_hand() -> Outcome {
    let device = Device::reference();
    for cell in CELLS {
        let variant = Variant::of(cell, "truncated", |stack| stack.truncated(2));
        let setting = Setting::new(&device, variant)?;
        let point = setting.point()?;
        let (parameters, x, initial) = setting.tensors(&point)?;
        let (y, _, trace) = setting.layer.forward(&parameters, &x, &initial)?;
        let d_y = reference(y.shape().dimensions(), &setting.d_y())?;
        let mut whole = parameters.zero_gradients()?;
        let (_, d_initial) = trace.backward(&d_y, None, &mut whole)?;

        let Variant { batch, hidden, .. } = variant;
        let half = |all: Vec<f64>, second: bool, width: usize| {
            let (one, two) = all.split_at(2 * batch * width);
            reference(&[2, batch, width], if second { two } else { one })
        };
        let mut windows = parameters.zero_gradients()?;
        let mut state = initial;
        let mut d_first = Vec::new();
        for second in [false, true] {
            let part = half(x.download_f64()?, second, INPUTS)?;
            let (_, next, trace) = setting.layer.forward(&parameters, &part, &state)?;
            let (_, d_state) = trace.backward(&half(setting.d_y(), second, hidden)?, None, &mut windows)?;
            if !second {
                d_first = state_values(&d_state)?;
            }
            state = next;
        }
        let expected = all_gradients(&parameters, &windows)?;
        expect_close(cell.name(), &expected, &all_gradients(&parameters, &whole)?, 1e-11)?;
        expect_close(cell.name(), &d_first, &state_values(&d_initial)?, 1e-11)?;
    }
    Ok(())
}

/// Each row alone, cut to its length, has the outputs and the final state that it has among others, but for the order of
/// sums; what stands in the padding reaches nothing.
fn ragged_rows_are_rows_one_by_one_on(device: &Device) -> Outcome {
    for cell in CELLS {
        let variant = Variant::of(cell, "both directions", |stack| stack.bidirectional());
        let variant = Variant { hidden: 17, ragged: true, ..variant };
        let setting = Setting::new(device, variant)?;
        let point = setting.point()?;
        let (parameters, x, initial) = setting.tensors(&point)?;
        let Variant { steps, batch, hidden, .. } = variant;
        let lengths: Vec<usize> = setting.lengths.values().iter().map(|&length| length as usize).collect();
        let mut spoilt = x.download()?;
        for (place, value) in spoilt.iter_mut().enumerate() {
            if place / INPUTS / batch >= lengths[place / INPUTS % batch] {
                *value = f32::NAN;
            }
        }
        let x = Tensor::from_slice(device, &[steps, batch, INPUTS], &spoilt)?;
        let (y, last, trace) =
            setting.layer.forward_sequences(&parameters, &x, &initial, setting.sequences())?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&y, None, &mut gradients)?;
        assert!(all_gradients(&parameters, &gradients)?.iter().all(|value| value.is_finite()));
        let (y, last, width) = (y.download()?, state_values(&last)?, 2 * hidden);
        for (row, &length) in lengths.iter().enumerate() {
            let of_row = |values: &[f32], width: usize| -> Vec<f32> {
                values.chunks(width).skip(row).step_by(batch).flatten().copied().collect()
            };
            let own = &of_row(&spoilt, INPUTS)[..length * INPUTS];
            let alone = Tensor::from_slice(device, &[length, 1, INPUTS], own)?;
            let part = |part: Tensor| -> Result<Tensor> {
                let values = of_row(&part.download()?, hidden);
                Tensor::from_slice(device, &[2, 1, hidden], &values)
            };
            let start = match initial.cell() {
                Some(cell) => State::from_hidden_and_cell(&part(initial.hidden())?, &part(cell)?)?,
                None => State::from_hidden(&part(initial.hidden())?)?,
            };
            let (expected, end) = setting.layer.infer(&parameters, &alone, &start)?;
            let found = of_row(&y, width);
            let name = format!("{} row {row}", variant.describe());
            let (expected, kept) = (expected.download_f64()?, wide(&found[..length * width]));
            expect_close(&name, &expected, &kept, rounding(&variant, &expected))?;
            assert!(found[length * width..].iter().all(|&value| value == 0.0), "{name}: padding");
            let own: Vec<f64> = last.chunks(hidden).skip(row).step_by(batch).flatten().copied().collect();
            let end = state_values(&end)?;
            expect_close(&name, &end, &own, rounding(&variant, &end))?;
        }
    }
    Ok(())
}

fn ragged_rows_are_rows_one_by_one() -> Outcome {
    ragged_rows_are_rows_one_by_one_on(&Device::cpu())
}

fn ragged_rows_are_rows_one_by_one_on_the_gpu(adapter: &Adapter) -> Outcome {
    ragged_rows_are_rows_one_by_one_on(&adapter.open()?)
}

/// With room for 960 elements in a binding and two workgroups along an axis, rows and time are cut into pieces: outputs
/// keep their bits, and sums over time the order of no more than their pieces.
fn large_work_is_cut_without_a_trace(adapter: &Adapter) -> Outcome {
    let low = GpuOptions { binding_bytes: Some(4096), workgroups: Some(2), ..GpuOptions::default() };
    let (whole, cut) = (adapter.open()?, adapter.open_with(&low)?);
    for cell in CELLS {
        for marked in [false, true] {
            let plain = Variant::of(cell, "both directions", |stack| stack.bidirectional());
            let variant = Variant { hidden: 9, steps: 9, batch: 5, ragged: marked, reset: marked, ..plain };
            let of = |device: &Device| -> Result<(Pass, u64)> {
                let before = device.counters().dispatches;
                let setting = Setting::new(device, variant)?;
                let pass = setting.pass(&setting.point()?)?;
                Ok((pass, device.counters().dispatches - before))
            };
            let ((expected, once), (found, pieces)) = (of(&whole)?, of(&cut)?);
            assert!(pieces > once, "{pieces} dispatches, {once} without limits: nothing was cut");
            let name = variant.describe();
            assert_eq!(expected.y, found.y, "{name}");
            assert_eq!(expected.last, found.last, "{name}");
            assert_eq!(expected.d_initial, found.d_initial, "{name}");
            let allowed = rounding(&variant, &expected.gradients);
            expect_close(&name, &expected.gradients, &found.gradients, allowed)?;
            expect_close(&name, &expected.d_x, &found.d_x, rounding(&variant, &expected.d_x))?;
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_row_is_normalised_as_by_hand,
        layer_norm_backward_matches_finite_differences,
        the_operation_agrees_with_the_reference,
        what_does_not_fit_is_refused,
        parameters_have_names_sizes_and_first_values,
        gradients_match_finite_differences,
        a_learned_initial_state_has_its_gradient_summed_over_the_batch,
        outputs_are_those_of_the_equations_written_out,
        stacks_agree_with_the_reference,
        truncation_equals_windows_run_by_hand,
        ragged_rows_are_rows_one_by_one,
    );
    on_gpu!(
        suite,
        the_operation_agrees_with_the_reference_on_the_gpu,
        stacks_agree_with_the_reference_on_the_gpu,
        ragged_rows_are_rows_one_by_one_on_the_gpu,
        large_work_is_cut_without_a_trace,
    );
}
