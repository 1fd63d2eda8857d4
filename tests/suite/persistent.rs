//! Persistent kernels, whose workgroups keep W_hh and wait for each other: the same bits as per_step, with
//! and without timeouts. Software adapters run few workgroups at once or one after the other, so that both
//! occur here.

use std::time::Duration;

use refrain::nn::{Cell, Layer, Model, RandomKey, Rnn, Sequences};
use refrain::testing::{PersistentLimits, PersistentReport};
use refrain::tuning::{
    Journal, PERSISTENT_VARIABLE, Persistent, RecurrentShape, RecurrentStrategy, Tuning, TuningSource,
};
use refrain::{AdapterKind, Device, Error, GpuOptions, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::custom::{GATED, RIGHT};
use crate::support::{all_gradients, expect_same_bits, random, step_by_step};

const INPUTS: usize = 3;

fn open(
    adapter: &Adapter,
    recurrent: RecurrentStrategy,
    persistent_limits: PersistentLimits,
) -> Result<Device> {
    // A device of its own, whose observations belong to this test.
    adapter.open_anew_with(&GpuOptions { recurrent, persistent_limits, ..GpuOptions::default() })
}

/// A layer over a batch whose rows may have several lengths, none at all among them, and resets.
#[derive(Clone, Debug)]
struct Case {
    layer: Rnn,
    steps: usize,
    batch: usize,
    ragged: bool,
}

/// Every cell and every option of the kernels, over sizes around those of the division.
fn cases() -> Vec<Case> {
    let of = |cell, units| Rnn::new(cell, INPUTS, units);
    let case = |layer, batch, ragged| Case { layer, steps: 7, batch, ragged };
    vec![
        case(of(Cell::tanh(), 33), 5, true),
        case(of(Cell::tanh(), 17).truncated(3).bidirectional(), 4, false),
        case(of(Cell::Gru, 16).recurrent_dropout(0.3), 9, false),
        case(of(Cell::Gru, 31).without_bias().reverse(), 3, true),
        case(of(Cell::Lstm, 15).peepholes().bidirectional(), 6, true),
        case(of(Cell::Lstm, 20).coupled().clip_gradient(0.01), 17, true),
        case(of(Cell::Lstm, 9).zoneout(0.2, 0.1).layers(2), 2, false),
        case(of(Cell::Custom(RIGHT.clone()), 18), 5, true),
        case(of(Cell::Custom(GATED.clone()), 17), 6, false),
    ]
}

/// Layers that two workgroups hold.
fn small_cases() -> Vec<Case> {
    let of = |cell, units| Rnn::new(cell, INPUTS, units);
    let case = |layer, batch| Case { layer, steps: 40, batch, ragged: false };
    vec![
        case(of(Cell::tanh(), 1), 1),
        case(of(Cell::tanh(), 30), 4),
        case(of(Cell::Gru, 8).bidirectional(), 3),
        case(of(Cell::Lstm, 16), 7),
    ]
}

/// Returns outputs, final states and all gradients.
fn train(device: &Device, case: &Case) -> Result<Vec<f32>> {
    let mut model = Model::new(6);
    let rnn = model.add("rnn", case.layer.clone())?;
    let parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let x = random(device, 51, &[case.steps, case.batch, INPUTS], 1.0)?;
    let d_y = random(device, 52, &[case.steps, case.batch, rnn.description().outputs()], 1.0)?;
    let lengths: Vec<u32> = (0..case.batch).map(|row| (row * 5 % (case.steps + 1)) as u32).collect();
    let lengths = Indices::from_slice(device, &[case.batch], &lengths)?;
    let resets: Vec<u32> = (0..case.steps * case.batch).map(|place| u32::from(place % 6 == 4)).collect();
    let resets = Indices::from_slice(device, &[case.steps, case.batch], &resets)?;
    let sequences = match case.ragged {
        true => Sequences::ragged(&lengths).resets(&resets),
        false => Sequences::whole(),
    };
    let state = rnn.zero_state(device, case.batch)?;
    let sequences = sequences.training(RandomKey::new(3, 9));
    let (y, last, trace) = rnn.forward_sequences(&parameters, &x, &state, sequences)?;
    let (d_x, d_initial) = trace.backward(&d_y, Some(&last), &mut gradients)?;
    let parts = [y, last.hidden(), d_x, d_initial.hidden()];
    let mut values = parts.iter().map(Tensor::download).collect::<Result<Vec<_>>>()?.concat();
    values.extend(all_gradients(&parameters, &gradients)?.into_iter().map(|value| value as f32));
    Ok(values)
}

/// Whether workgroups of one dispatch run together on this adapter; `None` where it is not known. Both software drivers run
/// an invocation to its end or its next barrier: lavapipe one workgroup after the other, SwiftShader one on each core.
fn runs_workgroups_together(adapter: &Adapter) -> Option<bool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match adapter.summary().name.as_str() {
        name if name.contains("SwiftShader") => Some(cores > 1),
        _ => None,
    }
}

/// How often a claim about waiting is tried: other processes may take a core away at any time.
const ATTEMPTS: usize = 20;
/// Layers of at least this many units are two workgroups that wait for each other; smaller ones are one.
const SHARED: usize = 16;

/// Two workgroups, each pass in one dispatch forward and one back. Whether they time out or not, the bits are those of
/// steps; where they run together, a layer that two of them share completes both without a timeout.
fn persistent_layers_have_the_bits_of_per_step(adapter: &Adapter) -> Outcome {
    let single = step_by_step(adapter)?;
    let together = runs_workgroups_together(adapter) == Some(true);
    let mut completed = 0;
    for case in small_cases() {
        let waits = case.layer.hidden() >= SHARED;
        for _ in 0..if together && waits { ATTEMPTS } else { 1 } {
            // What a timeout teaches a device is not the next case's.
            let limits = PersistentLimits { workgroups: Some(2), spin_limit: None };
            let device = open(adapter, RecurrentStrategy::Persistent, limits)?;
            let before = [&device, &single].map(|device| device.counters().dispatches);
            expect_same_bits(&format!("{case:?}"), &train(&device, &case)?, &train(&single, &case)?)?;
            let calls = [0, 1].map(|place| [&device, &single][place].counters().dispatches - before[place]);
            let report = device.persistent_report().expect("a GPU");
            assert!(report.dispatches >= 2, "{case:?}: {report:?}");
            assert!(calls[0] + case.steps as u64 <= calls[1], "{case:?}: {calls:?} dispatches");
            if waits && report.timeouts == 0 {
                completed += report.dispatches;
            }
            if completed > 0 {
                break;
            }
        }
    }
    assert!(!together || completed >= 2, "{completed} dispatches completed without a timeout");
    Ok(())
}

/// Layers wait with as many workgroups as the self-test finds to run together, and not at all where it finds none.
fn layers_have_the_workgroups_that_the_self_test_finds(adapter: &Adapter) -> Outcome {
    let device = open(adapter, RecurrentStrategy::Persistent, PersistentLimits::default())?;
    let report = || device.persistent_report().expect("a GPU");
    assert_eq!(report().workgroups, None, "before any layer has asked");
    train(&device, &small_cases()[1])?;
    let (report, found) = (report(), report().workgroups.expect("a layer has asked"));
    // A timeout leaves half as many, and in the end none: then there was a dispatch.
    match found {
        0 | 1 => assert_eq!(report.dispatches > 0, report.timeouts > 0, "{report:?}"),
        _ => assert!(found.is_power_of_two() && report.dispatches >= 2, "{report:?}"),
    }
    Ok(())
}

/// Layers with another strategy run no self-test.
fn devices_without_persistent_kernels_run_no_self_test(adapter: &Adapter) -> Outcome {
    let device = open(adapter, RecurrentStrategy::PerStep, PersistentLimits::default())?;
    train(&device, &small_cases()[1])?;
    let report = device.persistent_report().expect("a GPU");
    assert_eq!((report.workgroups, report.dispatches), (None, 0), "{report:?}");
    // Nor do layers with more than one dispatch per step, which have no choice to record.
    let options = GpuOptions {
        recurrent: RecurrentStrategy::Persistent,
        journal: Journal::Choices,
        ..GpuOptions::default()
    };
    let device = adapter.open_anew_with(&options)?;
    for layer in
        [Rnn::new(Cell::Gru, INPUTS, 9).reset_before(), Rnn::new(Cell::Lstm, INPUTS, 9).projection(4)]
    {
        train(&device, &Case { layer, steps: 5, batch: 3, ragged: false })?;
    }
    let report = device.persistent_report().expect("a GPU");
    assert_eq!((report.workgroups, report.dispatches), (None, 0), "{report:?}");
    assert_eq!(device.choices()?.recurrent_layers().count(), 0);
    Ok(())
}

/// Neither `Auto` nor a table of choices selects the strategy on a device on which it is not enabled.
fn no_layer_is_persistent_unless_enabled(adapter: &Adapter) -> Outcome {
    let case = &small_cases()[1];
    let shape = RecurrentShape { gates: 1, hidden_size: 30, rows: case.batch };
    let mut table = Tuning::new();
    table.set_recurrent(shape, RecurrentStrategy::Persistent)?;
    let options = GpuOptions {
        // Would allow two workgroups without a self-test.
        persistent_limits: PersistentLimits { workgroups: Some(2), spin_limit: None },
        tuning: TuningSource::Given(table),
        ..GpuOptions::default()
    };
    let dispatches = |persistent| -> Result<u64> {
        // Not opened as in the rest of the suite, which requests one strategy or the other.
        let name = format!("gpu:{}", adapter.summary().index);
        let device = Device::gpu_with(&name, &GpuOptions { persistent, ..options.clone() })?;
        train(&device, case)?;
        Ok(device.persistent_report().expect("a GPU").dispatches)
    };
    if std::env::var_os(PERSISTENT_VARIABLE).is_none() {
        assert_eq!(dispatches(Persistent::Environment)?, 0);
    }
    assert_eq!(dispatches(Persistent::Off)?, 0);
    assert!(dispatches(Persistent::On)? > 0);
    let both = GpuOptions {
        persistent: Persistent::Off,
        recurrent: RecurrentStrategy::Persistent,
        ..GpuOptions::default()
    };
    let refused = adapter.open_anew_with(&both).expect_err("off, and asked for");
    assert!(matches!(refused, Error::Config { .. }), "{refused:?}");
    Ok(())
}

/// With one workgroup per direction nothing waits, and nothing times out. Over more steps than fit a
/// dispatch, a dispatch that reused the exchange of the previous one would find no tile left.
fn dispatches_have_an_exchange_each(adapter: &Adapter) -> Outcome {
    let single = step_by_step(adapter)?;
    let device = open(
        adapter,
        RecurrentStrategy::Persistent,
        PersistentLimits { workgroups: Some(2), spin_limit: None },
    )?;
    let layer = Rnn::new(Cell::Lstm, INPUTS, 1).bidirectional();
    let case = Case { layer, steps: 300, batch: 4, ragged: false };
    let before = device.counters().dispatches;
    let found = train(&device, &case)?;
    let dispatches = device.counters().dispatches - before;
    expect_same_bits(&format!("{case:?}"), &found, &train(&single, &case)?)?;
    let report = device.persistent_report().expect("a GPU");
    assert_eq!((report.workgroups, report.timeouts), (Some(2), 0), "{report:?}");
    assert!(dispatches < case.steps as u64, "{dispatches} dispatches");
    Ok(())
}

/// More workgroups than any software adapter runs at once, with a small spin limit.
fn timed_out_steps_are_completed_to_the_same_bits(adapter: &Adapter) -> Outcome {
    let single = step_by_step(adapter)?;
    let expected = cases().iter().map(|case| train(&single, case)).collect::<Result<Vec<_>>>()?;
    for spin_limit in [64, 1024] {
        // After each timeout half as many workgroups may wait: this suffices for all cases.
        let workgroups = 1 << 15;
        let options = PersistentLimits { workgroups: Some(workgroups), spin_limit: Some(spin_limit) };
        let device = open(adapter, RecurrentStrategy::Persistent, options)?;
        for (case, expected) in cases().iter().zip(&expected) {
            expect_same_bits(
                &format!("{case:?}, spin limit {spin_limit}"),
                &train(&device, case)?,
                expected,
            )?;
        }
        let report = device.persistent_report().expect("a GPU");
        if adapter.summary().kind == AdapterKind::Software {
            assert!(report.timeouts > 0 && report.last.is_some(), "{report:?}");
            assert!(report.workgroups.is_some_and(|left| left < workgroups as usize), "{report:?}");
        }
    }
    Ok(())
}

/// Without a readback, a loop learns of its timeouts at later submissions and returns to per_step.
fn timeouts_are_known_without_a_readback(adapter: &Adapter) -> Outcome {
    // A submission is known to be finished at the latest three submissions later, when it leaves the window
    // in flight.
    const SUBMISSIONS: usize = 12;
    // A workgroup has at most 16 of these 60 units, so four are needed; after one timeout two may wait, which
    // is too few.
    let options = PersistentLimits { workgroups: Some(4), spin_limit: Some(64) };
    let device = open(adapter, RecurrentStrategy::Persistent, options)?;
    let (units, rows) = (60, 4);
    let mut model = Model::new(6);
    let rnn = model.add("rnn", Rnn::new(Cell::tanh(), INPUTS, units))?;
    let parameters = model.initialize(&device)?;
    let mut gradients = parameters.zero_gradients()?;
    let x = random(&device, 51, &[8, rows, INPUTS], 1.0)?;
    let d_y = random(&device, 52, &[8, rows, units], 1.0)?;
    let mut dispatches = Vec::new();
    for _ in 0..SUBMISSIONS {
        let (_, _, trace) = rnn.forward(&parameters, &x, &rnn.zero_state(&device, rows)?)?;
        trace.backward(&d_y, None, &mut gradients)?;
        device.flush()?;
        dispatches.push(device.persistent_report().expect("a GPU").dispatches);
    }
    let report = device.persistent_report().expect("a GPU");
    if adapter.summary().kind == AdapterKind::Software {
        assert!(
            dispatches[0] > 0 && report.timeouts > 0 && report.last.is_some(),
            "{report:?}, {dispatches:?}"
        );
        assert!(
            dispatches[SUBMISSIONS / 2..].iter().all(|count| *count == dispatches[SUBMISSIONS - 1]),
            "{dispatches:?}"
        );
    }
    Ok(())
}

/// A timeout that is seen by a readback and in the copy of its submission counts once.
fn a_timeout_counts_once(adapter: &Adapter) -> Outcome {
    // As above: a workgroup has at most 16 of these 60 units, and after one timeout two may wait.
    let options = PersistentLimits { workgroups: Some(4), spin_limit: Some(64) };
    let device = open(adapter, RecurrentStrategy::Persistent, options)?;
    let mut model = Model::new(6);
    let four = model.add("four", Rnn::new(Cell::tanh(), INPUTS, 60))?;
    // One workgroup per direction, which does not wait.
    let two = model.add("two", Rnn::new(Cell::tanh(), INPUTS, 1).bidirectional())?;
    let parameters = model.initialize(&device)?;
    let x = random(&device, 51, &[8, 4, INPUTS], 1.0)?;
    let pass = |rnn: &Layer<Rnn>| -> Result<PersistentReport> {
        rnn.infer(&parameters, &x, &rnn.zero_state(&device, 4)?)?.0.download()?;
        Ok(device.persistent_report().expect("a GPU"))
    };
    let mut report = pass(&four)?;
    for _ in 0..10 {
        if report.timeouts == 0 {
            report = pass(&four)?;
        }
    }
    if report.timeouts > 0 {
        let before = report.dispatches;
        for _ in 0..3 {
            report = pass(&two)?;
        }
        assert!(report.dispatches > before, "{report:?}");
        assert_eq!((report.timeouts, report.workgroups), (1, Some(2)), "{report:?}");
    }
    Ok(())
}

/// The bounds on waiting and completion follow from measured times.
fn polls_and_iterations_take_some_time(adapter: &Adapter) -> Outcome {
    let device = open(
        adapter,
        RecurrentStrategy::Persistent,
        PersistentLimits { workgroups: Some(2), spin_limit: None },
    )?;
    assert_eq!(device.persistent_report().expect("a GPU").poll, None, "before any layer has asked");
    train(&device, &small_cases()[1])?;
    let report = device.persistent_report().expect("a GPU");
    for time in [report.poll, report.iteration] {
        let time = time.expect("a layer has asked");
        // Shorter is impossible with a clock of 10 GHz, and 1024 longer ones would take a second.
        assert!(time >= Duration::from_nanos(1) && time < Duration::from_millis(1), "{report:?}");
    }
    Ok(())
}

/// Whether `Auto` selects the strategy where it is enabled.
fn is_hardware(adapter: &Adapter) -> bool {
    adapter.summary().kind != AdapterKind::Software
}

/// The purpose of the strategy, forward and backward: no workgroup times out, and the bits are those of
/// per_step.
fn large_layers_on_hardware_have_no_timeouts(adapter: &Adapter) -> Outcome {
    let single = step_by_step(adapter)?;
    for units in [512, 1024] {
        let device = open(adapter, RecurrentStrategy::Persistent, PersistentLimits::default())?;
        let layer = Rnn::new(Cell::Lstm, INPUTS, units);
        let case = Case { layer, steps: 64, batch: 16, ragged: false };
        expect_same_bits(&format!("{case:?}"), &train(&device, &case)?, &train(&single, &case)?)?;
        let report = device.persistent_report().expect("a GPU");
        assert_eq!(report.timeouts, 0, "{units} units: {report:?}");
    }
    Ok(())
}

/// The gradient of the first state of a segment has the bits that it has inside a sequence.
fn persistent_checkpoints_change_no_bit(adapter: &Adapter) -> Outcome {
    for (cell, units) in [(Cell::Lstm, 16), (Cell::Gru, 20)] {
        let options = PersistentLimits { workgroups: Some(64), spin_limit: Some(1024) };
        let device = open(adapter, RecurrentStrategy::Persistent, options)?;
        let layer = Rnn::new(cell.clone(), INPUTS, units);
        let plain = Case { layer: layer.clone(), steps: 34, batch: 64, ragged: true };
        let segments = Case { layer: layer.checkpointed(8), ..plain.clone() };
        let found = train(&device, &segments)?;
        let report = device.persistent_report().expect("a GPU");
        // At least one dispatch per segment for forward, recomputation and backward.
        assert!(report.dispatches >= 3 * 34 / 8, "{report:?}");
        expect_same_bits(cell.name(), &found, &train(&step_by_step(adapter)?, &plain)?)?;
    }
    Ok(())
}

fn too_large_a_spin_limit_is_refused(adapter: &Adapter) -> Outcome {
    let options = PersistentLimits { workgroups: None, spin_limit: Some(1 << 22) };
    let refused = open(adapter, RecurrentStrategy::Persistent, options).expect_err("the limit is too large");
    assert!(matches!(refused, Error::Config { .. }), "{refused:?}");
    assert!(refused.to_string().contains("at most 262144, not 4194304"), "{refused}");
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    // Other tests would take the cores that its workgroups need at once.
    let bits = concat!(module_path!(), "::persistent_layers_have_the_bits_of_per_step");
    suite.gpu_alone(bits, persistent_layers_have_the_bits_of_per_step);
    on_gpu!(
        suite,
        layers_have_the_workgroups_that_the_self_test_finds,
        devices_without_persistent_kernels_run_no_self_test,
        no_layer_is_persistent_unless_enabled,
        dispatches_have_an_exchange_each,
        timed_out_steps_are_completed_to_the_same_bits,
        timeouts_are_known_without_a_readback,
        a_timeout_counts_once,
        polls_and_iterations_take_some_time,
        persistent_checkpoints_change_no_bit,
        too_large_a_spin_limit_is_refused,
    );
    suite.gpu_if(
        concat!(module_path!(), "::large_layers_on_hardware_have_no_timeouts"),
        is_hardware,
        large_layers_on_hardware_have_no_timeouts,
    );
}
