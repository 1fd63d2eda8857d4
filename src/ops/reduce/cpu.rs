//! CPU reference of `shaders/reduce/{norm,sum_rows,add_rows}.wgsl`.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis};

use super::{Norm, ReductionKind};
use crate::math::{in_parts, part_rows};
use crate::tensor::Real;

/// The cost of adding a number read from memory, in multiplications.
const ADDITION: usize = 8;

pub(super) fn sum_rows<F: Real>(x: ArrayView2<'_, F>) -> Array1<F> {
    // Summed in blocks, so that the error of N terms grows with √N instead of N.
    let mut total = Array1::zeros(x.ncols());
    for block in x.axis_chunks_iter(Axis(0), 256) {
        total += &block.sum_axis(Axis(0));
    }
    total
}

pub(super) fn block_sums<F: Real>(x: ArrayView2<'_, F>, block: usize) -> Array2<F> {
    let blocks = x.axis_chunks_iter(Axis(0), block);
    let mut sums = Array2::zeros((blocks.len(), x.ncols()));
    let mut pairs: Vec<_> = sums.rows_mut().into_iter().zip(blocks).collect();
    let part = part_rows(pairs.len(), ADDITION * x.len(), 1);
    in_parts(pairs.chunks_mut(part).collect(), |pairs: &mut [_]| {
        for (sum, block) in pairs {
            sum.assign(&sum_rows(*block));
        }
    });
    sums
}

/// target += x_r for each row r of x, from the last to the first.
pub(super) fn add_rows<F: Real>(x: ArrayView2<'_, F>, mut target: ArrayViewMut1<'_, F>) {
    for row in x.rows().into_iter().rev() {
        target += &row;
    }
}

pub(super) fn reduce<F: Real>(x: ArrayView1<'_, F>, reduction: ReductionKind) -> F {
    match reduction {
        ReductionKind::Sum => sum(x, |x| x),
        ReductionKind::Squares => sum(x, |x| x * x),
        ReductionKind::Norm(Norm::L1) => sum(x, |x| x.abs()),
        ReductionKind::Norm(Norm::L2) => sum(x, |x| x * x).sqrt(),
        ReductionKind::Norm(Norm::Infinity) => {
            // NaN counts as the largest value.
            x.iter().fold(F::zero(), |most, x| if x.abs() > most || x.is_nan() { x.abs() } else { most })
        }
    }
}

/// Σ f(x), in blocks for the same reason as above.
fn sum<F: Real>(x: ArrayView1<'_, F>, f: impl Fn(F) -> F) -> F {
    x.axis_chunks_iter(Axis(0), 1024).map(|block| block.mapv(&f).sum()).sum()
}
