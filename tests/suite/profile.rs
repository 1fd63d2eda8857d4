//! What a device counts, and when its kernels ran.

use std::time::Instant;

use libtest_mimic::Failed;
use refrain::testing::ParameterPath;
use refrain::tuning::Profiling;
use refrain::{Device, Error, GpuOptions, Result, Tensor, ops};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::support::{Rule, Setup, random};

/// More dispatches than one query set has room for.
const MANY: usize = 2500;

fn profiled(adapter: &Adapter, profiling: Profiling, parameters: ParameterPath) -> Result<Device> {
    adapter.open_with(&GpuOptions { profiling, parameters, ..GpuOptions::default() })
}

fn has_timestamps(adapter: &Adapter) -> bool {
    adapter.summary().features.iter().any(|feature| feature == "timestamps")
}

fn has_no_timestamps(adapter: &Adapter) -> bool {
    !has_timestamps(adapter)
}

/// A few steps of training have an entry for each of their dispatches, in their order, inside the time that they took.
fn expect_whole_profile(device: &Device) -> Outcome {
    // What a test before has left.
    device.profile()?;
    let before = device.counters().dispatches;
    let start = Instant::now();
    Setup { rule: Rule::Adam, ..Setup::SMALL }.train(device, 3)?;
    let calls = device.profile()?;
    let elapsed = start.elapsed().as_nanos() as f64;
    assert_eq!(calls.len() as u64, device.counters().dispatches - before);
    for name in ["recurrent/*/forward", "recurrent/*/backward", "matmul/", "optimizer/adam"] {
        // Whether a recurrent layer takes one step a dispatch or many is its own choice.
        let parts: Vec<&str> = name.split('*').collect();
        let found = calls.iter().any(|call| parts.iter().all(|part| call.kernel.contains(part)));
        assert!(found, "no {name} among {:?}", calls.iter().map(|call| &call.kernel).collect::<Vec<_>>());
    }
    for pair in calls.windows(2) {
        assert!(pair[0].start_nanoseconds <= pair[1].start_nanoseconds, "{pair:?}");
    }
    let busy: f64 = calls.iter().map(|call| call.nanoseconds).sum();
    let (first, last) = (calls.first(), calls.last());
    let begin = first.map_or(0.0, |call| call.start_nanoseconds);
    let took = last.map_or(0.0, |call| call.start_nanoseconds + call.nanoseconds - begin);
    assert!(busy > 0.0, "no kernel took any time");
    // Two clocks: one in a hundred is more than they differ by.
    assert!(took <= 1.01 * elapsed, "the kernels ended after {took} ns, the host saw {elapsed} pass");
    assert!(device.profile()?.is_empty(), "calls are reported once");
    Ok(())
}

fn a_profile_has_an_entry_for_each_dispatch(adapter: &Adapter) -> Outcome {
    for parameters in [ParameterPath::Fastest, ParameterPath::Uniforms] {
        expect_whole_profile(&profiled(adapter, Profiling::Kernels, parameters)?)?;
    }
    Ok(())
}

fn a_profile_by_passes_has_an_entry_for_each_dispatch(adapter: &Adapter) -> Outcome {
    expect_whole_profile(&profiled(adapter, Profiling::Passes, ParameterPath::Fastest)?)
}

fn a_profile_continues_in_the_next_query_set(adapter: &Adapter) -> Outcome {
    let device = profiled(adapter, Profiling::Kernels, ParameterPath::Fastest)?;
    device.profile()?;
    let before = device.counters().submissions;
    let x = Tensor::zeros(&device, &[4])?;
    for _ in 0..MANY {
        ops::scale(&x, 2.0)?;
    }
    assert!(device.counters().submissions > before, "the query set is full");
    assert_eq!(device.profile()?.len(), MANY);
    Ok(())
}

fn profiling_changes_no_bit(adapter: &Adapter) -> Outcome {
    let plain = Setup::SMALL.train(&adapter.open()?, 3)?;
    for profiling in [Profiling::Kernels, Profiling::Passes] {
        let device = profiled(adapter, profiling, ParameterPath::Fastest)?;
        let timed = Setup::SMALL.train(&device, 3)?;
        timed.expect_same(&plain)?;
    }
    Ok(())
}

fn an_adapter_without_timestamps_refuses_to_be_profiled(adapter: &Adapter) -> Outcome {
    match profiled(adapter, Profiling::Kernels, ParameterPath::Fastest) {
        Err(Error::Unsupported { what, message }) => {
            assert!(what == "profiling" && message.contains("timestamp"), "{what}: {message}");
            Ok(())
        }
        other => Err(Failed::from(format!("expected Unsupported, got {other:?}"))),
    }
}

fn a_device_that_was_not_opened_for_it_has_no_profile(adapter: &Adapter) -> Outcome {
    match adapter.open()?.profile() {
        Err(Error::Config { what, message }) => {
            assert!(what == "profile" && message.contains("Profiling::Kernels"), "{what}: {message}");
            Ok(())
        }
        other => Err(Failed::from(format!("expected Config, got {other:?}"))),
    }
}

fn the_cpu_has_no_profile_and_counts_nothing() -> Outcome {
    for device in [Device::cpu(), Device::reference()] {
        assert!(matches!(device.profile(), Err(Error::Unsupported { .. })));
        random(&device, 1, &[3, 5], 1.0)?;
        device.synchronize()?;
        device.release_unused()?;
        assert_eq!(device.counters(), Default::default());
    }
    Ok(())
}

fn counters_report_bytes_in_use_and_their_peak(adapter: &Adapter) -> Outcome {
    const BYTES: u64 = 4 * 1024;
    let device = adapter.open_anew()?;
    let one = Tensor::zeros(&device, &[1024])?;
    let two = Tensor::zeros(&device, &[1024])?;
    assert_eq!(device.counters().bytes_in_use, 2 * BYTES);
    drop(one);
    assert_eq!(device.counters().bytes_in_use, BYTES);
    assert_eq!(device.counters().peak_bytes_in_use, 2 * BYTES);
    assert_eq!(device.counters().bytes, 2 * BYTES, "what is not in use waits for reuse");
    device.reset_peak();
    assert_eq!(device.counters().peak_bytes_in_use, BYTES);
    device.release_unused()?;
    assert_eq!(device.counters().bytes, BYTES);
    assert_eq!(two.download()?, [0.0; 1024]);
    Ok(())
}

fn synchronising_submits_once_and_waits_once(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let x = random(&device, 1, &[4, 5], 1.0)?;
    ops::scale(&x, 2.0)?;
    let before = device.counters();
    device.synchronize()?;
    let after = device.counters();
    assert_eq!((after.submissions, after.waits), (before.submissions + 1, before.waits + 1));
    device.synchronize()?;
    assert_eq!(device.counters().submissions, after.submissions, "nothing was left to submit");
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(suite, the_cpu_has_no_profile_and_counts_nothing);
    on_gpu!(
        suite,
        a_device_that_was_not_opened_for_it_has_no_profile,
        counters_report_bytes_in_use_and_their_peak,
        synchronising_submits_once_and_waits_once,
    );
    macro_rules! on_gpu_if {
        ($testable:ident: $($claim:ident),+ $(,)?) => {
            $(suite.gpu_if(concat!(module_path!(), "::", stringify!($claim)), $testable, $claim);)+
        };
    }
    on_gpu_if!(
        has_timestamps:
        a_profile_has_an_entry_for_each_dispatch,
        a_profile_by_passes_has_an_entry_for_each_dispatch,
        a_profile_continues_in_the_next_query_set,
        profiling_changes_no_bit,
    );
    on_gpu_if!(has_no_timestamps: an_adapter_without_timestamps_refuses_to_be_profiled);
}
