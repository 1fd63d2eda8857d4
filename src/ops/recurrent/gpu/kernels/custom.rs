//! The kernels of user-defined cells: the time loops of all strategies, assembled with the cell's WGSL.

use super::declared::{Kernels, custom::KERNELS as AROUND_CUSTOM};
use crate::gpu::{Kernel, Origin, Rules, inspect};
use crate::ops::recurrent::custom_cell::{CustomCell, Properties};
use crate::{Error, Result};

/// What the kernels call of a cell, and what a cell may call of them. The documentation of
/// [`UnitEquations`](crate::nn::UnitEquations) lists both.
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

/// The kernels of `cell`, assembled at the first call.
pub(crate) fn kernels(cell: &CustomCell) -> Result<Kernels<'_>> {
    let [step, sequence, persistent] = cell.kernels(|properties| {
        let pair = |[forward, backward]: [&Kernel; 2]| {
            Ok::<_, Error>([checked(properties, forward)?, checked(properties, backward)?])
        };
        let Kernels { step, sequence: Some(sequence), persistent: Some(persistent) } = AROUND_CUSTOM else {
            unreachable!("declared with all strategies")
        };
        Ok([pair(step)?, pair(sequence)?, pair(persistent)?])
    })?;
    Ok(Kernels {
        step: step.each_ref(),
        sequence: Some(sequence.each_ref()),
        persistent: Some(persistent.each_ref()),
    })
}

/// As [`assembled`], checked by a compiler of WGSL.
fn checked(properties: &Properties, around: &Kernel) -> Result<Kernel> {
    let kernel = assembled(properties, around);
    match inspect(&properties.wgsl, &kernel.wgsl(false), &RULES) {
        Ok(()) => Ok(kernel),
        Err(message) => Err(Error::Shader { what: format!("the cell `{}`", properties.name), message }),
    }
}

/// The kernel `around` with the cell in it. The cell's text comes first, so that its lines have the numbers that its
/// author knows: the order of declarations does not matter in WGSL.
fn assembled(properties: &Properties, around: &Kernel) -> Kernel {
    let Properties { name, wgsl, gates, has_cell_state, saves, last_gate_apart } = properties;
    let source = format!(
        "{wgsl}
fn cell_candidate(step: Step) -> CellState {{ return CellState(step.hidden, step.saved); }}
const GATES: u32 = {gates}u;
const SAVES: bool = {saves};
const HAS_CELL: bool = {has_cell_state};
const LAST_GATE_APART: bool = {last_gate_apart};
{}",
        around.source
    );
    Kernel {
        name: format!("{}.{name}", around.name).into(),
        source: source.into(),
        origin: Origin::new_user(),
        ..around.clone()
    }
}

/// The kernels around a cell of each kind, for the tests that look at shaders.
#[cfg(test)]
pub(crate) fn examples() -> Vec<Kernel> {
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
    let properties = |name: &str, saves, has_cell_state, last_gate_apart| {
        let (name, wgsl) = (name.to_owned(), wgsl.to_owned());
        Properties { name, wgsl, gates: 2, has_cell_state, saves, last_gate_apart }
    };
    let kinds = [
        properties("plain", false, false, false),
        properties("state", true, true, false),
        properties("apart", true, false, true),
    ];
    let kernels = kinds.iter().flat_map(|kind| AROUND_CUSTOM.all().map(|around| assembled(kind, around)));
    kernels.collect()
}
