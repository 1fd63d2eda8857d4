//! User-defined cells: pointwise equations in WGSL and in Rust.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::gpu::Kernel;
use crate::{Error, Result};

/// The most blocks of gates: of each an invocation holds sums of four rows.
const MAX_GATES: usize = 8;

/// The pointwise equations of a user-defined cell, forward and backward, twice: [`UnitEquations::wgsl`] runs on GPUs;
/// [`UnitEquations::forward`] and [`UnitEquations::backward`] are the CPU reference, which several threads may call at a
/// time. [`CustomCell::new`] makes a cell of them, [`check::custom_cell`](crate::check::custom_cell) compares the two. The
/// layer around the cell supports directions, lengths, resets, stacks and truncation like any other.
///
/// The equations are those of one unit. Forward computes, from the two sums p = W_ih x + b_ih and q = W_hh h' + b_hh of
/// each of the G gates and from the unit's previous state, h' and c' if the cell has a cell state, what backward needs of
/// the gates, at most one more number, and the new h. For a cell with a cell state, that number is the new c. Backward
/// computes from these, and from the gradients of h and c, the gradients of the gates' sums, and those of h' and c'
/// without what flows through the sums.
///
/// # WGSL
///
/// [`UnitEquations::wgsl`] defines two functions, and those that they call:
///
/// ```wgsl
/// fn cell_forward(projected: array<f32, GATES>, recurrent: array<f32, GATES>, previous: CellState) -> Forward
/// fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward
/// ```
///
/// The layer defines these types, and the constants `GATES: u32`, `SAVES`, `HAS_CELL` and `LAST_GATE_APART`:
///
/// ```wgsl
/// struct CellState { hidden: f32, cell: f32 }
/// struct Forward { gates: array<f32, GATES>, saved: f32, hidden: f32 }
/// struct Step { gates: array<f32, GATES>, saved: f32, previous: CellState, hidden: f32 }
/// struct Backward { d_gates: array<f32, GATES>, d_apart: f32, d_hidden: f32, d_cell: f32 }
/// ```
///
/// and these functions, accurate on every driver, which WGSL's own need not be: `accurate_tanh`, `accurate_sigmoid`,
/// `accurate_tan`, `natural_log` (of x > 0), `exp_of_nonpositive` and `exp_minus_one_of_nonpositive` (of x ≤ 0).
///
/// Text that asks for more than equations need is refused, with its line: above 64 KiB, or nested deeper than 128 blocks,
/// brackets and operators; a loop other than a `for` from one constant to another whose body does not assign its counter,
/// or more than 24 iterations in a call; more than 8192 expressions in a call; a value of more than 1 KiB; `enable`,
/// `requires`, `override`, an entry point, a variable outside a function, a barrier; a name, a function or a variable of
/// the layer that is not listed here.
///
/// `examples/custom_cell.rs` is a complete example.
pub trait UnitEquations: fmt::Debug + Send + Sync + 'static {
    /// The name of the cell, of letters, digits and `_`. A checkpoint contains nothing else of the cell.
    fn name(&self) -> &str;

    /// G, the number of gates: weights have G·H rows. At most eight.
    fn gates(&self) -> usize;

    /// Whether the state has a cell state c besides h.
    fn has_cell_state(&self) -> bool {
        false
    }

    /// Whether backward needs a number besides the gates. A cell with a cell state, or with its last gate apart, saves one
    /// in any case.
    fn saves(&self) -> bool {
        false
    }

    /// Whether the last gate uses its two sums other than by their sum, so that their gradients differ.
    fn last_gate_apart(&self) -> bool {
        false
    }

    /// The two functions in WGSL.
    fn wgsl(&self) -> &str;

    /// The CPU reference of `cell_forward`: writes all of `gates` and returns the rest.
    fn forward(
        &self,
        projected: &[f64],
        recurrent: &[f64],
        previous: UnitState,
        gates: &mut [f64],
    ) -> UnitForward;

    /// The CPU reference of `cell_backward`: writes all of `d_gates` and returns the rest. `d_after` is the gradient of the
    /// new state.
    fn backward(&self, step: &UnitStep<'_>, d_after: UnitState, d_gates: &mut [f64]) -> UnitBackward;
}

/// The state of one unit, or its gradient: h, and c if the cell has a cell state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitState {
    /// h.
    pub hidden: f64,
    /// c.
    pub cell: f64,
}

/// The results of a forward step of a unit besides its gates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitForward {
    /// The number that backward needs besides the gates; the new c of a cell with a cell state.
    pub saved: f64,
    /// The new h.
    pub hidden: f64,
}

/// The operands of a backward step of a unit besides the gradients.
#[derive(Clone, Copy, Debug)]
pub struct UnitStep<'a> {
    /// The gates as forward wrote them.
    pub gates: &'a [f64],
    /// The number that forward saved.
    pub saved: f64,
    /// The state before the step.
    pub previous: UnitState,
    /// The new h.
    pub hidden: f64,
}

/// The results of a backward step of a unit besides the gradients of its gates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitBackward {
    /// The gradient of the last gate's W_hh h' + b_hh, if it is apart.
    pub d_apart: f64,
    /// The gradient of h' without what flows through the gates' sums.
    pub d_hidden: f64,
    /// The gradient of c'.
    pub d_cell: f64,
}

/// A user-defined cell, for [`Cell::Custom`](super::Cell::Custom). A clone is cheap and is the same cell. Each call of
/// [`CustomCell::new`] returns another cell; cells of one name can be used side by side.
///
/// ```
/// use refrain::nn::{Cell, CustomCell, Rnn, UnitEquations};
/// fn layer(equations: impl UnitEquations) -> Rnn {
///     Rnn::new(Cell::Custom(CustomCell::new(equations)), 2, 32)
/// }
/// ```
#[derive(Clone)]
pub struct CustomCell(Arc<Definition>);

struct Definition {
    properties: Properties,
    /// None for a cell that was read from a file, which contains its name only.
    equations: Option<Box<dyn UnitEquations>>,
    kernels: OnceLock<CustomKernels>,
}

/// Forward and backward, of the strategies `per_step`, `sequence` and `persistent`.
pub(crate) type CustomKernels = [[Kernel; 2]; 3];

/// The properties of a cell on which its kernels depend.
#[derive(Clone, Default)]
pub(crate) struct Properties {
    pub(crate) name: String,
    pub(crate) wgsl: String,
    pub(crate) gates: usize,
    pub(crate) has_cell_state: bool,
    /// Whether the forward pass saves a number besides the gates.
    pub(crate) saves: bool,
    pub(crate) last_gate_apart: bool,
}

impl CustomCell {
    /// A new cell. [`Model::add`](crate::nn::Model::add) checks that it is valid and that its WGSL compiles.
    pub fn new(equations: impl UnitEquations) -> Self {
        let properties = Properties {
            name: equations.name().to_owned(),
            wgsl: equations.wgsl().to_owned(),
            gates: equations.gates(),
            has_cell_state: equations.has_cell_state(),
            saves: equations.saves() || equations.has_cell_state() || equations.last_gate_apart(),
            last_gate_apart: equations.last_gate_apart(),
        };
        Self::with(properties, Some(Box::new(equations)))
    }

    fn with(properties: Properties, equations: Option<Box<dyn UnitEquations>>) -> Self {
        Self(Arc::new(Definition { properties, equations, kernels: OnceLock::new() }))
    }

    /// The name of the cell.
    pub fn name(&self) -> &str {
        &self.0.properties.name
    }

    pub(crate) fn properties(&self) -> &Properties {
        &self.0.properties
    }

    pub(crate) fn equations(&self) -> &dyn UnitEquations {
        match &self.0.equations {
            Some(equations) => &**equations,
            None => unreachable!("a model has no cell without equations"),
        }
    }

    /// Replaces a cell that was read from a file by the one of `cells` with its name, if there is one.
    ///
    /// # Errors
    /// [`Error::Config`] if there are several.
    pub(crate) fn resolve(&mut self, cells: &[Self]) -> Result<()> {
        if self.0.equations.is_some() {
            return Ok(());
        }
        let mut found = cells.iter().filter(|cell| cell.name() == self.name());
        match (found.next(), found.next()) {
            (_, Some(_)) => {
                return Err(Error::config(self.what(), "is the name of several of the given cells"));
            }
            (Some(cell), None) => *self = cell.clone(),
            (None, None) => {}
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::MissingCell`]; [`Error::Config`] for invalid properties.
    pub(crate) fn validate(&self) -> Result<()> {
        let Properties { name, gates, has_cell_state, last_gate_apart, .. } = self.properties();
        if self.0.equations.is_none() {
            return Err(Error::MissingCell { name: name.clone() });
        }
        let refused = |message: String| Err(Error::config(self.what(), message));
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return refused("needs a name of letters, digits and `_`".to_owned());
        }
        if !(1..=MAX_GATES).contains(gates) {
            return refused(format!("gates must be between 1 and {MAX_GATES}, not {gates}"));
        }
        if *has_cell_state && *last_gate_apart {
            let message =
                "has_cell_state and last_gate_apart both use the one number besides the gates: choose one";
            return refused(message.to_owned());
        }
        Ok(())
    }

    /// The kernels of the cell, which `assemble` creates at the first call.
    pub(crate) fn kernels(
        &self,
        assemble: impl FnOnce(&Properties) -> Result<CustomKernels>,
    ) -> Result<&CustomKernels> {
        if let Some(kernels) = self.0.kernels.get() {
            return Ok(kernels);
        }
        let kernels = assemble(self.properties())?;
        Ok(self.0.kernels.get_or_init(|| kernels))
    }

    /// The cell in an error message.
    fn what(&self) -> String {
        format!("the cell `{}`", self.name())
    }
}

impl PartialEq for CustomCell {
    /// Whether both are clones of one cell.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for CustomCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.equations {
            Some(equations) => equations.fmt(f),
            None => write!(f, "the missing cell `{}`", self.name()),
        }
    }
}

/// A cell is its name in a file: [`Checkpoint::load_with`](crate::io::Checkpoint::load_with) and
/// [`ModelConfig::with_cells`](crate::nn::ModelConfig::with_cells) replace what is read by the program's cell.
impl Serialize for CustomCell {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for CustomCell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self::with(Properties { name, ..Properties::default() }, None))
    }
}
