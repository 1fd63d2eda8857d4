//! What the options of a stack do, and what they leave alone: masks, merges, residual connections. That gradients with
//! them are right, alone and in pairs, is the matter of `pairs`.
//!
//! Long, because each option is taken apart in its own way.

use refrain::nn::{Cell, Layer, Merge, Model, Parameters, RandomKey, Rnn, Sequences, State};
use refrain::ops::{self, Activation, Binary, Form};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu_strategies};
use crate::support::{all_gradients, expect_same_bits, random};

const STEPS: usize = 4;
const BATCH: usize = 3;
/// As many as units, so that the first layer is residual too.
const INPUTS: usize = 3;
const HIDDEN: usize = 3;
const LENGTHS: [u32; BATCH] = [2, 4, 1];
const CELLS: [Cell; 3] = [Cell::tanh(), Cell::Lstm, Cell::Gru];

/// A change of a description.
type Build = fn(Rnn) -> Rnn;

const WAYS: [(&str, Build); 3] =
    [("forward", |stack| stack), ("reverse", Rnn::reverse), ("bidirectional", Rnn::bidirectional)];

/// Options that use random numbers in training and do nothing in evaluation.
const RANDOM: [(&str, Build); 4] = [
    ("dropout", |stack| stack.dropout(0.4)),
    ("input dropout", |stack| stack.input_dropout(0.3)),
    ("weight drop", |stack| stack.weight_drop(0.5)),
    ("recurrent dropout", |stack| stack.recurrent_dropout(0.5)),
];

fn evaluation_equals_the_stack_without_the_option() -> Outcome {
    let device = Device::cpu();
    let lengths = Indices::from_slice(&device, &[BATCH], &LENGTHS)?;
    let ragged = Sequences::ragged(&lengths);
    for (way, directed) in WAYS {
        for (option, choose) in RANDOM {
            for cell in CELLS {
                let name = format!("{} {way} with {option}", cell.name());
                let plain = directed(Rnn::new(cell, INPUTS, HIDDEN).layers(2));
                let mut model = Model::new(5);
                let without = model.add("rnn", plain.clone())?;
                let parameters = model.initialize(&device)?;
                let x = random(&device, 70, &[STEPS, BATCH, INPUTS], 1.0)?;
                let zero = without.zero_state(&device, BATCH)?;
                let (expected, _, trace) = without.forward_sequences(&parameters, &x, &zero, ragged)?;
                let mut gradients = parameters.zero_gradients()?;
                trace.backward(&expected, None, &mut gradients)?;
                let of_plain = all_gradients(&parameters, &gradients)?;

                let mut model = Model::new(5);
                let with = model.add("rnn", choose(plain))?;
                let parameters = model.initialize(&device)?;
                let (silent, _) = with.infer_sequences(&parameters, &x, &zero, ragged)?;
                expect_same_bits(&name, &expected.download()?, &silent.download()?)?;
                let (y, _, trace) = with.forward_sequences(&parameters, &x, &zero, ragged.evaluation())?;
                expect_same_bits(&name, &expected.download()?, &y.download()?)?;
                let mut gradients = parameters.zero_gradients()?;
                trace.backward(&expected, None, &mut gradients)?;
                assert_eq!(of_plain, all_gradients(&parameters, &gradients)?, "{name}");

                let training = ragged.training(RandomKey::new(17, 5));
                let (y, _) = with.infer_sequences(&parameters, &x, &zero, training)?;
                assert_ne!(expected.download()?, y.download()?, "{name}: training drops nothing");
            }
        }
    }
    Ok(())
}

/// A stack of linear cells, their weights set so that a layer gives what it reads: W_ih = 1, W_hh = `recurrent`.
fn linear(stack: impl Fn(Rnn) -> Rnn, layers: usize, recurrent: f64) -> Result<(Layer<Rnn>, Parameters)> {
    let mut model = Model::new(1);
    let base = Rnn::new(Cell::Vanilla(Activation::Identity), INPUTS, HIDDEN).layers(layers).without_bias();
    let layer = model.add("rnn", stack(base))?;
    let mut parameters = model.initialize(&Device::reference())?;
    let unit: Vec<f64> = (0..9).map(|place| if place % (HIDDEN + 1) == 0 { 1.0 } else { 0.0 }).collect();
    for number in 0..layers {
        let (input, state) = (format!("rnn.weight_ih_l{number}"), format!("rnn.weight_hh_l{number}"));
        parameters.set_all([
            (input.as_str(), &[3, 3][..], &unit[..]),
            (state.as_str(), &[3, 3][..], &[recurrent; 9][..]),
        ])?;
    }
    Ok((layer, parameters))
}

/// What a stack of [`linear`] cells makes of ones \[T, B, I\] in step `step` of training.
fn of_ones(layer: &Layer<Rnn>, parameters: &Parameters, step: u64) -> Result<Vec<f64>> {
    let device = Device::reference();
    let x = Tensor::from_slice_f64(&device, &[STEPS, BATCH, INPUTS], &[1.0; STEPS * BATCH * INPUTS])?;
    let training = Sequences::whole().training(RandomKey::new(3, step));
    let (y, _) = layer.infer_sequences(parameters, &x, &layer.zero_state(&device, BATCH)?, training)?;
    y.download_f64()
}

fn dropout_between_layers_has_a_new_mask_at_each_step() -> Outcome {
    let (layer, parameters) = linear(|stack| stack.dropout(0.5), 3, 0.0)?;
    let mut seen = Vec::new();
    for step in 0..20 {
        let y = of_ones(&layer, &parameters, step)?;
        // Two gaps between three layers, each drops half and doubles the rest.
        assert!(y.iter().all(|value| [0.0, 4.0].contains(value)), "{y:?}");
        assert_eq!(y, of_ones(&layer, &parameters, step)?, "the same random_key, the same masks");
        assert!(!seen.contains(&y), "step {step} repeats a mask");
        let first_step = &y[..BATCH * HIDDEN];
        seen.push(y.clone());
        if step == 0 {
            assert!(y.chunks(BATCH * HIDDEN).any(|later| later != first_step), "locked over time");
        }
    }
    let all = seen.concat();
    let kept = all.iter().filter(|value| **value > 0.0).count() as f64;
    let (count, rate) = (all.len() as f64, 0.25f64);
    assert!((kept - count * rate).abs() < 4.0 * (count * rate * (1.0 - rate)).sqrt(), "{kept} of {count}");
    Ok(())
}

fn input_dropout_is_locked_over_time_and_different_in_each_layer() -> Outcome {
    let (layer, parameters) = linear(|stack| stack.input_dropout(0.5), 1, 0.0)?;
    let (deeper, deep_parameters) = linear(|stack| stack.input_dropout(0.5), 2, 0.0)?;
    let (mut masks, mut differ) = (Vec::new(), false);
    for step in 0..20 {
        let y = of_ones(&layer, &parameters, step)?;
        assert!(y.iter().all(|value| [0.0, 2.0].contains(value)), "{y:?}");
        let first = y[..BATCH * HIDDEN].to_vec();
        assert!(y.chunks(BATCH * HIDDEN).all(|later| later == first), "{y:?} is not locked");
        let deep = of_ones(&deeper, &deep_parameters, step)?;
        // The first layer's mask is the same; the second's is another.
        assert!(y.iter().zip(&deep).all(|(one, two)| *one > 0.0 || *two == 0.0));
        differ |= y.iter().zip(&deep).any(|(one, two)| *one > 0.0 && *two == 0.0);
        masks.push(first);
    }
    assert!(differ, "both layers drop the same");
    masks.dedup();
    assert!(masks.len() > 15, "masks repeat from step to step");
    Ok(())
}

fn weight_drop_masks_w_hh_for_the_whole_window() -> Outcome {
    let device = Device::reference();
    let (layer, parameters) = linear(|stack| stack.weight_drop(0.5), 1, 1.0)?;
    // Rows of the batch are unit vectors: after one step they are the columns of the masked W_hh.
    let unit: Vec<f64> = (0..9).map(|place| if place % 4 == 0 { 1.0 } else { 0.0 }).collect();
    let state = State::from_hidden(&Tensor::from_slice_f64(&device, &[1, 3, 3], &unit)?)?;
    let x = Tensor::zeros(&device, &[STEPS, 3, 3])?;
    let mut masks = Vec::new();
    for step in 0..10 {
        let training = Sequences::whole().training(RandomKey::new(3, step));
        let (y, _) = layer.infer_sequences(&parameters, &x, &state, training)?;
        let y = y.download_f64()?;
        let columns = &y[..9];
        assert!(columns.iter().all(|value| [0.0, 2.0].contains(value)), "{columns:?}");
        let masked = Tensor::from_slice_f64(&device, &[3, 3], columns)?;
        let mut power = masked.clone();
        for later in y[9..].chunks(9) {
            power = ops::matmul(&power, &masked, Form::Plain, None)?;
            assert_eq!(power.download_f64()?, later, "another mask at a later step");
        }
        masks.push(columns.to_vec());
    }
    masks.dedup();
    assert!(masks.len() > 5, "masks repeat from step to step");
    Ok(())
}

/// The parameters of `source` under the names that `rename` gives for those of `model`.
fn copied(model: &Model, source: &Parameters, rename: impl Fn(&str) -> String) -> Result<Parameters> {
    let mut parameters = model.initialize(source.device())?;
    for spec in model.specs() {
        let view = source.view(&rename(&spec.name))?;
        parameters.set(&spec.name, view.shape().dimensions(), &view.download()?)?;
    }
    Ok(parameters)
}

fn merges_and_residual_connections_equal_layers_called_by_hand() -> Outcome {
    let device = Device::cpu();
    for merge in Merge::ALL {
        for cell in CELLS {
            let mut model = Model::new(9);
            let stack =
                Rnn::new(cell.clone(), INPUTS, HIDDEN).layers(2).bidirectional().merge(merge).residual();
            let width = stack.outputs();
            assert_eq!(width, if merge == Merge::Concat { 2 * HIDDEN } else { HIDDEN });
            let whole = model.add("rnn", stack)?;
            let parameters = model.initialize(&device)?;
            let x = random(&device, 71, &[STEPS, BATCH, INPUTS], 1.0)?;
            let (y, _) = whole.infer(&parameters, &x, &whole.zero_state(&device, BATCH)?)?;

            let mut by_hand = x;
            for number in 0..2 {
                let inputs = by_hand.shape().last();
                let mut model = Model::new(0);
                let layer = model.add("rnn", Rnn::new(cell.clone(), inputs, HIDDEN).bidirectional())?;
                let from = |name: &str| name.replace("_l0", &format!("_l{number}"));
                let own = copied(&model, &parameters, from)?;
                let zero = layer.zero_state(&device, BATCH)?;
                let merged = ops::merge(&layer.infer(&own, &by_hand, &zero)?.0, merge)?;
                // With both directions side by side the first layer is wider than its input.
                by_hand = if inputs == width { ops::binary(&merged, &by_hand, Binary::Add)? } else { merged };
            }
            expect_same_bits(&format!("{merge:?} {cell:?}"), &y.download()?, &by_hand.download()?)?;
        }
    }
    Ok(())
}

/// With weights and inputs of one and a relu every result is a sum of positive terms: it rounds relative to itself, and
/// a mask that differs in one place changes a result beside it by one part in a few hundred.
fn masks_agree_between_devices(adapter: &Adapter) -> Outcome {
    let gpu = adapter.open()?;
    for (option, choose) in RANDOM {
        let mut results: Vec<Vec<f32>> = Vec::new();
        for device in [&gpu, &Device::cpu()] {
            let mut model = Model::new(1);
            let base = Rnn::new(Cell::relu(), 8, 8).layers(2).bidirectional();
            let layer = model.add("rnn", choose(base).without_bias())?;
            let mut parameters = model.initialize(device)?;
            for spec in model.specs() {
                parameters.set(&spec.name, spec.shape.dimensions(), &vec![1.0; spec.shape.elements()])?;
            }
            let x = Tensor::from_slice(device, &[3, 5, 8], &[1.0; 120])?;
            let zero = layer.zero_state(device, 5)?;
            let training = Sequences::whole().training(RandomKey::new(1 << 40, 9));
            let (y, _) = layer.infer_sequences(&parameters, &x, &zero, training)?;
            results.push(y.download()?);
        }
        for (found, expected) in results[0].iter().zip(&results[1]) {
            assert!((found - expected).abs() <= 1e-5 * expected, "{option}: {found} and {expected}");
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        evaluation_equals_the_stack_without_the_option,
        dropout_between_layers_has_a_new_mask_at_each_step,
        input_dropout_is_locked_over_time_and_different_in_each_layer,
        weight_drop_masks_w_hh_for_the_whole_window,
        merges_and_residual_connections_equal_layers_called_by_hand,
    );
    on_gpu_strategies!(suite, masks_agree_between_devices);
}
