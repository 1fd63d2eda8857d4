//! The time loop of recurrent layers on several threads.

use refrain::nn::{Cell, Model, RandomKey, Rnn, Sequences};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};

const INPUTS: usize = 2;
/// Steps and rows of a batch whose rows threads share out, and how many of the steps are so few that they do not.
const LONG: usize = 40;
const MANY: usize = 24;
const FEW: usize = 2;

/// Outputs of the first few steps and gradients at their inputs, from a pass over `steps` steps.
fn first_steps(stack: Rnn, steps: usize, is_ragged: bool) -> Result<Vec<f32>> {
    let device = Device::cpu();
    let mut model = Model::new(5);
    let layer = model.add("rnn", stack)?;
    let parameters = model.initialize(&device)?;
    let width = layer.description().outputs();
    let numbers = |count: usize| (0..count).map(|place| (place as f32 * 0.37).sin()).collect::<Vec<_>>();
    let x = Tensor::from_slice(&device, &[steps, MANY, INPUTS], &numbers(steps * MANY * INPUTS))?;
    let mut d_y = numbers(FEW * MANY * width);
    d_y.resize(steps * MANY * width, 0.0);
    let d_y = Tensor::from_slice(&device, &[steps, MANY, width], &d_y)?;
    let lengths: Vec<u32> = (0..MANY).map(|row| (1 + row * 7 % LONG).min(steps) as u32).collect();
    let resets: Vec<u32> = (0..steps * MANY).map(|place| u32::from(place % 5 == 3)).collect();
    let lengths = Indices::from_slice(&device, &[MANY], &lengths)?;
    let resets = Indices::from_slice(&device, &[steps, MANY], &resets)?;
    let sequences = if is_ragged { Sequences::ragged(&lengths).resets(&resets) } else { Sequences::whole() };
    let state = layer.zero_state(&device, MANY)?;
    let sequences = sequences.training(RandomKey::new(5, 1));
    let (y, _, trace) = layer.forward_sequences(&parameters, &x, &state, sequences)?;
    let mut gradients = parameters.zero_gradients()?;
    let (d_x, _) = trace.backward(&d_y, None, &mut gradients)?;
    let (y, d_x) = (y.download()?, d_x.download()?);
    Ok([&y[..FEW * MANY * width], &d_x[..FEW * MANY * INPUTS]].concat())
}

/// A pass over many steps is shared out among threads, one over few steps is not: what they have in common is the same to
/// the bit. The gradient ends before the steps that only the long one has.
fn threads_change_no_bit_of_a_time_loop() -> Outcome {
    let stacks = [
        Rnn::new(Cell::tanh(), INPUTS, 128),
        Rnn::new(Cell::Lstm, INPUTS, 64),
        Rnn::new(Cell::Lstm, INPUTS, 64).peepholes().projection(40),
        Rnn::new(Cell::Lstm, INPUTS, 64).zoneout(0.2, 0.3).recurrent_dropout(0.3),
        Rnn::new(Cell::Lstm, INPUTS, 64).layer_norm(),
        Rnn::new(Cell::Gru, INPUTS, 80),
        Rnn::new(Cell::Gru, INPUTS, 80).reset_before().recurrent_dropout(0.3),
    ];
    for stack in stacks {
        for is_ragged in [false, true] {
            let (long, few) =
                (first_steps(stack.clone(), LONG, is_ragged)?, first_steps(stack.clone(), FEW, is_ragged)?);
            assert!(few.iter().any(|&value| value != 0.0));
            assert_eq!(long, few, "{stack:?}, ragged {is_ragged}");
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, threads_change_no_bit_of_a_time_loop);
}
