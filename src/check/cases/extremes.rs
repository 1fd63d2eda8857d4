//! NaN, infinities, zeros, subnormal and large numbers through every operation: NaN must stay NaN on this device, and
//! nothing else may become NaN or infinite.
//!
//! Each case contains numbers of similar size, so that a tolerance relative to the largest is meaningful for all. A GPU may
//! flush subnormal numbers to zero, so none is used next to a kink at zero.

use super::{Operation, Output, gradient_outputs};
use crate::Result;
use crate::check::sampler::{CENTRED, Sampler};
use crate::check::tolerance::{EVALUATION, Recurrence, sum};
use crate::loss::CrossEntropy;
use crate::nn::{Cell, Model, Rnn, State};
use crate::ops::{self, Activation, Form, Mask, Norm};
use crate::random::Stream;
use crate::tensor::{Indices, Tensor};

/// Names and values of the special numbers: NaN of both signs, quiet and signalling, with small and large payloads;
/// infinities; both ends of the range; and its middle.
const KINDS: [(&str, &[f32]); 4] = [
    (
        "NaN",
        &[
            f32::NAN,
            -f32::NAN,
            f32::from_bits(0x7f80_0001),
            f32::from_bits(0xff80_0001),
            f32::from_bits(0x7fff_ffff),
            f32::from_bits(0xffff_ffff),
        ],
    ),
    ("infinities", &[f32::INFINITY, f32::NEG_INFINITY]),
    (LARGE, &[3e38, -3e38]),
    ("zeros and subnormal numbers", &[0.0, -0.0, -1e-40]),
];

const LARGE: &str = "large numbers";

pub(super) fn operations() -> Vec<Operation> {
    let mut all: Vec<Operation> = Activation::ALL.into_iter().map(activation).collect();
    all.extend([
        of_rows("matmul", product),
        of_rows("sum_rows", |_, x| Ok(vec![Output::new("s", ops::sum_rows(x)?, sum(x.shape().rows()))])),
        of_rows("norms", norms),
        of_rows("dropout", dropout),
        of_rows("softmax", |sampler, x| {
            let y = ops::softmax(x)?;
            let d_x = ops::softmax_backward(&y, upstream(sampler, x)?.view())?;
            Ok(of_softmax(x, y, d_x))
        }),
        of_rows("log_softmax", |sampler, x| {
            let y = ops::log_softmax(x)?;
            let d_x = ops::log_softmax_backward(&y, upstream(sampler, x)?.view())?;
            Ok(of_softmax(x, y, d_x))
        }),
        of_rows("cross_entropy", |sampler, x| losses(sampler, x, 0.0)),
        of_rows("cross_entropy, smoothed", |sampler, x| losses(sampler, x, 0.1)),
        of_rows("layer_norm", layer_norm),
        recurrent("rnn tanh", || Rnn::new(Cell::tanh(), INPUTS, HIDDEN)),
        recurrent("rnn relu", || Rnn::new(Cell::relu(), INPUTS, HIDDEN)),
        recurrent("lstm", || Rnn::new(Cell::Lstm, INPUTS, HIDDEN)),
        recurrent("gru", || Rnn::new(Cell::Gru, INPUTS, HIDDEN)),
        recurrent("lstm with layer norm", || Rnn::new(Cell::Lstm, INPUTS, HIDDEN).layer_norm()),
        recurrent("gru with layer norm", || Rnn::new(Cell::Gru, INPUTS, HIDDEN).layer_norm()),
    ]);
    all
}

/// An operation of this module over the kinds of values, or kinds with places.
fn over<S: 'static>(
    name: &str,
    seed: u64,
    settings: impl IntoIterator<Item = S>,
    label: impl Fn(&S) -> String,
    run: impl Fn(&Sampler, &S) -> Result<Vec<Output>> + Copy + 'static,
) -> Operation {
    Operation::over(format!("extremes, {name}"), seed, settings, label, run)
}

fn activation(function: Activation) -> Operation {
    // On a GPU tan of a large number is unspecified.
    let kinds = KINDS.into_iter().filter(|(kind, _)| function != Activation::Tan || *kind != LARGE);
    over(
        function.name(),
        5000,
        kinds,
        |(kind, _)| kind.to_string(),
        move |sampler, &(_, values)| {
            let x = Tensor::from_slice(sampler.device(), &[values.len()], values)?;
            let y = ops::unary(&x, function)?;
            let d_x = ops::unary_backward(&x, &y, upstream(sampler, &x)?.view(), function)?;
            let d_x = Output::new("d_x", d_x, 2.0 * EVALUATION + 2.0).relative_to(1.0);
            Ok(vec![Output::new("y", y, EVALUATION), d_x])
        },
    )
}

fn upstream(sampler: &Sampler, x: &Tensor) -> Result<Tensor> {
    sampler.tensor(x.shape().dimensions(), CENTRED)
}

const COLUMNS: usize = 33;

/// Applies `run` to a matrix in which each row but the first and the last contains one of the values.
fn of_rows(name: &str, run: fn(&Sampler, &Tensor) -> Result<Vec<Output>>) -> Operation {
    let label = |(kind, _): &(&str, &[f32])| format!("{kind} in rows of {COLUMNS}");
    over(name, 5100, KINDS, label, move |sampler, &(kind, values)| {
        let rows = values.len() + 2;
        let mut all = sampler.values(rows * COLUMNS, CENTRED);
        for (row, &value) in values.iter().enumerate() {
            // Squares and sums of a row must stay within the range of f32.
            let size = if kind == LARGE { 1e-20 } else { 1.0 };
            all[(row + 1) * COLUMNS + row * 7 % COLUMNS] = size * value;
        }
        run(sampler, &Tensor::from_slice(sampler.device(), &[rows, COLUMNS], &all)?)
    })
}

/// The results of a softmax or log softmax of x.
fn of_softmax(x: &Tensor, y: Tensor, d_x: Tensor) -> Vec<Output> {
    let d_x = Output::new("d_x", d_x, 2.0 * roundings(x)).relative_to(1.0);
    vec![Output::new("y", y, roundings(x)), d_x]
}

/// The roundings of a softmax over the last dimension.
fn roundings(x: &Tensor) -> f64 {
    sum(x.shape().last()) + 2.0 * EVALUATION
}

fn product(sampler: &Sampler, x: &Tensor) -> Result<Vec<Output>> {
    let weights = sampler.tensor(&[COLUMNS, 17], CENTRED)?;
    Ok(vec![Output::new("c", ops::matmul(x, &weights, Form::Plain, None)?, sum(COLUMNS))])
}

fn norms(_: &Sampler, x: &Tensor) -> Result<Vec<Output>> {
    let terms = sum(x.shape().elements()) + EVALUATION;
    let all = [("norm 1", Norm::L1), ("norm 2", Norm::L2), ("norm infinity", Norm::Infinity)];
    all.into_iter().map(|(name, norm)| Ok(Output::new(name, ops::norm(x, norm)?, terms))).collect()
}

fn dropout(_: &Sampler, x: &Tensor) -> Result<Vec<Output>> {
    Ok(vec![Output::new("y", ops::dropout(x, Mask::new(Stream::new(5, 6), 0.5)?)?, 2.0)])
}

fn losses(sampler: &Sampler, x: &Tensor, smoothing: f32) -> Result<Vec<Output>> {
    let rows = x.shape().rows();
    let labels = Indices::from_slice(sampler.device(), &[rows], &sampler.integers(rows, COLUMNS))?;
    let d_losses = sampler.tensor(&[rows], CENTRED)?;
    let loss = CrossEntropy::default().smoothing(smoothing);
    let d_x = loss.rows_backward(x, &labels, &d_losses)?;
    let roundings = 2.0 * roundings(x);
    Ok(vec![
        Output::new("losses", loss.rows(x, &labels)?, roundings),
        Output::new("d_logits", d_x, roundings),
    ])
}

fn layer_norm(sampler: &Sampler, x: &Tensor) -> Result<Vec<Output>> {
    let gain = sampler.tensor(&[COLUMNS], CENTRED)?;
    let y = ops::layer_norm(x, &gain, None, &[COLUMNS])?;
    let (d_x, d_gain) = ops::layer_norm_backward(x, &gain, upstream(sampler, x)?.view(), &[COLUMNS])?;
    let roundings = 3.0 * sum(COLUMNS) + 2.0 * EVALUATION;
    Ok(vec![
        Output::new("y", y, roundings),
        Output::new("d_x", d_x, 2.0 * roundings).relative_to(1.0),
        Output::new("d_gain", d_gain, 2.0 * roundings).relative_to(1.0),
    ])
}

const STEPS: usize = 4;
const INPUTS: usize = 9;
const HIDDEN: usize = 9;

/// The argument of a layer that contains the values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Inputs,
    State,
    Gradients,
}

/// A layer over a batch in which each row but the first and the last contains one of the values, in its second step or its
/// initial state.
fn recurrent(name: &str, build: fn() -> Rnn) -> Operation {
    let places = [Place::Inputs, Place::State, Place::Gradients];
    // Large numbers overflow in f32 but not in f64.
    let kinds = KINDS.into_iter().filter(|(kind, _)| *kind != LARGE);
    let all = kinds.flat_map(|kind| places.map(|place| (kind, place)));
    let label = |((kind, _), place): &((&str, &[f32]), Place)| {
        format!("{kind} in {}", format!("{place:?}").to_lowercase())
    };
    over(name, 5200, all, label, move |sampler, &((_, values), place)| layer(sampler, build(), values, place))
}

fn layer(sampler: &Sampler, stack: Rnn, values: &[f32], place: Place) -> Result<Vec<Output>> {
    let batch = values.len() + 2;
    let cell = stack.cell().clone();
    let with = |steps: usize, width: usize, own: Place| {
        let mut all = sampler.values(steps * batch * width, CENTRED);
        let at = (steps / 2).min(1);
        for (row, &value) in values.iter().enumerate().filter(|_| place == own) {
            all[(at * batch + row + 1) * width] = value;
        }
        all
    };
    let mut model = Model::new(0);
    let layer = model.add("rnn", stack)?;
    let parameters = model.initialize(sampler.device())?;
    let x =
        Tensor::from_slice(sampler.device(), &[STEPS, batch, INPUTS], &with(STEPS, INPUTS, Place::Inputs))?;
    let d_y = with(STEPS, HIDDEN, Place::Gradients);
    let d_y = Tensor::from_slice(sampler.device(), &[STEPS, batch, HIDDEN], &d_y)?;
    let state = || Tensor::from_slice(sampler.device(), &[1, batch, HIDDEN], &with(1, HIDDEN, Place::State));
    let hidden = state()?;
    let state = State::from_parts(&hidden, cell.has_cell_state().then(state).transpose()?.as_ref())?;
    let (y, _, trace) = layer.forward(&parameters, &x, &state)?;
    let mut gradients = parameters.zero_gradients()?;
    let (d_x, d_state) = trace.backward(&d_y, None, &mut gradients)?;
    let recurrence = Recurrence { cell, steps: STEPS, batch, layers: 1, terms: INPUTS + HIDDEN };
    // All values of a small tensor may be small by chance.
    let output = |name: String, tensor, roundings: f64| Output::new(name, tensor, roundings).relative_to(1.0);
    let mut results = vec![
        output("y".to_owned(), y, recurrence.forward()),
        output("d_x".to_owned(), d_x, recurrence.backward()),
        output("d_h".to_owned(), d_state.hidden(), recurrence.backward()),
    ];
    let of_parameters = gradient_outputs(&model, &gradients, recurrence.backward())?;
    results.extend(of_parameters.into_iter().map(|output| output.relative_to(1.0)));
    Ok(results)
}
