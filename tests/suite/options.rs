//! What dropout and zoneout do to linear units, where it can be read off, and that they do nothing in evaluation. That gradients
//! with them are right, alone and in pairs, is the matter of `pairs` and `oracle`.

use refrain::nn::{Cell, Model, RandomKey, Rnn, Sequences};
use refrain::ops::{self, Activation, Form};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::{
    Build, all_gradients, diagonal, expect_close, expect_same_bits, linear_outputs, random,
};

const STEPS: usize = 4;
const BATCH: usize = 3;
/// As many as units, so that the first layer is residual too.
const INPUTS: usize = 3;
const HIDDEN: usize = 3;
const LENGTHS: [u32; BATCH] = [2, 4, 1];
const CELLS: [Cell; 3] = [Cell::tanh(), Cell::Lstm, Cell::Gru];

const DIRECTIONS: [(&str, Build); 3] =
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
    for (direction, directed) in DIRECTIONS {
        for (option, choose) in RANDOM {
            for cell in CELLS {
                let name = format!("{} {direction} with {option}", cell.name());
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

/// What a stack of linear cells, which give what they read, computes from ones in step `step` of training.
fn of_ones(build: impl Fn(Rnn) -> Rnn, layers: usize, step: u64) -> Result<Vec<f64>> {
    let training = Sequences::whole().training(RandomKey::new(3, step));
    let (zeros, initial) = ([0.0; HIDDEN * HIDDEN], vec![0.0; layers * BATCH * HIDDEN]);
    let build = |stack: Rnn| build(stack.layers(layers));
    linear_outputs(build, [STEPS, BATCH, HIDDEN], &zeros, 1.0, &initial, training)
}

fn dropout_between_layers_has_a_new_mask_at_each_step() -> Outcome {
    let of_ones = |step| of_ones(|stack| stack.dropout(0.5), 3, step);
    let mut seen = Vec::new();
    for step in 0..20 {
        let y = of_ones(step)?;
        // Two gaps between three layers, each drops half and doubles the rest.
        assert!(y.iter().all(|value| [0.0, 4.0].contains(value)), "{y:?}");
        assert_eq!(y, of_ones(step)?, "the same random_key, the same masks");
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
    let of_ones = |layers, step| of_ones(|stack| stack.input_dropout(0.5), layers, step);
    let (mut masks, mut differ) = (Vec::new(), false);
    for step in 0..20 {
        let y = of_ones(1, step)?;
        assert!(y.iter().all(|value| [0.0, 2.0].contains(value)), "{y:?}");
        let first = y[..BATCH * HIDDEN].to_vec();
        assert!(y.chunks(BATCH * HIDDEN).all(|later| later == first), "{y:?} is not locked");
        let deep = of_ones(2, step)?;
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
    // Rows of the batch are unit vectors: after one step they are the columns of the masked W_hh.
    let unit = diagonal(3, 1.0);
    let mut masks = Vec::new();
    for step in 0..10 {
        let training = Sequences::whole().training(RandomKey::new(3, step));
        let build = |stack: Rnn| stack.weight_drop(0.5);
        let y = linear_outputs(build, [STEPS, 3, 3], &[1.0; 9], 0.0, &unit, training)?;
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

/// Steps, rows and units of the claims about states.
const LARGE: [usize; 3] = [6, 5, HIDDEN];
const STEP: usize = LARGE[1] * HIDDEN;

/// A state of one that is only carried on: after t steps it is m^t, with one m of 0 or 2 for each unit of each row.
fn recurrent_dropout_is_locked_over_time() -> Outcome {
    let mut masks = Vec::new();
    for step in 0..20 {
        let training = Sequences::whole().training(RandomKey::new(9, step));
        let build = |stack: Rnn| stack.recurrent_dropout(0.5);
        let y = linear_outputs(build, LARGE, &diagonal(HIDDEN, 1.0), 0.0, &[1.0; STEP], training)?;
        let mask = &y[..STEP];
        assert!(mask.iter().all(|value| [0.0, 2.0].contains(value)), "{mask:?}");
        for (t, states) in y.chunks(STEP).enumerate() {
            let expected: Vec<f64> = mask.iter().map(|m| m.powi(t as i32 + 1)).collect();
            assert_eq!(states, expected, "step {t} has another mask");
        }
        assert!(!masks.contains(&mask.to_vec()), "random_key {step} repeats a mask");
        masks.push(mask.to_vec());
    }
    let kept = masks.concat().iter().filter(|value| **value > 0.0).count() as f64;
    let count = (20 * STEP) as f64;
    assert!((kept - count / 2.0).abs() < 4.0 * (count / 4.0).sqrt(), "{kept} of {count}");
    Ok(())
}

/// Cells that forget: a unit holds the 5 that it began with until it first lets go, then the 1 that comes in.
fn zoneout_keeps_each_unit_by_itself_at_each_step() -> Outcome {
    let (mut kept, mut chances) = (0.0, 0.0);
    for step in 0..20 {
        let training = Sequences::whole().training(RandomKey::new(9, step));
        let build = |stack: Rnn| stack.zoneout(0.75, 0.0);
        let y = linear_outputs(build, LARGE, &[0.0; 9], 1.0, &[5.0; STEP], training)?;
        assert!(y.iter().all(|value| [1.0, 5.0].contains(value)), "{y:?}");
        for place in 0..STEP {
            let states: Vec<f64> = y.iter().skip(place).step_by(STEP).copied().collect();
            let holds = states.iter().take_while(|state| **state == 5.0).count();
            assert!(states[holds..].iter().all(|state| *state == 1.0), "{states:?} comes back");
            kept += holds as f64;
            chances += if holds < LARGE[0] { holds as f64 + 1.0 } else { holds as f64 };
        }
    }
    let rate = kept / chances;
    assert!((rate - 0.75).abs() < 4.0 * (0.75f64 * 0.25 / chances).sqrt(), "{rate} of {chances}");
    Ok(())
}

/// In evaluation the state is the mean: after t steps 1 + 4 p^t.
fn zoneout_in_evaluation_is_its_expectation() -> Outcome {
    let (build, evaluation) = (|stack: Rnn| stack.zoneout(0.25, 0.0), Sequences::whole().evaluation());
    let y = linear_outputs(build, LARGE, &[0.0; 9], 1.0, &[5.0; STEP], evaluation)?;
    let expected: Vec<f64> =
        (0..LARGE[0] * STEP).map(|place| 1.0 + 4.0 * 0.25f64.powi((place / STEP) as i32 + 1)).collect();
    expect_close("zoneout in evaluation", &expected, &y, 1e-12)
}

/// With gates that let everything through, c grows by one a step unless it is kept, and h = c unless that is kept.
fn an_lstm_keeps_hidden_and_cell_states_apart() -> Outcome {
    let device = Device::reference();
    let one = Activation::Affine { alpha: 0.0, beta: 1.0 };
    let (mut apart, mut grown) = (0, 0);
    for step in 0..10 {
        let mut model = Model::new(1);
        let stack = Rnn::new(Cell::Lstm, HIDDEN, HIDDEN).gate_activations(one, one, Activation::Identity);
        let layer = model.add("rnn", stack.zoneout(0.5, 0.5))?;
        let parameters = model.initialize(&device)?;
        let x = Tensor::zeros(&device, &[1, LARGE[1], HIDDEN])?;
        let zero = layer.zero_state(&device, LARGE[1])?;
        let training = Sequences::whole().training(RandomKey::new(9, step));
        let (y, state) = layer.infer_sequences(&parameters, &x, &zero, training)?;
        let cells = state.cell_at(0)?.map(|cell| cell.download_f64()).transpose()?.unwrap_or_default();
        let hidden = y.download_f64()?;
        assert!(cells.iter().chain(&hidden).all(|value| [0.0, 1.0].contains(value)), "{cells:?} {hidden:?}");
        apart += cells.iter().zip(&hidden).filter(|(c, h)| c != h).count();
        grown += cells.iter().filter(|c| **c == 1.0).count();
    }
    // Half of the units let one of the two go and keep the other; half of the cell states grow.
    let spread = 4.0 * (10.0 * STEP as f64 / 4.0).sqrt();
    for (what, count) in [("apart", apart), ("grown", grown)] {
        assert!((f64::from(count as u32) - 5.0 * STEP as f64).abs() < spread, "{count} are {what}");
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
        recurrent_dropout_is_locked_over_time,
        zoneout_keeps_each_unit_by_itself_at_each_step,
        zoneout_in_evaluation_is_its_expectation,
        an_lstm_keeps_hidden_and_cell_states_apart,
    );
}
