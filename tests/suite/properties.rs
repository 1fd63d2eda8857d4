//! What holds of a recurrent layer whatever its numbers are, for every cell and its options, on every device, bit by bit: rows do
//! not know each other, time may be reversed and cut into windows. The values themselves are the matter of `oracle`; each
//! direction alone, resets and padding are those of `directions`, `packed` and `pairs`.

use refrain::nn::{Cell, Rnn, Sequences};
use refrain::ops::Activation;
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_devices_strategies};
use crate::stacks::{Operands, Pass, Stack};
use crate::support::{
    Build, Tolerance, all_gradients, by_entry, components, expect_close, expect_same_bits, largest,
};

const STEPS: usize = 4;
const BATCH: usize = 3;
const INPUTS: usize = 2;
const HIDDEN: usize = 5;
/// Any order, length 1 and the full length included.
const LENGTHS: [u32; BATCH] = [2, 4, 1];
const ORDER: [usize; BATCH] = [2, 0, 1];

/// A cell with its equations.
struct LayerKind {
    name: &'static str,
    cell: Cell,
    build: Build,
}

static KINDS: [LayerKind; 8] = [
    kind("rnn", Cell::tanh(), |stack| stack),
    kind("lstm", Cell::Lstm, |stack| stack),
    kind("gru", Cell::Gru, |stack| stack),
    kind("gru with the reset before", Cell::Gru, Rnn::reset_before),
    kind("lstm with projection", Cell::Lstm, |stack| stack.projection(3)),
    kind("coupled lstm with peepholes", Cell::Lstm, |stack| stack.coupled().peepholes()),
    kind("clipped rnn", Cell::tanh(), |stack| stack.clip_gates(0.5).clip_gradient(0.1)),
    kind("lstm with all", Cell::Lstm, all_of_an_lstm),
];

const fn kind(name: &'static str, cell: Cell, build: Build) -> LayerKind {
    LayerKind { name, cell, build }
}

fn all_of_an_lstm(stack: Rnn) -> Rnn {
    let hard = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };
    let stack =
        stack.peepholes().projection(4).gate_activations(hard, Activation::Softsign, Activation::Tanh);
    stack.clip_gates(0.5).clip_cell(0.25).clip_gradient(0.1)
}

/// Two layers of each kind, and its name.
fn stacks(device: &Device, build: Build) -> impl Iterator<Item = Result<(&'static str, Stack)>> {
    KINDS.iter().map(move |kind| {
        let stack = (kind.build)(Rnn::new(kind.cell.clone(), INPUTS, HIDDEN).layers(2));
        Ok((kind.name, Stack::new(device, build(stack))?))
    })
}

/// The rounding that two orders of the same sums may show, for numbers of the size of `values`: K terms of at most
/// T·B + H + I a sum, over T steps.
fn rounding(values: &[f64]) -> Tolerance {
    let terms = (STEPS * BATCH + HIDDEN + INPUTS) * STEPS;
    by_entry(terms as f64 * f64::from(f32::EPSILON), values)
}

/// The rows of \[T, B, F\] at these steps and rows, in this order.
fn picked(tensor: &Tensor, steps: &[usize], rows: &[usize]) -> Result<Tensor> {
    let (width, all) = (tensor.shape().last(), tensor.download_f64()?);
    let row = |step: usize, row: usize| all[(step * BATCH + row) * width..][..width].to_vec();
    let own: Vec<f64> = steps.iter().flat_map(|&at| rows.iter().flat_map(move |&of| row(at, of))).collect();
    Tensor::from_slice_f64(tensor.device(), &[steps.len(), rows.len(), width], &own)
}

fn reverse_is_forward_over_reversed_time(device: &Device) -> Outcome {
    let backwards: Vec<usize> = (0..STEPS).rev().collect();
    let turned = |tensor: &Tensor| picked(tensor, &backwards, &[0, 1, 2]);
    for (forward, reverse) in stacks(device, |stack| stack).zip(stacks(device, Rnn::reverse)) {
        let ((name, forward), (_, reverse)) = (forward?, reverse?);
        let operands = forward.operands([STEPS, BATCH])?;
        let one = forward.pass(&operands, Sequences::whole())?;
        let operands = Operands { x: turned(&operands.x)?, d_y: turned(&operands.d_y)?, ..operands };
        let two = reverse.pass(&operands, Sequences::whole())?;
        let two = Pass { y: turned(&two.y)?, d_x: turned(&two.d_x)?, ..two };
        one.expect_same_rows(name, &two)?;
        // The sums over time run in the other order.
        expect_close(name, &one.gradients, &two.gradients, rounding(&one.gradients))?;
    }
    Ok(())
}

fn permuting_the_batch_permutes_the_result(device: &Device) -> Outcome {
    let steps: Vec<usize> = (0..STEPS).collect();
    let shuffled = |tensor: &Tensor| picked(tensor, &steps, &ORDER);
    let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
    let shuffled_lengths = Indices::from_slice(device, &[BATCH], &ORDER.map(|row| LENGTHS[row]))?;
    let directions: [Build; 3] = [|stack| stack, Rnn::reverse, Rnn::bidirectional];
    for stack in directions.into_iter().flat_map(|direction| stacks(device, direction)) {
        let (name, stack) = stack?;
        let zero = stack.zero_state(BATCH)?;
        let zeros = Operands { initial: zero.clone(), d_last: zero, ..stack.operands([STEPS, BATCH])? };
        let one = stack.pass(&zeros, Sequences::ragged(&lengths))?;
        let operands = Operands { x: shuffled(&zeros.x)?, d_y: shuffled(&zeros.d_y)?, ..zeros };
        let two = stack.pass(&operands, Sequences::ragged(&shuffled_lengths))?;
        for (expected, found) in [(&one.y, &two.y), (&one.d_x, &two.d_x)] {
            expect_same_bits(name, &shuffled(expected)?.download()?, &found.download()?)?;
        }
        // The sums over rows run in another order.
        expect_close(name, &one.gradients, &two.gradients, rounding(&one.gradients))?;
    }
    Ok(())
}

/// One window after another, each from the state that the last one left, is the whole; and back again, each with the
/// gradient at the state that the next one started from, where the clip of the gradient holds at both.
fn windows_with_carried_state_are_the_whole(device: &Device) -> Outcome {
    for stack in stacks(device, |stack| stack) {
        let (name, stack) = stack?;
        let operands = stack.operands([STEPS, BATCH])?;
        let whole = stack.pass(&operands, Sequences::whole())?;
        let mut state = operands.initial.clone();
        let (mut traces, mut y) = (Vec::new(), Vec::new());
        let windows: [&[usize]; 3] = [&[0], &[1, 2], &[3]];
        for steps in windows {
            let x = picked(&operands.x, steps, &[0, 1, 2])?;
            let (output, next, trace) = stack.layer.forward(&stack.parameters, &x, &state)?;
            y.extend(output.download()?);
            traces.push((picked(&operands.d_y, steps, &[0, 1, 2])?, trace));
            state = next;
        }
        expect_same_bits(name, &whole.y.download()?, &y)?;
        expect_same_bits(name, &components(&whole.last)?.concat(), &components(&state)?.concat())?;
        let mut gradients = stack.parameters.zero_gradients()?;
        let (mut d_state, mut d_x) = (operands.d_last.clone(), Vec::new());
        for (d_y, trace) in traces.into_iter().rev() {
            let (d_own, d_before) = trace.backward(&d_y, Some(&d_state), &mut gradients)?;
            d_x.splice(0..0, d_own.download_f64()?);
            d_state = d_before;
        }
        expect_close(name, &whole.d_x.download_f64()?, &d_x, rounding(&d_x))?;
        let gradients = all_gradients(&stack.parameters, &gradients)?;
        expect_close(name, &whole.gradients, &gradients, rounding(&gradients))?;
        let d_initial = components(&d_state)?.concat();
        expect_close(name, &components(&whole.d_initial)?.concat(), &d_initial, rounding(&d_initial))?;
    }
    Ok(())
}

/// Chunks, sliding windows and overlapping ones: outputs keep their bits.
fn truncation_changes_gradients_only(device: &Device) -> Outcome {
    let truncations: [Build; 4] = [
        |stack| stack.truncated(2),
        |stack| stack.windowed(1),
        |stack| stack.truncated_every(2, 3),
        |stack| stack.windowed(0),
    ];
    for truncate in truncations {
        for (plain, truncated) in stacks(device, |stack| stack).zip(stacks(device, truncate)) {
            let ((name, plain), (_, truncated)) = (plain?, truncated?);
            let operands = plain.operands([STEPS, BATCH])?;
            let expected = plain.pass(&operands, Sequences::whole())?;
            let pass = truncated.pass(&operands, Sequences::whole())?;
            expect_same_bits(name, &expected.y.download()?, &pass.y.download()?)?;
            let differences = expected.gradients.iter().zip(&pass.gradients).map(|(a, b)| a - b);
            let difference = largest(&differences.collect::<Vec<_>>());
            assert!(difference > 1e-3, "{name}: a cut must change the gradients");
        }
    }
    Ok(())
}

/// Every n steps through n is a cut after every n steps, where n divides T; every step through k + 1 is a window of k
/// lags.
fn truncations_that_are_the_same_by_two_names_are_the_same(device: &Device) -> Outcome {
    let same: [[Build; 2]; 2] = [
        [|stack| stack.truncated(2), |stack| stack.truncated_every(2, 2)],
        [|stack| stack.windowed(2), |stack| stack.truncated_every(1, 3)],
    ];
    let lengths = Indices::from_slice(device, &[BATCH], &LENGTHS)?;
    for [one, two] in same {
        for (one, two) in stacks(device, one).zip(stacks(device, two)) {
            let ((name, one), (_, two)) = (one?, two?);
            let operands = one.operands([STEPS, BATCH])?;
            let one = one.pass(&operands, Sequences::ragged(&lengths))?.values()?;
            let two = two.pass(&operands, Sequences::ragged(&lengths))?.values()?;
            for ((what, one), (_, two)) in one.iter().zip(&two) {
                expect_close(&format!("{name}: {what}"), one, two, rounding(one))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_devices_strategies!(
        suite,
        reverse_is_forward_over_reversed_time,
        permuting_the_batch_permutes_the_result,
        windows_with_carried_state_are_the_whole,
        truncation_changes_gradients_only,
        truncations_that_are_the_same_by_two_names_are_the_same,
    );
}
