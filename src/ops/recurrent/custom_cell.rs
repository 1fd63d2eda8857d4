//! Cells of a user's own: pointwise equations in WGSL and in Rust, and the kernels assembled around them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, ArrayView2};

use crate::gpu::{Kernel, Origin, Rules, inspect};
use crate::ops::recurrent::cpu::cells::{CellGradients, CellOutput, Step};
use crate::ops::recurrent::cpu::weights::{CellState, CellStateView};
use crate::ops::recurrent::gpu::kernels::{AROUND_CUSTOM, Kernels};
use crate::tensor::Real;
use crate::{Error, Result};

/// The most blocks of gates: of each an invocation holds sums of four rows.
const MAX_GATES: usize = 8;

/// A recurrent cell of a user's own: its pointwise equations, forward and backward, twice. [`CustomCell::wgsl`] is
/// what GPUs run; [`CustomCell::forward`] and [`CustomCell::backward`] are the CPU reference, and
/// [`check::custom_cell`](crate::check::custom_cell) holds the two against each other. The layer around it,
/// [`Cell::Custom`](super::Cell::Custom), has all that layers have: directions, lengths, resets, stacks, truncation.
///
/// A unit sees, for each of its G gates, the two sums p = W_ih x + b_ih and q = W_hh h' + b_hh, and its own part of the
/// previous state, h' and where the cell has one c'. Forward makes what backward will need of the gates, at most
/// one more number, and the new h. Where the cell has a state c, that one more number is the new c. Backward
/// gets these and the gradients at h and c, and gives those at the gates' sums, and at h' and c' besides what
/// flows through the sums.
///
/// # WGSL
///
/// [`CustomCell::wgsl`] defines two functions, and whatever they call:
///
/// ```wgsl
/// fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: CellState) -> Forward
/// fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward
/// ```
///
/// The layer brings these types, and the constants `GATES: u32`, `SAVES`, `HAS_CELL` and `LAST_GATE_APART`:
///
/// ```wgsl
/// struct CellState { hidden: f32, cell: f32 }
/// struct Forward { gates: array<f32, GATES>, saved: f32, hidden: f32 }
/// struct Step { gates: array<f32, GATES>, saved: f32, previous: CellState, hidden: f32 }
/// struct Backward { d_gates: array<f32, GATES>, d_apart: f32, d_hidden: f32, d_cell: f32 }
/// ```
///
/// and these functions, accurate on every driver where WGSL's own need not be: `accurate_tanh`, `accurate_sigmoid`,
/// `accurate_tan`, `natural_log` (of x > 0), `exp_of_nonpositive` and `exp_minus_one_of_nonpositive` (of x ≤ 0).
///
/// The text is refused, with its line, where it could ask for more than equations need: above 64 KiB, or nested deeper than
/// 128 blocks, brackets and operators; a loop other than a `for` from one constant to another, whose counter its body
/// leaves alone, or more than 24 iterations in a call; more than 8192 expressions in a call; a value of more than 1 KiB;
/// `enable`, `requires`, `override`, an entry point, a variable outside a function, a barrier; a name, a function or a
/// variable of the layer that is not listed here.
///
/// `examples/custom_cell.rs` has a whole one.
pub trait CustomCell: fmt::Debug + Sync {
    /// A name of letters, digits and `_`, under which checkpoints know the cell.
    fn name(&self) -> &'static str;

    /// G, the blocks of rows that the weights have; up to eight.
    fn gates(&self) -> usize;

    /// Whether the state has a part c beside h.
    fn has_cell_state(&self) -> bool {
        false
    }

    /// Whether backward needs a number beside the gates; a cell with a state c, or with its last gate apart, has
    /// one anyway.
    fn saves(&self) -> bool {
        false
    }

    /// Whether the last gate's two sums do not merely add up, so that the gradients at them differ.
    fn last_gate_apart(&self) -> bool {
        false
    }

    /// The two functions in WGSL.
    fn wgsl(&self) -> &'static str;

    /// The CPU reference of `cell_forward`: writes `gates`, as many as there are, and returns the rest.
    fn forward(
        &self,
        projected: &[f64],
        recurrent: &[f64],
        previous: UnitState,
        gates: &mut [f64],
    ) -> UnitForward;

    /// The CPU reference of `cell_backward`: writes `d_gates` and returns the rest. `d_after` is the gradient at the new state.
    fn backward(&self, step: &UnitStep<'_>, d_after: UnitState, d_gates: &mut [f64]) -> UnitBackward;
}

/// The state of one unit, or the gradient at it: h, and c where the cell has one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitState {
    /// h.
    pub hidden: f64,
    /// c.
    pub cell: f64,
}

/// What a step makes of a unit beside its gates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitForward {
    /// The number that backward needs beside the gates; the new c of a cell that has one.
    pub saved: f64,
    /// The new h.
    pub hidden: f64,
}

/// What is known of a unit when backward comes to a step.
#[derive(Clone, Copy, Debug)]
pub struct UnitStep<'a> {
    /// What forward wrote of the gates.
    pub gates: &'a [f64],
    /// What forward saved.
    pub saved: f64,
    /// The state before the step.
    pub previous: UnitState,
    /// The new h.
    pub hidden: f64,
}

/// The gradients of a step at a unit, beside those at its gates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitBackward {
    /// At the last gate's W_hh h' + b_hh, for a cell that has it apart.
    pub d_apart: f64,
    /// At h', beside what flows through the gates' sums.
    pub d_hidden: f64,
    /// At c'.
    pub d_cell: f64,
}

impl PartialEq for dyn CustomCell {
    /// Cells are one if they have one name: two of one name cannot be used side by side.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

/// The parts of a state that the number beside the gates stands for.
pub(crate) fn saves(cell: &dyn CustomCell) -> bool {
    cell.saves() || cell.has_cell_state() || cell.last_gate_apart()
}

/// A cell whose WGSL is known to compile, with its kernels.
#[derive(Clone, Copy)]
struct Registered {
    cell: &'static dyn CustomCell,
    facts: Facts,
    kernels: Kernels,
}

/// Everything that the kernels of a cell depend on.
#[derive(Clone, Copy, PartialEq)]
struct Facts {
    wgsl: &'static str,
    gates: usize,
    cell_state: bool,
    saves: bool,
    apart: bool,
}

/// What the kernels call of a cell, and what a cell may call of them: [`CustomCell`] documents both.
const RULES: Rules = Rules {
    provides: &["cell_forward", "cell_backward"],
    offers: &[
        "accurate_tanh",
        "accurate_sigmoid",
        "accurate_tan",
        "natural_log",
        "exp_of_nonpositive",
        "exp_minus_one_of_nonpositive",
    ],
};

/// All cells that were used in this program: few, and kept as long as it runs.
static REGISTERED: Mutex<BTreeMap<&'static str, Registered>> = Mutex::new(BTreeMap::new());

impl Facts {
    fn of(cell: &dyn CustomCell) -> Self {
        Self {
            wgsl: cell.wgsl(),
            gates: cell.gates(),
            cell_state: cell.has_cell_state(),
            saves: saves(cell),
            apart: cell.last_gate_apart(),
        }
    }

    /// The kernel around the cell. The cell's text comes first, so that lines have the numbers that its author knows:
    /// WGSL does not mind the order of declarations.
    fn source(&self, around: &str) -> String {
        let Self { wgsl, gates, cell_state, saves, apart } = self;
        format!(
            "{wgsl}\nfn cell_candidate(step: Step) -> CellState {{ return CellState(step.hidden, step.saved); }}\nconst GATES: u32 = {gates}u;\nconst SAVES: bool = {saves};\nconst HAS_CELL: bool = \
             {cell_state};\nconst LAST_GATE_APART: bool = {apart};\n{around}"
        )
    }

    /// One of the kernels, with texts that are kept for the life of the program, as built-in ones are.
    fn assembled(&self, name: &str, around: &Kernel) -> Kernel {
        Kernel {
            name: Box::leak(format!("{}.{name}", around.name).into_boxed_str()),
            source: Box::leak(self.source(around.source).into_boxed_str()),
            origin: Origin::User,
            ..around.clone()
        }
    }
}

fn refused(cell: &dyn CustomCell, message: impl Into<String>) -> Error {
    Error::config(format!("the cell `{}`", cell.name()), message)
}

fn registered(cell: &'static dyn CustomCell) -> Result<Registered> {
    let facts = Facts::of(cell);
    let mut all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(cell.name()) {
        if known.facts == facts {
            return Ok(*known);
        }
        return Err(refused(cell, "is another than the cell of this name that was used before"));
    }
    expect_sensible(cell)?;
    let kernels = AROUND_CUSTOM.map(|around| kernel(cell, &facts, around))?;
    let result = Registered { cell, facts, kernels };
    all.insert(cell.name(), result);
    Ok(result)
}

fn expect_sensible(cell: &dyn CustomCell) -> Result<()> {
    let name = cell.name();
    if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Err(refused(cell, "needs a name of letters, digits and `_`"));
    }
    let gates = cell.gates();
    if !(1..=MAX_GATES).contains(&gates) {
        return Err(refused(cell, format!("gates must be between 1 and {MAX_GATES}, not {gates}")));
    }
    if cell.has_cell_state() && cell.last_gate_apart() {
        let message =
            "has_cell_state and last_gate_apart both take the one number beside the gates: choose one";
        return Err(refused(cell, message));
    }
    Ok(())
}

/// One of the kernels: what is around the cell, and the cell; checked by a compiler of WGSL.
fn kernel(cell: &dyn CustomCell, facts: &Facts, around: &Kernel) -> Result<&'static Kernel> {
    let kernel = facts.assembled(cell.name(), around);
    inspect(facts.wgsl, &kernel.wgsl(false), &RULES)
        .map_err(|fault| Error::Shader { what: format!("the cell `{}`", cell.name()), message: fault })?;
    // Kept for the life of the program, as built-in ones are.
    Ok(Box::leak(Box::new(kernel)))
}

/// Fails for a cell that cannot be used, or whose WGSL does not compile; remembers it otherwise.
pub(crate) fn validate(cell: &'static dyn CustomCell) -> Result<()> {
    registered(cell).map(|_| ())
}

/// Its kernels.
pub(crate) fn kernels(cell: &'static dyn CustomCell) -> Result<Kernels> {
    Ok(registered(cell)?.kernels)
}

/// A cell as checkpoints hold it: by its name.
pub(crate) mod by_name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{CustomCell, PoisonError, REGISTERED};

    pub(crate) fn serialize<S: Serializer>(
        cell: &&'static dyn CustomCell,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(cell.name())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<&'static dyn CustomCell, D::Error> {
        let name = String::deserialize(deserializer)?;
        let all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(name.as_str()).map(|registered| registered.cell);
        known.ok_or_else(|| {
            D::Error::custom(format!(
                "the cell `{name}` is a program's own: create a model with it before loading one"
            ))
        })
    }
}

/// Block by block, the numbers of one unit.
fn unit<F: Real>(blocks: ArrayView2<'_, F>, row: usize, unit: usize, units: usize) -> Vec<f64> {
    let count = blocks.ncols() / units;
    (0..count).map(|gate| wide(blocks[[row, gate * units + unit]])).collect()
}

fn wide<F: Real>(value: F) -> f64 {
    // Both of the types there are convert without loss.
    value.to_f64().unwrap_or(f64::NAN)
}

pub(crate) fn forward<F: Real>(
    cell: &dyn CustomCell,
    projected: ArrayView2<'_, F>,
    recurrent: &Array2<F>,
    before: CellStateView<'_, F>,
) -> CellOutput<F> {
    let (rows, units) = before.hidden.dim();
    let mut gates = Array2::zeros(projected.raw_dim());
    let (mut hidden, mut saved) = (Array2::zeros((rows, units)), Array2::zeros((rows, units)));
    for row in 0..rows {
        for place in 0..units {
            let previous = memory(cell, before, row, place);
            let sums = [unit(projected, row, place, units), unit(recurrent.view(), row, place, units)];
            // What the cell does not write must not look like a result.
            let mut result = vec![f64::NAN; cell.gates()];
            let out = cell.forward(&sums[0], &sums[1], previous, &mut result);
            for (gate, value) in result.into_iter().enumerate() {
                gates[[row, gate * units + place]] = F::from_f64(value);
            }
            hidden[[row, place]] = F::from_f64(out.hidden);
            saved[[row, place]] = F::from_f64(out.saved);
        }
    }
    let state = if cell.has_cell_state() { saved.clone() } else { before.cell.to_owned() };
    CellOutput { gates, saved: saves(cell).then_some(saved), state: CellState { hidden, cell: state } }
}

fn memory<F: Real>(
    cell: &dyn CustomCell,
    state: CellStateView<'_, F>,
    row: usize,
    place: usize,
) -> UnitState {
    let second = if cell.has_cell_state() { wide(state.cell[[row, place]]) } else { 0.0 };
    UnitState { hidden: wide(state.hidden[[row, place]]), cell: second }
}

/// The state's gradient is without what flows through the gates' sums.
pub(crate) fn backward<F: Real>(
    cell: &dyn CustomCell,
    gates: ArrayView2<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
) -> CellGradients<F> {
    let Step { saved, before, hidden, .. } = *step;
    let (rows, units) = before.hidden.dim();
    let mut d_projected: Array2<F> = Array2::zeros(gates.raw_dim());
    let mut d_recurrent = d_projected.clone();
    let mut d_state =
        CellState { hidden: Array2::zeros((rows, units)), cell: Array2::zeros(before.cell.raw_dim()) };
    for row in 0..rows {
        for place in 0..units {
            let own = unit(gates, row, place, units);
            let step = UnitStep {
                gates: &own,
                saved: saved.map_or(0.0, |saved| wide(saved[[row, place]])),
                previous: memory(cell, before, row, place),
                hidden: wide(hidden[[row, place]]),
            };
            let mut d_gates = vec![f64::NAN; cell.gates()];
            let result = cell.backward(&step, memory(cell, d_after, row, place), &mut d_gates);
            let last = d_gates.len() - 1;
            for (gate, value) in d_gates.into_iter().enumerate() {
                let column = gate * units + place;
                d_projected[[row, column]] = F::from_f64(value);
                let apart = cell.last_gate_apart() && gate == last;
                d_recurrent[[row, column]] = F::from_f64(if apart { result.d_apart } else { value });
            }
            d_state.hidden[[row, place]] = F::from_f64(result.d_hidden);
            if cell.has_cell_state() {
                d_state.cell[[row, place]] = F::from_f64(result.d_cell);
            }
        }
    }
    CellGradients { d_projected, d_recurrent, d_state }
}

/// The kernels around a cell of each kind, for the tests that look at shaders.
#[cfg(test)]
pub(crate) fn examples() -> Vec<&'static Kernel> {
    let wgsl = "
        fn cell_forward(p: array<f32, GATES>, q: array<f32, GATES>, previous: CellState) -> Forward {
            let gate = accurate_sigmoid(p[0] + q[0]);
            let hidden = accurate_tanh(p[1] + gate * q[1] + previous.cell);
            return Forward(array<f32, GATES>(gate, hidden), q[1], gate * previous.hidden + hidden);
        }
        fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
            let d_gates = array<f32, GATES>(d_hidden * step.saved, d_cell);
            return Backward(d_gates, d_hidden * step.gates[0], d_hidden, d_cell);
        }
    ";
    let plain = Facts { wgsl, gates: 2, cell_state: false, saves: false, apart: false };
    let kinds = [
        ("plain", plain),
        ("state", Facts { cell_state: true, saves: true, ..plain }),
        ("apart", Facts { saves: true, apart: true, ..plain }),
    ];
    let Kernels { step, sequence, persistent } = AROUND_CUSTOM;
    let around: Vec<_> = [Some(step), sequence, persistent].into_iter().flatten().flatten().collect();
    let kernels =
        kinds.iter().flat_map(|(name, facts)| around.iter().map(|around| facts.assembled(name, around)));
    kernels.map(|kernel| &*Box::leak(Box::new(kernel))).collect()
}
