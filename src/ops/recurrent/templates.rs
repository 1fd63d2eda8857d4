//! The kernels of a user's cell: all of their WGSL but the cell itself.

use super::kernels::VANILLA;
use crate::gpu::{Kernel, REAL};

/// A kernel that lacks its cell.
pub(super) struct Template {
    /// The stem of its file.
    pub(super) stem: &'static str,
    /// All WGSL but the cell's.
    pub(super) around: &'static str,
    /// The constants of every cell.
    pub(super) constants: &'static [(&'static str, u32)],
    /// A kernel with the same parameters and bindings.
    pub(super) like: &'static Kernel,
}

/// WGSL without the cell: what all kernels have, then the files of this one.
macro_rules! around {
    ($($file:literal),+) => {
        concat!(
            $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl"))),+
        )
    };
}

/// The constants of a kernel: those that all have, with how many values, then its own.
macro_rules! constants {
    ($projected:literal, $phases:literal $(, $own:expr)*) => {
        &[
            ("MARKED", 2),
            ("BOTH", 2),
            ("PROJECTED", $projected),
            ("STATE_MASK", 2),
            ("ZONEOUT", 3),
            ("ZONEOUT_HIDDEN", REAL),
            ("ZONEOUT_CELL", REAL),
            ("PHASE", $phases)
            $(, $own)*
        ]
    };
}

/// Those of a step forward and backward.
pub(super) fn step() -> [Template; 2] {
    let [forward, backward] = VANILLA.step;
    [
        Template {
            stem: "recurrent_forward",
            around: around!(
                "math",
                "philox",
                "recurrent_marks",
                "recurrent",
                "recurrent_forward_product",
                "recurrent_forward_cell",
                "recurrent_slices",
                "recurrent_forward"
            ),
            constants: constants!(2, 3, ("ROW_BITS", 3)),
            like: forward,
        },
        Template {
            stem: "recurrent_backward",
            around: around!(
                "math",
                "philox",
                "recurrent_marks",
                "recurrent",
                "recurrent_backward_product",
                "recurrent_backward_cell",
                "recurrent_slices",
                "recurrent_backward"
            ),
            constants: constants!(2, 3, ("ROW_BITS", 3), ("CLIP_GRADIENT", REAL)),
            like: backward,
        },
    ]
}

/// Those of many steps forward and backward.
pub(super) fn sequence() -> Option<[Template; 2]> {
    let [forward, backward] = VANILLA.sequence?;
    Some([
        Template {
            stem: "recurrent_sequence_forward",
            around: around!(
                "math",
                "philox",
                "recurrent_marks",
                "recurrent",
                "recurrent_forward_product",
                "recurrent_forward_cell",
                "recurrent_sequence",
                "recurrent_sequence_forward"
            ),
            constants: constants!(1, 1, ("ROW_BITS", 4), ("LANE_BITS", 4), ("WIDE", 2)),
            like: forward,
        },
        Template {
            stem: "recurrent_sequence_backward",
            around: around!(
                "math",
                "philox",
                "recurrent_marks",
                "recurrent",
                "recurrent_backward_product",
                "recurrent_backward_cell",
                "recurrent_sequence",
                "recurrent_sequence_backward"
            ),
            constants: constants!(
                1,
                1,
                ("ROW_BITS", 4),
                ("LANE_BITS", 4),
                ("WIDE", 2),
                ("CLIP_GRADIENT", REAL)
            ),
            like: backward,
        },
    ])
}
