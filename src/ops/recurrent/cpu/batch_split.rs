//! Arrays over a batch, cut between its rows, so that threads can have some rows each: no row of a time loop reads another.

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis};

use super::weights::{CellState, CellStateView, Rows};

/// What can be cut between two rows of a batch.
pub(crate) trait BatchSplit: Sized {
    /// The rows before `row`, and the others.
    fn split(self, row: usize) -> (Self, Self);
}

/// Arrays [B, ..] have rows along the first axis, arrays [T, B, ..] along the second.
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

/// A structure of parts that can be split.
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

/// A [`Memory`] that is written.
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

/// `whole` of `rows` rows in parts of `part` rows each, but for the last.
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
