//! Sums over all steps, in fixed blocks of time.
//!
//! The gradient of a weight is a sum over T·B rows. It is added block by block, from the last block to the
//! first; a block is the fewest steps with at least [`ROWS`] rows. So the sum has the same bits whether the
//! backward pass computes all steps at once or whole blocks at a time, from the last.

use std::ops::Range;

use crate::Result;
use crate::ops::columns::columns;
use crate::ops::matmul::matmul_columns_into;
use crate::ops::reduce;
use crate::tensor::{Tensor, View, ViewMut};

/// The fewest rows of a block: a matrix product of this depth runs at full speed.
const ROWS: usize = 512;

/// Steps per block for a batch of `batch` rows.
pub(crate) fn block_steps(batch: usize) -> usize {
    ROWS.div_ceil(batch)
}

/// d += Σ_t a_tᵀ b_t over the columns `range` of a \[T, B, more\], for b \[T, B, N\] and d \[columns, N\].
pub(crate) fn add_products(d: ViewMut<'_>, a: View<'_>, range: Range<usize>, b: View<'_>) -> Result<()> {
    let [_, batch, _] = a.shape().exactly("gradients over time", "[time, batch, features]")?;
    let block = block_steps(batch) * batch;
    matmul_columns_into(d, a.matrix()?, range, b.matrix()?, block)
}

/// The sum of each block.
pub(crate) struct Sums {
    /// \[blocks, features\].
    sums: Tensor,
}

impl Sums {
    /// Computes the sums of x \[T, B, features\].
    pub(crate) fn of(x: View<'_>) -> Result<Self> {
        let [_, batch, _] = x.shape().exactly("gradients over time", "[time, batch, features]")?;
        Ok(Self { sums: reduce::block_sums(x, block_steps(batch) * batch)? })
    }

    /// d += Σ_t x_t.
    pub(crate) fn add_into(&self, d: ViewMut<'_>) -> Result<()> {
        reduce::add_rows_into(d, self.sums.view())
    }

    /// As [`Sums::add_into`], for the features `range`.
    pub(crate) fn add_columns_into(&self, d: ViewMut<'_>, range: Range<usize>) -> Result<()> {
        reduce::add_rows_into(d, columns(self.sums.view(), range)?.view())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_least_steps_with_enough_rows() {
        assert_eq!([1, 32, 100, 511, 512, 100_000].map(block_steps), [512, 16, 6, 2, 1, 1]);
    }
}
