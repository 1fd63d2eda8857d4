//! Sequences packed into one row: a reset separates them in both directions, so that each yields what it
//! yields alone.

use refrain::nn::{Cell, Merge, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::{Device, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite};
use crate::custom::RIGHT;
use crate::stacks::{Operands, Stack};
use crate::support::{by_entry, components, expect_close, expect_same_bits, largest, state_like};

const INPUTS: usize = 2;
const BATCH: usize = 3;
const STEPS: usize = 7;
/// How long the two sequences of each row are; what is left of its steps is padding.
const LENGTHS: [[usize; BATCH]; 2] = [[1, 4, 2], [3, 2, 5]];
/// The same in whole chunks of two steps.
const EVEN: [[usize; BATCH]; 2] = [[2, 4, 2], [4, 2, 4]];

/// A description, and the lengths at which it is tested.
struct Packing {
    name: &'static str,
    stack: Rnn,
    /// By direction.
    are_reverse: &'static [bool],
    lengths: [[usize; BATCH]; 2],
}

impl Packing {
    /// Whether the place of a state is of the reverse direction.
    fn is_reverse(&self, place: usize) -> bool {
        self.are_reverse[place % self.are_reverse.len()]
    }
}

/// Every cell, and everything that reads step flags: both directions, stacks, truncation, checkpoints.
fn cases() -> Vec<Packing> {
    let of = |cell| Rnn::new(cell, INPUTS, 5);
    let all = |stack: Rnn| {
        let hard = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };
        let stack = stack.peepholes().gate_activations(hard, Activation::Softsign, Activation::Tanh);
        stack.projection(4).clip_gates(0.5).clip_cell(0.25).clip_gradient(0.1)
    };
    let case = |name, stack, are_reverse| Packing { name, stack, are_reverse, lengths: LENGTHS };
    let forward = &[false][..];
    let reverse = |name, stack: Rnn| case(name, stack.reverse(), &[true]);
    let both = |name, stack: Rnn| case(name, stack.bidirectional(), &[false, true]);
    vec![
        case("tanh", of(Cell::tanh()), forward),
        reverse("reverse tanh", of(Cell::tanh()).layers(2)),
        both("bidirectional tanh", of(Cell::tanh())),
        case("lstm", of(Cell::Lstm).layers(2), forward),
        reverse("reverse lstm", of(Cell::Lstm)),
        both("bidirectional lstm", of(Cell::Lstm).layers(2).residual()),
        both("bidirectional lstm with all", all(of(Cell::Lstm))),
        both("bidirectional normalised lstm", of(Cell::Lstm).layer_norm()),
        case("gru", of(Cell::Gru), forward),
        reverse("reverse gru", of(Cell::Gru).reset_before()),
        both("bidirectional gru", of(Cell::Gru).merge(Merge::Sum).layers(2)),
        both("bidirectional custom cell", of(Cell::Custom(RIGHT.clone()))),
        Packing { lengths: EVEN, ..both("truncated", of(Cell::Lstm).truncated(2)) },
        case("windowed", of(Cell::Lstm).windowed(1), forward),
        Packing { lengths: EVEN, ..case("truncated every", of(Cell::Gru).truncated_every(2, 3), forward) },
    ]
}

/// As many steps from step `starts[row]` of each row on as `lengths[row]` says, at the first steps; zeros after them.
fn cut(all: &Tensor, starts: &[usize], lengths: &[usize]) -> Result<Tensor> {
    let (width, values) = (all.shape().last(), all.download_f64()?);
    let mut own = vec![0.0; values.len()];
    for (row, (&start, &length)) in starts.iter().zip(lengths).enumerate() {
        for step in 0..length {
            let [from, to] = [start + step, step].map(|step| (step * BATCH + row) * width);
            own[to..to + width].copy_from_slice(&values[from..from + width]);
        }
    }
    Tensor::from_slice_f64(all.device(), all.shape().dimensions(), &own)
}

/// The values of a state's parts, those at the places where `keep` is false replaced by zeros.
fn at_places(state: &State, keep: impl Fn(usize) -> bool) -> Result<Vec<Vec<f64>>> {
    let places = state.hidden().shape().dimensions()[0];
    let mut all = components(state)?;
    for part in &mut all {
        let width = part.len() / places;
        for (place, values) in part.chunks_mut(width).enumerate() {
            if !keep(place) {
                values.fill(0.0);
            }
        }
    }
    Ok(all)
}

/// The first sequence has the initial state of the forward direction and the final one of the reverse direction, the last
/// sequence the others. Between them, each direction starts from zeros.
fn packed_equals_each_alone(device: &Device, case: &Packing) -> Outcome {
    let Packing { name, lengths, .. } = *case;
    let stack = Stack::new(device, case.stack.clone())?;
    let operands = stack.operands([STEPS, BATCH])?;
    let indices = |values: &[u32]| Indices::from_slice(device, &[values.len()], values);
    let totals: Vec<u32> = (0..BATCH).map(|row| (lengths[0][row] + lengths[1][row]) as u32).collect();
    let totals = indices(&totals)?;
    let mut resets = vec![0; STEPS * BATCH];
    for (row, &start) in lengths[0].iter().enumerate() {
        resets[start * BATCH + row] = 1;
        // One in the padding means nothing.
        if start + lengths[1][row] < STEPS {
            resets[(start + lengths[1][row]) * BATCH + row] = 1;
        }
    }
    let resets = Indices::from_slice(device, &[STEPS, BATCH], &resets)?;
    let packed = stack.pass(&operands, Sequences::ragged(&totals).resets(&resets))?;
    let mut gradients = vec![0.0; packed.gradients.len()];
    for (number, own) in lengths.iter().enumerate() {
        let starts = if number == 0 { [0; BATCH] } else { lengths[0] };
        let own_u32: Vec<u32> = own.iter().map(|&length| length as u32).collect();
        let own_lengths = indices(&own_u32)?;
        // Whether the sequence is its row's first one in the order of the direction at a place, or the last one.
        let first = |place: usize| case.is_reverse(place) == (number == 1);
        let last = |place: usize| !first(place);
        let alone = Operands {
            x: cut(&operands.x, &starts, own)?,
            d_y: cut(&operands.d_y, &starts, own)?,
            initial: state_like(&operands.initial, &at_places(&operands.initial, first)?.concat())?,
            d_last: state_like(&operands.d_last, &at_places(&operands.d_last, last)?.concat())?,
        };
        let alone = stack.pass(&alone, Sequences::ragged(&own_lengths))?;
        let name = format!("{name}, sequence {number}");
        for (what, packed, alone) in [("y", &packed.y, &alone.y), ("d_x", &packed.d_x, &alone.d_x)] {
            let packed = cut(packed, &starts, own)?.download_f64()?;
            assert!(largest(&packed) > 1e-3, "{name}: {what} is all but zero");
            expect_same_bits(&format!("{name}: {what}"), &packed, &alone.download_f64()?)?;
        }
        let ends = [&packed, &alone].map(|pass| at_places(&pass.last, last));
        let [one, two] = ends;
        expect_same_bits(&format!("{name}: final states"), &one?.concat(), &two?.concat())?;
        let starts = [&packed, &alone].map(|pass| at_places(&pass.d_initial, first));
        let [one, two] = starts;
        expect_same_bits(&format!("{name}: gradients at initial states"), &one?.concat(), &two?.concat())?;
        gradients.iter_mut().zip(&alone.gradients).for_each(|(total, own)| *total += own);
    }
    // The same terms in sums of another order.
    let rounding = by_entry(200.0 * f64::from(f32::EPSILON), &gradients);
    expect_close(name, &packed.gradients, &gradients, rounding)
}

/// A reset before the first sequence: in the forward direction it replaces the row's initial state, and in
/// reverse there is no step before it.
fn a_reset_at_the_first_step_replaces_the_initial_state_of_the_forward_direction_only() -> Outcome {
    for device in [Device::cpu(), Device::reference()] {
        for case in cases() {
            let name = case.name;
            let reverse = |place| case.is_reverse(place);
            let stack = Stack::new(&device, case.stack.clone())?;
            let mut operands = stack.operands([STEPS, BATCH])?;
            let mut resets = vec![0; STEPS * BATCH];
            resets[..BATCH].fill(1);
            let resets = Indices::from_slice(&device, &[STEPS, BATCH], &resets)?;
            let reset = stack.pass(&operands, Sequences::whole().resets(&resets))?;
            operands.initial =
                state_like(&operands.initial, &at_places(&operands.initial, reverse)?.concat())?;
            let zero = stack.pass(&operands, Sequences::whole())?;
            expect_same_bits(name, &reset.y.download_f64()?, &zero.y.download_f64()?)?;
            expect_same_bits(name, &reset.d_x.download_f64()?, &zero.d_x.download_f64()?)?;
            let expected = at_places(&zero.d_initial, reverse)?.concat();
            expect_same_bits(name, &components(&reset.d_initial)?.concat(), &expected)?;
        }
    }
    Ok(())
}

fn sequences_packed_into_a_row_equal_each_alone_on_the_cpu() -> Outcome {
    for device in [Device::cpu(), Device::reference()] {
        for case in cases() {
            packed_equals_each_alone(&device, &case)?;
        }
    }
    Ok(())
}

fn sequences_packed_into_a_row_equal_each_alone(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    // One for each kernel that reads step flags; the cell makes no difference.
    let own = [
        "reverse tanh",
        "bidirectional gru",
        "bidirectional lstm with all",
        "bidirectional normalised lstm",
        "truncated",
        "windowed",
    ];
    let cases: Vec<Packing> = cases().into_iter().filter(|case| own.contains(&case.name)).collect();
    assert_eq!(cases.len(), own.len());
    cases.iter().try_for_each(|case| packed_equals_each_alone(&device, case))
}

/// The masks of a long batch are cut where a binding ends: the boundary of a step in reverse lies in the next piece.
fn reset_masks_that_exceed_a_binding_separate_the_same_steps(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let small = GpuOptions { workgroups: Some(2), ..GpuOptions::default() };
    let small = adapter.open_anew_with(&small)?;
    let (steps, batch) = (90, 13);
    let resets: Vec<u32> = (0..steps * batch).map(|place| u32::from(place % 5 == 2)).collect();
    let outputs = |device: &Device| -> Result<Vec<f32>> {
        let stack = Stack::new(device, Rnn::new(Cell::tanh(), INPUTS, 3).bidirectional())?;
        let operands = stack.operands([steps, batch])?;
        let resets = Indices::from_slice(device, &[steps, batch], &resets)?;
        stack.pass(&operands, Sequences::whole().resets(&resets))?.y.download()
    };
    expect_same_bits("outputs", &outputs(&device)?, &outputs(&small)?)
}

pub(crate) fn register(suite: &mut Suite) {
    crate::adapters::on_cpu!(
        suite,
        sequences_packed_into_a_row_equal_each_alone_on_the_cpu,
        a_reset_at_the_first_step_replaces_the_initial_state_of_the_forward_direction_only,
    );
    crate::adapters::on_gpu_strategies!(suite, sequences_packed_into_a_row_equal_each_alone);
    crate::adapters::on_gpu!(suite, reset_masks_that_exceed_a_binding_separate_the_same_steps,);
}
