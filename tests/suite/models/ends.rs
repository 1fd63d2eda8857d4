//! The ends of a sequence: initial states that are learned, and each row's last valid output.

use refrain::nn::{Cell, Layer, Merge, Model, Parameters, Rnn, Sequences, State};
use refrain::{Device, Indices, Result};

use super::{BATCH, STEPS, lengths};
use crate::adapters::{Outcome, Suite, on_cpu, on_devices};
use crate::misuse::refuses;
use crate::support::{expect_close, random};

/// The initial states' gradients of one pass from `state`, and the sums over the batch of what it returns for them.
fn initial_gradients(
    layer: &Layer<Rnn>,
    parameters: &Parameters,
    state: &State,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let x = random(parameters.device(), 85, &[STEPS, BATCH, 2], 1.0)?;
    let (y, _, trace) = layer.forward(parameters, &x, state)?;
    let mut gradients = parameters.zero_gradients()?;
    let (_, d_initial) = trace.backward(&y, None, &mut gradients)?;
    let (hidden, cell) = (d_initial.hidden().download_f64()?, d_initial.cell());
    let cell = cell.map(|cell| cell.download_f64()).transpose()?.unwrap_or_default();
    let (mut own, mut sums) = (Vec::new(), Vec::new());
    for (place, suffix) in ["", "_reverse"].into_iter().enumerate() {
        for (part, values) in [("hidden", &hidden), ("cell", &cell)] {
            own.extend(gradients.view(&format!("rnn.initial_{part}_l0{suffix}"))?.download_f64()?);
            let rows = &values[place * BATCH * 4..][..BATCH * 4];
            sums.extend((0..4).map(|unit| rows.iter().skip(unit).step_by(4).sum::<f64>()));
        }
    }
    Ok((own, sums))
}

fn only_a_pass_from_the_learned_state_teaches_it() -> Outcome {
    let device = Device::reference();
    let stack = Rnn::new(Cell::Lstm, 2, 4).bidirectional().learned_initial_state();
    let mut model = Model::new(1);
    let layer = model.add("rnn", stack.clone())?;
    let parameters = model.initialize(&device)?;
    let learned = layer.initial_state(&parameters, BATCH)?;
    assert_eq!(learned.hidden().download()?, [0.0; 2 * BATCH * 4], "first values are zero");
    let (own, sums) = initial_gradients(&layer, &parameters, &learned)?;
    assert!(own.iter().all(|gradient| *gradient != 0.0), "{own:?}");
    expect_close("batch sums", &sums, &own, 1e-14)?;
    // The same values from elsewhere: the gradient is returned, and stays out of the parameters.
    let mut other = Model::new(1);
    let stranger = other.add("rnn", stack)?;
    let others = stranger.initial_state(&other.initialize(&device)?, BATCH)?;
    for state in [layer.zero_state(&device, BATCH)?, others] {
        let (own, given_sums) = initial_gradients(&layer, &parameters, &state)?;
        assert_eq!((own, given_sums), (vec![0.0; 16], sums.clone()));
    }
    // A model takes learned states where there are some, and zeros elsewhere.
    let mut mixed = Model::new(1);
    mixed.add("one", Rnn::new(Cell::tanh(), 2, 2).learned_initial_state())?;
    mixed.add("two", Rnn::new(Cell::Gru, 2, 3))?;
    let mut parameters = mixed.initialize(&device)?;
    parameters.set("one.initial_hidden_l0", &[2], &[1.0, 2.0])?;
    let states = mixed.initial_state(&parameters, 2)?;
    assert_eq!(states.states()[0].hidden().download()?, [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(states.states()[1].hidden().download()?, [0.0; 6]);
    Ok(())
}

/// The final state of a row without steps is the initial one, which is zero here as the last output is.
fn last_valid_outputs_are_the_final_states(device: &Device) -> Outcome {
    let mixed = Indices::from_slice(device, &[BATCH], &[2, 0, 3])?;
    [lengths(device)?, mixed].iter().try_for_each(|lengths| expect_final_states(device, lengths))
}

fn expect_final_states(device: &Device, lengths: &Indices) -> Outcome {
    for (direction, stack) in [
        ("forward", Rnn::new(Cell::Gru, 2, 4)),
        ("reverse", Rnn::new(Cell::Lstm, 2, 4).reverse()),
        ("both", Rnn::new(Cell::tanh(), 2, 4).bidirectional()),
    ] {
        let mut model = Model::new(1);
        let layer = model.add("rnn", stack)?;
        let parameters = model.initialize(device)?;
        let x = random(device, 86, &[STEPS, BATCH, 2], 1.0)?;
        let zero = layer.zero_state(device, BATCH)?;
        let (y, last) = layer.infer_sequences(&parameters, &x, &zero, Sequences::ragged(lengths))?;
        let picked = layer.last_valid(&y, lengths)?;
        let width = y.shape().last();
        picked.shape().exactly::<2>("picked", "[batch, features]")?;
        // [D, B, H] and [B, D, H] hold the same blocks.
        let (states, picked) = (last.hidden().download()?, picked.download()?);
        for (place, block) in states.chunks(4).enumerate() {
            let (direction, row) = (place / BATCH, place % BATCH);
            assert_eq!(block, &picked[row * width + direction * 4..][..4], "{direction}, row {row}");
        }
        // Σ last · d and Σ y · dy are the same number: backward is the transpose.
        let d_last = random(device, 87, &[BATCH, width], 1.0)?;
        let d_y = layer.last_valid_backward(&d_last, lengths, STEPS)?;
        assert_eq!(d_y.shape(), y.shape());
        let dot = |one: &[f32], two: &[f32]| one.iter().zip(two).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let (one, two) = (dot(&picked, &d_last.download()?), dot(&y.download()?, &d_y.download()?));
        assert!((one - two).abs() < 1e-5, "{direction}: {one} and {two}");
        let moved = d_y.download()?.iter().filter(|value| **value != 0.0).count();
        let rows = lengths.values().iter().filter(|&&length| length > 0).count();
        assert_eq!(moved, rows * width, "{direction}: a gradient beside the last steps");
    }
    Ok(())
}

fn last_steps_that_are_not_there_are_refused() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(1);
    let layer = model.add("rnn", Rnn::new(Cell::Gru, 3, 3).bidirectional())?;
    let merged = model.add("sum", Rnn::new(Cell::Gru, 3, 3).bidirectional().merge(Merge::Sum))?;
    let of = |values: &[u32]| Indices::from_slice(&device, &[values.len()], values);
    let y = random(&device, 89, &[STEPS, 2, 6], 1.0)?;
    let d_last = random(&device, 89, &[2, 6], 1.0)?;
    refuses!(Index, layer.last_valid(&y, &of(&[5, 1])?), "lengths");
    refuses!(Shape, layer.last_valid(&y, &of(&[1])?), "lengths");
    refuses!(Shape, layer.last_valid(&d_last, &of(&[1, 1])?), "");
    refuses!(Shape, layer.last_valid_backward(&d_last, &of(&[1, 1])?, usize::MAX), "");
    let narrow = random(&device, 89, &[STEPS, 2, 3], 1.0)?;
    refuses!(Config, merged.last_valid(&narrow, &of(&[1, 1])?), "last_valid", "merge", "Sum");
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(suite, only_a_pass_from_the_learned_state_teaches_it, last_steps_that_are_not_there_are_refused);
    on_devices!(suite, last_valid_outputs_are_the_final_states);
}
