//! The output of `refrain bench`: a table, or lines of JSON.

use refrain::tuning::Tuning;
use refrain::{AdapterKind, Device};
use serde::Serialize;

use super::Measured;
use super::rates::Rates;
use super::shape::{DeviceClass, Shape, Work};
use crate::devices;
use crate::failure::Result;
use crate::format::{bytes, print};
use crate::terminal::stdout;

/// Descriptions of the device.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) device: String,
    /// The GPU's driver, or the CPU's model.
    pub(crate) driver: String,
    pub(crate) precision: &'static str,
    pub(crate) strategy: DeviceClass,
    /// The number of measured choices that the device uses; `None` without, and on the CPU.
    pub(crate) tuned: Option<usize>,
    /// The same as text; `None` on the CPU.
    pub(crate) tuning: Option<String>,
    /// The requested strategy of recurrent layers.
    pub(crate) recurrent: Option<&'static str>,
    /// The device with its kind and graphics API.
    pub(crate) described: String,
}

impl Place {
    pub(crate) fn of(device: &Device) -> Self {
        let name = device.to_string();
        let strategy = match device.adapter_kind() {
            None => DeviceClass::Cpu,
            Some(AdapterKind::Software) => DeviceClass::Software,
            Some(_) => DeviceClass::Hardware,
        };
        let driver = match strategy {
            DeviceClass::Cpu => processor(),
            DeviceClass::Hardware | DeviceClass::Software => {
                device.adapter().map_or_else(|| "unknown".to_owned(), |adapter| adapter.driver.clone())
            }
        };
        let tuned = device.tuning().map(Tuning::len);
        let tuning = device.adapter().map(devices::tuning);
        let precision = if *device == Device::reference() { "f64" } else { "f32" };
        let described = devices::describe(device);
        Self { driver, precision, strategy, tuned, tuning, recurrent: None, described, device: name }
    }
}

/// The processor's name and number of threads.
fn processor() -> String {
    let mut system = sysinfo::System::new();
    system.refresh_cpu_all();
    let brand = system.cpus().first().map_or("unknown processor", |cpu| cpu.brand().trim());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{brand}, {threads} threads")
}

/// One line of JSON: one shape and work. `benches/peers` prints the same fields for other frameworks; fields that only
/// refrain has are null there.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line<'a> {
    framework: &'static str,
    version: &'static str,
    device: &'a str,
    driver: &'a str,
    precision: &'static str,
    tuning: Option<usize>,
    recurrent: Option<&'static str>,
    work: &'static str,
    cell: &'static str,
    inputs: usize,
    hidden: usize,
    batch: usize,
    sequence: usize,
    layers: usize,
    classes: usize,
    runs: usize,
    milliseconds: f64,
    minimum: f64,
    spread: f64,
    microseconds_per_step: f64,
    tokens_per_second: f64,
    gflops: f64,
    checksum: f64,
    gemm_fraction: f64,
    bandwidth_fraction: f64,
    dispatches_per_step: Option<f64>,
    host_microseconds_per_step: Option<f64>,
    bytes: Option<u64>,
    /// The bytes of a training step according to `Model::cost`.
    formula_bytes: Option<u64>,
}

impl<'a> Line<'a> {
    pub(super) fn new(
        place: &'a Place,
        rates: &Rates,
        shape: Shape,
        work: Work,
        measured: &Measured,
    ) -> Self {
        let steps = shape.sequence as f64;
        let seconds = measured.timing.median;
        let flops = shape.flops(work) / seconds;
        Self {
            framework: "refrain",
            version: env!("CARGO_PKG_VERSION"),
            device: &place.device,
            driver: &place.driver,
            precision: place.precision,
            tuning: place.tuned,
            recurrent: place.recurrent,
            work: work.name(),
            cell: shape.cell.name(),
            inputs: shape.inputs,
            hidden: shape.hidden,
            batch: shape.batch,
            sequence: shape.sequence,
            layers: shape.layers,
            classes: shape.classes,
            runs: measured.timing.runs,
            milliseconds: seconds * 1e3,
            minimum: measured.timing.minimum * 1e3,
            spread: measured.timing.spread,
            microseconds_per_step: seconds * 1e6 / steps,
            tokens_per_second: shape.rows() / seconds,
            gflops: flops / 1e9,
            checksum: measured.checksum,
            gemm_fraction: flops / rates.gemm,
            bandwidth_fraction: shape.bytes(work) / seconds / rates.bandwidth,
            dispatches_per_step: measured.dispatches.map(|dispatches| dispatches as f64 / steps),
            host_microseconds_per_step: measured.host.map(|host| host * 1e6 / steps),
            bytes: measured.bytes,
            formula_bytes: measured.formula,
        }
    }

    fn row(&self) -> String {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        format!(
            "{:8} {:8} {:>6} {:>6} {:>5} {:>8} {:>6} {:>10.3} {:>10.3} {:>6.1}% {:>9.2} {:>11.0} {:>9.2} {:>6.1}% \
             {:>9.1}% {:>10} {:>9} {:>10}",
            self.work,
            self.cell,
            self.inputs,
            self.hidden,
            self.batch,
            self.sequence,
            self.layers,
            self.milliseconds,
            self.minimum,
            100.0 * self.spread,
            self.microseconds_per_step,
            self.tokens_per_second,
            self.gflops,
            100.0 * self.gemm_fraction,
            100.0 * self.bandwidth_fraction,
            number(self.dispatches_per_step),
            number(self.host_microseconds_per_step),
            self.bytes.map_or("-".to_owned(), bytes),
        )
    }
}

/// The column heads of [`Line::row`].
fn heads() -> String {
    format!(
        "{:8} {:8} {:>6} {:>6} {:>5} {:>8} {:>6} {:>10} {:>10} {:>7} {:>9} {:>11} {:>9} {:>7} {:>10} {:>10} {:>9} {:>10}",
        "work",
        "cell",
        "inputs",
        "hidden",
        "batch",
        "sequence",
        "layers",
        "ms",
        "least ms",
        "spread",
        "µs/step",
        "tokens/s",
        "GFLOP/s",
        "of GEMM",
        "of memory",
        "calls/step",
        "host µs",
        "GPU memory"
    )
}

/// Prints lines as they are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    json: bool,
}

impl Report {
    /// Prints the lines above the table.
    pub(crate) fn begin(place: &Place, rates: &Rates, json: bool) -> Result<Self> {
        if !json {
            let mut out = stdout();
            write!(out, "{}", header(place))?;
            let Rates { side, gemm, numbers, bandwidth } = rates;
            writeln!(out, "GEMM        {:.2} GFLOP/s ({side} x {side} x {side}, f32)", gemm / 1e9)?;
            writeln!(out, "memory      {:.2} GB/s (p - rate * g over {numbers} numbers)\n", bandwidth / 1e9)?;
            writeln!(out, "{}", heads())?;
        }
        Ok(Self { json })
    }

    /// Prints one line.
    pub(crate) fn line(&self, line: &Line<'_>) -> Result<()> {
        print(line, self.json, Line::row)
    }
}

/// Device, driver and tuning as text.
pub(crate) fn header(place: &Place) -> String {
    let tuning = place.tuning.as_ref().map_or_else(String::new, |tuning| format!("tuning      {tuning}\n"));
    let way = place
        .recurrent
        .map_or_else(String::new, |way| format!("recurrent   {way}, where layers support it\n"));
    format!("device      {}\ndriver      {}\n{tuning}{way}", place.described, place.driver)
}

#[cfg(test)]
mod tests {
    use refrain::nn::Cell;

    use super::super::measure::Timing;
    use super::*;
    use crate::format::json;

    #[test]
    fn a_line_follows_from_what_was_measured() {
        let shape =
            Shape { cell: &Cell::Lstm, inputs: 3, hidden: 5, batch: 2, sequence: 10, layers: 1, classes: 64 };
        let measured = Measured {
            timing: Timing { runs: 12, median: 0.002, minimum: 0.001, spread: 0.25 },
            checksum: 0.5,
            dispatches: Some(15),
            host: Some(0.0001),
            bytes: Some(2048),
            formula: Some(2000),
        };
        let rates = Rates { side: 512, gemm: 1e9, numbers: 1, bandwidth: 1e9 };
        let place = Place {
            device: "card".into(),
            driver: "1.0".into(),
            precision: "f32",
            strategy: DeviceClass::Hardware,
            tuned: Some(3),
            tuning: None,
            recurrent: None,
            described: "card (discrete GPU)".into(),
        };
        let line = Line::new(&place, &rates, shape, Work::Infer, &measured);
        let value: serde_json::Value = serde_json::from_str(&json(&line).expect("JSON")).expect("JSON");
        let flops = 2.0 * 20.0 * 20.0 * 8.0;
        for (field, expected) in [
            ("milliseconds", 2.0),
            ("minimum", 1.0),
            ("spread", 0.25),
            ("microseconds_per_step", 200.0),
            ("tokens_per_second", 10_000.0),
            ("gflops", flops / 0.002 / 1e9),
            ("gemm_fraction", flops / 0.002 / 1e9),
            ("bandwidth_fraction", shape.bytes(Work::Infer) / 0.002 / 1e9),
            ("dispatches_per_step", 1.5),
            ("host_microseconds_per_step", 10.0),
            ("bytes", 2048.0),
            ("formula_bytes", 2000.0),
            ("tuning", 3.0),
        ] {
            let found = value[field].as_f64().unwrap_or(f64::NAN);
            assert!((found - expected).abs() <= 1e-9 * expected, "{field}: {found}, not {expected}");
        }
        assert_eq!(line.row().split_whitespace().next(), Some("infer"));
    }
}
