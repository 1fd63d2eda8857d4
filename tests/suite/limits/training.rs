//! Recurrent layers, optimizers and whole steps of training under low limits.

use refrain::nn::{Cell, Linear, Model, Rnn, Sequences};
use refrain::{Device, GpuOptions, Indices, Result};

use super::{Order, case, compare_all, expect_agreement, low_limits, on_both};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu, on_gpu_strategies};
use crate::stacks::Stack;
use crate::support::{Optimizer, Rule, Setup, all_parameters, expect_same_bits, random};

/// The results of a pass over a ragged batch with resets: those that keep their bits when time is cut, and the gradients of
/// the weights, which are sums over time.
fn results(device: &Device, stack: &Rnn, [batch, steps]: [usize; 2]) -> Result<[Vec<f32>; 2]> {
    let stack = Stack::new(device, stack.clone())?;
    let lengths: Vec<u32> = (0..batch).map(|row| 1 + (row * 7 % steps) as u32).collect();
    let lengths = Indices::from_slice(device, &[batch], &lengths)?;
    let resets: Vec<u32> = (0..steps * batch).map(|place| u32::from(place % 11 == 5)).collect();
    let resets = Indices::from_slice(device, &[steps, batch], &resets)?;
    let sequences = Sequences::ragged(&lengths).resets(&resets);
    let values = stack.pass(&stack.operands([steps, batch])?, sequences)?.values()?;
    let [kept @ .., summed] =
        values.map(|(_, values)| values.into_iter().map(|value| value as f32).collect());
    Ok([kept.concat(), summed])
}

fn recurrent_steps_are_cut_by_time_rows_and_units(adapter: &Adapter) -> Outcome {
    let tanh = |hidden| Rnn::new(Cell::tanh(), 3, hidden);
    let lstm = |hidden| Rnn::new(Cell::Lstm, 3, hidden);
    let gru = |hidden| Rnn::new(Cell::Gru, 3, hidden);
    let (long, tall) = ([6, 40], [40, 4]);
    let cases = [
        ("many steps", tanh(10).bidirectional(), long),
        ("many steps of an LSTM", lstm(6).bidirectional(), long),
        // More than two workgroups of 16 rows.
        ("many rows", tanh(5).bidirectional(), tall),
        // As many as two steps of gates leave room for.
        ("many rows of a GRU", gru(4).bidirectional(), tall),
        ("a GRU that resets before", gru(6).reset_before().bidirectional(), long),
        ("peepholes", lstm(6).peepholes().coupled().bidirectional(), long),
        ("a projection", lstm(6).projection(4).bidirectional(), long),
        // More windows than go together.
        ("windows", tanh(10).windowed(3), long),
        ("windows of an LSTM", lstm(6).windowed(1).peepholes(), long),
        ("windows of a GRU", gru(6).windowed(30), long),
        ("windows of a projection", lstm(6).windowed(4).projection(4), long),
        ("overlapping windows", gru(6).truncated_every(3, 7).reset_before(), long),
        ("many rows of windows", lstm(3).windowed(1), tall),
    ];
    let (whole, cut) = (adapter.open()?, low_limits(adapter)?);
    for (name, stack, sizes) in cases {
        let [expected, found] = on_both(name, [&whole, &cut], |device| results(device, &stack, sizes))?;
        expect_agreement(name, Order::Kept, &expected[0], &found[0])?;
        let order = Order::Changed { terms: sizes[0] * sizes[1] };
        expect_agreement(&format!("{name}, weights"), order, &expected[1], &found[1])?;
    }
    // More than one workgroup of 16 units: a lower ceiling of workgroups, and bindings as they are.
    let narrow = adapter.open_with(&GpuOptions { workgroups: Some(1), ..GpuOptions::default() })?;
    for stack in [
        tanh(40).bidirectional(),
        lstm(40).bidirectional(),
        gru(40).bidirectional(),
        gru(40).reset_before().bidirectional(),
        lstm(40).peepholes().projection(35).bidirectional(),
        gru(40).reset_before().windowed(2),
        lstm(40).peepholes().projection(35).windowed(2),
    ] {
        let name = format!("many units, {stack:?}");
        let [expected, found] = on_both(&name, [&whole, &narrow], |device| results(device, &stack, [7, 5]))?;
        expect_same_bits(&name, &expected[0], &found[0])?;
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
