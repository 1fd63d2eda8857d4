//! Splits arrays by rows of the batch, so that each thread gets some rows. No row of a time loop reads
//! another.

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis};

use super::weights::Rows;
use crate::ops::recurrent::{CellState, CellStateView};

/// A value that can be split between two rows of a batch.
pub(crate) trait BatchSplit: Sized {
    /// Returns the rows before `row`, and the others.
    fn split(self, row: usize) -> (Self, Self);
}

/// Arrays [B, ..] have the batch in the first axis, arrays [T, B, ..] in the second.
macro_rules! split_array {
    ($($array:ident, $axis:literal;)*) => {$(
        impl<F> BatchSplit for $array<'_, F> {
            fn split(self, row: usize) -> (Self, Self) {
                self.split_at(Axis($axis), row)
            }
        }
    )*};
}
split_array! {
    ArrayView2, 0;
    ArrayViewMut2, 0;
    ArrayView3, 1;
    ArrayViewMut3, 1;
}

impl<S: BatchSplit> BatchSplit for Option<S> {
    fn split(self, row: usize) -> (Self, Self) {
        self.map(|whole| whole.split(row)).unzip()
    }
}

impl BatchSplit for Rows {
    fn split(self, row: usize) -> (Self, Self) {
        (self, Self { first: self.first + row, ..self })
    }
}

/// Implements [`BatchSplit`] for a struct whose fields implement it.
macro_rules! split_fields {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl<F> $crate::ops::recurrent::cpu::batch_split::BatchSplit for $name<'_, F> {
            fn split(self, row: usize) -> (Self, Self) {
                $(let $field = $crate::ops::recurrent::cpu::batch_split::BatchSplit::split(self.$field, row);)*
                (Self { $($field: $field.0),* }, Self { $($field: $field.1),* })
            }
        }
    };
}
pub(crate) use split_fields;

split_fields!(CellStateView { hidden, cell });

/// The mutable view of a [`CellState`](crate::ops::recurrent::CellState).
pub(crate) struct CellStateMut<'a, F> {
    pub(crate) hidden: ArrayViewMut2<'a, F>,
    pub(crate) cell: ArrayViewMut2<'a, F>,
}

split_fields!(CellStateMut { hidden, cell });

impl<'a, F> CellStateMut<'a, F> {
    pub(crate) fn of(memory: &'a mut CellState<F>) -> Self {
        Self { hidden: memory.hidden.view_mut(), cell: memory.cell.view_mut() }
    }
}

/// Splits `whole`, with `rows` rows, into parts of `part` rows each; the last may be smaller.
pub(crate) fn cut<S: BatchSplit>(whole: S, rows: usize, part: usize) -> Vec<S> {
    let (mut rest, mut parts) = (whole, Vec::with_capacity(rows.div_ceil(part)));
    for _ in 1..rows.div_ceil(part) {
        let (own, others) = rest.split(part);
        parts.push(own);
        rest = others;
    }
    parts.push(rest);
    parts
}
