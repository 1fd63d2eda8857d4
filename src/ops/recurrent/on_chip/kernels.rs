//! The kernels of each cell that keep W_hh on chip, around `shaders/cells/`.

use super::super::kernels::{FUNCTIONS, gated};
use super::super::sequence::{SequenceBackwardParameters, SequenceForwardParameters};
use crate::gpu::{Kernel, REAL, WEIGHT_CLASSES, kernel};

/// Declares the two kernels of a cell: the constants are those of every cell, those of the division, then its own.
macro_rules! on_chip_kernels {
    ($forward:ident: $forward_name:literal, $backward:ident: $backward_name:literal,
     files: [$($file:literal),*], constants: [$($constant:tt),*]) => {
        kernel!($forward: $forward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_walk", "recurrent_forward_places", "recurrent_forward_product", "recurrent_forward_cell", "recurrent_exchange", "recurrent_on_chip", "recurrent_on_chip_forward"],
            parameters: SequenceForwardParameters,
            constants: [("MARKED", 2), ("BOTH", 2), ("PROJECTED", 1), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 1), ("COMPLETES", 2), ("PATIENCE", 4), ("SLICE_BITS", 5), ("UNIT_BITS", 5), ("QUAD_BITS", 5), ("WEIGHT_BITS", WEIGHT_CLASSES) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Write, Write, Write, Write, Write],
        });
        kernel!($backward: $backward_name {
            files: ["math", "philox", "recurrent_marks", "recurrent", $($file,)* "recurrent_walk", "recurrent_backward_places", "recurrent_backward_product", "recurrent_backward_cell", "recurrent_exchange", "recurrent_on_chip", "recurrent_on_chip_backward"],
            parameters: SequenceBackwardParameters,
            constants: [("MARKED", 2), ("BOTH", 2), ("PROJECTED", 1), ("STATE_MASK", 2), ("ZONEOUT", 3), ("ZONEOUT_HIDDEN", REAL), ("ZONEOUT_CELL", REAL), ("PHASE", 1), ("COMPLETES", 2), ("PATIENCE", 4), ("SLICE_BITS", 5), ("UNIT_BITS", 5), ("QUAD_BITS", 5), ("WEIGHT_BITS", WEIGHT_CLASSES), ("CLIP_GRADIENT", REAL) $(, $constant)*],
            bindings: [Read, Read, Read, Read, Read, Write, Write, Write, Write, Write],
        });
    };
}

on_chip_kernels!(
    VANILLA_FORWARD: "recurrent_on_chip_forward.vanilla", VANILLA_BACKWARD: "recurrent_on_chip_backward.vanilla",
    files: ["activations", "cells/vanilla"],
    constants: [("FUNCTION", FUNCTIONS), ("ALPHA", REAL), ("BETA", REAL), ("CLIP", REAL)]
);
gated!(
    on_chip_kernels, LSTM_FORWARD: "recurrent_on_chip_forward.lstm",
    LSTM_BACKWARD: "recurrent_on_chip_backward.lstm",
    files: ["cells/lstm_gates", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated!(
    on_chip_kernels, COUPLED_FORWARD: "recurrent_on_chip_forward.lstm_coupled",
    COUPLED_BACKWARD: "recurrent_on_chip_backward.lstm_coupled",
    files: ["cells/lstm_coupled", "cells/lstm"], constants: [("CELL_CLIP", REAL), ("PEEPHOLES", 2)]
);
gated!(
    on_chip_kernels, GRU_FORWARD: "recurrent_on_chip_forward.gru",
    GRU_BACKWARD: "recurrent_on_chip_backward.gru",
    files: ["cells/gru"], constants: []
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
];

/// Forward and backward.
pub(in super::super) const VANILLA: [&Kernel; 2] = [&VANILLA_FORWARD, &VANILLA_BACKWARD];
pub(in super::super) const LSTM: [&Kernel; 2] = [&LSTM_FORWARD, &LSTM_BACKWARD];
pub(in super::super) const COUPLED: [&Kernel; 2] = [&COUPLED_FORWARD, &COUPLED_BACKWARD];
pub(in super::super) const GRU: [&Kernel; 2] = [&GRU_FORWARD, &GRU_BACKWARD];
