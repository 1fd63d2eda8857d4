//! Split-K for the product of a time step within a workgroup, and the blocks of rows and units that fit the
//! largest grid. Dispatches
//! `shaders/recurrent/step/boundary.wgsl`, which computes the gradient of the initial state with a product of
//! the same kind.
//!
//! A workgroup computes 16 units of some rows. With fewer rows per workgroup there are more workgroups, and
//! more invocations of each share a sum, one slice each; so a small batch still fills a device. With more
//! rows per workgroup the weights are read less often.
//!
//! The order of a sum depends on the number of slices. [`SplitK::of`] chooses it from the sizes of the layer
//! alone, never from the number of steps or directions or from the limits of a dispatch, so that results do
//! not depend on how the work is cut.

use std::ops::Range;

use crate::Result;
use crate::gpu::{AdapterKind, Context, Dispatch, kernels, parameters, pieces};
use crate::ops::recurrent::Sizes;
use crate::tensor::{Tensor, View};

/// Units per workgroup.
pub(crate) const UNITS: usize = 16;
/// A workgroup on a hardware adapter gets more than the fewest rows only while at least this many workgroups
/// remain: about one for each compute unit.
pub(crate) const UNITS_TO_FILL: usize = 128;
/// The fewest rows per workgroup.
const LEAST_ROWS: usize = 4;
/// The number of values of `ROW_BITS` in `shaders/recurrent/step/split_k.wgsl`.
const ROW_BITS: u32 = 3;

parameters!(BoundaryParameters {
    rows: u32,
    hidden_size: u32,
    terms: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    sent_base: u32,
    y_base: u32,
});

kernels! {
    BOUNDARY: "recurrent/step/boundary" {
        uses: ["recurrent/step/split_k"],
        parameters: BoundaryParameters,
        constants: [("ROW_BITS", ROW_BITS)],
        bindings: [Read, Read, Write],
    }
}

/// Rows per workgroup in a step: 4, 8 or 16, with each sum in 16, 8 or 4 slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SplitK {
    row_bits: u32,
}

impl SplitK {
    /// The split of a layer with `sizes.rows` rows, however many of them a dispatch computes.
    pub(crate) fn of(context: &Context, sizes: Sizes) -> Self {
        Self::choose(context.kind(), sizes.hidden_size, sizes.rows)
    }

    /// On hardware, the most rows that leave a workgroup for each compute unit; on a software adapter, which
    /// has few cores, enough for the whole batch.
    fn choose(kind: AdapterKind, units: usize, rows: usize) -> Self {
        let suits = |bits: u32| match kind {
            AdapterKind::Software => rows > LEAST_ROWS << (bits - 1),
            _ => units.div_ceil(UNITS) * rows.div_ceil(LEAST_ROWS << bits) >= UNITS_TO_FILL,
        };
        Self { row_bits: (1..ROW_BITS).rev().find(|&bits| suits(bits)).unwrap_or(0) }
    }

    /// Rows of a workgroup.
    pub(crate) fn rows(self) -> usize {
        LEAST_ROWS << self.row_bits
    }

    /// A sum has `2^slice_bits` slices.
    pub(crate) fn slice_bits(self) -> u32 {
        4 - self.row_bits
    }

    /// The value of `ROW_BITS`.
    pub(crate) fn constant(self) -> u32 {
        self.row_bits
    }
}

/// The rows and units that one dispatch computes.
pub(crate) struct Block {
    pub(crate) rows: Range<usize>,
    pub(crate) units: Range<usize>,
}

impl Block {
    /// The grid of a dispatch of one direction, or of both.
    pub(crate) fn grid(&self, split: SplitK, directions: usize) -> [usize; 3] {
        [self.units.len().div_ceil(UNITS), self.rows.len().div_ceil(split.rows()), directions]
    }
}

/// Splits rows and units into blocks of whole workgroups that fit the device's largest grid: one block,
/// except for very large layers.
pub(crate) fn blocks(context: &Context, sizes: Sizes, split: SplitK) -> Vec<Block> {
    let side = context.limits().workgroups;
    let columns = |rows: Range<usize>| {
        pieces(sizes.hidden_size, side * UNITS).map(move |units| Block { rows: rows.clone(), units })
    };
    pieces(sizes.rows, side * split.rows()).flat_map(columns).collect()
}

/// Computes sent · W \[B, H\] for W \[terms, H\] and sent \[B, terms\]: the product of a backward step.
pub(crate) fn send(context: &Context, split: SplitK, sent: View<'_>, weight: View<'_>) -> Result<Tensor> {
    let (rows, terms, hidden_size) = (sent.shape().rows(), sent.shape().last(), weight.shape().last());
    let product = Tensor::unwritten(sent.device(), &[rows, hidden_size])?;
    let (weights, sent) = (context.bind(weight.span())?, context.bind(sent.span())?);
    let y = context.bind(product.view().span())?;
    let sizes = Sizes { steps: 1, rows, hidden_size, projection_size: hidden_size };
    for block in blocks(context, sizes, split) {
        context.dispatch(Dispatch {
            kernel: &BOUNDARY,
            constants: &[split.constant()],
            parameters: BoundaryParameters {
                rows: rows as u32,
                hidden_size: hidden_size as u32,
                terms: terms as u32,
                first_row: block.rows.start as u32,
                first_unit: block.units.start as u32,
                weight_base: weights.base,
                sent_base: sent.base,
                y_base: y.base,
            },
            bindings: &[weights, sent, y],
            grid: block.grid(split, 1),
        })?;
    }
    Ok(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(kind: AdapterKind, units: usize, rows: usize) -> usize {
        SplitK::choose(kind, units, rows).rows()
    }

    #[test]
    fn hardware_gives_workgroups_more_rows_once_all_compute_units_have_one() {
        let discrete = |units, batch| rows(AdapterKind::Discrete, units, batch);
        assert_eq!([1, 16, 32, 48, 49, 256].map(|batch| discrete(512, batch)), [4, 4, 8, 8, 16, 16]);
        assert_eq!([16, 256, 1024, 2048, 4096].map(|units| discrete(units, 16)), [4, 4, 8, 16, 16]);
        assert_eq!(discrete(8, 100_000), 16);
    }

    #[test]
    fn software_adapters_give_a_workgroup_all_rows() {
        let software = |batch| rows(AdapterKind::Software, 512, batch);
        assert_eq!([1, 4, 5, 8, 9, 16, 17, 64].map(software), [4, 4, 8, 8, 16, 16, 16, 16]);
    }

    #[test]
    fn a_workgroup_has_an_invocation_for_each_slice_of_four_rows_of_each_unit() {
        for row_bits in 0..ROW_BITS {
            let split = SplitK { row_bits };
            let slices = 16 >> split.constant();
            assert_eq!(UNITS * split.rows() / 4 * slices, 256);
        }
    }
}
