//! NaN, infinities, zeros, subnormal numbers and the largest ones through every operation: what is not a number stays so,
//! and no other row of a batch sees it.
//!
//! Operations on a GPU are compared with the CPU in 32-bit floats, entry by entry: NaN with NaN, an infinity with that
//! infinity, a number with a number near it. How near is the matter of `equivalence`; here the class decides.

mod elementwise;
mod losses;
mod recurrent;
mod reductions;

use libtest_mimic::Failed;
use refrain::testing::ShaderBuild;
use refrain::{Device, GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite};

/// NaN of both signs, quiet and signalling, with the least and the largest payload. The last is the word that workgroups of
/// the persistent kernels take for "not there yet".
const NANS: [u32; 6] = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff];

/// Numbers at the ends of the range, zeros of both signs, subnormal numbers, and one in the middle.
const NUMBERS: [f32; 9] = [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 0.75];

/// All of them.
fn specials() -> Vec<f32> {
    NANS.into_iter().map(f32::from_bits).chain(NUMBERS).collect()
}

/// Named arrays that a computation yields.
type Results = Vec<(String, Vec<f32>)>;

/// By how much numbers may differ relative to the expected one,
const RELATIVE: f32 = 1e-4;
/// and absolutely: what a handful of terms of order one, as ordinary inputs are, round by. It covers subnormal numbers, which
/// a GPU may take for zero (WGSL, section 15.7.1).
const ABSOLUTE: f32 = 16.0 * f32::EPSILON;

fn is_alike(expected: f32, found: f32) -> bool {
    if expected.is_finite() && found.is_finite() {
        return (expected - found).abs() <= RELATIVE * expected.abs() + ABSOLUTE;
    }
    expected == found || expected.is_nan() && found.is_nan()
}

fn expect_alike(what: &str, expected: &[f32], found: &[f32]) -> Outcome {
    if expected.len() != found.len() {
        return Err(Failed::from(format!("{what}: {} values, not {}", found.len(), expected.len())));
    }
    match expected.iter().zip(found).position(|(&expected, &found)| !is_alike(expected, found)) {
        None => Ok(()),
        Some(place) => {
            let (expected, found) = (expected[place], found[place]);
            Err(Failed::from(format!("{what}[{place}]: {found:e}, not {expected:e}")))
        }
    }
}

/// The adapter with each build of the shaders.
fn builds(adapter: &Adapter) -> Result<[Device; 2]> {
    let open = |build| adapter.open_with(&GpuOptions { build, ..GpuOptions::default() });
    Ok([open(ShaderBuild::Checked)?, open(ShaderBuild::Trusted)?])
}

/// Registers claims about any device, functions of one: on both CPU backends, and on every adapter with each build.
macro_rules! on_builds {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.cpu(concat!(module_path!(), "::", stringify!($claim)), || {
            $crate::adapters::on_both_backends($claim)
        });
        $suite.gpu(concat!(module_path!(), "::", stringify!($claim)), |adapter| {
            $crate::extremes::builds(adapter)?.iter().try_for_each($claim)
        });)+
    };
}

/// Registers claims about what GPUs compute, functions that compute it on any device: each build gives what the CPU gives.
macro_rules! as_on_the_cpu {
    ($suite:expr, $($claim:ident),+ $(,)?) => {
        $($suite.gpu(concat!(module_path!(), "::", stringify!($claim)), |adapter| {
            $crate::extremes::expect_as_on_the_cpu(adapter, $claim)
        });)+
    };
}

use {as_on_the_cpu, on_builds};

/// Fails unless each build computes what the CPU does.
fn expect_as_on_the_cpu(adapter: &Adapter, compute: impl Fn(&Device) -> Result<Results>) -> Outcome {
    let expected = compute(&Device::cpu())?;
    let mut faults = Vec::new();
    for (device, build) in builds(adapter)?.iter().zip(["checked", "trusted"]) {
        for ((name, expected), (_, found)) in expected.iter().zip(compute(device)?) {
            if let Err(fault) = expect_alike(name, expected, &found) {
                faults.push(format!("{build}: {}", fault.message().unwrap_or_default()));
            }
        }
    }
    none_of(&faults)
}

/// Fails if there are faults, with all of them.
fn none_of(faults: &[String]) -> Outcome {
    match faults {
        [] => Ok(()),
        _ => Err(Failed::from(faults.join("\n"))),
    }
}

fn tensor(device: &Device, dimensions: &[usize], values: &[f32]) -> Result<Tensor> {
    Tensor::from_slice(device, dimensions, values)
}

/// A vector.
fn vector(device: &Device, values: &[f32]) -> Result<Tensor> {
    tensor(device, &[values.len()], values)
}

/// As [`crate::support::random`], in f32.
fn ordinary(stream: u64, count: usize) -> Vec<f32> {
    crate::support::values(stream, count, 1.0).into_iter().map(|value| value as f32).collect()
}

pub(crate) fn register(suite: &mut Suite) {
    elementwise::register(suite);
    losses::register(suite);
    recurrent::register(suite);
    reductions::register(suite);
}
