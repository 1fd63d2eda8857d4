//! `refrain bench --ops`: times single operations.

use refrain::nn::{Linear, Model, Rnn};
use refrain::ops::{Form, matmul};
use refrain::optim::{Adam, AdamConfig};
use refrain::{Device, Error, Result as Outcome, Tensor, loss};
use serde::Serialize;

use super::arguments::Arguments;
use super::check::expect_close;
use super::measure::{Timing, repeat_short};
use super::report::{Place, header};
use super::shape::{DeviceClass, Shape, Work};
use super::work::{labels, random};
use super::{nothing_fits, unless_too_large};
use crate::failure::Result;
use crate::format::print;
use crate::memory::Footprint;
use crate::terminal::stdout;

/// An operation with its sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    /// C \[M, N\] of depth K.
    Gemm { form: Form, m: usize, n: usize, k: usize },
    /// The time loop of one layer with one input feature, so that the cost of the input projection is negligible.
    Steps { shape: Shape, pass: Pass },
    /// Loss and gradient of this number of rows of logits.
    CrossEntropy { rows: usize, classes: usize },
    /// An update of weights \[outputs, inputs\].
    Adam { inputs: usize, outputs: usize },
}

/// Forward only, or forward and backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    /// Forward and backward, with the gradients of the weights.
    Both,
}

/// The amount of work of an operation.
#[derive(Clone, Copy, Debug)]
enum Amount {
    Flops(f64),
    Bytes(f64),
}

/// The purpose for which an operation is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be timed.
    Time,
    /// To be compared: results include what the operation changes in place.
    Look,
}

/// Work that can be run repeatedly.
pub(crate) type Action = Box<dyn FnMut() -> Outcome<Vec<Tensor>>>;

/// The form of a product as a formula.
pub(crate) fn form_name(form: Form) -> &'static str {
    match form {
        Form::Plain => "A B",
        Form::RightTransposed => "A B'",
        Form::LeftTransposed => "A' B",
        Form::BothTransposed => "A' B'",
    }
}

impl Operation {
    fn name(&self) -> String {
        match self {
            Self::Gemm { form, .. } => {
                format!("gemm {}", form_name(*form))
            }
            Self::Steps { shape, pass: Pass::Forward } => format!("{} steps", shape.cell.name()),
            Self::Steps { shape, pass: Pass::Both } => format!("{} steps and backward", shape.cell.name()),
            Self::CrossEntropy { .. } => "cross-entropy".to_owned(),
            Self::Adam { .. } => "adam".to_owned(),
        }
    }

    fn sizes(&self) -> String {
        match self {
            Self::Gemm { m, n, k, .. } => format!("{m}x{n}x{k}"),
            Self::Steps { shape: Shape { hidden, batch, sequence, .. }, .. } => {
                format!("sequence {sequence}, batch {batch}, hidden {hidden}")
            }
            Self::CrossEntropy { rows, classes } => format!("{rows} rows of {classes}"),
            Self::Adam { inputs, outputs } => format!("{} parameters", inputs * outputs),
        }
    }

    /// Two operations per multiply-add; the backward pass of a step adds those of the state's gradient and of dW_hh.
    /// Logits are read and their gradient is written; Adam reads four numbers per parameter and writes three.
    fn amount(&self) -> Amount {
        match *self {
            Self::Gemm { m, n, k, .. } => Amount::Flops(2.0 * m as f64 * n as f64 * k as f64),
            Self::Steps { shape, pass } => {
                let units = shape.hidden as f64;
                let forward = 2.0 * shape.rows() * shape.cell.gates() as f64 * units * units;
                Amount::Flops(if pass == Pass::Forward { forward } else { 3.0 * forward })
            }
            Self::CrossEntropy { rows, classes } => Amount::Bytes(2.0 * 4.0 * rows as f64 * classes as f64),
            Self::Adam { inputs, outputs } => Amount::Bytes(7.0 * 4.0 * inputs as f64 * outputs as f64),
        }
    }

    /// The memory that it needs, checked before it is allocated.
    fn footprint(&self) -> Footprint {
        let of = |tensors: &[[usize; 2]], copies: u128| {
            let sizes = tensors.iter().map(|&[rows, columns]| rows as u128 * columns as u128);
            let numbers = sizes.clone().fold(0, u128::saturating_add);
            Footprint::new(0, 0, numbers.saturating_mul(copies), sizes.max().unwrap_or(0))
        };
        match *self {
            Self::Gemm { m, n, k, .. } => of(&[[m, k], [k, n], [m, n]], 1),
            Self::Steps { shape, .. } => shape.footprint(Work::Backward),
            Self::CrossEntropy { rows, classes } => of(&[[rows, classes]], 3),
            Self::Adam { inputs, outputs } => of(&[[inputs, outputs]], 4),
        }
    }

    /// The same operation at sizes that are compared quickly and are no multiples of any tile.
    fn small(&self) -> Self {
        match *self {
            Self::Gemm { form, .. } => Self::Gemm { form, m: 33, n: 17, k: 65 },
            Self::Steps { shape, pass } => {
                let shape = Shape { hidden: 20, batch: 3, sequence: 8, ..shape };
                Self::Steps { shape, pass }
            }
            Self::CrossEntropy { .. } => Self::CrossEntropy { rows: 45, classes: 47 },
            Self::Adam { .. } => Self::Adam { inputs: 13, outputs: 11 },
        }
    }

    /// Allocates the operands on `device` and returns the operation.
    fn prepare(&self, device: &Device, purpose: Purpose) -> Outcome<Action> {
        match *self {
            Self::Gemm { form, m, n, k } => {
                let a = matches!(form, Form::LeftTransposed | Form::BothTransposed);
                let b = matches!(form, Form::RightTransposed | Form::BothTransposed);
                let a = random(device, &if a { [k, m] } else { [m, k] }, 0)?;
                let b = random(device, &if b { [n, k] } else { [k, n] }, 1)?;
                Ok(Box::new(move || Ok(vec![matmul(&a, &b, form, None)?])))
            }
            Self::Steps { shape, pass } => steps(device, shape, pass),
            Self::CrossEntropy { rows, classes } => {
                let logits = random(device, &[rows, classes], 4)?;
                let labels = labels(device, &[rows], classes)?;
                Ok(Box::new(move || {
                    let (loss, d_logits) = loss::cross_entropy(&logits, &labels)?;
                    Ok(vec![loss, d_logits])
                }))
            }
            Self::Adam { inputs, outputs } => adam(device, inputs, outputs, purpose),
        }
    }

    /// Fails unless `device` computes the same as the reference.
    fn expect_right(&self, device: &Device) -> Result<()> {
        let numbers = |device: &Device| -> Outcome<Vec<Vec<f64>>> {
            self.prepare(device, Purpose::Look)?()?.iter().map(Tensor::download_f64).collect()
        };
        let what = format!("{} {}", self.name(), self.sizes());
        let (found, expected) = (numbers(device)?, numbers(&Device::reference())?);
        found.iter().zip(&expected).enumerate().try_for_each(|(place, (found, expected))| {
            expect_close(&what, &format!("result {place}"), found, expected)
        })
    }
}

/// The time loop of one layer, with [`Pass::Both`] including its backward pass.
pub(crate) fn steps(device: &Device, shape: Shape, pass: Pass) -> Outcome<Action> {
    let Shape { cell, hidden, batch, sequence, .. } = shape;
    let mut model = Model::new(3);
    let layer = model.add("rnn", Rnn::new(cell.clone(), 1, hidden))?;
    let parameters = model.initialize(device)?;
    let state = layer.zero_state(device, batch)?;
    let x = random(device, &[sequence, batch, 1], 1)?;
    if pass == Pass::Forward {
        return Ok(Box::new(move || Ok(vec![layer.infer(&parameters, &x, &state)?.0])));
    }
    let d_y = random(device, &[sequence, batch, hidden], 2)?;
    Ok(Box::new(move || {
        let (y, _, trace) = layer.forward(&parameters, &x, &state)?;
        let mut gradients = parameters.zero_gradients()?;
        let (d_x, _) = trace.backward(&d_y, None, &mut gradients)?;
        Ok(vec![y, d_x])
    }))
}

/// One step of Adam; to be compared, it returns the layer's output with the updated weights.
fn adam(device: &Device, inputs: usize, outputs: usize, purpose: Purpose) -> Outcome<Action> {
    let mut model = Model::new(3);
    let layer = model.add("head", Linear::new(inputs, outputs).without_bias())?;
    let mut parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let x = random(device, &[1, inputs], 6)?;
    let (_, trace) = layer.forward(&parameters, &x)?;
    trace.backward(&random(device, &[1, outputs], 7)?, &mut gradients)?;
    let mut adam = Adam::new(&parameters, AdamConfig::default())?;
    Ok(Box::new(move || {
        adam.step(&mut parameters, &gradients)?;
        match purpose {
            Purpose::Time => Ok(Vec::new()),
            Purpose::Look => Ok(vec![layer.infer(&parameters, &x)?]),
        }
    }))
}

/// All operations at these shapes, and square products of sizes that suit this class of devices.
fn operations(shapes: &[Shape], strategy: DeviceClass) -> Vec<Operation> {
    let sides: &[usize] = match strategy {
        DeviceClass::Hardware => &[256, 512, 1024, 2048, 4096],
        DeviceClass::Cpu | DeviceClass::Software => &[64, 128, 256, 512],
    };
    let gemm = |form, [m, n, k]: [usize; 3]| Operation::Gemm { form, m, n, k };
    let squares = sides.iter().flat_map(|&side| Form::ALL.map(|form| gemm(form, [side; 3])));
    let mut all: Vec<Operation> = squares.collect();
    for &shape in shapes {
        let Shape { cell, hidden, batch, sequence, classes, .. } = shape;
        let (rows, wide) = (sequence * batch, cell.gates() * hidden);
        let one = Shape { inputs: 1, ..shape };
        all.extend([
            gemm(Form::RightTransposed, [rows, wide, hidden]),
            gemm(Form::RightTransposed, [batch, wide, hidden]),
            gemm(Form::Plain, [rows, hidden, wide]),
            gemm(Form::LeftTransposed, [wide, hidden, rows]),
            Operation::Steps { shape: one, pass: Pass::Forward },
            Operation::Steps { shape: one, pass: Pass::Both },
            Operation::CrossEntropy { rows, classes },
            Operation::Adam { inputs: hidden, outputs: 2 * wide },
        ]);
    }
    let mut different: Vec<Operation> = Vec::with_capacity(all.len());
    for operation in all {
        let same = |other: &Operation| other.name() == operation.name() && other.sizes() == operation.sizes();
        if !different.iter().any(same) {
            different.push(operation);
        }
    }
    different.sort_by_key(|operation| match operation {
        Operation::Gemm { .. } => 0,
        Operation::Steps { .. } => 1,
        Operation::CrossEntropy { .. } => 2,
        Operation::Adam { .. } => 3,
    });
    different
}

/// A line of JSON for an operation. One of the two rates is null.
#[derive(Debug, Serialize)]
struct Line<'a> {
    operation: String,
    shape: String,
    device: &'a str,
    driver: &'a str,
    runs: usize,
    milliseconds: f64,
    minimum: f64,
    spread: f64,
    gflops: Option<f64>,
    gigabytes_per_second: Option<f64>,
}

impl<'a> Line<'a> {
    fn new(place: &'a Place, operation: &Operation, timing: &Timing) -> Self {
        let rate = |amount: f64| Some(amount / timing.median / 1e9);
        let (gflops, gigabytes_per_second) = match operation.amount() {
            Amount::Flops(flops) => (rate(flops), None),
            Amount::Bytes(bytes) => (None, rate(bytes)),
        };
        Self {
            operation: operation.name(),
            shape: operation.sizes(),
            device: &place.device,
            driver: &place.driver,
            runs: timing.runs,
            milliseconds: timing.median * 1e3,
            minimum: timing.minimum * 1e3,
            spread: timing.spread,
            gflops,
            gigabytes_per_second,
        }
    }

    fn row(&self) -> String {
        let rate = match (self.gflops, self.gigabytes_per_second) {
            (Some(gflops), _) => format!("{gflops:>10.2} GFLOP/s"),
            (None, Some(bytes)) => format!("{bytes:>10.2} GB/s"),
            (None, None) => "-".to_owned(),
        };
        let Self { operation, shape, milliseconds, minimum, spread, .. } = self;
        let spread = 100.0 * spread;
        format!("{operation:20} {shape:38} {milliseconds:>10.4} {minimum:>10.4} {spread:>6.1}% {rate}")
    }
}

/// Times all operations and prints a line for each.
pub(crate) fn run(arguments: &Arguments, device: &Device, place: &Place, shapes: &[Shape]) -> Result<()> {
    let operations = operations(shapes, place.strategy);
    let mut out = stdout();
    if !arguments.json {
        writeln!(out, "{}", header(place))?;
        let heads = ["operation", "shape", "ms", "least ms", "spread", "rate"];
        let [operation, shape, median, minimum, spread, rate] = heads;
        writeln!(out, "{operation:20} {shape:38} {median:>10} {minimum:>10} {spread:>7} {rate:>10}")?;
    }
    let mut skipped = 0;
    for operation in &operations {
        operation.small().expect_right(device)?;
        let what = format!("{} {}", operation.name(), operation.sizes());
        match unless_too_large(&what, time(arguments, device, operation))? {
            None => skipped += 1,
            Some(timing) => {
                print(&Line::new(place, operation, &timing), arguments.json, Line::row)?;
            }
        }
        device.release_unused()?;
    }
    if skipped == operations.len() {
        return Err(nothing_fits(device));
    }
    Ok(())
}

fn time(arguments: &Arguments, device: &Device, operation: &Operation) -> Result<Timing> {
    operation.footprint().expect_fits(device)?;
    let mut action = operation.prepare(device, Purpose::Time)?;
    for tensor in action()? {
        let finite = tensor.download()?.iter().all(|value| value.is_finite());
        if !finite {
            let what = format!("{} {}", operation.name(), operation.sizes());
            return Err(Error::NonFinite { what }.into());
        }
    }
    repeat_short(&arguments.effort(), |repeats| {
        for _ in 0..repeats {
            action()?;
        }
        Ok(device.synchronize()?)
    })
}

#[cfg(test)]
mod tests {
    use refrain::nn::Cell;

    use super::super::shape::Grid;
    use super::*;

    #[test]
    fn every_operation_is_right_on_the_cpu_and_listed_once() {
        let all = operations(&Grid::of(DeviceClass::Cpu).shapes(), DeviceClass::Cpu);
        for (place, operation) in all.iter().enumerate() {
            let label = (operation.name(), operation.sizes());
            let again = all[..place].iter().any(|other| (other.name(), other.sizes()) == label);
            assert!(!again, "{label:?} is listed twice");
            operation.small().expect_right(&Device::cpu()).expect("the CPU is right");
        }
        for name in ["gemm A' B'", "tanh steps", "gru steps and backward", "cross-entropy", "adam"] {
            assert!(all.iter().any(|operation| operation.name() == name), "{name}");
        }
    }

    #[test]
    fn amounts_are_what_the_sizes_say() {
        let gemm = Operation::Gemm { form: Form::Plain, m: 2, n: 3, k: 5 };
        assert!(matches!(gemm.amount(), Amount::Flops(60.0)));
        let shape =
            Shape { cell: &Cell::Gru, inputs: 1, hidden: 5, batch: 2, sequence: 7, layers: 1, classes: 9 };
        let both = Operation::Steps { shape, pass: Pass::Both };
        assert!(matches!(both.amount(), Amount::Flops(flops) if flops == 3.0 * 2.0 * 14.0 * 15.0 * 5.0));
        assert!(matches!(Operation::Adam { inputs: 3, outputs: 4 }.amount(), Amount::Bytes(336.0)));
    }
}
