//! Checkpoints as options: what they clash with is named, lengths are checked before they are cut into segments, and
//! descriptions keep them.

use refrain::nn::{Cell, Rnn, Sequences};
use refrain::{Device, Indices};

use super::{BATCH, EVERY, HIDDEN, INPUTS, STEPS, built, model};
use crate::adapters::{Outcome, Suite, on_cpu};
use crate::misuse::refuses;
use crate::support::random;

fn lengths_that_do_not_fit_are_refused_before_they_are_cut() -> Outcome {
    let device = Device::cpu();
    let stack = built(&device, &Rnn::new(Cell::Gru, INPUTS, HIDDEN).checkpointed(EVERY))?;
    let x = random(&device, 913, &[STEPS, BATCH, INPUTS], 1.0)?;
    let zero = stack.layer.zero_state(&device, BATCH)?;
    let steps = STEPS as u32;
    let mut lengths = vec![steps; BATCH];
    lengths[3] = steps + 1;
    let longer = Indices::from_slice(&device, &[BATCH], &lengths)?;
    let few = Indices::from_slice(&device, &[3], &lengths[..3])?;
    let run = |sequences| stack.layer.forward_sequences(&stack.parameters, &x, &zero, sequences).map(drop);
    refuses!(Index, run(Sequences::ragged(&longer)), "lengths", &(steps + 1).to_string());
    refuses!(Shape, run(Sequences::ragged(&few)), "lengths");
    let resets = Indices::from_slice(&device, &[STEPS - 1, BATCH], &vec![0; (STEPS - 1) * BATCH])?;
    refuses!(Shape, run(Sequences::whole().resets(&resets)), "resets");
    let d_y = random(&device, 914, &[STEPS - 1, BATCH, HIDDEN], 1.0)?;
    let (_, _, trace) = stack.layer.forward(&stack.parameters, &x, &zero)?;
    let refused = trace.backward(&d_y, None, &mut stack.parameters.zero_gradients()?);
    refuses!(Shape, refused, "d_output");
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
        refuses!(Config, model(stack), all words);
    }
    Ok(())
}

fn descriptions_show_checkpoints_and_preserve_them() -> Outcome {
    let every = Rnn::new(Cell::Gru, INPUTS, HIDDEN).checkpointed(8);
    let within = Rnn::new(Cell::Gru, INPUTS, HIDDEN).checkpointed_within(5000);
    for (stack, words) in [(every, "checkpointed 8"), (within, "checkpointed within 5000 bytes")] {
        let (model, _) = model(stack.clone())?;
        assert!(model.summary().to_string().contains(words), "{}", model.summary());
        let text = serde_json::to_string(&stack).map_err(|error| error.to_string())?;
        let again: Rnn = serde_json::from_str(&text).map_err(|error| error.to_string())?;
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
