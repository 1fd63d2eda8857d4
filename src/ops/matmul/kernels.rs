//! The matrix product kernels: one per tile, with operands read as scalars or as vectors of four.

use crate::gpu::{Kernel, MatmulTile, kernel, parameters};

parameters!(MatmulParameters {
    m: u32,
    n: u32,
    k: u32,
    a_stride: u32,
    b_stride: u32,
    c_stride: u32,
    a_base: u32,
    b_base: u32,
    c_base: u32,
    bias_base: u32,
    /// 1: add a bias to each row; 0: none.
    has_bias: u32,
    /// 1: add to the old values of C; 0: overwrite.
    accumulate: u32,
    /// The depth of a split-K slice: workgroup z computes slice z and stores it to plane z of C.
    part: u32,
    /// Stride of the planes of C, in elements.
    c_plane: u32,
});

parameters!(SumParameters {
    /// The number of outputs of this dispatch, and the first one.
    count: u32,
    first: u32,
    n: u32,
    parts: u32,
    /// Stride of the partial sums, in elements.
    plane: u32,
    c_stride: u32,
    parts_base: u32,
    c_base: u32,
    bias_base: u32,
    /// 1: add a bias to each row; 0: none.
    has_bias: u32,
    /// 1: add to the old values of C; 0: overwrite.
    accumulate: u32,
});

/// Declares the kernel of a tile for one kind of loads.
macro_rules! tile {
    ($name:ident: $stem:literal, [$($file:literal),+]) => {
        kernel!($name: $stem {
            files: ["matmul/matmul", $($file),+],
            parameters: MatmulParameters,
            constants: [("TRANSPOSE_A", 2), ("TRANSPOSE_B", 2)],
            bindings: [Read, Read, Read, Write],
        });
    };
}

tile!(NARROW: "matmul/narrow", ["matmul/scalars", "matmul/tiles", "matmul/narrow"]);
tile!(NARROW_VECTORS: "matmul/narrow_vectors", ["matmul/vectors", "matmul/tiles", "matmul/narrow"]);
tile!(DIRECT: "matmul/direct", ["matmul/scalars", "matmul/square", "matmul/direct"]);
tile!(DIRECT_VECTORS: "matmul/direct_vectors", ["matmul/vectors", "matmul/square", "matmul/direct"]);
tile!(MEDIUM: "matmul/medium", ["matmul/scalars", "matmul/tiles", "matmul/medium"]);
tile!(MEDIUM_VECTORS: "matmul/medium_vectors", ["matmul/vectors", "matmul/tiles", "matmul/medium"]);
tile!(LARGE: "matmul/large", ["matmul/scalars", "matmul/tiles", "matmul/square", "matmul/large"]);
tile!(LARGE_VECTORS: "matmul/large_vectors", ["matmul/vectors", "matmul/tiles", "matmul/square", "matmul/large"]);

kernel!(SUM: "matmul/sum" {
    files: ["lib/elements", "matmul/sum"],
    parameters: SumParameters,
    constants: [],
    bindings: [Read, Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&Kernel] = &[
    &NARROW,
    &NARROW_VECTORS,
    &DIRECT,
    &DIRECT_VECTORS,
    &MEDIUM,
    &MEDIUM_VECTORS,
    &LARGE,
    &LARGE_VECTORS,
    &SUM,
];

/// How a kernel reads its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loads {
    /// As scalars; operands may start at any offset.
    Scalars,
    /// As vectors of four; offsets, strides and row lengths of both operands are multiples of four.
    Vectors,
}

/// The kernel of a tile.
pub(super) fn of_tile(tile: MatmulTile, loads: Loads) -> &'static Kernel {
    match (tile, loads) {
        (MatmulTile::Narrow, Loads::Scalars) => &NARROW,
        (MatmulTile::Narrow, Loads::Vectors) => &NARROW_VECTORS,
        (MatmulTile::Direct, Loads::Scalars) => &DIRECT,
        (MatmulTile::Direct, Loads::Vectors) => &DIRECT_VECTORS,
        (MatmulTile::Medium, Loads::Scalars) => &MEDIUM,
        (MatmulTile::Medium, Loads::Vectors) => &MEDIUM_VECTORS,
        (MatmulTile::Large, Loads::Scalars) => &LARGE,
        (MatmulTile::Large, Loads::Vectors) => &LARGE_VECTORS,
    }
}

/// The kernel that adds up split-K partial sums.
pub(super) fn sum() -> &'static Kernel {
    &SUM
}
