//! Recurrent layers, every cell and every option that bounds or compares: forward and backward, one extreme value in each
//! row of a batch, by each strategy over time.

use libtest_mimic::Failed;
use refrain::nn::{Cell, Model, RandomKey, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::testing::{PersistentLimits, ShaderBuild};
use refrain::tuning::RecurrentStrategy;
use refrain::{Device, GpuOptions, Result};

use super::{NANS, Results, expect_alike, none_of, ordinary, tensor};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::support::expect_same_bits;

const STEPS: usize = 4;
const INPUTS: usize = 3;
const HIDDEN: usize = 5;

/// What is put in row r, for r from 1 on; the first row and the last stay ordinary.
const ROWS: [f32; 7] =
    [f32::NAN, f32::from_bits(NANS[5]), f32::INFINITY, f32::NEG_INFINITY, 1e38, -1e38, 1e-40];
const BATCH: usize = ROWS.len() + 2;

fn stacks() -> Vec<(&'static str, Rnn)> {
    let of = |cell| Rnn::new(cell, INPUTS, HIDDEN);
    let hard = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };
    let low = Activation::HardTanh { low: -1.0, high: 1.0 };
    vec![
        ("tanh", of(Cell::tanh())),
        ("relu, bounded", of(Cell::relu()).clip_gates(1.5).clip_gradient(0.5)),
        ("lstm", of(Cell::Lstm)),
        ("lstm, bounded", of(Cell::Lstm).clip_gates(1.5).clip_cell(0.75).clip_gradient(0.5).peepholes()),
        ("lstm, other functions", of(Cell::Lstm).coupled().gate_activations(hard, low, Activation::Relu)),
        ("lstm, projected", of(Cell::Lstm).projection(2).clip_gradient(0.5)),
        ("lstm, zoneout", of(Cell::Lstm).zoneout(0.3, 0.2)),
        ("lstm, normalised", of(Cell::Lstm).layer_norm()),
        (
            "gru, bounded, both directions",
            of(Cell::Gru).clip_gates(1.5).clip_gradient(0.5).bidirectional().layers(2),
        ),
        ("gru, reset before", of(Cell::Gru).reset_before()),
        ("gru, normalised", of(Cell::Gru).layer_norm()),
    ]
}

/// Where the extreme value of a row is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Nowhere,
    Input,
    Hidden,
    Cell,
    Upstream,
}
use Place::{Hidden, Input, Nowhere, Upstream};

/// The step of inputs and of gradients at outputs that holds it.
const AT: usize = 1;

/// Arrays over a batch \[.., BATCH, width\].
struct OfRows {
    name: String,
    values: Vec<f32>,
    width: usize,
}

impl OfRows {
    /// The values of a row, from the first step to the last.
    fn row(&self, row: usize) -> Vec<f32> {
        let rows = self.values.chunks(self.width);
        rows.skip(row).step_by(BATCH).flatten().copied().collect()
    }
}

/// Outputs, last states, and the gradients at inputs and first states; the gradients of all parameters.
fn train(device: &Device, stack: &Rnn, place: Place) -> Result<(Vec<OfRows>, Results)> {
    let mut model = Model::new(6);
    let layer = model.add("rnn", stack.clone())?;
    let parameters = model.initialize(device)?;
    let outputs = layer.description().outputs();
    let zero = layer.zero_state(device, BATCH)?;
    let with = |stream, width: usize, count: usize, own: Place, row_at: usize| {
        let mut values = ordinary(stream, count);
        for (row, extreme) in ROWS.into_iter().enumerate().filter(|_| place == own) {
            values[row_at * BATCH * width + (row + 1) * width] = extreme;
        }
        values
    };
    let x = with(60, INPUTS, STEPS * BATCH * INPUTS, Input, AT);
    let x = tensor(device, &[STEPS, BATCH, INPUTS], &x)?;
    let d_y = with(61, outputs, STEPS * BATCH * outputs, Upstream, AT);
    let d_y = tensor(device, &[STEPS, BATCH, outputs], &d_y)?;
    let state_of = |stream, own, part: &refrain::Tensor| {
        let width = part.shape().last();
        tensor(device, part.shape().dimensions(), &with(stream, width, part.shape().elements(), own, 0))
    };
    let hidden = state_of(62, Hidden, &zero.hidden())?;
    let state = match zero.cell() {
        Some(cell) => State::from_hidden_and_cell(&hidden, &state_of(63, Place::Cell, &cell)?)?,
        None => State::from_hidden(&hidden)?,
    };
    let sequences = Sequences::whole().training(RandomKey::new(3, 9));
    let (y, last, trace) = layer.forward_sequences(&parameters, &x, &state, sequences)?;
    let mut gradients = parameters.zero_gradients()?;
    let (d_x, d_initial) = trace.backward(&d_y, None, &mut gradients)?;
    let mut of_rows = Vec::new();
    let parts = [
        ("y", Some(y)),
        ("h", Some(last.hidden())),
        ("c", last.cell()),
        ("d_x", Some(d_x)),
        ("d_h", Some(d_initial.hidden())),
        ("d_c", d_initial.cell()),
    ];
    for (name, tensor) in parts {
        let Some(tensor) = tensor else { continue };
        let (values, width) = (tensor.download()?, tensor.shape().last());
        of_rows.push(OfRows { name: name.to_owned(), values, width });
    }
    let mut of_parameters = Results::new();
    for name in parameters.names() {
        of_parameters.push((name.to_owned(), gradients.view(name)?.download()?));
    }
    Ok((of_rows, of_parameters))
}

/// The claims about one device: results are those of the CPU; ordinary rows have the bits that they have among ordinary rows;
/// a row with NaN in its input has NaN in all that depends on it, as has every gradient of the layer's parameters.
fn expect_confined(device: &Device, takes: impl Fn(usize) -> bool) -> Outcome {
    let mut faults = Vec::new();
    let mut take = |outcome: Outcome| {
        if let Err(fault) = outcome {
            faults.push(fault.message().unwrap_or_default().to_owned());
        }
    };
    for (_, (name, stack)) in stacks().into_iter().enumerate().filter(|(number, _)| takes(*number)) {
        let (clean, _) = train(device, &stack, Nowhere)?;
        let cell = stack.cell().has_cell_state().then_some(Place::Cell);
        for place in [Input, Hidden, Upstream].into_iter().chain(cell) {
            let name = format!("{name}, extremes in {place:?}, on {device}");
            let (expected, expected_gradients) = train(&Device::cpu(), &stack, place)?;
            let (found, gradients) = train(device, &stack, place)?;
            for ((clean, expected), found) in clean.iter().zip(&expected).zip(&found) {
                take(expect_alike(&format!("{name}: {}", found.name), &expected.values, &found.values));
                for row in [0, BATCH - 1] {
                    let what = format!("{name}: row {row} of {}", found.name);
                    take(expect_same_bits(&what, &clean.row(row), &found.row(row)));
                }
            }
            for ((parameter, expected), (_, found)) in expected_gradients.iter().zip(&gradients) {
                take(expect_alike(&format!("{name}: gradient of {parameter}"), expected, found));
                if place == Input {
                    let lost = found.iter().any(|value| value.is_nan());
                    assert!(lost, "{name}: the gradient of {parameter} is {found:?}");
                }
            }
            if place == Input {
                take(expect_nan_rows(&name, &stack, &found));
            }
        }
    }
    none_of(&faults)
}

/// Rows whose input is NaN at step [`AT`].
fn expect_nan_rows(name: &str, stack: &Rnn, found: &[OfRows]) -> Outcome {
    for part in found {
        for row in [1, 2] {
            let values = part.row(row);
            // What comes before in time does not know of it, in one direction; all gradients come after.
            let before = if part.name == "y" && !stack_has_both(stack) { AT * part.width } else { 0 };
            let right = values.iter().enumerate().all(|(at, value)| value.is_nan() == (at >= before));
            // Units that zoneout keeps do not see the step's input.
            let right = right || name.contains("zoneout") && values.iter().any(|value| value.is_nan());
            if !right {
                return Err(Failed::from(format!("{name}: row {row} of {} is {values:?}", part.name)));
            }
        }
    }
    Ok(())
}

fn stack_has_both(stack: &Rnn) -> bool {
    stack.outputs() == 2 * stack.hidden()
}

fn extreme_values_do_not_affect_other_rows(adapter: &Adapter) -> Outcome {
    // Where there are several adapters, each runs every stack in one number, and another in the other.
    let mut pairs = pairs(adapter)?.into_iter().enumerate();
    pairs.try_for_each(|(number, device)| expect_confined(&device, |stack| adapter.takes(stack + number)))
}

/// Each strategy over time with a build of its own.
fn pairs(adapter: &Adapter) -> Result<[Device; 2]> {
    let open =
        |recurrent, build| adapter.open_with(&GpuOptions { recurrent, build, ..GpuOptions::default() });
    Ok([
        open(RecurrentStrategy::PerStep, ShaderBuild::Checked)?,
        open(RecurrentStrategy::Sequence, ShaderBuild::Trusted)?,
    ])
}

/// Batch, inputs and units: sizes at which the arrays of one pass take the memory of another's.
const REUSED: [[usize; 3]; 3] = [[8, 9, 9], [8, 3, 9], [9, 9, 9]];

/// A pass over NaN leaves nothing to the next one, also of what a layer does not keep for its backward.
fn expect_clean_after_nan(device: &Device) -> Outcome {
    for cell in [Cell::tanh(), Cell::relu(), Cell::Vanilla(Activation::Sigmoid), Cell::Gru] {
        for [batch, inputs, units] in REUSED {
            let mut model = Model::new(6);
            let layer = model.add("rnn", Rnn::new(cell.clone(), inputs, units))?;
            let parameters = model.initialize(device)?;
            let x = tensor(device, &[STEPS, batch, inputs], &ordinary(66, STEPS * batch * inputs))?;
            let d_y = tensor(device, &[STEPS, batch, units], &ordinary(67, STEPS * batch * units))?;
            let run = |hidden: &[f32]| -> Result<Vec<f32>> {
                let state = State::from_hidden(&tensor(device, &[1, batch, units], hidden)?)?;
                let (y, _, trace) = layer.forward(&parameters, &x, &state)?;
                let mut gradients = parameters.zero_gradients()?;
                let (d_x, d_state) = trace.backward(&d_y, None, &mut gradients)?;
                Ok([y.download()?, d_x.download()?, d_state.hidden().download()?].concat())
            };
            let name = format!("{}, batch {batch}, {inputs} inputs, {units} units on {device}", cell.name());
            let hidden = ordinary(68, batch * units);
            let clean = run(&hidden)?;
            let lost = run(&vec![f32::NAN; batch * units])?;
            assert!(lost.iter().all(|value| value.is_nan()), "{name}: {lost:?}");
            expect_same_bits(&name, &clean, &run(&hidden)?)?;
        }
    }
    Ok(())
}

fn a_pass_over_nan_does_not_affect_the_next(adapter: &Adapter) -> Outcome {
    let mut pairs = pairs(adapter)?.into_iter().enumerate().filter(|(number, _)| adapter.takes(*number));
    pairs.try_for_each(|(_, device)| expect_clean_after_nan(&device))
}

/// One NaN means EMPTY in the exchange of persistent kernels: no state may have these bits.
fn persistent_kernels_exchange_every_nan(adapter: &Adapter) -> Outcome {
    let persistent_limits = PersistentLimits { workgroups: Some(2), ..PersistentLimits::default() };
    let options =
        GpuOptions { recurrent: RecurrentStrategy::Persistent, persistent_limits, ..GpuOptions::default() };
    // What it learns of waiting is this test's.
    let device = adapter.open_anew_with(&options)?;
    let stack = Rnn::new(Cell::tanh(), INPUTS, HIDDEN);
    for place in [Input, Hidden, Upstream] {
        let (rows, _) = train(&Device::cpu(), &stack, place)?;
        let (found, _) = train(&device, &stack, place)?;
        for (expected, found) in rows.iter().zip(&found) {
            let what = format!("extremes in {place:?}: {} on {device}", found.name);
            expect_alike(&what, &expected.values, &found.values)?;
        }
    }
    let report = device.persistent_report().expect("a GPU");
    assert!(report.dispatches >= 2, "{report:?}");
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    suite.cpu(concat!(module_path!(), "::extreme_values_do_not_affect_other_rows"), || {
        expect_confined(&Device::cpu(), |_| true)
    });
    suite.cpu(concat!(module_path!(), "::a_pass_over_nan_does_not_affect_the_next"), || {
        expect_clean_after_nan(&Device::cpu())
    });
    on_gpu!(
        suite,
        extreme_values_do_not_affect_other_rows,
        a_pass_over_nan_does_not_affect_the_next,
        persistent_kernels_exchange_every_nan,
    );
}
