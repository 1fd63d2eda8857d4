//! The kernels of each cell: `shaders/recurrent_{forward,backward}.wgsl`, which take one step, and
//! `shaders/recurrent_sequence_{forward,backward}.wgsl`, which take many, around `shaders/cells/`.

use super::sequence::{SequenceBackwardParameters, SequenceForwardParameters};
use super::slices::Split;
use super::stretch::Block;
use super::tier::Plan;
use super::{Call, Cell, Reset, Sizes, custom};
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, REAL, kernel, parameters};
use crate::ops::Activation;

parameters!(ForwardParameters {
    rows: u32,
    hidden: u32,
    state: u32,
    width: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    weight_unit: u32,
    weight_term: u32,
    bias_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    marks_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    unprojected_base: u32,
    flags: u32,
    second_behind: u32,
    second_beside: u32,
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});
parameters!(BackwardParameters {
    rows: u32,
    batch: u32,
    hidden: u32,
    width: u32,
    d_width: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    marks_base: u32,
    next_marks_base: u32,
    next_gates_base: u32,
    next_saved_base: u32,
    output_base: u32,
    d_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    carry_out_base: u32,
    carry_cell_out_base: u32,
    flags: u32,
    second_behind: u32,
    second_beside: u32,
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});

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
const FUNCTIONS: u32 = Activation::ALL.len() as u32;

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
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_forward_product", "recurrent_forward_cell", "recurrent_sequence", "recurrent_sequence_forward"],
            parameters: SequenceForwardParameters,
            constants: [("MARKED", 2), ("BOTH", 2), ("PROJECTED", 1), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 1), ("ROW_BITS", 4), ("LANE_BITS", 4), ("WIDE", 2) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Write, Write, Write],
        });
        kernel!($backward: $backward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_backward_product", "recurrent_backward_cell", "recurrent_sequence", "recurrent_sequence_backward"],
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
}

/// Every user's cell has kernels with the parameters and bindings of these.
pub(super) static VANILLA: Kernels = Kernels {
    step: [&VANILLA_FORWARD, &VANILLA_BACKWARD],
    sequence: Some([&VANILLA_SEQUENCE_FORWARD, &VANILLA_SEQUENCE_BACKWARD]),
};
static LSTM: Kernels = Kernels {
    step: [&LSTM_FORWARD, &LSTM_BACKWARD],
    sequence: Some([&LSTM_SEQUENCE_FORWARD, &LSTM_SEQUENCE_BACKWARD]),
};
static COUPLED: Kernels = Kernels {
    step: [&COUPLED_FORWARD, &COUPLED_BACKWARD],
    sequence: Some([&COUPLED_SEQUENCE_FORWARD, &COUPLED_SEQUENCE_BACKWARD]),
};
static GRU: Kernels = Kernels {
    step: [&GRU_FORWARD, &GRU_BACKWARD],
    sequence: Some([&GRU_SEQUENCE_FORWARD, &GRU_SEQUENCE_BACKWARD]),
};
static GRU_RESET_BEFORE: Kernels =
    Kernels { step: [&GRU_RESET_BEFORE_FORWARD, &GRU_RESET_BEFORE_BACKWARD], sequence: None };

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

    fn sequence(&self, kernel: &'static Kernel, constants: &[u32], plan: Plan) -> SequenceKernel {
        let constants = self.constants(WHOLE[0], constants);
        SequenceKernel { kernel, constants, plan, directions: self.directions }
    }

    /// The kernel that takes many steps; none where a step is more than one dispatch.
    pub(super) fn sequence_forward(&self, plan: Plan) -> Option<SequenceKernel> {
        let [kernel, _] = self.kernels.sequence?;
        Some(self.sequence(kernel, &plan.constants(), plan))
    }

    /// As [`CellKernels::sequence_forward`].
    pub(super) fn sequence_backward(&self, plan: Plan) -> Option<SequenceKernel> {
        let [_, kernel] = self.kernels.sequence?;
        let constants = [&plan.constants()[..], &[self.clip_gradient]].concat();
        Some(self.sequence(kernel, &constants, plan))
    }
}

/// A kernel that takes many steps, with its constants and how its work is divided.
pub(super) struct SequenceKernel {
    pub(super) kernel: &'static Kernel,
    pub(super) constants: Vec<u32>,
    pub(super) plan: Plan,
    /// How many directions share a dispatch.
    pub(super) directions: usize,
}

/// One of the two kernels of a step, ready to be called.
pub(super) struct StepKernel {
    kernel: &'static Kernel,
    dispatches: Vec<Vec<u32>>,
    directions: usize,
    pub(super) split: Split,
}

impl StepKernel {
    /// Runs a step over all blocks; `parameters` are those of a block.
    pub(super) fn run<P: bytemuck::Pod>(
        &self,
        context: &Context,
        bindings: &[Bound<'_>],
        blocks: &[Block],
        parameters: impl Fn(&Block) -> P,
    ) -> Result<()> {
        for constants in &self.dispatches {
            for block in blocks {
                context.dispatch(Dispatch {
                    kernel: self.kernel,
                    constants,
                    parameters: parameters(block),
                    bindings,
                    grid: block.grid(self.split, self.directions),
                })?;
            }
        }
        Ok(())
    }
}
