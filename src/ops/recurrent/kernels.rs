//! The kernels of each cell: `shaders/recurrent_{forward,backward}.wgsl`, which take one step, and
//! `shaders/recurrent_sequence_{forward,backward}.wgsl`, which take many, around `shaders/cells/`. Those of `on_chip` are there.

use super::on_chip::{OnChipKernel, kernels as on_chip};
use super::sequence::{SequenceBackwardParameters, SequenceForwardParameters, SequenceKernel, Way};
use super::slices::Split;
use super::step::{BackwardParameters, ForwardParameters, StepKernel};
use super::tier::Tier;
use super::{Call, Cell, Reset, Sizes, custom};
use crate::Result;
use crate::gpu::{Context, Kernel, REAL, kernel};
use crate::ops::Activation;

/// Bits of `flags`, as in `shaders/recurrent.wgsl`.
pub(super) const FIRST_STEP: u32 = 1;
pub(super) const LAST_STEP: u32 = 2;
pub(super) const TAKES_OUTPUTS: u32 = 4;
pub(super) const HAS_BIAS: u32 = 8;
pub(super) const REVERSED: u32 = 16;

/// `flag` where it holds, else nothing.
pub(super) fn flag(flag: u32, holds: bool) -> u32 {
    if holds { flag } else { 0 }
}

/// How many functions there are to choose from.
pub(super) const FUNCTIONS: u32 = Activation::ALL.len() as u32;

/// Declares the two step kernels of a cell: the constants are those of every cell, then its own.
macro_rules! step_kernels {
    ($forward:ident: $forward_name:literal, $backward:ident: $backward_name:literal,
     files: [$($file:literal),*], constants: [$($constant:tt),*]) => {
        kernel!($forward: $forward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_forward_product", "recurrent_forward_cell", "recurrent_slices", "recurrent_forward"],
            parameters: ForwardParameters,
            constants: [("MARKED", 2), ("BOTH", 2), ("PROJECTED", 2), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 3), ("ROW_BITS", 3) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Write, Write, Write, Write],
        });
        kernel!($backward: $backward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_backward_product", "recurrent_backward_cell", "recurrent_slices", "recurrent_backward"],
            parameters: BackwardParameters,
            constants: [("MARKED", 2), ("BOTH", 2), ("PROJECTED", 2), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 3), ("ROW_BITS", 3), ("CLIP_GRADIENT", REAL) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Read, Write, Write, Write],
        });
    };
}

/// As [`step_kernels`], for the kernels that walk over many steps: never projected, nor in phases.
macro_rules! sequence_kernels {
    ($forward:ident: $forward_name:literal, $backward:ident: $backward_name:literal,
     files: [$($file:literal),*], constants: [$($constant:tt),*]) => {
        kernel!($forward: $forward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_forward_product", "recurrent_forward_cell", "recurrent_walk", "recurrent_forward_places", "recurrent_sequence", "recurrent_sequence_forward"],
            parameters: SequenceForwardParameters,
            constants: [("MARKED", 2), ("BOTH", 2), ("PROJECTED", 1), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 1), ("ROW_BITS", 4), ("LANE_BITS", 4), ("WIDE", 2) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Write, Write, Write],
        });
        kernel!($backward: $backward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_backward_product", "recurrent_backward_cell", "recurrent_walk", "recurrent_backward_places", "recurrent_sequence", "recurrent_sequence_backward"],
            parameters: SequenceBackwardParameters,
            constants: [("MARKED", 2), ("BOTH", 2), ("PROJECTED", 1), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 1), ("ROW_BITS", 4), ("LANE_BITS", 4), ("WIDE", 2), ("CLIP_GRADIENT", REAL) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Read, Write, Write, Write],
        });
    };
}

/// Declares step or sequence kernels of a cell with gates: it begins with what its user may choose of them.
macro_rules! gated {
    ($kernels:ident, $forward:ident: $forward_name:literal, $backward:ident: $backward_name:literal,
     files: [$($file:literal),+], constants: [$($constant:tt),*]) => {
        $kernels!(
            $forward: $forward_name, $backward: $backward_name,
            files: ["activations", "cells/gates", $($file),+],
            constants: [
                ("GATE_FUNCTION", FUNCTIONS), ("GATE_ALPHA", REAL), ("GATE_BETA", REAL),
                ("CANDIDATE_FUNCTION", FUNCTIONS), ("CANDIDATE_ALPHA", REAL), ("CANDIDATE_BETA", REAL),
                ("OUTPUT_FUNCTION", FUNCTIONS), ("OUTPUT_ALPHA", REAL), ("OUTPUT_BETA", REAL),
                ("CLIP", REAL) $(, $constant)*
            ]
        );
    };
}

pub(super) use gated;

step_kernels!(
    VANILLA_FORWARD: "recurrent_forward.vanilla", VANILLA_BACKWARD: "recurrent_backward.vanilla",
    files: ["activations", "cells/vanilla"],
    constants: [("FUNCTION", FUNCTIONS), ("ALPHA", REAL), ("BETA", REAL), ("CLIP", REAL)]
);
sequence_kernels!(
    VANILLA_SEQUENCE_FORWARD: "recurrent_sequence_forward.vanilla",
    VANILLA_SEQUENCE_BACKWARD: "recurrent_sequence_backward.vanilla",
    files: ["activations", "cells/vanilla"],
    constants: [("FUNCTION", FUNCTIONS), ("ALPHA", REAL), ("BETA", REAL), ("CLIP", REAL)]
);
gated!(
    step_kernels, LSTM_FORWARD: "recurrent_forward.lstm", LSTM_BACKWARD: "recurrent_backward.lstm",
    files: ["cells/lstm_gates", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated!(
    sequence_kernels, LSTM_SEQUENCE_FORWARD: "recurrent_sequence_forward.lstm",
    LSTM_SEQUENCE_BACKWARD: "recurrent_sequence_backward.lstm",
    files: ["cells/lstm_gates", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated!(
    step_kernels, COUPLED_FORWARD: "recurrent_forward.lstm_coupled",
    COUPLED_BACKWARD: "recurrent_backward.lstm_coupled",
    files: ["cells/lstm_coupled", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated!(
    sequence_kernels, COUPLED_SEQUENCE_FORWARD: "recurrent_sequence_forward.lstm_coupled",
    COUPLED_SEQUENCE_BACKWARD: "recurrent_sequence_backward.lstm_coupled",
    files: ["cells/lstm_coupled", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated!(
    step_kernels, GRU_FORWARD: "recurrent_forward.gru", GRU_BACKWARD: "recurrent_backward.gru",
    files: ["cells/gru"], constants: []
);
gated!(
    sequence_kernels, GRU_SEQUENCE_FORWARD: "recurrent_sequence_forward.gru",
    GRU_SEQUENCE_BACKWARD: "recurrent_sequence_backward.gru",
    files: ["cells/gru"], constants: []
);
gated!(
    step_kernels, GRU_RESET_BEFORE_FORWARD: "recurrent_forward.gru_reset_before",
    GRU_RESET_BEFORE_BACKWARD: "recurrent_backward.gru_reset_before",
    files: ["cells/gru_reset_before"], constants: []
);

#[cfg(test)]
pub(crate) static KERNELS: &[&Kernel] = &[
    &VANILLA_FORWARD,
    &VANILLA_BACKWARD,
    &LSTM_FORWARD,
    &LSTM_BACKWARD,
    &COUPLED_FORWARD,
    &COUPLED_BACKWARD,
    &GRU_FORWARD,
    &GRU_BACKWARD,
    &GRU_RESET_BEFORE_FORWARD,
    &GRU_RESET_BEFORE_BACKWARD,
    &VANILLA_SEQUENCE_FORWARD,
    &VANILLA_SEQUENCE_BACKWARD,
    &LSTM_SEQUENCE_FORWARD,
    &LSTM_SEQUENCE_BACKWARD,
    &COUPLED_SEQUENCE_FORWARD,
    &COUPLED_SEQUENCE_BACKWARD,
    &GRU_SEQUENCE_FORWARD,
    &GRU_SEQUENCE_BACKWARD,
];

/// The kernels of one cell, forward and backward.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Those of a step.
    pub(super) step: [&'static Kernel; 2],
    /// Those that take many steps, where a step is one dispatch.
    pub(super) sequence: Option<[&'static Kernel; 2]>,
    /// Those that keep W_hh on chip, likewise.
    pub(super) on_chip: Option<[&'static Kernel; 2]>,
}

/// Every user's cell has kernels with the parameters and bindings of these.
pub(super) static VANILLA: Kernels = Kernels {
    step: [&VANILLA_FORWARD, &VANILLA_BACKWARD],
    sequence: Some([&VANILLA_SEQUENCE_FORWARD, &VANILLA_SEQUENCE_BACKWARD]),
    on_chip: Some(on_chip::VANILLA),
};
static LSTM: Kernels = Kernels {
    step: [&LSTM_FORWARD, &LSTM_BACKWARD],
    sequence: Some([&LSTM_SEQUENCE_FORWARD, &LSTM_SEQUENCE_BACKWARD]),
    on_chip: Some(on_chip::LSTM),
};
static COUPLED: Kernels = Kernels {
    step: [&COUPLED_FORWARD, &COUPLED_BACKWARD],
    sequence: Some([&COUPLED_SEQUENCE_FORWARD, &COUPLED_SEQUENCE_BACKWARD]),
    on_chip: Some(on_chip::COUPLED),
};
static GRU: Kernels = Kernels {
    step: [&GRU_FORWARD, &GRU_BACKWARD],
    sequence: Some([&GRU_SEQUENCE_FORWARD, &GRU_SEQUENCE_BACKWARD]),
    on_chip: Some(on_chip::GRU),
};
static GRU_RESET_BEFORE: Kernels =
    Kernels { step: [&GRU_RESET_BEFORE_FORWARD, &GRU_RESET_BEFORE_BACKWARD], sequence: None, on_chip: None };

/// The kernels of a layer, and their constants.
pub(super) struct CellKernels {
    kernels: Kernels,
    /// Constants of every cell, but the phase.
    shared: [u32; 7],
    clip_gradient: u32,
    /// The cell's own.
    own: Vec<u32>,
    /// The phases of a step: one, or those of a cell whose last gate has a product of its own.
    phases: &'static [u32],
    /// How many directions share a dispatch.
    directions: usize,
    /// How the product of a step is shared out.
    split: Split,
}

/// Values of PHASE.
const WHOLE: [u32; 1] = [0];
const IN_TWO: [u32; 2] = [1, 2];

fn real(value: f32) -> u32 {
    value.to_bits()
}

fn function(activation: Activation) -> [u32; 3] {
    let (alpha, beta) = activation.constants();
    [activation.code(), real(alpha), real(beta)]
}

impl CellKernels {
    /// Those of one direction, or of both.
    pub(super) fn of(context: &Context, calls: &[Call<'_>], sizes: Sizes, marked: bool) -> Result<Self> {
        let call = &calls[0];
        let equations = &call.equations;
        let options = equations.options;
        let clip = real(options.clip_gates.unwrap_or(0.0));
        let mut gated = equations.activations().map(function).concat();
        gated.push(clip);
        let lstm = [real(options.clip_cell.unwrap_or(0.0)), u32::from(options.peepholes)];
        let phases: &'static [u32] = if equations.resets_before() { &IN_TWO } else { &WHOLE };
        let (kernels, own) = match (equations.cell, options.reset) {
            (Cell::Vanilla(activation), _) => (VANILLA, [&function(activation)[..], &[clip]].concat()),
            (Cell::Lstm, _) => (if options.coupled { COUPLED } else { LSTM }, [&gated[..], &lstm].concat()),
            (Cell::Gru, Reset::AfterProduct) => (GRU, gated),
            (Cell::Gru, Reset::BeforeProduct) => (GRU_RESET_BEFORE, gated),
            (Cell::Custom(cell), _) => (custom::kernels(cell)?, Vec::new()),
        };
        let zoneout = match (options.zoneout, call.equations.noise) {
            (None, _) => 0,
            (Some(_), Some(_)) => 1,
            (Some(_), None) => 2,
        };
        let [hidden, cell] = options.zoneout.unwrap_or([0.0; 2]);
        let shared = [
            u32::from(marked),
            u32::from(calls.len() == 2),
            u32::from(call.weights.projection.is_some()),
            u32::from(call.state_mask.is_some()),
            zoneout,
            real(hidden),
            real(cell),
        ];
        let clip_gradient = real(options.clip_gradient.unwrap_or(0.0));
        let split = Split::of(context, sizes);
        Ok(Self { kernels, shared, clip_gradient, own, phases, directions: calls.len(), split })
    }

    /// The constants of one dispatch; `kernel` are those that this kernel has beside the shared ones.
    fn constants(&self, phase: u32, kernel: &[u32]) -> Vec<u32> {
        [&self.shared[..], &[phase], kernel, &self.own].concat()
    }

    fn step(&self, kernel: &'static Kernel, constants: &[u32]) -> StepKernel {
        let constants = [&[self.split.constant()], constants].concat();
        let dispatches = self.phases.iter().map(|&phase| self.constants(phase, &constants)).collect();
        StepKernel { kernel, dispatches, directions: self.directions, split: self.split }
    }

    pub(super) fn forward(&self) -> StepKernel {
        self.step(self.kernels.step[0], &[])
    }

    pub(super) fn backward(&self) -> StepKernel {
        self.step(self.kernels.step[1], &[self.clip_gradient])
    }

    /// The kernel that takes many steps in the given way; none where each step is a dispatch, or more than one.
    pub(super) fn many_forward(&self, call: &Call<'_>, tier: Tier, patience: u32) -> Option<SequenceKernel> {
        let width = call.weights.weight_hh.shape().last();
        self.many(tier, 0, &[], patience, width)
    }

    /// As [`CellKernels::many_forward`].
    pub(super) fn many_backward(&self, call: &Call<'_>, tier: Tier, patience: u32) -> Option<SequenceKernel> {
        let width = call.weights.weight_hh.shape().rows();
        self.many(tier, 1, &[self.clip_gradient], patience, width)
    }

    /// `pass` is 0 forward and 1 backward; `width` are the words that a row of a step leaves to others on chip.
    fn many(
        &self,
        tier: Tier,
        pass: usize,
        constants: &[u32],
        patience: u32,
        width: usize,
    ) -> Option<SequenceKernel> {
        let all = |division: &[u32]| self.constants(WHOLE[0], &[division, constants].concat());
        let way = match tier {
            Tier::Steps => return None,
            Tier::Sequence(plan) => {
                Way::Rows { kernel: self.kernels.sequence?[pass], constants: all(&plan.constants()), plan }
            }
            Tier::OnChip(plan) => Way::OnChip(OnChipKernel {
                kernel: self.kernels.on_chip?[pass],
                constants: all(&[&[0, patience], &plan.constants()[..]].concat()),
                plan,
                width,
            }),
        };
        Some(SequenceKernel { way, directions: self.directions })
    }
}
