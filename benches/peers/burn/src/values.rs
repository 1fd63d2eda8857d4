//! The numbers that every peer starts from; `../../values.py` computes the same ones.
//!
//! The n-th number of a stream is `SplitMix64`'s mixing function of its place (Steele, Lea & Flood, "Fast splittable
//! pseudorandom number generators", OOPSLA 2014).

use crate::shape::Shape;

const INPUTS: u64 = 0;
const TARGETS: u64 = 1;
const HEAD_WEIGHT: u64 = 2;
const HEAD_BIAS: u64 = 3;
/// A layer l has the streams 16·(l + 1) and the three after it.
const LAYER: u64 = 16;

/// A layer's parameters in PyTorch's order of gates, row by row.
pub(crate) struct LayerValues {
    /// `[G·H, I]`.
    pub(crate) weight_ih: Vec<f32>,
    /// `[G·H, H]`.
    pub(crate) weight_hh: Vec<f32>,
    /// `[G·H]`.
    pub(crate) bias_ih: Vec<f32>,
    /// `[G·H]`.
    pub(crate) bias_hh: Vec<f32>,
}

/// Number `index` of a stream.
fn bits(stream: u64, index: u64) -> u64 {
    let z = ((stream << 40) + index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `count` numbers spread evenly over [-bound, bound), of 24 bits each.
fn uniform(stream: u64, count: usize, bound: f32) -> Vec<f32> {
    (0..count as u64).map(|index| ((bits(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0) * bound).collect()
}

/// 1/√H, for every weight and bias.
fn bound(shape: &Shape) -> f32 {
    (1.0 / (shape.hidden as f64).sqrt()) as f32
}

/// x `[T, B, I]`, in [-1, 1).
pub(crate) fn inputs(shape: &Shape) -> Vec<f32> {
    uniform(INPUTS, shape.tokens() * shape.inputs, 1.0)
}

/// A class for each of the steps `[T, B]`.
pub(crate) fn targets(shape: &Shape) -> Vec<i32> {
    (0..shape.tokens() as u64)
        .map(|index| ((bits(TARGETS, index) >> 40) % shape.classes as u64) as i32)
        .collect()
}

/// The parameters of one layer.
pub(crate) fn layer(shape: &Shape, number: usize) -> LayerValues {
    let rows = shape.gates() * shape.hidden;
    let first = LAYER * (number as u64 + 1);
    let part = |index: u64, columns: usize| uniform(first + index, rows * columns, bound(shape));
    LayerValues {
        weight_ih: part(0, shape.features(number)),
        weight_hh: part(1, shape.hidden),
        bias_ih: part(2, 1),
        bias_hh: part(3, 1),
    }
}

/// Weight `[C, H]` and bias `[C]` of the linear head.
pub(crate) fn head(shape: &Shape) -> (Vec<f32>, Vec<f32>) {
    let weight = uniform(HEAD_WEIGHT, shape.classes * shape.hidden, bound(shape));
    (weight, uniform(HEAD_BIAS, shape.classes, bound(shape)))
}
