//! Declares the kernels of each cell: the shader files they are assembled from, and their constants. Files
//! and constants are those common to all kernels, those of the cell and those of the strategy.

use super::super::parameters::{BackwardParameters, ForwardParameters};
use super::FUNCTIONS;
use crate::gpu::{Kernel, WEIGHT_CLASSES, kernel};

/// Forward and backward.
pub(crate) type Pair<'k> = [&'k Kernel; 2];

/// The kernels of one cell.
#[derive(Clone, Copy)]
pub(crate) struct Kernels<'k> {
    /// Strategy `per_step`.
    pub(crate) step: Pair<'k>,
    /// Strategy `sequence`; none for a cell that needs more than one dispatch per step.
    pub(crate) sequence: Option<Pair<'k>>,
    /// Strategy `persistent`; none for a cell that needs more than one dispatch per step.
    pub(crate) persistent: Option<Pair<'k>>,
}

#[cfg(test)]
impl<'k> Kernels<'k> {
    /// All kernels: of each strategy the forward and the backward kernel.
    pub(crate) fn all(self) -> impl Iterator<Item = &'k Kernel> {
        [Some(self.step), self.sequence, self.persistent].into_iter().flatten().flatten()
    }
}

/// Declares a kernel with a cell's files and constants; `projected` and `phases` are the numbers of values of
/// these constants.
macro_rules! cell_kernel {
    ($name:ident: $stem:literal {
        files: [$($file:literal),+],
        parameters: $parameters:ident,
        projected: $projected:literal,
        phases: $phases:literal,
        constants: [$($constant:tt),+],
        bindings: $bindings:tt,
    } $cell:ident [$($cell_file:literal),*] [$($own:tt),*]) => {
        kernel!($name: $stem of $cell {
            files: ["lib/math", "lib/philox", "recurrent/common/step_flag_bits", "recurrent/common/option_places", "recurrent/common/read_options", "recurrent/common/layer", $($cell_file,)* $($file),+],
            parameters: $parameters,
            constants: [
                ("HAS_STEP_FLAGS", 2), ("BOTH", 2), ("PROJECTED", $projected), ("STATE_MASK", 2),
                ("ZONEOUT", 3), ("CLIPS_GATES", 2), ("CLIPS_CELL", 2), ("HAS_ALPHA", 2), ("PHASE", $phases)
                $(, $constant)+ $(, $own)*
            ],
            bindings: $bindings,
        });
    };
}

/// Declares the forward and backward kernels of a strategy. All forward kernels begin with the same files,
/// and all backward kernels too; backward kernels have the constant CLIPS_GRADIENT as well.
macro_rules! strategy_kernels {
    ({
        forward: $forward:ident $forward_stem:literal [$($forward_file:literal),+] $forward_parameters:ident [$($forward_access:ident),+],
        backward: $backward:ident $backward_stem:literal [$($backward_file:literal),+] $backward_parameters:ident [$($backward_access:ident),+],
        projected: $projected:literal,
        phases: $phases:literal,
        constants: [$($constant:tt),+],
    } $cell:ident $files:tt $own:tt) => {
        cell_kernel!($forward: $forward_stem {
            files: [
                "recurrent/common/forward_arrays", "recurrent/common/forward_operands", "recurrent/common/forward_unit",
                $($forward_file),+
            ],
            parameters: $forward_parameters,
            projected: $projected,
            phases: $phases,
            constants: [$($constant),+],
            bindings: [$($forward_access),+],
        } $cell $files $own);
        cell_kernel!($backward: $backward_stem {
            files: [
                "recurrent/common/backward_arrays", "recurrent/common/backward_operands", "recurrent/common/backward_unit",
                $($backward_file),+
            ],
            parameters: $backward_parameters,
            projected: $projected,
            phases: $phases,
            constants: [$($constant),+, ("CLIPS_GRADIENT", 2)],
            bindings: [$($backward_access),+],
        } $cell $files $own);
    };
}

/// The kernels of `per_step`.
macro_rules! step {
    ($($cell:tt)+) => {
        strategy_kernels!({
            forward: STEP_FORWARD "recurrent/step/forward" ["recurrent/step/split_k", "recurrent/step/forward"]
                ForwardParameters [Read, Read, Read, Read, Write, Write, Write, Write],
            backward: STEP_BACKWARD "recurrent/step/backward" ["recurrent/step/split_k", "recurrent/step/backward"]
                BackwardParameters [Read, Read, Read, Read, Read, Write, Write, Write],
            projected: 2,
            phases: 3,
            constants: [("ROW_BITS", 3)],
        } $($cell)+);
    };
}

/// The kernels of `sequence`: without projection and in one phase.
macro_rules! sequence {
    ($($cell:tt)+) => {
        strategy_kernels!({
            forward: SEQUENCE_FORWARD "recurrent/sequence/forward"
                ["recurrent/sequence/workgroup", "recurrent/sequence/forward"]
                ForwardParameters [Read, Read, Read, Read, Write, Write, Write],
            backward: SEQUENCE_BACKWARD "recurrent/sequence/backward"
                ["recurrent/sequence/workgroup", "recurrent/sequence/backward"]
                BackwardParameters [Read, Read, Read, Read, Read, Write, Write, Write],
            projected: 1,
            phases: 1,
            constants: [("ROW_BITS", 4), ("LANE_BITS", 4), ("WIDE", 2)],
        } $($cell)+);
    };
}

/// The kernels of `persistent`: without projection and in one phase.
macro_rules! persistent {
    ($($cell:tt)+) => {
        strategy_kernels!({
            forward: PERSISTENT_FORWARD "recurrent/persistent/forward"
                ["recurrent/persistent/wait", "recurrent/persistent/exchange", "recurrent/persistent/workgroup", "recurrent/persistent/forward"]
                ForwardParameters [Read, Read, Read, Read, Write, Write, Write, Write, Write],
            backward: PERSISTENT_BACKWARD "recurrent/persistent/backward"
                ["recurrent/persistent/wait", "recurrent/persistent/exchange", "recurrent/persistent/workgroup", "recurrent/persistent/backward"]
                BackwardParameters [Read, Read, Read, Read, Read, Write, Write, Write, Write, Write],
            projected: 1,
            phases: 1,
            constants: [
                ("COMPLETES", 2), ("SLICE_BITS", 5), ("UNIT_BITS", 5), ("QUAD_BITS", 5),
                ("WEIGHT_BITS", WEIGHT_CLASSES)
            ],
        } $($cell)+);
    };
}

/// Declares all kernels of a cell in a module of that name. `phases` declares only those of `per_step`, for a
/// cell that needs more than one dispatch per step; `gated` adds the configurable activations of a cell with
/// gates.
macro_rules! cell {
    (gated $(($phases:ident))? $cell:ident [$($file:literal),+] [$($own:tt),*]) => {
        cell!($(($phases))? $cell ["lib/activations", "recurrent/cells/gates", $($file),+] [
            ("GATE_FUNCTION", FUNCTIONS), ("CANDIDATE_FUNCTION", FUNCTIONS), ("OUTPUT_FUNCTION", FUNCTIONS) $(, $own)*
        ]);
    };
    ((phases) $cell:ident $files:tt $own:tt) => {
        pub(crate) mod $cell {
            use super::*;
            step!($cell $files $own);
            pub(crate) static KERNELS: Kernels<'static> =
                Kernels { step: [&STEP_FORWARD, &STEP_BACKWARD], sequence: None, persistent: None };
        }
    };
    ($cell:ident $files:tt $own:tt) => {
        pub(crate) mod $cell {
            use super::*;
            step!($cell $files $own);
            sequence!($cell $files $own);
            persistent!($cell $files $own);
            pub(crate) static KERNELS: Kernels<'static> = Kernels {
                step: [&STEP_FORWARD, &STEP_BACKWARD],
                sequence: Some([&SEQUENCE_FORWARD, &SEQUENCE_BACKWARD]),
                persistent: Some([&PERSISTENT_FORWARD, &PERSISTENT_BACKWARD]),
            };
        }
    };
}

cell!(vanilla ["lib/activations", "recurrent/cells/vanilla"] [("FUNCTION", FUNCTIONS)]);
cell!(gated lstm ["recurrent/cells/lstm_gates", "recurrent/cells/lstm"] [("PEEPHOLES", 2)]);
cell!(gated lstm_coupled ["recurrent/cells/lstm_coupled", "recurrent/cells/lstm"] [("PEEPHOLES", 2)]);
cell!(gated gru ["recurrent/cells/gru"] []);
cell!(gated (phases) gru_reset_before ["recurrent/cells/gru_reset_before"] []);
// A custom cell: everything except the cell itself, which `custom.rs` adds.
cell!(custom [] []);

/// All kernels that need no custom cell.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = &'static Kernel> {
    let cells =
        [vanilla::KERNELS, lstm::KERNELS, lstm_coupled::KERNELS, gru::KERNELS, gru_reset_before::KERNELS];
    cells.into_iter().flat_map(Kernels::all)
}
