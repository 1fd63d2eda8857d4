//! The kernels of a matrix product: a tile each, with operands read value by value or by fours.

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
    has_bias: u32,
    accumulate: u32,
    part: u32,
    c_plane: u32,
});

parameters!(SumParameters {
    count: u32,
    first: u32,
    n: u32,
    parts: u32,
    plane: u32,
    c_stride: u32,
    parts_base: u32,
    c_base: u32,
    bias_base: u32,
    has_bias: u32,
    accumulate: u32,
});

/// Declares the kernel of a tile with one way of reading operands.
macro_rules! tile {
    ($name:ident: $stem:literal, [$($file:literal),+]) => {
        kernel!($name: $stem {
            files: ["matmul", $($file),+],
            parameters: MatmulParameters,
            constants: [("TRANSPOSE_A", 2), ("TRANSPOSE_B", 2)],
            bindings: [Read, Read, Read, Write],
        });
    };
}

tile!(NARROW: "matmul_narrow", ["matmul_scalars", "matmul_tiles", "matmul_narrow"]);
tile!(NARROW_VECTORS: "matmul_narrow_vectors", ["matmul_vectors", "matmul_tiles", "matmul_narrow"]);
tile!(DIRECT: "matmul_direct", ["matmul_scalars", "matmul_square", "matmul_direct"]);
tile!(DIRECT_VECTORS: "matmul_direct_vectors", ["matmul_vectors", "matmul_square", "matmul_direct"]);
tile!(MEDIUM: "matmul_medium", ["matmul_scalars", "matmul_tiles", "matmul_medium"]);
tile!(MEDIUM_VECTORS: "matmul_medium_vectors", ["matmul_vectors", "matmul_tiles", "matmul_medium"]);
tile!(LARGE: "matmul_large", ["matmul_scalars", "matmul_tiles", "matmul_square", "matmul_large"]);
tile!(LARGE_VECTORS: "matmul_large_vectors", ["matmul_vectors", "matmul_tiles", "matmul_square", "matmul_large"]);

kernel!(SUM: "matmul_sum" {
    files: ["matmul_sum"],
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
    /// Value by value: they may start anywhere.
    Scalars,
    /// By fours: starts, strides and rows of both divide by four.
    Vectors,
}

/// The kernel that computes products.
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

/// The kernel that adds up the parts of a product.
pub(super) fn sum() -> &'static Kernel {
    &SUM
}
