//! The strategies per_step and sequence of recurrent layers on a GPU. Other modules run their tests with
//! both; this one tests the differences.

use refrain::nn::{Cell, Model, Rnn, Sequences, State};
use refrain::tuning::RecurrentStrategy;
use refrain::{Device, GpuOptions, Indices, Result};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::stacks::{Pass, Stack};
use crate::support::{expect_same_bits, random};

const INPUTS: usize = 3;
const CELLS: [&Cell; 3] = [&Cell::tanh(), &Cell::Gru, &Cell::Lstm];

fn open(adapter: &Adapter, recurrent: RecurrentStrategy) -> Result<Device> {
    adapter.open_with(&GpuOptions { recurrent, ..GpuOptions::default() })
}

/// The results of a pass over a batch, ragged if there are `lengths`, and the dispatches of its two halves.
fn run(
    device: &Device,
    stack: &Rnn,
    [steps, batch]: [usize; 2],
    lengths: Option<&[u32]>,
) -> Result<(Pass, [u64; 2])> {
    let stack = Stack::new(device, stack.clone())?;
    let operands = stack.operands([steps, batch])?;
    let lengths = lengths.map(|lengths| Indices::from_slice(device, &[batch], lengths)).transpose()?;
    let sequences = lengths.as_ref().map_or_else(Sequences::whole, Sequences::ragged);
    stack.counted_pass(&operands, sequences)
}

/// Dispatches of a pass besides those of its steps: products, sums, boundary states.
const AROUND: u64 = 24;

fn many_steps_cost_a_handful_of_dispatches(adapter: &Adapter) -> Outcome {
    let (many, single) =
        (open(adapter, RecurrentStrategy::Sequence)?, open(adapter, RecurrentStrategy::PerStep)?);
    for cell in CELLS {
        let counts = |device: &Device, steps: usize| -> Result<[u64; 2]> {
            Ok(run(device, &Rnn::new(cell.clone(), INPUTS, 20), [steps, 5], None)?.1)
        };
        let name = cell.name();
        for steps in [1, 50, 100] {
            let (found, by_steps) = (counts(&many, steps)?, counts(&single, steps)?);
            for (found, by_steps) in found.into_iter().zip(by_steps) {
                assert!(found <= AROUND, "{name}: {found} dispatches for {steps} steps");
                assert!(by_steps >= steps as u64, "{name}: {by_steps} dispatches for {steps} steps");
            }
        }
        assert_eq!(counts(&many, 50)?, counts(&many, 100)?, "{name}: dispatches of 50 and of 100 steps");
    }
    Ok(())
}

/// More steps than fit one dispatch.
const LONG: usize = 1500;

/// A sequence of several dispatches has the bits of its parts, computed in dispatches of their own.
fn a_long_sequence_is_the_same_in_several_dispatches(adapter: &Adapter) -> Outcome {
    let device = open(adapter, RecurrentStrategy::Sequence)?;
    for cell in CELLS {
        let mut model = Model::new(4);
        let rnn = model.add("rnn", Rnn::new(cell.clone(), 2, 33))?;
        let parameters = model.initialize(&device)?;
        let x = random(&device, 33, &[LONG, 2, 2], 1.0)?;
        let before = device.counters().dispatches;
        let (y, last) = rnn.infer(&parameters, &x, &rnn.zero_state(&device, 2)?)?;
        let whole = device.counters().dispatches - before;
        let mut state: State = rnn.zero_state(&device, 2)?;
        let (mut parts, mut fewest) = (Vec::new(), u64::MAX);
        for place in 0..30 {
            let part: Vec<f32> = x.download()?[place * LONG / 30 * 4..(place + 1) * LONG / 30 * 4].to_vec();
            let part = refrain::Tensor::from_slice(&device, &[LONG / 30, 2, 2], &part)?;
            let before = device.counters().dispatches;
            let (y, next) = rnn.infer(&parameters, &part, &state)?;
            fewest = fewest.min(device.counters().dispatches - before);
            parts.extend(y.download()?);
            state = next;
        }
        let name = cell.name();
        assert!(
            whole > fewest && whole < fewest + LONG as u64 / 10,
            "{name}: {whole} and {fewest} dispatches"
        );
        expect_same_bits(name, &y.download()?, &parts)?;
        expect_same_bits(name, &last.hidden().download()?, &state.hidden().download()?)?;
    }
    Ok(())
}

/// Layers with more than one dispatch per step run the same without the choice.
fn layers_with_several_dispatches_per_step_run_per_step(adapter: &Adapter) -> Outcome {
    let (many, single) =
        (open(adapter, RecurrentStrategy::Sequence)?, open(adapter, RecurrentStrategy::PerStep)?);
    let stacks = [
        Rnn::new(Cell::Lstm, INPUTS, 9).projection(4),
        Rnn::new(Cell::Gru, INPUTS, 9).reset_before(),
        Rnn::new(Cell::Lstm, INPUTS, 9).layer_norm(),
        // 820 units of an LSTM with five numbers each are more than a workgroup holds.
        Rnn::new(Cell::Lstm, INPUTS, 820),
    ];
    for stack in stacks {
        let [one, two] = [&many, &single].map(|device| run(device, &stack, [4, 3], Some(&[4, 1, 3])));
        let ((one, dispatches), (two, by_steps)) = (one?, two?);
        let name = format!("{stack:?}");
        assert_eq!(dispatches, by_steps, "{name}");
        one.expect_same_rows(&name, &two)?;
        expect_same_bits(&name, &one.gradients, &two.gradients)?;
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(
        suite,
        many_steps_cost_a_handful_of_dispatches,
        a_long_sequence_is_the_same_in_several_dispatches,
        layers_with_several_dispatches_per_step_run_per_step,
    );
}
