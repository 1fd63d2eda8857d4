//! Both directions of a layer go together through time: as many dispatches as one of them takes, and no bit is another.

use refrain::nn::{Cell, Model, RandomKey, Rnn, Sequences};
use refrain::tuning::RecurrentStrategy;
use refrain::{Device, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu, on_gpu_strategies};
use crate::support::{all_gradients, expect_same_bits, random, step_by_step};

const INPUTS: usize = 3;
const STEPS: usize = 7;
const BATCH: usize = 5;
/// One more than a tile of the step kernels.
const HIDDEN: usize = 17;

/// Which steps of which rows there are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Batch {
    Whole,
    Ragged,
    Reset,
}

/// Lengths and resets on a device.
struct Rows {
    lengths: Indices,
    resets: Indices,
}

impl Rows {
    fn new(device: &Device) -> Result<Self> {
        let resets: Vec<u32> = (0..STEPS * BATCH).map(|place| u32::from(place % 6 == 4)).collect();
        Ok(Self {
            lengths: Indices::from_slice(device, &[BATCH], &[7, 1, 4, 6, 2])?,
            resets: Indices::from_slice(device, &[STEPS, BATCH], &resets)?,
        })
    }

    fn sequences(&self, batch: Batch) -> Sequences<'_> {
        match batch {
            Batch::Whole => Sequences::whole(),
            Batch::Ragged => Sequences::ragged(&self.lengths),
            Batch::Reset => Sequences::ragged(&self.lengths).resets(&self.resets),
        }
    }
}

/// Layers whose directions go together: of each cell with options of its own.
fn layers() -> Vec<Rnn> {
    let of = |cell| Rnn::new(cell, INPUTS, HIDDEN);
    vec![
        of(Cell::tanh()),
        of(Cell::tanh()).without_bias().truncated(3),
        of(Cell::Gru),
        of(Cell::Gru).reset_before(),
        of(Cell::Lstm),
        of(Cell::Lstm).peepholes().truncated(2),
        of(Cell::Lstm).coupled().clip_gradient(0.01),
    ]
}

/// What a pass makes, by parts.
struct Made {
    /// Outputs [T, B, D·H], states after the last step, gradients at the states before the first.
    outputs: Vec<f32>,
    ends: Vec<Vec<f32>>,
    /// By the names of the parameters.
    gradients: Vec<(String, Vec<f32>)>,
}

/// Runs the direction `places` of a bidirectional layer, or both, with the same weights and inputs in any case.
fn run(device: &Device, layer: &Rnn, places: std::ops::Range<usize>, batch: Batch) -> Result<Made> {
    let mut both = Model::new(4);
    both.add("rnn", layer.clone().bidirectional())?;
    let all = both.initialize(device)?;
    let mut model = Model::new(4);
    let own = match (places.start, places.len()) {
        (_, 2) => layer.clone().bidirectional(),
        (0, _) => layer.clone(),
        _ => layer.clone().reverse(),
    };
    let rnn = model.add("rnn", own)?;
    let mut parameters = model.initialize(device)?;
    let names: Vec<String> = parameters.names().map(str::to_owned).collect();
    for name in &names {
        let view = all.view(name)?;
        parameters.set(name, view.shape().dimensions(), &view.download()?)?;
    }
    let rows = Rows::new(device)?;
    let x = random(device, 41, &[STEPS, BATCH, INPUTS], 1.0)?;
    let d_all = random(device, 42, &[STEPS, BATCH, 2 * HIDDEN], 1.0)?.download()?;
    let columns = places.start * HIDDEN..places.end * HIDDEN;
    let d_own: Vec<f32> = d_all.chunks(2 * HIDDEN).flat_map(|row| row[columns.clone()].to_vec()).collect();
    let d_y = Tensor::from_slice(device, &[STEPS, BATCH, columns.len()], &d_own)?;
    let state = rnn.zero_state(device, BATCH)?;
    let (y, last, trace) =
        rnn.forward_sequences(&parameters, &x, &state, rows.sequences(batch).evaluation())?;
    let mut gradients = parameters.zero_gradients()?;
    let (_, d_initial) = trace.backward(&d_y, Some(&last), &mut gradients)?;
    let mut ends = Vec::new();
    for state in [&last, &d_initial] {
        for place in 0..places.len() {
            ends.push(state.hidden_at(place)?.download()?);
            ends.extend(state.cell_at(place)?.map(|cell| cell.download()).transpose()?);
        }
    }
    let gradients = names
        .into_iter()
        .map(|name| Ok((name.clone(), gradients.view(&name)?.download()?)))
        .collect::<Result<_>>()?;
    Ok(Made { outputs: y.download()?, ends, gradients })
}

fn both_directions_have_the_bits_of_each_alone(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    for layer in layers() {
        for batch in [Batch::Whole, Batch::Ragged, Batch::Reset] {
            let what = format!("{layer:?}, {batch:?}");
            let result = run(&device, &layer, 0..2, batch)?;
            let mut ends = result.ends.chunks(result.ends.len() / 4);
            let mut alone = Vec::new();
            for place in 0..2 {
                let one = run(&device, &layer, place..place + 1, batch)?;
                let columns = place * HIDDEN..(place + 1) * HIDDEN;
                let outputs: Vec<f32> =
                    result.outputs.chunks(2 * HIDDEN).flat_map(|row| row[columns.clone()].to_vec()).collect();
                expect_same_bits(&format!("{what}: outputs {place}"), &outputs, &one.outputs)?;
                for (name, gradient) in &one.gradients {
                    let own = result.gradients.iter().find(|(other, _)| other == name);
                    let (_, own) = own.expect("a parameter of both");
                    expect_same_bits(&format!("{what}: the gradient of {name}"), own, gradient)?;
                }
                alone.push(one.ends);
            }
            // States after the last step of either direction, then gradients at those before the first.
            for half in 0..2 {
                for (place, one) in alone.iter().enumerate() {
                    let expected = &one[half * one.len() / 2..(half + 1) * one.len() / 2];
                    let found = ends.next().expect("four parts");
                    let name = format!("{what}: end {half} of direction {place}");
                    expect_same_bits(&name, &found.concat(), &expected.concat())?;
                }
            }
        }
    }
    Ok(())
}

/// Everything that a training pass of two layers with masks makes, and its kernel calls.
fn train(device: &Device, stack: &Rnn, batch: Batch) -> Result<(Vec<f32>, u64)> {
    let mut model = Model::new(5);
    let rnn = model.add("rnn", stack.clone().bidirectional().layers(2))?;
    let parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let rows = Rows::new(device)?;
    let x = random(device, 43, &[STEPS, BATCH, INPUTS], 1.0)?;
    let d_y = random(device, 44, &[STEPS, BATCH, rnn.description().outputs()], 1.0)?;
    let state = rnn.zero_state(device, BATCH)?;
    let before = device.counters().dispatches;
    let sequences = rows.sequences(batch).training(RandomKey::new(3, 9));
    let (y, last, trace) = rnn.forward_sequences(&parameters, &x, &state, sequences)?;
    let (d_x, d_initial) = trace.backward(&d_y, None, &mut gradients)?;
    let calls = device.counters().dispatches - before;
    let mut values = [y, last.hidden(), d_x, d_initial.hidden()]
        .iter()
        .map(Tensor::download)
        .collect::<Result<Vec<_>>>()?
        .concat();
    values.extend(all_gradients(&parameters, &gradients)?.into_iter().map(|value| value as f32));
    Ok((values, calls))
}

/// Where two directions do not fit a binding, each goes on its own.
fn directions_that_do_not_fit_a_binding_run_one_after_the_other_with_the_same_bits(
    adapter: &Adapter,
) -> Outcome {
    let together = step_by_step(adapter)?;
    let of = |cell| Rnn::new(cell, INPUTS, HIDDEN);
    let masks = |stack: Rnn| stack.dropout(0.3).input_dropout(0.2).recurrent_dropout(0.25).weight_drop(0.2);
    for (stack, gates) in [
        (masks(of(Cell::Gru)), 3),
        (masks(of(Cell::Lstm).peepholes()), 4),
        (of(Cell::Lstm).truncated(3).learned_initial_state(), 4),
    ] {
        // Room for the gates of one direction and a half, and for everything else.
        let bytes = (STEPS * BATCH * gates * HIDDEN * 4 * 3 / 2) as u64;
        let low = GpuOptions {
            binding_bytes: Some(bytes),
            recurrent: RecurrentStrategy::PerStep,
            ..Default::default()
        };
        let apart = adapter.open_with(&low)?;
        for batch in [Batch::Whole, Batch::Reset] {
            let name = format!("{stack:?}, {batch:?}");
            let ((one, few), (other, many)) =
                (train(&together, &stack, batch)?, train(&apart, &stack, batch)?);
            expect_same_bits(&name, &one, &other)?;
            // Two layers, forward and backward.
            let saved = many.saturating_sub(few);
            assert!(saved >= 4 * STEPS as u64 - 16, "{name}: {few} dispatches together, {many} apart");
        }
    }
    Ok(())
}

/// Kernel calls of a layer over `steps` steps, forward and backward.
fn calls(device: &Device, layer: &Rnn, steps: usize) -> Result<[u64; 2]> {
    let mut model = Model::new(4);
    let rnn = model.add("rnn", layer.clone())?;
    let parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let x = random(device, 45, &[steps, 2, INPUTS], 1.0)?;
    let state = rnn.zero_state(device, 2)?;
    let before = device.counters().dispatches;
    let (y, _, trace) = rnn.forward(&parameters, &x, &state)?;
    let between = device.counters().dispatches;
    trace.backward(&y, None, &mut gradients)?;
    Ok([between - before, device.counters().dispatches - between])
}

fn a_time_step_of_both_directions_is_one_dispatch_each_way(adapter: &Adapter) -> Outcome {
    let device = step_by_step(adapter)?;
    let of = |cell| Rnn::new(cell, INPUTS, 8);
    for (layer, a_step) in [
        (of(Cell::tanh()), 1),
        (of(Cell::Gru), 1),
        (of(Cell::Lstm), 1),
        (of(Cell::Lstm).peepholes().coupled(), 1),
        // Its last gate has a product of its own.
        (of(Cell::Gru).reset_before(), 2),
    ] {
        for layer in [layer.clone(), layer.clone().bidirectional()] {
            let (few, many) = (calls(&device, &layer, 8)?, calls(&device, &layer, 24)?);
            let grown = [many[0] - few[0], many[1] - few[1]];
            assert_eq!(grown, [16 * a_step; 2], "dispatches of 16 steps of {layer:?}");
        }
    }
    Ok(())
}

/// So many steps that more dispatches take them than take a few.
const LONG: usize = 4000;

fn many_steps_of_both_directions_are_as_few_dispatches(adapter: &Adapter) -> Outcome {
    let device =
        adapter.open_with(&GpuOptions { recurrent: RecurrentStrategy::Sequence, ..Default::default() })?;
    for cell in [Cell::tanh(), Cell::Gru, Cell::Lstm] {
        let layer = Rnn::new(cell.clone(), INPUTS, 20);
        let grown = |layer: &Rnn| -> Result<u64> {
            Ok(calls(&device, layer, LONG)?[0] - calls(&device, layer, LONG / 8)?[0])
        };
        let (one, both) = (grown(&layer)?, grown(&layer.clone().bidirectional())?);
        assert!(one > 0, "{LONG} steps of {cell:?} are as few dispatches as {}", LONG / 8);
        assert_eq!(both, one, "dispatches more for {LONG} steps of {cell:?}");
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu_strategies!(suite, both_directions_have_the_bits_of_each_alone);
    on_gpu!(
        suite,
        directions_that_do_not_fit_a_binding_run_one_after_the_other_with_the_same_bits,
        a_time_step_of_both_directions_is_one_dispatch_each_way,
        many_steps_of_both_directions_are_as_few_dispatches,
    );
}
