//! What zoneout and dropout on the recurrent connection do to a state, unit by unit. Their gradients are in `pairs`.

use refrain::nn::{Cell, Model, RandomKey, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::{Device, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::expect_close;

const STEPS: usize = 6;
const BATCH: usize = 5;
const HIDDEN: usize = 3;
const STEP: usize = BATCH * HIDDEN;

/// The outputs of linear cells h = x + recurrent · h' over an input of `input`, from states of `initial`.
fn linear(
    stack: Rnn,
    recurrent: f64,
    input: f64,
    initial: f64,
    sequences: Sequences<'_>,
) -> refrain::Result<Vec<f64>> {
    let device = Device::reference();
    let mut model = Model::new(1);
    let layer = model.add("rnn", stack.without_bias())?;
    let mut parameters = model.initialize(&device)?;
    let diagonal =
        |value: f64| -> Vec<f64> { (0..9).map(|at| if at % 4 == 0 { value } else { 0.0 }).collect() };
    let (one, weight) = (diagonal(1.0), diagonal(recurrent));
    let square = &[3, 3][..];
    parameters
        .set_all([("rnn.weight_ih_l0", square, &one[..]), ("rnn.weight_hh_l0", square, &weight[..])])?;
    let x = Tensor::from_slice_f64(&device, &[STEPS, BATCH, HIDDEN], &[input; STEPS * STEP])?;
    let state = State::from_hidden(&Tensor::from_slice_f64(&device, &[1, BATCH, HIDDEN], &[initial; STEP])?)?;
    layer.infer_sequences(&parameters, &x, &state, sequences)?.0.download_f64()
}

fn identity() -> Rnn {
    Rnn::new(Cell::Vanilla(Activation::Identity), HIDDEN, HIDDEN)
}

/// A state of one that is only carried on: after t steps it is m^t, with one m of 0 or 2 for each unit of each row.
fn recurrent_dropout_is_locked_over_time() -> Outcome {
    let mut masks = Vec::new();
    for step in 0..20 {
        let training = Sequences::whole().training(RandomKey::new(9, step));
        let y = linear(identity().recurrent_dropout(0.5), 1.0, 0.0, 1.0, training)?;
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
        let y = linear(identity().zoneout(0.75, 0.0), 0.0, 1.0, 5.0, training)?;
        assert!(y.iter().all(|value| [1.0, 5.0].contains(value)), "{y:?}");
        for place in 0..STEP {
            let states: Vec<f64> = y.iter().skip(place).step_by(STEP).copied().collect();
            let holds = states.iter().take_while(|state| **state == 5.0).count();
            assert!(states[holds..].iter().all(|state| *state == 1.0), "{states:?} comes back");
            kept += holds as f64;
            chances += if holds < STEPS { holds as f64 + 1.0 } else { holds as f64 };
        }
    }
    let rate = kept / chances;
    assert!((rate - 0.75).abs() < 4.0 * (0.75f64 * 0.25 / chances).sqrt(), "{rate} of {chances}");
    Ok(())
}

/// In evaluation the state is the mean: after t steps 1 + 4 p^t.
fn zoneout_in_evaluation_is_its_expectation() -> Outcome {
    let y = linear(identity().zoneout(0.25, 0.0), 0.0, 1.0, 5.0, Sequences::whole().evaluation())?;
    let expected: Vec<f64> =
        (0..STEPS * STEP).map(|place| 1.0 + 4.0 * 0.25f64.powi((place / STEP) as i32 + 1)).collect();
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
        let x = Tensor::zeros(&device, &[1, BATCH, HIDDEN])?;
        let zero = layer.zero_state(&device, BATCH)?;
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
        recurrent_dropout_is_locked_over_time,
        zoneout_keeps_each_unit_by_itself_at_each_step,
        zoneout_in_evaluation_is_its_expectation,
        an_lstm_keeps_hidden_and_cell_states_apart,
    );
}
