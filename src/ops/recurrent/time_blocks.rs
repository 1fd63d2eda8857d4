//! The blocks of time in which sums over all steps are added up.
//!
//! The gradient of a weight is a sum over T·B places. It is added up block by block from the last block to the first, where
//! a block is the least number of steps with [`ROWS`] rows: so the bits of the sum are the same whether backward sees
//! all steps at once, or whole blocks of them at a time, the last ones first.

use std::ops::Range;

use crate::Result;
use crate::ops::columns::columns;
use crate::ops::matmul::matmul_columns_into;
use crate::ops::reduce;
use crate::tensor::{Tensor, View, ViewMut};

/// The least rows of a block: products as deep as this lose nothing to their number.
const ROWS: usize = 512;

/// The steps of a block, for a batch of `batch` rows.
pub(crate) fn block_steps(batch: usize) -> usize {
    ROWS.div_ceil(batch)
}

/// d += Σ_t a_tᵀ b_t over the columns `range` of a \[T, B, more\], for b \[T, B, N\] and d \[columns, N\].
pub(crate) fn add_products(d: ViewMut<'_>, a: View<'_>, range: Range<usize>, b: View<'_>) -> Result<()> {
    let [_, batch, _] = a.shape().exactly("gradients over time", "[time, batch, features]")?;
    let block = block_steps(batch) * batch;
    matmul_columns_into(d, a.matrix()?, range, b.matrix()?, block)
}

/// The sums of gradients over each block.
pub(crate) struct Sums {
    /// \[blocks, features\].
    sums: Tensor,
}

impl Sums {
    /// Of x \[T, B, features\].
    pub(crate) fn of(x: View<'_>) -> Result<Self> {
        let [_, batch, _] = x.shape().exactly("gradients over time", "[time, batch, features]")?;
        Ok(Self { sums: reduce::block_sums(x, block_steps(batch) * batch)? })
    }

    /// d += Σ_t x_t.
    pub(crate) fn add_into(&self, d: ViewMut<'_>) -> Result<()> {
        reduce::add_rows_into(d, self.sums.view())
    }

    /// As [`Sums::add_into`], of some features.
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
