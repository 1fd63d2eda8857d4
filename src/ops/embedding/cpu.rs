//! CPU reference of `shaders/embedding/{embedding,embedding_backward,one_hot}.wgsl`.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Ix2};

use crate::Result;
use crate::device::Host;
use crate::tensor::{Real, unwritten};

pub(super) fn gather<F: Real>(host: &Host, tokens: &[u32], table: ArrayView2<'_, F>) -> Result<Array2<F>> {
    let mut y = unwritten(host, Ix2(tokens.len(), table.ncols()), "embedded tokens")?;
    for (mut row, &token) in y.rows_mut().into_iter().zip(tokens) {
        row.assign(&table.row(token as usize));
    }
    Ok(y)
}

pub(super) fn scatter<F: Real>(mut d_table: ArrayViewMut2<'_, F>, tokens: &[u32], d_y: ArrayView2<'_, F>) {
    for (row, &token) in d_y.rows().into_iter().zip(tokens) {
        let mut target = d_table.row_mut(token as usize);
        target += &row;
    }
}

pub(super) fn one_hot<F: Real>(tokens: &[u32], vocabulary: usize) -> Array2<F> {
    Array2::from_shape_fn((tokens.len(), vocabulary), |(place, class)| {
        if tokens[place] as usize == class { F::one() } else { F::zero() }
    })
}
