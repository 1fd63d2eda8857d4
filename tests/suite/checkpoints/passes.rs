//! A checkpointed pass gives what a plain one gives, to the last bit, on every device and where work is cut; and its long
//! sums are those of the reference.

use refrain::nn::{Cell, Rnn};
use refrain::{Device, GpuOptions};

use super::{BATCH, BLOCK, EVERY, HIDDEN, INPUTS, Kind, STEPS, expect_same, model, passes};
use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_devices_strategies, on_gpu_strategies};
use crate::support::{by_entry, expect_close, expect_same_bits, random};

const KINDS: [Kind; 6] =
    [Kind::Random, Kind::Ragged, Kind::Chunks(BLOCK), Kind::Chunks(7), Kind::Clipped, Kind::Learned];

/// The stacks that are tried: cells in all kinds of passes, and equations with arrays of their own.
fn stacks() -> Vec<(Rnn, Kind)> {
    let two = |cell: Cell| Rnn::new(cell, INPUTS, HIDDEN).layers(2);
    let mut all = Vec::new();
    for cell in [Cell::tanh(), Cell::Lstm, Cell::Gru] {
        all.extend(KINDS.map(|kind| (kind.of(two(cell.clone())), kind)));
    }
    let ragged = [
        two(Cell::Lstm).projection(4),
        two(Cell::Lstm).projection(4).clip_gradient(0.02),
        two(Cell::Lstm).peepholes(),
        two(Cell::Lstm).peepholes().coupled().without_bias(),
        two(Cell::Gru).reset_before(),
    ];
    all.extend(ragged.map(|stack| (stack, Kind::Ragged)));
    all
}

fn checkpoints_change_no_bit(device: &Device) -> Outcome {
    let lengths = [1, EVERY, 3 * BLOCK, STEPS];
    let lengths = if device.adapter().is_some() { &lengths[..2] } else { &lengths };
    stacks().iter().try_for_each(|(stack, kind)| expect_no_change(device, stack, *kind, lengths))
}

/// Fails unless passes in segments of these lengths have the bits of whole ones.
fn expect_no_change(device: &Device, stack: &Rnn, kind: Kind, lengths: &[usize]) -> Outcome {
    let whole = passes(device, stack, kind)?;
    lengths.iter().try_for_each(|&every| {
        let cut = passes(device, &stack.clone().checkpointed(every), kind)?;
        expect_same(&format!("{kind:?}, every {every}: {stack:?}"), &whole, &cut)
    })
}

/// So small that no block of the gradients of an LSTM's gates fits a binding.
const BINDING_BYTES: u64 = 32 << 10;

fn checkpoints_change_no_bit_where_work_is_cut(adapter: &Adapter) -> Outcome {
    let options = GpuOptions { binding_bytes: Some(BINDING_BYTES), ..GpuOptions::default() };
    let device = adapter.open_with(&options)?;
    assert!((4 * BLOCK * BATCH * 4 * HIDDEN) as u64 > BINDING_BYTES, "blocks fit");
    [Cell::Lstm, Cell::Gru].into_iter().try_for_each(|cell| {
        expect_no_change(&device, &Rnn::new(cell, INPUTS, HIDDEN), Kind::Ragged, &[EVERY])
    })
}

/// Sums over many blocks of time agree with those of 64-bit floats. A sum of n terms of either sign has an error of about
/// √n ε of their size, and here n is STEPS · BATCH < 3000; a step's own error is amplified over the steps that follow, for
/// which a factor of ten is allowed.
fn long_sums_agree_with_the_reference(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let tolerance = 10.0 * ((STEPS * BATCH) as f64).sqrt() * f64::from(f32::EPSILON);
    for (stack, kind) in stacks() {
        let stack = stack.checkpointed(EVERY);
        let reference = Device::reference();
        let expected = passes(&reference, &stack, kind)?;
        let found = passes(&device, &stack, kind)?;
        for ((name, expected), (_, found)) in expected.iter().zip(&found) {
            let what = format!("{kind:?}: {stack:?}: {name}");
            expect_close(&what, expected, found, by_entry(tolerance, expected))?;
        }
    }
    Ok(())
}

fn a_clipped_gradient_is_clipped_somewhere() -> Outcome {
    let device = Device::cpu();
    let stack = Rnn::new(Cell::Lstm, INPUTS, HIDDEN).layers(2);
    let free = passes(&device, &stack, Kind::Clipped)?;
    let clipped = passes(&device, &Kind::Clipped.of(stack), Kind::Clipped)?;
    assert!(expect_same("clipped", &free, &clipped).is_err(), "the bound holds nowhere, and tests nothing");
    Ok(())
}

fn outputs_of_checkpointed_stacks_are_those_of_inference() -> Outcome {
    let device = Device::cpu();
    let (model, layer) = model(Rnn::new(Cell::Lstm, INPUTS, HIDDEN).layers(2).checkpointed(EVERY))?;
    let parameters = model.initialize(&device)?;
    let (x, zero) = (random(&device, 912, &[STEPS, BATCH, INPUTS], 1.0)?, layer.zero_state(&device, BATCH)?);
    let (y, last, _) = layer.forward(&parameters, &x, &zero)?;
    let (expected, expected_last) = layer.infer(&parameters, &x, &zero)?;
    expect_same_bits("y", &expected.download()?, &y.download()?)?;
    expect_same_bits("h", &expected_last.hidden().download()?, &last.hidden().download()?)
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_clipped_gradient_is_clipped_somewhere,
        outputs_of_checkpointed_stacks_are_those_of_inference,
    );
    on_devices_strategies!(suite, checkpoints_change_no_bit);
    on_gpu_strategies!(
        suite,
        checkpoints_change_no_bit_where_work_is_cut,
        long_sums_agree_with_the_reference,
    );
}
