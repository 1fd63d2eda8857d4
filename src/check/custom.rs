//! Checks a user-defined cell: compares the backward function of its CPU reference with finite differences of the forward
//! function, and its WGSL with the CPU reference.

use std::fmt;

use super::compare::{difference, position};
use super::sampler::{CENTRED, Sampler};
use super::tolerance::{Recurrence, independent};
use crate::Result;
use crate::device::Device;
use crate::nn::{
    Cell, CustomCell, Model, Rnn, UnitBackward, UnitEquations, UnitForward, UnitState, UnitStep,
};
use crate::tensor::Tensor;

/// The number of units on which the CPU reference is tested.
const UNITS: u64 = 64;
/// Pre-activations and states are uniform in ± this, which covers the curved parts of sigmoid and tanh.
const REACH: f64 = 2.0;
/// A bound of f'''/6 and of the roundings in f, relative to the size of f, that holds for cells of products, tanh and
/// sigmoids.
const CONDITION: f64 = 100.0;

/// T, B, I and H of the layers on which WGSL and CPU reference are compared: one step, to locate a difference, and several.
const SHAPES: [[usize; 4]; 2] = [[1, 3, 5, 17], [6, 17, 3, 33]];

/// The result of one comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct CellCheck {
    /// What was compared, such as `the CPU reference's backward against finite differences, d_gates[1]`.
    pub quantity: String,
    /// The error of the worst entry.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
    /// Where and by how much the values disagree; `None` if they agree.
    pub failure: Option<String>,
}

/// The result of checking a user-defined cell.
#[derive(Clone, Debug, PartialEq)]
pub struct CellReport {
    /// Every comparison.
    pub checks: Vec<CellCheck>,
}

impl CellReport {
    /// Whether every comparison was within its tolerance.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.failure.is_none())
    }

    /// Records a comparison. Errors are those of [`difference`].
    fn compare(
        &mut self,
        quantity: String,
        shape: &[usize],
        [expected, found]: [&[f64]; 2],
        scale: f64,
        tolerance: f64,
    ) {
        let worst = difference(expected, found, scale);
        let failure = (worst.error > tolerance).then(|| {
            let place = position(shape, worst.index);
            format!("{quantity}: at {place:?} found {}, expected {}", worst.found, worst.expected)
        });
        self.checks.push(CellCheck { quantity, error: worst.error, tolerance, failure });
    }
}

impl fmt::Display for CellReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CellCheck { quantity, error, tolerance, failure } in &self.checks {
            let verdict = if failure.is_none() { "pass" } else { "FAIL" };
            writeln!(f, "{verdict}  {quantity}: error {error:.2e}, tolerance {tolerance:.2e}")?;
        }
        self.checks
            .iter()
            .filter_map(|check| check.failure.as_ref())
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Checks a user-defined cell. First compares the backward function of its CPU reference with finite differences of its
/// forward function, gradient by gradient. Then compares a layer of it on `device`, which on a GPU runs its WGSL, with the
/// same layer on [`Device::reference`], which runs its CPU reference in 64-bit floats.
///
/// A disagreement is not an error: the report then has not [`passed`](CellReport::passed), and describes it.
///
/// # Errors
/// [`Error::Shader`](crate::Error::Shader) for WGSL that does not compile; [`Error::Config`](crate::Error::Config) for
/// invalid properties of the cell; errors reported by the device.
pub fn custom_cell(cell: &CustomCell, device: &Device) -> Result<CellReport> {
    let mut report = CellReport { checks: Vec::new() };
    // First, because it rejects cells that cannot run.
    let mut layers = Vec::new();
    for (shape, seed) in SHAPES.into_iter().zip(1..) {
        let [expected, found] =
            [&Device::reference(), device].map(|device| layer(cell, shape, &Sampler::new(device, seed)));
        layers.push((shape, expected?, found?));
    }
    differences(cell.equations(), &mut report);
    for (shape, expected, found) in layers {
        compare_layers(cell, shape, [&expected, &found], &mut report)?;
    }
    Ok(report)
}

/// The arguments of a unit's step: both pre-activations of each gate, then h' and c'.
#[derive(Clone)]
struct Point(Vec<f64>);

impl Point {
    /// Splits the values into their groups, of sizes G, G, 1, 1.
    fn split(&self, gates: usize) -> (&[f64], &[f64], UnitState) {
        let (projected, rest) = self.0.split_at(gates);
        let (recurrent, state) = rest.split_at(gates);
        (projected, recurrent, UnitState { hidden: state[0], cell: state[1] })
    }
}

fn run(cell: &dyn UnitEquations, point: &Point) -> (Vec<f64>, UnitForward) {
    let mut gates = vec![f64::NAN; cell.gates()];
    let (projected, recurrent, previous) = point.split(cell.gates());
    let result = cell.forward(projected, recurrent, previous, &mut gates);
    (gates, result)
}

/// The gradients that the CPU reference computes at a point, in the order of the point.
fn analytic(cell: &dyn UnitEquations, point: &Point, d_after: UnitState) -> Vec<f64> {
    let (gates, UnitForward { saved, hidden }) = run(cell, point);
    let (.., previous) = point.split(gates.len());
    let mut d_gates = vec![f64::NAN; gates.len()];
    let step = UnitStep { gates: &gates, saved, previous, hidden };
    let UnitBackward { d_apart, d_hidden, d_cell } = cell.backward(&step, d_after, &mut d_gates);
    let mut d_recurrent = d_gates.clone();
    if let (true, Some(last)) = (cell.last_gate_apart(), d_recurrent.last_mut()) {
        *last = d_apart;
    }
    let d_cell = if cell.has_cell_state() { d_cell } else { 0.0 };
    [d_gates, d_recurrent, vec![d_hidden, d_cell]].concat()
}

/// Compares the CPU reference's backward function with central differences (f(x + s) − f(x − s)) / 2s, whose error is s²
/// f'''/6 plus ε |f| / s; the two are of equal order for s = ∛ε.
fn differences(cell: &dyn UnitEquations, report: &mut CellReport) {
    let gates = cell.gates();
    let size = 2 * gates + 2;
    let step = f64::EPSILON.cbrt();
    let tolerance = CONDITION * (step * step + f64::EPSILON / step);
    let (mut expected, mut found) = (vec![Vec::new(); size], vec![Vec::new(); size]);
    for unit in 0..UNITS {
        let stream = crate::random::Stream::new(unit, 0);
        let point =
            Point((0..size as u64).map(|index| stream.uniform_between(index, -REACH, REACH)).collect());
        let d_after = UnitState {
            hidden: stream.uniform_between(size as u64, -1.0, 1.0),
            cell: if cell.has_cell_state() {
                stream.uniform_between(size as u64 + 1, -1.0, 1.0)
            } else {
                0.0
            },
        };
        let value = |point: &Point| {
            let (_, result) = run(cell, point);
            let second = if cell.has_cell_state() { d_after.cell * result.saved } else { 0.0 };
            d_after.hidden * result.hidden + second
        };
        for (place, gradient) in analytic(cell, &point, d_after).into_iter().enumerate() {
            let [mut above, mut below] = [point.clone(), point.clone()];
            above.0[place] += step;
            below.0[place] -= step;
            expected[place].push((value(&above) - value(&below)) / (2.0 * step));
            found[place].push(gradient);
        }
    }
    // c' only if the cell has it.
    let count = if cell.has_cell_state() { size } else { size - 1 };
    for (place, (expected, found)) in expected.iter().zip(&found).enumerate().take(count) {
        let name = match place {
            place if place < gates => format!("d_gates[{place}] at the input sum"),
            // Equal to the gradient of the input sum, unless the last gate is apart.
            place if place < 2 * gates => {
                let gate = place - gates;
                let apart = cell.last_gate_apart() && gate + 1 == gates;
                if apart { "d_apart".to_owned() } else { format!("d_gates[{gate}] at the recurrent sum") }
            }
            place if place == 2 * gates => "d_hidden".to_owned(),
            _ => "d_cell".to_owned(),
        };
        let quantity = format!("the CPU reference's backward against finite differences, {name}");
        report.compare(quantity, &[UNITS as usize], [expected, found], 1.0, tolerance);
    }
}

/// The named results of a layer.
type Results = Vec<(String, Tensor)>;

/// Runs one layer forward and backward.
fn layer(
    cell: &CustomCell,
    [steps, batch, inputs, hidden]: [usize; 4],
    sampler: &Sampler,
) -> Result<Results> {
    let mut model = Model::new(0);
    let layer = model.add("cell", Rnn::new(Cell::Custom(cell.clone()), inputs, hidden))?;
    let bound = 1.0 / (hidden as f64).sqrt();
    let parameters = sampler.parameters(&model, |_| -bound..bound)?;
    let state = || sampler.state([1, batch, hidden], cell.properties().has_cell_state.then_some(hidden));
    let (initial, d_last) = (state()?, state()?);
    let x = sampler.tensor(&[steps, batch, inputs], CENTRED)?;
    let d_y = sampler.tensor(&[steps, batch, hidden], CENTRED)?;
    let mut gradients = parameters.zero_gradients()?;
    let (y, last, trace) = layer.forward(&parameters, &x, &initial)?;
    let (d_x, d_initial) = trace.backward(&d_y, Some(&d_last), &mut gradients)?;
    // In the order of computation, so that the first disagreement is the one to examine.
    let mut results: Results =
        last.cell().map(|cell| ("saved, the new c".to_owned(), cell)).into_iter().collect();
    results.push(("hidden".to_owned(), y));
    // A bias is added to a gate's pre-activation, so its gradient is the gate's, summed over steps and batch.
    for (sum, bias) in [("input", "cell.bias_ih_l0"), ("recurrent", "cell.bias_hh_l0")] {
        let by_gate = gradients.view(bias)?.download_f64()?;
        for (gate, values) in by_gate.chunks(hidden).enumerate() {
            let tensor = Tensor::from_slice_f64(sampler.device(), &[hidden], values)?;
            results.push((format!("d_gates[{gate}] at the {sum} sum"), tensor));
        }
    }
    results.push(("d_hidden with what flows through W_hh".to_owned(), d_initial.hidden()));
    results.extend(d_initial.cell().map(|d_cell| ("d_cell".to_owned(), d_cell)));
    results.push(("d_x".to_owned(), d_x));
    Ok(results)
}

fn compare_layers(
    cell: &CustomCell,
    [steps, batch, inputs, hidden]: [usize; 4],
    [expected, found]: [&Results; 2],
    report: &mut CellReport,
) -> Result<()> {
    let recurrence =
        Recurrence { cell: Cell::Custom(cell.clone()), steps, batch, layers: 1, terms: inputs + hidden };
    for ((name, expected), (_, found)) in expected.iter().zip(found) {
        let roundings = if name.starts_with("d_") { recurrence.backward() } else { recurrence.forward() };
        let shape = expected.shape().dimensions();
        let values = [expected.download_f64()?, found.download_f64()?];
        let quantity = format!("{} against the CPU reference, T = {steps}, {name}", found.device());
        report.compare(quantity, shape, [&values[0], &values[1]], 0.0, independent(roundings));
    }
    Ok(())
}
