//! Checkpoints as options: what they clash with is named, lengths are checked before they are cut into segments, and
//! descriptions keep them.

use libtest_mimic::Failed;
use refrain::nn::{Cell, Rnn, Sequences};
use refrain::{Device, Error, Indices, Result};

use super::{BATCH, Built, EVERY, HIDDEN, INPUTS, STEPS, model};
use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::random;

fn lengths_that_do_not_fit_are_refused_before_they_are_cut() -> Outcome {
    let device = Device::cpu();
    let built = Built::new(&device, &Rnn::new(Cell::Gru, INPUTS, HIDDEN).checkpointed(EVERY))?;
    let x = random(&device, 913, &[STEPS, BATCH, INPUTS], 1.0)?;
    let zero = built.layer.zero_state(&device, BATCH)?;
    let steps = STEPS as u32;
    let mut lengths = vec![steps; BATCH];
    let refuse = |lengths: &[u32], dimensions: &[usize]| -> Result<String> {
        let lengths = Indices::from_slice(&device, dimensions, lengths)?;
        let sequences = Sequences::ragged(&lengths);
        match built.layer.forward_sequences(&built.parameters, &x, &zero, sequences) {
            Err(error) => Ok(error.to_string()),
            Ok(_) => panic!("accepted"),
        }
    };
    lengths[3] = steps + 1;
    let message = refuse(&lengths, &[BATCH])?;
    assert!(message.contains("lengths") && message.contains(&(steps + 1).to_string()), "{message}");
    let message = refuse(&lengths[..3], &[3])?;
    assert!(message.contains("lengths"), "{message}");
    let resets = Indices::from_slice(&device, &[STEPS - 1, BATCH], &vec![0; (STEPS - 1) * BATCH])?;
    let sequences = Sequences::whole().resets(&resets);
    let found = built.layer.forward_sequences(&built.parameters, &x, &zero, sequences).map(drop);
    assert!(matches!(found, Err(Error::Shape { .. })), "{found:?}");
    let d_y = random(&device, 914, &[STEPS - 1, BATCH, HIDDEN], 1.0)?;
    let (_, _, trace) = built.layer.forward(&built.parameters, &x, &zero)?;
    let found = trace.backward(&d_y, None, &mut built.parameters.zero_gradients()?).map(drop);
    assert!(matches!(found, Err(Error::Shape { .. })), "{found:?}");
    Ok(())
}

fn options_that_checkpoints_clash_with_are_named() -> Outcome {
    let plain = || Rnn::new(Cell::Gru, INPUTS, HIDDEN);
    let cases = [
        (plain().checkpointed(8).reverse(), ["checkpointed", "reverse"]),
        (plain().bidirectional().checkpointed(8), ["checkpointed", "bidirectional"]),
        (plain().windowed(3).checkpointed(8), ["checkpointed", "windowed"]),
        (plain().checkpointed(8).truncated_every(2, 5), ["checkpointed", "truncated_every"]),
        (plain().checkpointed_within(1 << 20).reverse(), ["checkpointed_within", "reverse"]),
        (plain().checkpointed_within(1 << 20).windowed(3), ["checkpointed_within", "windowed"]),
        (plain().checkpointed(0), ["checkpointed", "not 0"]),
    ];
    for (stack, words) in cases {
        match model(stack.clone()).map(drop) {
            Err(error @ Error::Config { .. }) => {
                let message = error.to_string();
                assert!(words.iter().all(|word| message.contains(word)), "{message}");
            }
            other => panic!("{stack:?} gives {other:?}"),
        }
    }
    Ok(())
}

fn descriptions_show_checkpoints_and_preserve_them() -> Outcome {
    let every = Rnn::new(Cell::Gru, INPUTS, HIDDEN).checkpointed(8);
    let within = Rnn::new(Cell::Gru, INPUTS, HIDDEN).checkpointed_within(5000);
    for (stack, words) in [(every, "checkpointed 8"), (within, "checkpointed within 5000 bytes")] {
        let (model, _) = model(stack.clone())?;
        assert!(model.summary().to_string().contains(words), "{}", model.summary());
        let text = serde_json::to_string(&stack).map_err(|error| Failed::from(error.to_string()))?;
        let again: Rnn = serde_json::from_str(&text).map_err(|error| Failed::from(error.to_string()))?;
        assert_eq!(stack, again);
    }
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        lengths_that_do_not_fit_are_refused_before_they_are_cut,
        options_that_checkpoints_clash_with_are_named,
        descriptions_show_checkpoints_and_preserve_them,
    );
}
