//! Checkpointing over time: it changes no bit of what a stack gives and learns from, keeps to its budget, and is refused
//! where it makes no sense.

use libtest_mimic::Failed;
use refrain::nn::{Cell, Draw, Layer, Model, Parameters, Rnn, Sequences, State};
use refrain::random::Stream;
use refrain::{Device, Error, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu_tiers};
use crate::support::{all_gradients, expect_close, expect_same_bits, largest, random};

/// Gradients of weights are summed in blocks of this many steps of [`BATCH`] rows.
const BLOCK: usize = 4;
const BATCH: usize = 128;
/// Five blocks and a part of one.
const STEPS: usize = 5 * BLOCK + 3;
const INPUTS: usize = 3;
const HIDDEN: usize = 5;
/// No multiple of a block: segments of two, and a shorter one at the end.
const EVERY: usize = BLOCK + 1;

/// What a pass is like beside its cell.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Dropout between layers and on recurrent weights.
    Random,
    /// Rows of all lengths, with resets.
    Ragged,
    /// As `Ragged`, in chunks whose ends are and are not those of segments.
    Chunks(usize),
    /// As `Ragged`, with a bound on the gradient at the state.
    Clipped,
    /// Residual connections, locked masks on inputs and a learned initial state, with everything else.
    Learned,
}

const KINDS: [Kind; 6] =
    [Kind::Random, Kind::Ragged, Kind::Chunks(BLOCK), Kind::Chunks(7), Kind::Clipped, Kind::Learned];

impl Kind {
    fn of(self, stack: Rnn) -> Rnn {
        match self {
            Self::Random => {
                let second = if stack.cell().has_cell_state() { 0.5 } else { 0.0 };
                stack.dropout(0.3).weight_drop(0.4).recurrent_dropout(0.2).zoneout(0.3, second)
            }
            Self::Ragged => stack,
            Self::Chunks(steps) => stack.truncated(steps),
            // So narrow that it holds in many places.
            Self::Clipped => stack.clip_gradient(0.02),
            Self::Learned => {
                stack.dropout(0.3).input_dropout(0.2).weight_drop(0.4).residual().learned_initial_state()
            }
        }
    }

    fn is_ragged(self) -> bool {
        !matches!(self, Self::Random)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::Random | Self::Learned)
    }
}

/// The stacks that are tried: cells in all kinds of passes, and equations with arrays of their own.
fn stacks() -> Vec<(Rnn, Kind)> {
    let two = |cell: Cell| Rnn::new(cell, INPUTS, HIDDEN).layers(2);
    let mut all = Vec::new();
    for cell in [Cell::tanh(), Cell::Lstm, Cell::Gru] {
        all.extend(KINDS.map(|kind| (kind.of(two(cell)), kind)));
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

fn indices(device: &Device, stream: u64, dimensions: &[usize], of: impl Fn(u32) -> u32) -> Result<Indices> {
    let stream = Stream::new(9, stream);
    let count = dimensions.iter().product::<usize>() as u64;
    let values: Vec<u32> = (0..count).map(|index| of(stream.bits(index))).collect();
    Indices::from_slice(device, dimensions, &values)
}

/// A number of a pass: what it is of, and its values.
type Named = (&'static str, Vec<f64>);

fn state_values(name: &'static str, state: &State) -> Result<Named> {
    let mut values = state.hidden().download_f64()?;
    if let Some(cell) = state.cell() {
        values.extend(cell.download_f64()?);
    }
    Ok((name, values))
}

/// A state whose parts are random.
fn random_state(device: &Device, like: &State, stream: u64) -> Result<State> {
    let part = |like: &Tensor, stream| random(device, stream, like.shape().dimensions(), 0.5);
    let hidden = part(&like.hidden(), stream)?;
    match like.cell() {
        Some(cell) => State::from_hidden_and_cell(&hidden, &part(&cell, stream + 1)?),
        None => State::from_hidden(&hidden),
    }
}

struct Built {
    layer: Layer<Rnn>,
    parameters: Parameters,
}

impl Built {
    fn new(device: &Device, stack: &Rnn) -> Result<Self> {
        let mut model = Model::new(4);
        let layer = model.add("rnn", stack.clone())?;
        let mut parameters = model.initialize(device)?;
        // Initial states that are learned begin at zero, which would hide them.
        let names: Vec<String> = parameters.names().map(str::to_owned).collect();
        for name in names.iter().filter(|name| name.contains("initial")) {
            parameters.set(name, &[0.3, -0.2, 0.5, 0.1, -0.4])?;
        }
        Ok(Self { layer, parameters })
    }

    /// All that a pass yields, gradients twice over: the second time added to the first.
    fn pass(&self, device: &Device, kind: Kind) -> Result<Vec<Named>> {
        let Self { layer, parameters } = self;
        let x = random(device, 901, &[STEPS, BATCH, INPUTS], 1.0)?;
        let lengths = indices(device, 902, &[BATCH], |bits| 1 + bits % STEPS as u32)?;
        let resets = indices(device, 903, &[STEPS, BATCH], |bits| u32::from(bits % 11 == 0))?;
        let mut sequences = match kind.is_ragged() {
            true => Sequences::ragged(&lengths).resets(&resets),
            false => Sequences::whole(),
        };
        if kind.is_random() {
            sequences = sequences.training(Draw::new(6, 3));
        }
        let zero = layer.zero_state(device, BATCH)?;
        let initial = match kind {
            Kind::Learned => layer.initial_state(parameters, BATCH)?,
            _ => random_state(device, &zero, 904)?,
        };
        let d_last = random_state(device, &zero, 906)?;
        let mut gradients = parameters.zero_gradients()?;
        let mut all = Vec::new();
        for pass in 0..2 {
            let (y, last, trace) = layer.forward_sequences(parameters, &x, &initial, sequences)?;
            let d_y = random(device, 908 + pass, y.shape().dimensions(), 1.0)?;
            let (d_x, d_initial) = trace.backward(&d_y, Some(&d_last), &mut gradients)?;
            all.push(("y", y.download_f64()?));
            all.push(state_values("the final state", &last)?);
            all.push(("d_x", d_x.download_f64()?));
            all.push(state_values("d_initial", &d_initial)?);
            all.push(("the gradients", all_gradients(parameters, &gradients)?));
        }
        Ok(all)
    }
}

/// Fails unless both hold the same bits; NaN anywhere fails too.
fn expect_same(what: &str, one: &[Named], two: &[Named]) -> Outcome {
    for ((name, one), (_, two)) in one.iter().zip(two) {
        let differs = |(a, b): (&f64, &f64)| a.to_bits() != b.to_bits() || a.is_nan();
        if let Some(place) = one.iter().zip(two).position(differs) {
            let (a, b) = (one[place], two[place]);
            return Err(Failed::from(format!("{what}: {name}[{place}]: {a:e} and {b:e}")));
        }
        if one.len() != two.len() {
            return Err(Failed::from(format!("{what}: {name} has {} and {} values", one.len(), two.len())));
        }
    }
    Ok(())
}

fn checkpoints_change_no_bit_on(device: &Device, every: &[usize]) -> Outcome {
    for (stack, kind) in stacks() {
        let whole = Built::new(device, &stack)?.pass(device, kind)?;
        for &every in every {
            let cut = Built::new(device, &stack.clone().checkpointed(every))?.pass(device, kind)?;
            expect_same(&format!("{kind:?}, every {every}: {stack:?}"), &whole, &cut)?;
        }
    }
    Ok(())
}

fn checkpoints_change_no_bit_on_the_cpu() -> Outcome {
    checkpoints_change_no_bit_on(&Device::cpu(), &[1, EVERY, 3 * BLOCK, STEPS])
}

fn checkpoints_change_no_bit_on_the_reference() -> Outcome {
    checkpoints_change_no_bit_on(&Device::reference(), &[1, EVERY, 3 * BLOCK, STEPS])
}

fn checkpoints_change_no_bit_on_the_gpu(adapter: &Adapter) -> Outcome {
    checkpoints_change_no_bit_on(&adapter.open()?, &[1, EVERY])
}

/// So small that no block of the gradients of an LSTM's gates fits a binding.
const BINDING_BYTES: u64 = 32 << 10;

fn checkpoints_change_no_bit_where_work_is_cut(adapter: &Adapter) -> Outcome {
    let options = GpuOptions { binding_bytes: Some(BINDING_BYTES), ..GpuOptions::default() };
    let device = adapter.open_with(&options)?;
    assert!((4 * BLOCK * BATCH * 4 * HIDDEN) as u64 > BINDING_BYTES, "blocks fit");
    for stack in [Rnn::new(Cell::Lstm, INPUTS, HIDDEN), Rnn::new(Cell::Gru, INPUTS, HIDDEN)] {
        let whole = Built::new(&device, &stack)?.pass(&device, Kind::Ragged)?;
        let cut = Built::new(&device, &stack.clone().checkpointed(EVERY))?.pass(&device, Kind::Ragged)?;
        expect_same(&format!("{stack:?}"), &whole, &cut)?;
    }
    Ok(())
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
        let expected = Built::new(&reference, &stack)?.pass(&reference, kind)?;
        let found = Built::new(&device, &stack)?.pass(&device, kind)?;
        for ((name, expected), (_, found)) in expected.iter().zip(&found) {
            let what = format!("{kind:?}: {stack:?}: {name}");
            expect_close(&what, expected, found, tolerance * largest(expected).max(1.0))?;
        }
    }
    Ok(())
}

fn a_clipped_gradient_is_clipped_somewhere() -> Outcome {
    let device = Device::cpu();
    let stack = Rnn::new(Cell::Lstm, INPUTS, HIDDEN).layers(2);
    let free = Built::new(&device, &stack)?.pass(&device, Kind::Clipped)?;
    let clipped = Built::new(&device, &Kind::Clipped.of(stack))?.pass(&device, Kind::Clipped)?;
    assert!(expect_same("clipped", &free, &clipped).is_err(), "the bound holds nowhere, and tests nothing");
    Ok(())
}

/// A model of one stack, for its cost.
fn model(stack: Rnn) -> Result<(Model, Layer<Rnn>)> {
    let mut model = Model::new(1);
    let layer = model.add("rnn", stack)?;
    Ok((model, layer))
}

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

/// The bytes of a budget between those of two numbers of segments.
fn budgets(stack: &Rnn) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for blocks in 1..=STEPS.div_ceil(BLOCK) {
        let cost = model(stack.clone().checkpointed(blocks * BLOCK))?.0.cost(STEPS, BATCH)?;
        all.extend([cost.trace_bytes - 4, cost.trace_bytes, cost.trace_bytes + 4]);
    }
    Ok(all)
}

fn a_budget_is_kept_by_the_longest_segments_that_fit() -> Outcome {
    let stack = Rnn::new(Cell::Gru, INPUTS, HIDDEN).layers(2);
    let of = |blocks: usize| -> Result<u64> {
        let (model, _) = model(stack.clone().checkpointed(blocks * BLOCK))?;
        Ok(model.cost(STEPS, BATCH)?.trace_bytes)
    };
    let bytes: Vec<u64> = (1..=STEPS.div_ceil(BLOCK)).map(of).collect::<Result<_>>()?;
    let least = bytes.iter().copied().min().unwrap_or(0);
    let mut refused = 0;
    for budget in budgets(&stack)? {
        let (model, _) = model(stack.clone().checkpointed_within(budget))?;
        // The longest segment comes last.
        let expected = bytes.iter().rev().find(|&&bytes| bytes <= budget);
        match (model.cost(STEPS, BATCH), expected) {
            (Ok(cost), Some(&expected)) => assert_eq!(cost.trace_bytes, expected, "within {budget}"),
            (Err(Error::Config { what, message }), None) => {
                assert_eq!(what, "checkpointed_within");
                assert!(message.contains(&format!("{least} bytes do")), "{message}");
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
    let whole = Built::new(&device, &stack)?.pass(&device, Kind::Ragged)?;
    for budget in budgets(&stack)?.into_iter().skip(1) {
        let cut =
            Built::new(&device, &stack.clone().checkpointed_within(budget))?.pass(&device, Kind::Ragged)?;
        expect_same(&format!("within {budget}"), &whole, &cut)?;
    }
    let tiny = Built::new(&device, &stack.checkpointed_within(1000))?.pass(&device, Kind::Ragged);
    match tiny {
        Err(Error::Config { what, .. }) => assert_eq!(what, "checkpointed_within"),
        other => panic!("a budget of 1000 bytes gives {:?}", other.map(|_| "a pass")),
    }
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

fn lengths_of_zero_are_refused_though_segments_have_them() -> Outcome {
    let device = Device::cpu();
    let built = Built::new(&device, &Rnn::new(Cell::Gru, INPUTS, HIDDEN).checkpointed(EVERY))?;
    let x = random(&device, 913, &[STEPS, BATCH, INPUTS], 1.0)?;
    let zero = built.layer.zero_state(&device, BATCH)?;
    let steps = STEPS as u32;
    let mut lengths = vec![steps; BATCH];
    lengths[3] = 0;
    let refuse = |lengths: &[u32], dimensions: &[usize]| -> Result<String> {
        let lengths = Indices::from_slice(&device, dimensions, lengths)?;
        let sequences = Sequences::ragged(&lengths);
        match built.layer.forward_sequences(&built.parameters, &x, &zero, sequences) {
            Err(error) => Ok(error.to_string()),
            Ok(_) => panic!("accepted"),
        }
    };
    let message = refuse(&lengths, &[BATCH])?;
    assert!(message.contains("lengths") && message.contains("at least 1"), "{message}");
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

fn descriptions_tell_of_checkpoints_and_keep_them() -> Outcome {
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

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        checkpoints_change_no_bit_on_the_cpu,
        checkpoints_change_no_bit_on_the_reference,
        a_clipped_gradient_is_clipped_somewhere,
        segments_cost_what_they_keep_and_run_again,
        a_budget_is_kept_by_the_longest_segments_that_fit,
        a_budget_changes_no_bit,
        outputs_of_checkpointed_stacks_are_those_of_inference,
        lengths_of_zero_are_refused_though_segments_have_them,
        options_that_checkpoints_clash_with_are_named,
        descriptions_tell_of_checkpoints_and_keep_them,
    );
    on_gpu_tiers!(
        suite,
        checkpoints_change_no_bit_on_the_gpu,
        checkpoints_change_no_bit_where_work_is_cut,
        long_sums_agree_with_the_reference,
        segments_need_less_memory
    );
}
