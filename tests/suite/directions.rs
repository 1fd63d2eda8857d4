//! Both directions of a layer go together through time: as many dispatches as one of them takes, and no bit is another.

use refrain::nn::{Cell, RandomKey, Rnn, Sequences, State};
use refrain::ops::{self, Binary};
use refrain::tuning::RecurrentStrategy;
use refrain::{Device, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_devices_strategies, on_gpu};
use crate::stacks::{Operands, Pass, Stack};
use crate::support::{by_entry, expect_close, expect_same_bits, step_by_step};

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
        of(Cell::Lstm).projection(9).clip_cell(0.25),
        of(Cell::Gru).layer_norm(),
    ]
}

/// The columns \[T, B, H\] of one direction of \[T, B, 2·H\].
fn columns(both: &Tensor, place: usize) -> Result<Tensor> {
    let [steps, batch, width] = both.shape().exactly("an array", "[steps, batch, width]")?;
    let own = both.download_f64()?.chunks(width / 2).skip(place).step_by(2).collect::<Vec<_>>().concat();
    Tensor::from_slice_f64(both.device(), &[steps, batch, width / 2], &own)
}

/// The state of one direction of a layer.
fn half(both: &State, place: usize) -> Result<State> {
    let of_layer = |part: Tensor| part.reshape(&[1, BATCH, part.shape().last()]);
    let hidden = of_layer(both.hidden_at(place)?)?;
    match both.cell_at(place)? {
        Some(cell) => State::from_hidden_and_cell(&hidden, &of_layer(cell)?),
        None => State::from_hidden(&hidden),
    }
}

fn both_directions_have_the_bits_of_each_alone(device: &Device) -> Outcome {
    for layer in layers() {
        let both = Stack::new(device, layer.clone().bidirectional())?;
        let operands = both.operands([STEPS, BATCH])?;
        let rows = Rows::new(device)?;
        for batch in [Batch::Whole, Batch::Ragged, Batch::Reset] {
            let together = both.pass(&operands, rows.sequences(batch))?;
            let own = |place: usize, part: &Tensor| columns(part, place);
            let (mut d_x, mut gradients) = (Vec::new(), Vec::new());
            for (place, alone) in [layer.clone(), layer.clone().reverse()].into_iter().enumerate() {
                let mut alone = Stack::new(device, alone)?;
                for spec in alone.model.specs() {
                    let view = both.parameters.view(&spec.name)?;
                    let (sizes, values) = (view.shape().dimensions(), view.download_f64()?);
                    alone.parameters.set_all([(spec.name.as_str(), sizes, values.as_slice())])?;
                }
                let operands = Operands {
                    x: operands.x.clone(),
                    d_y: own(place, &operands.d_y)?,
                    initial: half(&operands.initial, place)?,
                    d_last: half(&operands.d_last, place)?,
                };
                let alone = alone.pass(&operands, rows.sequences(batch))?;
                let what = format!("{layer:?}, {batch:?}, direction {place}");
                let d_own = alone.d_x.clone();
                let found = Pass {
                    y: own(place, &together.y)?,
                    last: half(&together.last, place)?,
                    d_x: d_own.clone(),
                    d_initial: half(&together.d_initial, place)?,
                    gradients: Vec::new(),
                };
                found.expect_same_rows(&what, &alone)?;
                gradients.extend(alone.gradients);
                d_x.push(d_own);
            }
            let what = format!("{layer:?}, {batch:?}");
            expect_same_bits(&what, &together.gradients, &gradients)?;
            let sum = ops::binary(&d_x[0], &d_x[1], Binary::Add)?.download_f64()?;
            expect_close(&what, &together.d_x.download_f64()?, &sum, by_entry(1e-5, &sum))?;
        }
    }
    Ok(())
}

/// The results of a training pass of two layers with masks, and its dispatches.
fn train(device: &Device, stack: &Rnn, batch: Batch) -> Result<(Vec<f64>, u64)> {
    let stack = Stack::new(device, stack.clone().bidirectional().layers(2))?;
    let (operands, rows) = (stack.operands([STEPS, BATCH])?, Rows::new(device)?);
    let sequences = rows.sequences(batch).training(RandomKey::new(3, 9));
    let (pass, dispatches) = stack.counted_pass(&operands, sequences)?;
    Ok((pass.values()?.map(|(_, values)| values).concat(), dispatches.iter().sum()))
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

/// Dispatches of a layer over `steps` steps, forward and backward.
fn dispatches(device: &Device, layer: &Rnn, steps: usize) -> Result<[u64; 2]> {
    let stack = Stack::new(device, layer.clone())?;
    Ok(stack.counted_pass(&stack.operands([steps, 2])?, Sequences::whole())?.1)
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
            let (few, many) = (dispatches(&device, &layer, 8)?, dispatches(&device, &layer, 24)?);
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
            Ok(dispatches(&device, layer, LONG)?[0] - dispatches(&device, layer, LONG / 8)?[0])
        };
        let (one, both) = (grown(&layer)?, grown(&layer.clone().bidirectional())?);
        assert!(one > 0, "{LONG} steps of {cell:?} are as few dispatches as {}", LONG / 8);
        assert_eq!(both, one, "dispatches more for {LONG} steps of {cell:?}");
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_devices_strategies!(suite, both_directions_have_the_bits_of_each_alone);
    on_gpu!(
        suite,
        directions_that_do_not_fit_a_binding_run_one_after_the_other_with_the_same_bits,
        a_time_step_of_both_directions_is_one_dispatch_each_way,
        many_steps_of_both_directions_are_as_few_dispatches,
    );
}
