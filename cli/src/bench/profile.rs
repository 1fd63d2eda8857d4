//! `refrain bench --profile`: times each kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use refrain::io::write_atomically;
use refrain::tuning::{KernelCall, Profiling, RecurrentStrategy};
use refrain::{Device, GpuOptions};
use serde_json::{Value, json};

use super::arguments::{Arguments, Recurrent};
use super::shape::{Shape, Work};
use super::work::Setting;
use crate::destination::expect_writable;
use crate::devices;
use crate::failure::Result;
use crate::terminal::stdout;

/// Runs before the profiled ones.
const WARM_UP: usize = 2;
const RUNS: usize = 3;

/// A second device whose kernels are timed, so that the timing does not affect other measurements.
pub(crate) struct Profile {
    path: PathBuf,
    device: Device,
    /// Label and kernel calls of each shape and work.
    sections: Vec<(String, Vec<KernelCall>)>,
}

impl Profile {
    /// Opens the adapter of `device`, which `arguments` selected, a second time.
    ///
    /// # Errors
    /// [`refrain::Error::Unsupported`] on the CPU and on adapters without timestamps; a file that cannot be written.
    pub(crate) fn open(path: &Path, arguments: &Arguments, device: &Device) -> Result<Self> {
        /// The expected size of a trace, at least.
        const BYTES: u64 = 1 << 20;
        if !device.is_gpu() {
            // Returns the library's own error.
            device.profile()?;
        }
        let options = GpuOptions {
            profiling: Profiling::Kernels,
            recurrent: arguments.recurrent.map_or(RecurrentStrategy::Auto, Recurrent::strategy),
            ..GpuOptions::default()
        };
        let device = Device::gpu_with(&devices::wish(&arguments.device), &options)?;
        expect_writable("--profile", path, BYTES)?;
        Ok(Self { path: path.to_owned(), device, sections: Vec::new() })
    }

    /// Runs one shape and work with its kernels timed.
    pub(crate) fn add(&mut self, shape: Shape, work: Work) -> Result<()> {
        let mut setting = Setting::new(&self.device, shape, work)?;
        for _ in 0..WARM_UP {
            setting.run()?;
        }
        self.device.profile()?;
        for _ in 0..RUNS {
            setting.run()?;
        }
        self.sections.push((format!("{work} {shape}"), self.device.profile()?));
        drop(setting);
        Ok(self.device.release_unused()?)
    }

    /// Prints the tables, unless the output is JSON, and writes the trace.
    pub(crate) fn finish(&self, json: bool) -> Result<()> {
        let trace = trace(&self.device.to_string(), &self.sections);
        write_atomically(&self.path, trace.to_string().as_bytes())?;
        if json {
            return Ok(());
        }
        let mut out = stdout();
        for (name, calls) in &self.sections {
            write!(out, "\n{name}\n{}", table(calls))?;
        }
        let events: usize = self.sections.iter().map(|(_, calls)| calls.len()).sum();
        writeln!(
            out,
            "\n{events} kernel calls in {}, for chrome://tracing or Perfetto",
            self.path.display()
        )?;
        Ok(())
    }
}

/// The kernels by their share of the time, per run of [`RUNS`].
fn table(calls: &[KernelCall]) -> String {
    let mut kernels: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for call in calls {
        let (count, nanoseconds) = kernels.entry(&call.kernel).or_default();
        *count += 1;
        *nanoseconds += call.nanoseconds;
    }
    let total: f64 = kernels.values().map(|(_, nanoseconds)| nanoseconds).sum();
    let mut rows: Vec<_> = kernels.into_iter().collect();
    rows.sort_by(|(_, (_, one)), (_, (_, two))| two.total_cmp(one));
    rows.push(("all", (calls.len(), total)));
    let row = |(kernel, (count, nanoseconds)): (&str, (usize, f64))| {
        let runs = RUNS as f64;
        let share = if total > 0.0 { 100.0 * nanoseconds / total } else { 0.0 };
        let mean = nanoseconds / 1e3 / (count as f64).max(1.0);
        let (calls, milliseconds) = (count as f64 / runs, nanoseconds / 1e6 / runs);
        format!("{kernel:36} {calls:>9.1} {milliseconds:>11.4} {share:>6.1}% {mean:>11.2}\n")
    };
    let head =
        format!("{:36} {:>9} {:>11} {:>7} {:>11}\n", "kernel", "calls/run", "ms/run", "share", "mean µs");
    head + &rows.into_iter().map(row).collect::<String>()
}

/// The calls as trace events: one process for the device, one thread per shape and work.
fn trace(device: &str, sections: &[(String, Vec<KernelCall>)]) -> Value {
    const PROCESS: usize = 1;
    let named = |event: &str, thread: usize, name: &str| json!({"ph": "M", "name": event, "pid": PROCESS, "tid": thread, "args": {"name": name}});
    let mut events = vec![named("process_name", 0, device)];
    for ((name, calls), thread) in sections.iter().zip(1..) {
        events.push(named("thread_name", thread, name));
        events.extend(calls.iter().map(|call| {
            json!({
                "ph": "X", "cat": "kernel", "name": call.kernel, "pid": PROCESS, "tid": thread,
                "ts": call.start_nanoseconds / 1e3, "dur": call.nanoseconds / 1e3,
            })
        }));
    }
    json!({"traceEvents": events, "displayTimeUnit": "ns"})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls() -> Vec<KernelCall> {
        let call = |kernel: &str, start_nanoseconds, nanoseconds| KernelCall {
            kernel: kernel.to_owned(),
            start_nanoseconds,
            nanoseconds,
        };
        vec![call("matmul", 0.0, 3e6), call("step", 3e6, 5e6), call("step", 9e6, 4e6)]
    }

    #[test]
    fn the_table_has_the_longest_kernel_first_and_their_sum_last() {
        let text = table(&calls());
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["step", "0.7", "3.0000", "75.0%", "4500.00"]);
        assert_eq!(rows[1], ["matmul", "0.3", "1.0000", "25.0%", "3000.00"]);
        assert_eq!(rows[2], ["all", "1.0", "4.0000", "100.0%", "4000.00"]);
    }

    #[test]
    fn the_trace_names_device_and_shape_and_counts_in_microseconds() {
        let value = trace("card", &[("train lstm".to_owned(), calls())]);
        let events = value["traceEvents"].as_array().expect("a list");
        assert_eq!(events.len(), 5);
        assert_eq!(events[0]["args"]["name"], "card");
        assert_eq!(events[1]["args"]["name"], "train lstm");
        assert_eq!(events[3]["name"], "step");
        assert_eq!((events[3]["ts"].as_f64(), events[3]["dur"].as_f64()), (Some(3000.0), Some(5000.0)));
    }
}
