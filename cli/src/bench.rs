//! `refrain bench`: times recurrent layers, training steps and single operations.

pub(crate) mod arguments;
pub(crate) mod check;
pub(crate) mod measure;
pub(crate) mod operations;
mod profile;
mod rates;
pub(crate) mod report;
mod scale;
pub(crate) mod shape;
pub(crate) mod work;

use refrain::testing::PersistentReport;
use refrain::tuning::PERSISTENT_VARIABLE;
use refrain::{Device, Error, GpuOptions};

use self::arguments::{Arguments, strategy_name};
use self::check::expect_right;
use self::measure::{Effort, Timing, median, repeat};
use self::profile::Profile;
use self::rates::Rates;
use self::report::{Line, Place, Report};
use self::scale::Scale;
use self::shape::{Shape, Work};
use self::work::Setting;
use crate::devices;
use crate::failure::{Failure, Result};
use crate::terminal::stderr;

/// Runs the benchmarks and prints a line for each.
///
/// # Errors
/// Invalid options; a device that does not exist or, with `--profile`, has no timestamps; work with wrong results, which is
/// not timed; shapes none of which fits the device.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.validate()?;
    let device = open(arguments)?;
    let mut place = Place::of(&device);
    place.recurrent = arguments.recurrent.map(|way| strategy_name(way.strategy()));
    let shapes = arguments.shapes(place.strategy);
    if arguments.ops {
        return operations::run(arguments, &device, &place, &shapes);
    }
    let mut scale = match &arguments.plot {
        Some(path) => Some(Scale::begin(path, &shapes, &place.described)?),
        None => None,
    };
    let mut profile = match &arguments.profile {
        Some(path) => Some(Profile::open(path, arguments, &device)?),
        None => None,
    };
    let jobs: Vec<(Shape, Work)> = shapes
        .iter()
        .flat_map(|&shape| arguments.work().into_iter().map(move |work| (shape, work)))
        .collect();
    let jobs = fitting(&device, jobs)?;
    for kind in check::kinds(&jobs) {
        expect_right(&device, kind)?;
    }
    let rates = Rates::measure(&device, place.strategy)?;
    let report = Report::begin(&place, &rates, arguments.json)?;
    let effort = arguments.effort();
    let mut skipped = 0;
    for &(shape, work) in &jobs {
        let timed = Measured::of(&device, shape, work, &effort).and_then(|measured| {
            report.line(&Line::new(&place, &rates, shape, work, &measured))?;
            if let Some(scale) = &mut scale {
                scale.add(&shape, work, measured.timing.median * 1e3);
            }
            match &mut profile {
                Some(profile) => profile.add(shape, work),
                None => Ok(()),
            }
        });
        skipped += usize::from(unless_too_large(&format!("{work} {shape}"), timed)?.is_none());
        // The next shape needs buffers of other sizes.
        device.release_unused()?;
    }
    if skipped == jobs.len() {
        return Err(nothing_fits(&device));
    }
    if let Some(words) = device.persistent_report().and_then(|report| persistent(&report)) {
        writeln!(stderr(), "{words}")?;
    }
    if let Some(scale) = scale {
        scale.finish(arguments.json)?;
    }
    match profile {
        Some(profile) => profile.finish(arguments.json),
        None => Ok(()),
    }
}

/// Opens the requested device with the requested recurrent strategy.
fn open(arguments: &Arguments) -> Result<Device> {
    let name = &arguments.device;
    let Some(way) = arguments.recurrent else { return devices::open(name) };
    if matches!(devices::wish(name).to_lowercase().as_str(), "cpu" | "reference") {
        return Err(Failure::option("--recurrent", "applies only to GPUs: the CPU has one implementation"));
    }
    let options = GpuOptions { recurrent: way.strategy(), ..GpuOptions::default() };
    devices::warned(Device::gpu_with(&devices::wish(name), &options)?)
}

/// Describes what happened to persistent kernels; `None` if they were not enabled.
fn persistent(report: &PersistentReport) -> Option<String> {
    let workgroups = report.workgroups?;
    Some(match report.last {
        None if workgroups == 0 => {
            format!(
                "persistent: not used, because workgroups may not make progress while they wait for each other or \
                 {PERSISTENT_VARIABLE}=0 disables it"
            )
        }
        None if report.dispatches == 0 => {
            format!(
                "persistent: not used, because no layer fits {workgroups} workgroups and is likely to be faster"
            )
        }
        None => format!("persistent: up to {workgroups} workgroups wait for each other; no wait timed out"),
        Some((step, place)) => format!(
            "persistent: {} waits timed out, the last in workgroup {place} at step {step} of its dispatch; the steps were \
             completed without waiting; up to {workgroups} workgroups may wait now",
            report.timeouts
        ),
    })
}

/// The jobs that fit the device's memory; prints why the others are skipped.
fn fitting(device: &Device, jobs: Vec<(Shape, Work)>) -> Result<Vec<(Shape, Work)>> {
    let mut fitting = Vec::with_capacity(jobs.len());
    for (shape, work) in jobs {
        let fits = shape.footprint(work).expect_fits(device);
        fitting.extend(unless_too_large(&format!("{work} {shape}"), fits)?.map(|()| (shape, work)));
    }
    if fitting.is_empty() { Err(nothing_fits(device)) } else { Ok(fitting) }
}

fn nothing_fits(device: &Device) -> Failure {
    Failure::option("bench", format!("none of these shapes fits {device}: use smaller sizes"))
}

/// Returns `None`, and prints why, if something is rejected for its size.
pub(crate) fn unless_too_large<T>(what: &str, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Refused(error)) if is_too_large(&error) => {
            writeln!(stderr(), "skipped: {what}: {error}")?;
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// Whether a shape is rejected for its size, so that others may still be timed.
fn is_too_large(error: &Error) -> bool {
    match error {
        Error::OutOfMemory { .. } | Error::ExceedsLimit { .. } => true,
        // The footprint check reports the host's memory with this option.
        Error::Config { what, .. } => what == "--hidden",
        _ => false,
    }
}

/// The measurements of one shape and work.
#[derive(Clone, Copy, Debug)]
struct Measured {
    timing: Timing,
    /// The sum of the work's results.
    checksum: f64,
    /// Kernel dispatches per run; `None` on the CPU.
    dispatches: Option<u64>,
    /// Seconds per run spent on recording and submitting; `None` on the CPU, and if the host had to wait meanwhile.
    host: Option<f64>,
    /// Peak bytes of GPU memory in use; `None` on the CPU.
    bytes: Option<u64>,
    /// The same for a training step, computed by `Model::cost`; `None` for other work.
    formula: Option<u64>,
}

impl Measured {
    fn of(device: &Device, shape: Shape, work: Work, effort: &Effort) -> Result<Self> {
        let mut setting = Setting::new(device, shape, work)?;
        let checksum = setting.checksum()?;
        if !checksum.is_finite() {
            let deviation = format!("its values add up to {checksum}");
            return Err(Failure::Wrong { what: format!("{work} {shape}"), deviation });
        }
        // From here on no work is pending on the device.
        device.reset_peak();
        let (timing, runs) = repeat(effort, || setting.run())?;
        let gpu = device.is_gpu();
        let undisturbed = runs.iter().all(|run| run.waits == 0);
        let hosts: Vec<f64> = runs.iter().map(|run| run.host).collect();
        Ok(Self {
            timing,
            checksum,
            dispatches: runs.last().map(|run| run.dispatches).filter(|_| gpu),
            host: (gpu && undisturbed).then(|| median(&hosts)),
            bytes: gpu.then(|| device.counters().peak_bytes_in_use),
            formula: setting.training_bytes()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_persistent_kernels_are_reported() {
        assert_eq!(persistent(&PersistentReport::default()), None);
        let fine = PersistentReport {
            trusted: true,
            workgroups: Some(512),
            dispatches: 9,
            ..PersistentReport::default()
        };
        assert!(
            persistent(&fine)
                .is_some_and(|words| words.contains("512") && words.contains("no wait timed out"))
        );
        let refused = PersistentReport { workgroups: Some(0), ..fine };
        assert!(persistent(&refused).is_some_and(|words| words.contains("not used")));
        let unused = PersistentReport { dispatches: 0, ..fine };
        assert!(persistent(&unused).is_some_and(|words| words.contains("no layer fits 512")));
        let stopped = PersistentReport { workgroups: Some(64), timeouts: 3, last: Some((7, 21)), ..fine };
        let words = persistent(&stopped).expect("a description");
        for part in ["3 waits", "workgroup 21", "step 7", "up to 64"] {
            assert!(words.contains(part), "{part} in {words}");
        }
    }
}
