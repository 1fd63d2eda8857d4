//! Ragged batches through a whole model, in training and evaluation: gradients match finite differences and those of the
//! reference, and nothing in the padding reaches a layer.

use refrain::loss::cross_entropy;
use refrain::nn::{Cell, Linear, Model, RandomKey, Rnn, Sequences};
use refrain::{Device, IGNORED, Indices, Result, Tensor};

use super::{BATCH, LENGTHS, STEPS, lengths, tagger};
use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_devices, on_gpu};
use crate::gradients::check;
use crate::support::{all_gradients, by_entry, expect_close, tokens, values, with_values};

/// Loss and gradients of the tagger over ragged rows with these tokens in their padding.
fn loss_and_gradients(
    device: &Device,
    model: &Model,
    all: &[f64],
    sequences: Sequences<'_>,
    padding: u32,
) -> Result<(f64, Vec<f64>)> {
    let parameters = with_values(model, device, all)?;
    let (mut inputs, mut labels) = (tokens(80, STEPS * BATCH, 6), tokens(81, STEPS * BATCH, 5));
    for place in 0..STEPS * BATCH {
        if place / BATCH >= LENGTHS[place % BATCH] as usize {
            (inputs[place], labels[place]) = (padding, IGNORED);
        }
    }
    let inputs = Indices::from_slice(device, &[STEPS, BATCH], &inputs)?;
    let labels = Indices::from_slice(device, &[STEPS, BATCH], &labels)?;
    let state = model.initial_state(&parameters, BATCH)?;
    let (logits, _, trace) = model.forward_sequences(&parameters, &inputs, &state, sequences)?;
    let (loss, d_logits) = cross_entropy(&logits, &labels)?;
    let mut gradients = parameters.zero_gradients()?;
    trace.backward(&d_logits, &mut gradients)?;
    Ok((loss.download_f64()?[0], all_gradients(&parameters, &gradients)?))
}

fn modes<'a>(lengths: &'a Indices) -> [Sequences<'a>; 2] {
    let ragged = Sequences::ragged(lengths);
    [ragged.training(RandomKey::new(1, 2)), ragged.evaluation()]
}

fn a_models_gradients_over_ragged_rows_match_finite_differences() -> Outcome {
    let (device, model) = (Device::reference(), tagger()?);
    let count = model.specs().iter().map(|spec| spec.shape.elements()).sum();
    let (point, lengths) = (values(82, count, 1.0), lengths(&device)?);
    for sequences in modes(&lengths) {
        let (_, gradients) = loss_and_gradients(&device, &model, &point, sequences, 0)?;
        let other = loss_and_gradients(&device, &model, &point, sequences, 5)?;
        assert_eq!(gradients, other.1, "tokens in the padding reach a gradient");
        check("tagger", &point, &gradients, |all| {
            Ok(loss_and_gradients(&device, &model, all, sequences, 0)?.0)
        })?;
    }
    Ok(())
}

fn a_models_gradients_over_ragged_rows_agree_with_the_reference(adapter: &Adapter) -> Outcome {
    let (device, reference, model) = (adapter.open()?, Device::reference(), tagger()?);
    let count = model.specs().iter().map(|spec| spec.shape.elements()).sum();
    let point: Vec<f64> = values(82, count, 1.0).into_iter().map(|value| f64::from(value as f32)).collect();
    let (here, there) = (lengths(&device)?, lengths(&reference)?);
    for (here, there) in modes(&here).into_iter().zip(modes(&there)) {
        let (loss, found) = loss_and_gradients(&device, &model, &point, here, 1)?;
        let (expected_loss, expected) = loss_and_gradients(&reference, &model, &point, there, 1)?;
        // Some hundred roundings in numbers of order one.
        let relative = 300.0 * f64::from(f32::EPSILON);
        expect_close("loss", &[expected_loss], &[loss], by_entry(relative, &[expected_loss]))?;
        expect_close("gradients", &expected, &found, by_entry(relative, &expected))?;
    }
    Ok(())
}

fn padding_reaches_no_layer_of_a_model(device: &Device) -> Outcome {
    let mut model = Model::new(3);
    model.add("first", Linear::new(3, 4))?;
    model.add("rnn", Rnn::new(Cell::Gru, 4, 3).bidirectional())?;
    model.add("head", Linear::new(6, 2))?;
    let parameters = model.initialize(device)?;
    let (lengths, zero) = (lengths(device)?, model.zero_state(device, BATCH)?);
    let mut results = Vec::new();
    for garbage in [0.0, f64::NAN] {
        let spoilt = |stream: u64, width: usize| -> Result<Tensor> {
            let mut all = values(stream, STEPS * BATCH * width, 1.0);
            for (place, value) in all.iter_mut().enumerate() {
                if place / width / BATCH >= LENGTHS[place / width % BATCH] as usize {
                    *value = garbage;
                }
            }
            Tensor::from_slice_f64(device, &[STEPS, BATCH, width], &all)
        };
        let ragged = Sequences::ragged(&lengths);
        let (y, _, trace) = model.forward_sequences(&parameters, &spoilt(83, 3)?, &zero, ragged)?;
        let (silent, _) = model.infer_sequences(&parameters, &spoilt(83, 3)?, &zero, ragged)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&spoilt(84, 2)?, &mut gradients)?;
        let y = y.download()?;
        assert_eq!(y, silent.download()?);
        for (place, value) in y.iter().enumerate() {
            let padding = place / 2 / BATCH >= LENGTHS[place / 2 % BATCH] as usize;
            assert_eq!(padding, *value == 0.0, "{place}: {value}");
        }
        results.push((y, all_gradients(&parameters, &gradients)?));
    }
    assert_eq!(results[0], results[1]);
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(suite, a_models_gradients_over_ragged_rows_match_finite_differences);
    on_devices!(suite, padding_reaches_no_layer_of_a_model);
    on_gpu!(suite, a_models_gradients_over_ragged_rows_agree_with_the_reference);
}
