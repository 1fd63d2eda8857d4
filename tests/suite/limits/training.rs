//! Recurrent layers, optimizers and whole steps of training under low limits.

use refrain::nn::{Cell, Linear, Model, Rnn, Sequences};
use refrain::{Device, GpuOptions, Indices, Result};

use super::{Order, case, compare, compare_all, expect_agreement, low_limits, on_both};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu, on_gpu_strategies};
use crate::stacks::Stack;
use crate::support::{Build, Optimizer, Rule, Setup, all_parameters, random};

/// A recurrent layer and the batch that it runs over.
#[derive(Clone, Copy)]
struct Recurrent {
    cell: &'static Cell,
    /// What it has beside.
    build: Build,
    hidden: usize,
    batch: usize,
    steps: usize,
}

impl Recurrent {
    fn new(cell: &'static Cell, hidden: usize, [batch, steps]: [usize; 2], build: Build) -> Self {
        Self { cell, build, hidden, batch, steps }
    }

    /// What keeps its bits when time is cut, and the gradients of the weights, which are sums over time. The batch is
    /// ragged and has resets.
    fn run(&self, device: &Device) -> Result<(Vec<f32>, Vec<f32>)> {
        let Self { cell, build, hidden, batch, steps } = *self;
        let stack = Stack::new(device, build(Rnn::new(cell.clone(), 3, hidden)))?;
        let lengths: Vec<u32> = (0..batch).map(|row| 1 + (row * 7 % steps) as u32).collect();
        let lengths = Indices::from_slice(device, &[batch], &lengths)?;
        let resets: Vec<u32> = (0..steps * batch).map(|place| u32::from(place % 11 == 5)).collect();
        let resets = Indices::from_slice(device, &[steps, batch], &resets)?;
        let sequences = Sequences::ragged(&lengths).resets(&resets);
        let values = stack.pass(&stack.operands([steps, batch])?, sequences)?.values()?;
        let [kept @ .., summed] =
            values.map(|(_, values)| values.into_iter().map(|value| value as f32).collect());
        Ok((kept.concat(), summed))
    }
}

fn recurrent_steps_are_cut_by_time_rows_and_units(adapter: &Adapter) -> Outcome {
    let both = Rnn::bidirectional;
    let (tanh, lstm, gru) = (const { &Cell::tanh() }, &Cell::Lstm, &Cell::Gru);
    let sizes = [
        ("many steps", Recurrent::new(tanh, 10, [6, 40], both)),
        ("many steps of an LSTM", Recurrent::new(lstm, 6, [6, 40], both)),
        // More than two workgroups of 16 rows.
        ("many rows", Recurrent::new(tanh, 5, [40, 4], both)),
        // As many as two steps of gates leave room for.
        ("many rows of a GRU", Recurrent::new(gru, 4, [40, 4], both)),
        (
            "a GRU that resets before",
            Recurrent::new(gru, 6, [6, 40], |stack| stack.reset_before().bidirectional()),
        ),
        ("peepholes", Recurrent::new(lstm, 6, [6, 40], |stack| stack.peepholes().coupled().bidirectional())),
        ("a projection", Recurrent::new(lstm, 6, [6, 40], |stack| stack.projection(4).bidirectional())),
        // More windows than go together.
        ("windows", Recurrent::new(tanh, 10, [6, 40], |stack| stack.windowed(3))),
        ("windows of an LSTM", Recurrent::new(lstm, 6, [6, 40], |stack| stack.windowed(1).peepholes())),
        ("windows of a GRU", Recurrent::new(gru, 6, [6, 40], |stack| stack.windowed(30))),
        (
            "windows of a projection",
            Recurrent::new(lstm, 6, [6, 40], |stack| stack.windowed(4).projection(4)),
        ),
        (
            "overlapping windows",
            Recurrent::new(gru, 6, [6, 40], |stack| stack.truncated_every(3, 7).reset_before()),
        ),
        ("many rows of windows", Recurrent::new(lstm, 3, [40, 4], |stack| stack.windowed(1))),
    ];
    let (whole, cut) = (adapter.open()?, low_limits(adapter)?);
    for (name, layer) in sizes {
        let [expected, found] = on_both(name, [&whole, &cut], |device| layer.run(device))?;
        expect_agreement(name, Order::Kept, &expected.0, &found.0)?;
        let terms = layer.batch * layer.steps;
        expect_agreement(&format!("{name}, weights"), Order::Changed { terms }, &expected.1, &found.1)?;
    }
    // More than one workgroup of 16 units: a lower ceiling of workgroups, and bindings as they are.
    let narrow = adapter.open_with(&GpuOptions { workgroups: Some(1), ..GpuOptions::default() })?;
    let builds: [(&'static Cell, Build); 7] = [
        (tanh, both),
        (lstm, both),
        (gru, both),
        (gru, |stack| stack.reset_before().bidirectional()),
        (lstm, |stack| stack.peepholes().projection(35).bidirectional()),
        (gru, |stack| stack.reset_before().windowed(2)),
        (lstm, |stack| stack.peepholes().projection(35).windowed(2)),
    ];
    for (number, (cell, build)) in builds.into_iter().enumerate() {
        let layer = Recurrent::new(cell, 40, [7, 5], build);
        let name = format!("many units, {}, number {number}", cell.name());
        let units = case(name, Order::Kept, move |device| Ok(layer.run(device)?.0));
        compare(&units, &whole, &narrow)?;
    }
    Ok(())
}

fn optimizers_are_cut_without_a_trace(adapter: &Adapter) -> Outcome {
    let update = |rule: Rule| {
        case(format!("{rule:?}"), Order::Kept, move |device| {
            let mut model = Model::new(5);
            let layer = model.add("linear", Linear::new(40, 30))?;
            let mut parameters = model.initialize(device)?;
            let mut optimizer = Optimizer::new(rule, 0.1, &parameters)?;
            for step in 0..3 {
                let mut gradients = parameters.zero_gradients()?;
                let (_, trace) = layer.forward(&parameters, &random(device, 30 + step, &[8, 40], 1.0)?)?;
                trace.backward(&random(device, 40 + step, &[8, 30], 1.0)?, &mut gradients)?;
                optimizer.step(&mut parameters, &gradients)?;
            }
            all_parameters(&parameters)
        })
    };
    compare_all(
        adapter,
        vec![update(Rule::Adam), update(Rule::Sgd { momentum: 0.9 }), update(Rule::Sgd { momentum: 0.0 })],
    )
}

fn training_steps_are_cut(adapter: &Adapter) -> Outcome {
    let setup =
        Setup { hidden: 24, batch: 6, vocabulary: 40, rule: Rule::Sgd { momentum: 0.9 }, ..Setup::SMALL };
    // Clipping bounds a step's gradient by one, so an error grows by no more than the sums' own.
    let terms = setup.batch * setup.sequence * setup.hidden;
    let run = case("three steps", Order::Changed { terms }, move |device| {
        let run = setup.train(device, 3)?;
        Ok([run.losses, run.parameters].concat())
    });
    compare_all(adapter, vec![run])
}

pub(super) fn register(suite: &mut Suite) {
    on_gpu!(suite, optimizers_are_cut_without_a_trace, training_steps_are_cut);
    on_gpu_strategies!(suite, recurrent_steps_are_cut_by_time_rows_and_units);
}
