//! The two step kernels of each cell, `shaders/recurrent_{forward,backward}.wgsl` around `shaders/cells/`.

use super::stretch::Block;
use super::{Call, Cell, Reset, custom};
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
    bias_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    marks_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    previous_output_base: u32,
    previous_saved_base: u32,
    unprojected_base: u32,
    flags: u32,
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
    previous_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    previous_saved_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    carry_out_base: u32,
    carry_cell_out_base: u32,
    flags: u32,
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

/// `flag` where it holds, else nothing.
pub(super) fn flag(flag: u32, holds: bool) -> u32 {
    if holds { flag } else { 0 }
}

/// How many functions there are to choose from.
const FUNCTIONS: u32 = Activation::ALL.len() as u32;

/// Declares the two step kernels of a cell: the constants are those of every cell, then its own.
macro_rules! cell_kernels {
    ($forward:ident: $forward_name:literal, $backward:ident: $backward_name:literal,
     files: [$($file:literal),*], constants: [$($constant:tt),*]) => {
        kernel!($forward: $forward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_forward_product", "recurrent_forward"],
            parameters: ForwardParameters,
            constants: [("MARKED", 2), ("PROJECTED", 2), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 3) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Write, Write, Write, Write],
        });
        kernel!($backward: $backward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_backward_product", "recurrent_backward"],
            parameters: BackwardParameters,
            constants: [("MARKED", 2), ("PROJECTED", 2), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 3), ("CLIP_GRADIENT", REAL) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Read, Write, Write, Write],
        });
    };
}

/// As [`cell_kernels`], for a cell with gates: it begins with what its user may choose of them.
macro_rules! gated_kernels {
    ($forward:ident: $forward_name:literal, $backward:ident: $backward_name:literal,
     files: [$($file:literal),+], constants: [$($constant:tt),*]) => {
        cell_kernels!(
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

cell_kernels!(
    VANILLA_FORWARD: "recurrent_forward.vanilla", VANILLA_BACKWARD: "recurrent_backward.vanilla",
    files: ["activations", "cells/vanilla"],
    constants: [("FUNCTION", FUNCTIONS), ("ALPHA", REAL), ("BETA", REAL), ("CLIP", REAL)]
);
gated_kernels!(
    LSTM_FORWARD: "recurrent_forward.lstm", LSTM_BACKWARD: "recurrent_backward.lstm",
    files: ["cells/lstm_gates", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated_kernels!(
    COUPLED_FORWARD: "recurrent_forward.lstm_coupled", COUPLED_BACKWARD: "recurrent_backward.lstm_coupled",
    files: ["cells/lstm_coupled", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated_kernels!(
    GRU_FORWARD: "recurrent_forward.gru", GRU_BACKWARD: "recurrent_backward.gru",
    files: ["cells/gru"], constants: []
);
gated_kernels!(
    GRU_RESET_BEFORE_FORWARD: "recurrent_forward.gru_reset_before",
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
];

/// What the step kernels of a user's cell are made of.
pub(super) struct Template {
    /// The stem of the step's file.
    pub(super) stem: &'static str,
    /// All WGSL but the cell's.
    pub(super) around: &'static str,
    /// The constants of every cell.
    pub(super) constants: &'static [(&'static str, u32)],
    /// A kernel with the same parameters and bindings.
    pub(super) like: &'static Kernel,
}

/// A step's WGSL without the cell.
macro_rules! around {
    ($($file:literal),+) => {
        concat!($(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl"))),+)
    };
}

/// Those of the forward and the backward step.
pub(super) fn templates() -> [Template; 2] {
    [
        Template {
            stem: "recurrent_forward",
            around: around!(
                "math",
                "philox",
                "recurrent_marks",
                "recurrent",
                "recurrent_forward_product",
                "recurrent_forward"
            ),
            constants: &[
                ("MARKED", 2),
                ("PROJECTED", 2),
                ("STATE_MASK", 2),
                ("ZONEOUT", 3),
                ("ZONEOUT_HIDDEN", REAL),
                ("ZONEOUT_CELL", REAL),
                ("PHASE", 3),
            ],
            like: &VANILLA_FORWARD,
        },
        Template {
            stem: "recurrent_backward",
            around: around!(
                "math",
                "philox",
                "recurrent_marks",
                "recurrent",
                "recurrent_backward_product",
                "recurrent_backward"
            ),
            constants: &[
                ("MARKED", 2),
                ("PROJECTED", 2),
                ("STATE_MASK", 2),
                ("ZONEOUT", 3),
                ("ZONEOUT_HIDDEN", REAL),
                ("ZONEOUT_CELL", REAL),
                ("PHASE", 3),
                ("CLIP_GRADIENT", REAL),
            ],
            like: &VANILLA_BACKWARD,
        },
    ]
}

/// The kernels of a layer's step, and their constants.
pub(super) struct CellKernels {
    forward: &'static Kernel,
    backward: &'static Kernel,
    /// Those of every cell, but the phase.
    shared: [u32; 6],
    clip_gradient: u32,
    /// The cell's own.
    own: Vec<u32>,
    /// The phases of a step: one, or those of a cell whose last gate has a product of its own.
    phases: &'static [u32],
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
    pub(super) fn of(call: &Call<'_>, marked: bool) -> Result<Self> {
        let equations = &call.equations;
        let options = equations.options;
        let clip = real(options.clip_gates.unwrap_or(0.0));
        let mut gated = equations.activations().map(function).concat();
        gated.push(clip);
        let lstm = [real(options.clip_cell.unwrap_or(0.0)), u32::from(options.peepholes)];
        let (forward, backward, own, phases): (_, _, _, &'static [u32]) =
            match (equations.cell, options.reset) {
                (Cell::Vanilla(activation), _) => {
                    let own = [&function(activation)[..], &[clip]].concat();
                    (&VANILLA_FORWARD, &VANILLA_BACKWARD, own, &WHOLE)
                }
                (Cell::Lstm, _) => {
                    let own = [&gated[..], &lstm].concat();
                    match options.coupled {
                        false => (&LSTM_FORWARD, &LSTM_BACKWARD, own, &WHOLE),
                        true => (&COUPLED_FORWARD, &COUPLED_BACKWARD, own, &WHOLE),
                    }
                }
                (Cell::Gru, Reset::AfterProduct) => (&GRU_FORWARD, &GRU_BACKWARD, gated, &WHOLE),
                (Cell::Gru, Reset::BeforeProduct) => {
                    (&GRU_RESET_BEFORE_FORWARD, &GRU_RESET_BEFORE_BACKWARD, gated, &IN_TWO)
                }
                (Cell::Custom(cell), _) => {
                    let [forward, backward] = custom::kernels(cell)?;
                    (forward, backward, Vec::new(), &WHOLE)
                }
            };
        let zoneout = match (options.zoneout, call.equations.noise) {
            (None, _) => 0,
            (Some(_), Some(_)) => 1,
            (Some(_), None) => 2,
        };
        let [hidden, cell] = options.zoneout.unwrap_or([0.0; 2]);
        let shared = [
            u32::from(marked),
            u32::from(call.weights.projection.is_some()),
            u32::from(call.state_mask.is_some()),
            zoneout,
            real(hidden),
            real(cell),
        ];
        let clip_gradient = real(options.clip_gradient.unwrap_or(0.0));
        Ok(Self { forward, backward, shared, clip_gradient, own, phases })
    }

    /// The constants of each of the dispatches that make up a step.
    fn dispatches(&self, clip_gradient: Option<u32>) -> Vec<Vec<u32>> {
        let constants = |&phase: &u32| {
            let shared = self.shared.into_iter().chain([phase]).chain(clip_gradient);
            shared.chain(self.own.iter().copied()).collect()
        };
        self.phases.iter().map(constants).collect()
    }

    pub(super) fn forward(&self) -> StepKernel {
        StepKernel { kernel: self.forward, dispatches: self.dispatches(None) }
    }

    pub(super) fn backward(&self) -> StepKernel {
        StepKernel { kernel: self.backward, dispatches: self.dispatches(Some(self.clip_gradient)) }
    }
}

/// One of the two kernels, ready to be called.
pub(super) struct StepKernel {
    kernel: &'static Kernel,
    dispatches: Vec<Vec<u32>>,
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
                    grid: block.grid(),
                })?;
            }
        }
        Ok(())
    }
}
