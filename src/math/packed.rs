//! The right operand of a product, packed in the layout that tiles read.

use ndarray::{ArrayView1, ArrayView2, Axis};

use super::instructions::{Row, WIDTH};

/// The packed right operand B \[K, N\] of a product, and the bias that is added to each row of the product.
pub(crate) struct Packed {
    /// Panels of K rows and [`WIDTH`] columns; the last one is padded with zeros.
    pub(super) panels: Vec<Row>,
    /// One row per panel.
    pub(super) bias: Vec<Row>,
    pub(super) depth: usize,
    pub(super) columns: usize,
}

impl Packed {
    pub(crate) fn new(b: ArrayView2<'_, f32>, bias: Option<ArrayView1<'_, f32>>) -> Self {
        let (depth, columns) = b.dim();
        let count = columns.div_ceil(WIDTH);
        let mut panels = vec![Row::ZERO; count * depth];
        for (panel, b) in panels.chunks_exact_mut(depth).zip(b.axis_chunks_iter(Axis(1), WIDTH)) {
            pack_panel(panel, b);
        }
        let mut rows = vec![Row::ZERO; count];
        for (place, &bias) in bias.iter().flatten().enumerate() {
            rows[place / WIDTH].0[place % WIDTH] = bias;
        }
        Self { panels, bias: rows, depth, columns }
    }
}

/// Writes up to [`WIDTH`] columns of B to a panel.
fn pack_panel(panel: &mut [Row], b: ArrayView2<'_, f32>) {
    let columns: Option<Vec<&[f32]>> = b.axis_iter(Axis(1)).map(|column| column.to_slice()).collect();
    match columns {
        // B is stored transposed: copies a few places of all columns at a time, for locality.
        Some(columns) => {
            for first in (0..panel.len()).step_by(16) {
                for (place, column) in columns.iter().enumerate() {
                    for (target, &b) in panel[first..].iter_mut().zip(&column[first..]).take(16) {
                        target.0[place] = b;
                    }
                }
            }
        }
        None => {
            for (target, b) in panel.iter_mut().zip(b.rows()) {
                match b.to_slice() {
                    Some(b) => target.0[..b.len()].copy_from_slice(b),
                    None => target.0.iter_mut().zip(b).for_each(|(target, &b)| *target = b),
                }
            }
        }
    }
}
