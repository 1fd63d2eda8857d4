//! Stacks with options: masks, zoneout, merges, residual connections and learned initial states, over ragged rows.

use super::{Operation, Output, gradient_outputs};
use crate::Result;
use crate::check::sampler::{CENTRED, Sampler as Inputs};
use crate::check::tolerance::Recurrence;
use crate::nn::{Cell, Merge, Model, RandomKey, Rnn, Sequences};

/// T, B, H: around tiles and blocks of four random numbers, and one of each.
const SHAPES: [[usize; 3]; 4] = [[6, 5, 17], [3, 16, 33], [9, 1, 5], [2, 3, 64]];
static CELLS: [Cell; 3] = [Cell::tanh(), Cell::Lstm, Cell::Gru];
const LAYERS: usize = 2;

/// An option, the factor by which it may increase the variance of an error, and the mode.
type Choice = (&'static str, fn(Rnn) -> Rnn, f64, Mode);

#[derive(Clone, Copy)]
enum Mode {
    Training,
    Evaluation,
}
use Mode::{Evaluation, Training};

/// Dropout scales values and their errors alike, and a residual connection or a merge increases values as much as errors.
/// But W_hh or h' under a mask with rate p also propagates errors in time: variance 1 / (1 − p) per step, which with the
/// attenuation by the weights stays below one, so that Σ_t gᵗ at most doubles. The same holds for zoneout with p ≤ 0.3,
/// which keeps that fraction of each error.
const CHOICES: [Choice; 13] = [
    ("dropout", |stack| stack.dropout(0.4), 1.0, Training),
    ("input dropout", |stack| stack.input_dropout(0.3), 1.0, Training),
    ("weight drop", |stack| stack.weight_drop(0.25), 2.0, Training),
    ("recurrent dropout", |stack| stack.recurrent_dropout(0.25), 2.0, Training),
    ("zoneout", keeping, 2.0, Training),
    ("zoneout in evaluation", keeping, 2.0, Evaluation),
    ("zoneout in windows", |stack| keeping(stack).clip_gradient(0.05).windowed(2), 2.0, Training),
    ("residual", Rnn::residual, 1.0, Training),
    ("learned initial state", Rnn::learned_initial_state, 1.0, Training),
    ("merge sum", |stack| stack.bidirectional().merge(Merge::Sum), 1.0, Training),
    (
        "more equations, masked",
        |stack| other_equations(stack).input_dropout(0.3).weight_drop(0.25),
        2.0,
        Training,
    ),
    (
        "more equations, in windows",
        |stack| other_equations(stack).recurrent_dropout(0.25).truncated_every(2, 3),
        2.0,
        Training,
    ),
    (
        "all together",
        |stack| {
            let masked = keeping(stack).dropout(0.4).input_dropout(0.3).weight_drop(0.25);
            masked.bidirectional().merge(Merge::Product).residual().learned_initial_state()
        },
        2.0,
        Training,
    ),
];

/// Zoneout of h and, if the cell has it, c.
fn keeping(stack: Rnn) -> Rnn {
    let cell = if *stack.cell() == Cell::Lstm { 0.2 } else { 0.0 };
    stack.zoneout(0.3, cell)
}

/// Options that change the shape or the source of W_hh.
fn other_equations(stack: Rnn) -> Rnn {
    let width = stack.hidden().div_ceil(2);
    match stack.cell() {
        Cell::Lstm => stack.peepholes().coupled().projection(width),
        Cell::Gru => stack.reset_before(),
        _ => stack,
    }
}

pub(super) fn operations() -> Vec<Operation> {
    CHOICES.into_iter().map(operation).collect()
}

fn operation((name, build, growth, mode): Choice) -> Operation {
    let all = CELLS.iter().flat_map(|cell| SHAPES.map(|shape| (cell.clone(), shape)));
    let label = |(cell, [steps, batch, hidden]): &(Cell, [usize; 3])| {
        format!("{} T {steps}, B {batch}, H {hidden}", cell.name())
    };
    let name = format!("stack, {name}");
    Operation::over(name, 1900, all, label, move |sampler, &(ref cell, [steps, batch, hidden])| {
        let stack = build(Rnn::new(cell.clone(), hidden, hidden).layers(LAYERS));
        let recurrence = Recurrence { cell: cell.clone(), steps, batch, layers: LAYERS, terms: 2 * hidden };
        run(sampler, stack, &recurrence, growth, mode)
    })
}

fn run(
    sampler: &Inputs,
    stack: Rnn,
    recurrence: &Recurrence,
    growth: f64,
    mode: Mode,
) -> Result<Vec<Output>> {
    let &Recurrence { steps, batch, .. } = recurrence;
    let hidden = stack.hidden();
    let mut model = Model::new(0);
    let layer = model.add("rnn", stack)?;
    let bound = 1.0 / (hidden as f64).sqrt();
    let parameters = sampler.parameters(&model, |_| -bound..bound)?;
    let lengths = sampler.lengths(batch, steps)?;
    let x = sampler.tensor(&[steps, batch, hidden], CENTRED)?;
    let d_y = sampler.tensor(&[steps, batch, layer.description().outputs()], CENTRED)?;
    let initial = layer.initial_or_zero_state(&parameters, batch)?;
    let sequences = Sequences::ragged(&lengths);
    let sequences = match mode {
        Training => sequences.training(RandomKey::new(3, 4)),
        Evaluation => sequences.evaluation(),
    };
    let (y, _, trace) = layer.forward_sequences(&parameters, &x, &initial, sequences)?;
    let mut gradients = parameters.zero_gradients()?;
    let (d_x, _) = trace.backward(&d_y, None, &mut gradients)?;
    let mut results = vec![
        Output::new("y", y, growth * recurrence.forward()),
        Output::new("d_x", d_x, growth * recurrence.backward()),
    ];
    results.extend(gradient_outputs(&model, &gradients, growth * recurrence.backward())?);
    Ok(results)
}
