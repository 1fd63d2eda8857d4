//! What segments cost and save: a description's own count, budgets that choose their length, and the bytes that a device
//! takes.

use refrain::nn::{Cell, Rnn};
use refrain::{Device, Result};

use super::{BATCH, BLOCK, EVERY, HIDDEN, INPUTS, Kind, STEPS, expect_same, model, passes};
use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu_strategies};
use crate::misuse::refuses;
use crate::support::random;

fn segments_cost_what_they_keep_and_run_again() -> Outcome {
    let stack = Rnn::new(Cell::Lstm, INPUTS, HIDDEN);
    let whole = model(stack.clone())?.0.cost(STEPS, BATCH)?;
    // Two blocks a segment; the third segment is shorter, and run once.
    let cut = model(stack.clone().checkpointed(EVERY))?.0.cost(STEPS, BATCH)?;
    assert_eq!(cut.forward, whole.forward);
    let step = whole.forward / STEPS as u64;
    assert_eq!(cut.backward, whole.backward + 4 * BLOCK as u64 * step);
    let (batch, hidden, inputs) = (BATCH as u64, HIDDEN as u64, INPUTS as u64);
    let trace = |steps: u64| steps * batch * (4 + 1 + 1) * hidden + 2 * batch * hidden;
    let states = 3 * 2 * batch * hidden;
    let input = STEPS as u64 * batch * inputs;
    assert_eq!(cut.trace_bytes, 4 * (input + trace(2 * BLOCK as u64) + states));
    assert_eq!(whole.trace_bytes, 4 * (input + trace(STEPS as u64) + 2 * batch * hidden));
    // A segment of all steps is no segment.
    assert_eq!(model(stack.checkpointed(STEPS))?.0.cost(STEPS, BATCH)?, whole);
    Ok(())
}

/// The bytes of a trace in segments of one block, of two, and so on.
fn trace_bytes(stack: &Rnn) -> Result<Vec<u64>> {
    let of =
        |blocks| Ok(model(stack.clone().checkpointed(blocks * BLOCK))?.0.cost(STEPS, BATCH)?.trace_bytes);
    (1..=STEPS.div_ceil(BLOCK)).map(of).collect()
}

/// Budgets just below, at and just above each of these numbers of bytes.
fn budgets(bytes: &[u64]) -> impl Iterator<Item = u64> {
    bytes.iter().flat_map(|bytes| [bytes - 4, *bytes, bytes + 4])
}

fn a_budget_is_kept_by_the_longest_segments_that_fit() -> Outcome {
    let stack = Rnn::new(Cell::Gru, INPUTS, HIDDEN).layers(2);
    let bytes = trace_bytes(&stack)?;
    let least = bytes.iter().copied().min().unwrap_or(0);
    let mut refused = 0;
    for budget in budgets(&bytes) {
        let (model, _) = model(stack.clone().checkpointed_within(budget))?;
        // The longest segment comes last.
        match (model.cost(STEPS, BATCH), bytes.iter().rev().find(|&&bytes| bytes <= budget)) {
            (Ok(cost), Some(&expected)) => assert_eq!(cost.trace_bytes, expected, "within {budget}"),
            (cost, None) => {
                refuses!(Config, cost, "checkpointed_within", &format!("{least} bytes do"));
                refused += 1;
            }
            (found, expected) => panic!("within {budget}: {found:?}, expected {expected:?}"),
        }
    }
    assert_eq!(refused, 1, "only the smallest budget is too small");
    Ok(())
}

fn a_budget_changes_no_bit() -> Outcome {
    let device = Device::cpu();
    let stack = Rnn::new(Cell::Gru, INPUTS, HIDDEN).layers(2);
    let whole = passes(&device, &stack, Kind::Ragged)?;
    for budget in budgets(&trace_bytes(&stack)?).skip(1) {
        let cut = passes(&device, &stack.clone().checkpointed_within(budget), Kind::Ragged)?;
        expect_same(&format!("within {budget}"), &whole, &cut)?;
    }
    let tiny = passes(&device, &stack.checkpointed_within(1000), Kind::Ragged);
    refuses!(Config, tiny, "checkpointed_within");
    Ok(())
}

/// What the device's memory grows by in one training pass over many steps.
fn pass_bytes(adapter: &Adapter, stack: &Rnn, [steps, batch]: [usize; 2]) -> Result<u64> {
    let device = adapter.open()?;
    // What a pass before has let go of would be taken first.
    device.release_unused()?;
    let (model, layer) = model(stack.clone())?;
    let parameters = model.initialize(&device)?;
    let mut gradients = parameters.zero_gradients()?;
    let x = random(&device, 911, &[steps, batch, INPUTS], 1.0)?;
    let initial = layer.zero_state(&device, batch)?;
    let before = device.counters().bytes;
    let (y, _, trace) = layer.forward(&parameters, &x, &initial)?;
    trace.backward(&y, None, &mut gradients)?.0.download()?;
    Ok(device.counters().bytes - before)
}

/// The pool's own numbers: what a pass takes beyond its trace (outputs, gradients at them, products on their way) grows with
/// T only where it flows in or out.
fn segments_need_less_memory(adapter: &Adapter) -> Outcome {
    let sizes @ [steps, batch] = [16 * BLOCK, BATCH];
    let stack = Rnn::new(Cell::Lstm, INPUTS, 16).layers(2);
    let whole = pass_bytes(adapter, &stack, sizes)?;
    let cut = pass_bytes(adapter, &stack.clone().checkpointed(2 * BLOCK), sizes)?;
    let cost = |stack: Rnn| -> Result<u64> { Ok(model(stack)?.0.cost(steps, batch)?.trace_bytes) };
    let (whole_trace, cut_trace) = (cost(stack.clone())?, cost(stack.checkpointed(2 * BLOCK))?);
    println!("bytes of a pass: {whole} and {cut}; of its trace: {whole_trace} and {cut_trace}");
    assert!(4 * cut_trace < whole_trace, "{cut_trace} of {whole_trace}");
    // Whole buffers of powers of two are all that a pool knows.
    assert!(whole - cut > (whole_trace - cut_trace) / 2, "{whole} - {cut}");
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        segments_cost_what_they_keep_and_run_again,
        a_budget_is_kept_by_the_longest_segments_that_fit,
        a_budget_changes_no_bit,
    );
    on_gpu_strategies!(suite, segments_need_less_memory);
}
