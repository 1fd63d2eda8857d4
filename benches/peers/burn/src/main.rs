//! The work of `refrain bench` in burn, on the CPU or on a GPU through wgpu; a line of JSON for each shape.
//!
//! burn has recurrent modules of one layer, so the stack is built by hand. The work, the fields and what is fair in them are
//! described in `../../README.md`.

mod shape;
mod stack;
mod timing;
mod values;
mod work;

use std::process::ExitCode;

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use crate::shape::{Cell, Shape, Work};
use crate::timing::Timing;
use crate::work::{Failure, Prepared};

/// burn's release; Cargo.toml asks for exactly this one.
const VERSION: &str = "0.22.1";

/// The work of `refrain bench` in burn.
#[derive(Parser)]
#[command(name = "burn-peer", version)]
struct Options {
    /// Where it runs.
    #[arg(long, value_enum, default_value = "cpu")]
    device: Target,
    /// The only one that burn's modules are measured in.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// What one run does.
    #[arg(long, value_enum, default_value = "train")]
    work: Work,
    /// The cell of every layer.
    #[arg(long, value_enum, default_value = "lstm")]
    cell: Cell,
    /// Units of a layer.
    #[arg(long, value_name = "H", default_value = "256", value_parser = positive)]
    hidden: usize,
    /// Rows of the batch.
    #[arg(long, value_name = "B", default_value = "64", value_parser = positive)]
    batch: usize,
    /// Time steps.
    #[arg(long, value_name = "T", default_value = "128", value_parser = positive)]
    sequence: usize,
    /// Layers of the stack.
    #[arg(long, value_name = "L", default_value = "1", value_parser = positive)]
    layers: usize,
    /// Features of the input; H without it.
    #[arg(long, value_name = "I", value_parser = positive)]
    inputs: Option<usize>,
    /// Classes of the linear head in `train`.
    #[arg(long, value_name = "C", default_value = "64", value_parser = positive)]
    classes: usize,
    /// Every shape of the standard grid instead of one.
    #[arg(long)]
    grid: bool,
    /// Time at least so many runs.
    #[arg(long, default_value = "10", value_parser = positive)]
    runs: usize,
    /// And at least so long, but at most 100 runs.
    #[arg(long, default_value = "1.0")]
    seconds: f64,
    /// Threads on the CPU; all cores without it.
    #[arg(long, value_parser = positive)]
    threads: Option<usize>,
    /// Print a line of JSON for each shape.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// `burn-flex`, its backend for CPUs.
    Cpu,
    #[cfg(feature = "wgpu")]
    /// The adapter that wgpu prefers; `CUBECL_WGPU_DEFAULT_DEVICE=IntegratedGpu(0)` and the like choose another.
    Wgpu,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    /// 32-bit floats.
    F32,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number from 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

impl Options {
    fn shapes(&self) -> Vec<Shape> {
        if self.grid {
            return Shape::grid(self.classes);
        }
        vec![Shape {
            cell: self.cell,
            inputs: self.inputs.unwrap_or(self.hidden),
            hidden: self.hidden,
            batch: self.batch,
            sequence: self.sequence,
            layers: self.layers,
            classes: self.classes,
        }]
    }
}

/// A device with what the lines tell of it.
struct Bench {
    device: Device,
    name: String,
    driver: Option<String>,
    threads: usize,
}

impl Bench {
    fn new(target: Target, threads: usize) -> Result<Self, Failure> {
        Ok(match target {
            Target::Cpu => Self { device: Device::flex(), name: "cpu".to_owned(), driver: None, threads },
            #[cfg(feature = "wgpu")]
            Target::Wgpu => {
                let device = Device::wgpu(DeviceKind::DefaultDevice);
                let name = device.identity().ok_or("wgpu names no adapter")?.name;
                let kernels = if cfg!(feature = "spirv") { "SPIR-V, else WGSL" } else { "WGSL" };
                Self { device, name, driver: Some(format!("wgpu, {kernels}")), threads }
            }
        })
    }

    fn measure(&self, shape: &Shape, options: &Options) -> Result<Value, Failure> {
        let mut prepared = Prepared::new(shape, options.work, &self.device);
        let checksum = prepared.checksum()?;
        if !checksum.is_finite() {
            return Err(format!("the checksum is {checksum}").into());
        }
        let timing = timing::measure(|| prepared.run(&self.device), options.runs, options.seconds)?;
        Ok(self.line(shape, options.work, &timing, checksum))
    }

    /// The fields of one result, as `refrain bench --json` prints them.
    fn line(&self, shape: &Shape, work: Work, timing: &Timing, checksum: f64) -> Value {
        let seconds = timing.median / 1e3;
        json!({
            "framework": "burn",
            "version": VERSION,
            "device": self.name,
            "driver": self.driver,
            "precision": "f32",
            "threads": self.threads,
            "work": work.name(),
            "cell": shape.cell.name(),
            "inputs": shape.inputs,
            "hidden": shape.hidden,
            "batch": shape.batch,
            "sequence": shape.sequence,
            "layers": shape.layers,
            "classes": shape.classes,
            "runs": timing.runs,
            "milliseconds": timing.median,
            "minimum": timing.minimum,
            "spread": timing.spread,
            "microseconds_per_step": timing.median * 1e3 / shape.sequence as f64,
            "tokens_per_second": shape.tokens() as f64 / seconds,
            "gflops": shape.operations(work) / seconds / 1e9,
            "checksum": checksum,
            "gemm_fraction": null,
            "bandwidth_fraction": null,
            "dispatches_per_step": null,
            "host_microseconds_per_step": null,
            "bytes": null,
            "formula_bytes": null,
            "tuning": null,
            "recurrent": null,
        })
    }
}

fn sentence(line: &Value) -> String {
    format!(
        "burn {VERSION} on {} (f32, {} threads): {} {} T={} B={} I={} H={} L={}: {:.3} ms (minimum {:.3}, \
         spread {:.1} %, {} runs), {:.1} GFLOP/s, checksum {:.6}",
        line["device"].as_str().unwrap_or("?"),
        line["threads"],
        line["work"].as_str().unwrap_or("?"),
        line["cell"].as_str().unwrap_or("?"),
        line["sequence"],
        line["batch"],
        line["inputs"],
        line["hidden"],
        line["layers"],
        line["milliseconds"].as_f64().unwrap_or(f64::NAN),
        line["minimum"].as_f64().unwrap_or(f64::NAN),
        line["spread"].as_f64().unwrap_or(f64::NAN) * 100.0,
        line["runs"],
        line["gflops"].as_f64().unwrap_or(f64::NAN),
        line["checksum"].as_f64().unwrap_or(f64::NAN),
    )
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Precision::F32 = options.precision;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores);
    // The pool that burn-flex and its matrix products use.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    let bench = match pool.map_err(Failure::from).and_then(|()| Bench::new(options.device, threads)) {
        Ok(bench) => bench,
        Err(error) => {
            eprintln!("burn: {error}");
            return ExitCode::from(2);
        }
    };
    let mut code = ExitCode::SUCCESS;
    for shape in options.shapes() {
        match bench.measure(&shape, &options) {
            Ok(line) if options.json => println!("{line}"),
            Ok(line) => println!("{}", sentence(&line)),
            Err(error) => {
                eprintln!("burn: {shape:?} {}: {error}", options.work.name());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
