//! Arithmetic of the CPU in 32-bit floats, as fast as its instructions allow: matrix products, the functions that cells
//! are made of, and work shared out among threads. The 64-bit reference takes none of the first two: it has `ndarray`'s
//! product and the standard library's functions.
//!
//! Results depend neither on the number of threads nor on which rows are computed together.

mod functions;
mod instructions;
mod packed;
mod product;
mod threads;

pub(crate) use functions::{exp, sigmoid, tanh};
pub(crate) use packed::Packed;
pub(crate) use product::{Onto, TILE_ROWS, product, product_in_parts};
pub(crate) use threads::{in_parts, part_rows, threads};
