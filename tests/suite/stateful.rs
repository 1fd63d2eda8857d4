//! States that are carried from window to window: reset row by row, and refused where they make no sense.

use refrain::nn::{Cell, Model, Rnn};
use refrain::{Device, Error, Indices, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu, on_devices_strategies};
use crate::support::{expect_same_bits, random};

const STEPS: usize = 3;
const BATCH: usize = 4;

/// A row that is reset goes on as from zeros, the others as if nothing had been.
fn a_reset_restarts_rows(device: &Device) -> Outcome {
    for stack in [
        Rnn::new(Cell::tanh(), 2, 5),
        Rnn::new(Cell::Gru, 2, 5).layers(2),
        Rnn::new(Cell::Lstm, 2, 5).layers(2).projection(3),
    ] {
        let mut model = Model::new(3);
        let rnn = model.add("rnn", stack)?;
        let parameters = model.initialize(device)?;
        let x = random(device, 1, &[STEPS, BATCH, 2], 1.0)?;
        let zero = model.zero_state(device, BATCH)?;
        let (_, carried) = model.infer(&parameters, &x, &zero)?;
        let resets = Indices::from_slice(device, &[BATCH], &[0, 1, 0, 1])?;
        let run = |state| model.infer(&parameters, &x, state)?.0.download();
        let (found, fresh, gone_on) = (run(&carried.reset(&resets)?)?, run(&zero)?, run(&carried)?);
        let width = rnn.description().outputs();
        let rows = found.chunks(width).zip(fresh.chunks(width)).zip(gone_on.chunks(width));
        for (place, ((found, fresh), gone_on)) in rows.enumerate() {
            assert_ne!(fresh, gone_on, "the state changes nothing");
            let expected = if place % BATCH % 2 == 1 { fresh } else { gone_on };
            expect_same_bits(&format!("row {}", place % BATCH), expected, found)?;
        }
    }
    Ok(())
}

fn a_reset_of_other_rows_is_refused() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(3);
    let rnn = model.add("rnn", Rnn::new(Cell::Gru, 2, 5))?;
    let state = rnn.zero_state(&device, BATCH)?;
    let resets = Indices::from_slice(&device, &[BATCH + 1], &[0; BATCH + 1])?;
    assert!(matches!(state.reset(&resets), Err(Error::Shape { .. })));
    Ok(())
}

/// What a reverse layer ended a window with belongs before that window, not after it.
fn a_carried_state_is_refused_by_reverse_stacks() -> Outcome {
    let device = Device::cpu();
    for (stack, takes) in [
        (Rnn::new(Cell::Lstm, 2, 5), true),
        (Rnn::new(Cell::Lstm, 2, 5).reverse(), false),
        (Rnn::new(Cell::Lstm, 2, 5).bidirectional(), false),
    ] {
        let mut model = Model::new(3);
        let rnn = model.add("rnn", stack.clone())?;
        let other = model.add("other", stack)?;
        let parameters = model.initialize(&device)?;
        let x = Tensor::zeros(&device, &[STEPS, BATCH, 2])?;
        let zero = rnn.zero_state(&device, BATCH)?;
        let (_, carried) = rnn.infer(&parameters, &x, &zero)?;
        let resets = Indices::from_slice(&device, &[BATCH], &[0; BATCH])?;
        for state in [&carried, &carried.reset(&resets)?] {
            match rnn.infer(&parameters, &x, state) {
                Ok(_) => assert!(takes),
                Err(error) => {
                    assert!(!takes && matches!(error, Error::Config { .. }), "{error}");
                    let message = error.to_string();
                    assert!(message.contains("reverse") && message.contains("state"), "{message}");
                }
            }
        }
        // Another layer may begin where this one ended, as a decoder does.
        other.infer(&parameters, &x, &carried)?;
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, a_reset_of_other_rows_is_refused, a_carried_state_is_refused_by_reverse_stacks);
    on_devices_strategies!(suite, a_reset_restarts_rows);
}
