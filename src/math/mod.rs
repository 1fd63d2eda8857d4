//! Fast arithmetic in f32 on the CPU: matrix products, the functions used by the cells, and distribution of work to threads.
//! The f64 reference uses neither these products nor these functions, but `ndarray`'s product and the standard library.
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
