//! Matrix products: shapes around tile edges, single rows and columns, deep sums; and products of some columns only, in
//! blocks that are added to the target, as weight gradients need them.

use std::ops::Range;

use super::{Operation, Output};
use crate::check::sampler::{CENTRED, POSITIVE};
use crate::check::tolerance::sum;
use crate::ops::matmul::matmul_columns_into;
use crate::ops::{Form, matmul};

/// M, N and K.
const SHAPES: [[usize; 3]; 23] = [
    [1, 1, 1],
    [1, 1, 17],
    [1, 65, 31],
    [65, 1, 33],
    [15, 16, 17],
    [17, 15, 16],
    [31, 33, 32],
    [33, 31, 63],
    [63, 65, 64],
    [64, 64, 64],
    [130, 70, 40],
    [7, 9, 5000],
    [200, 3, 1025],
    // Rows and columns that are multiples of four are read as vectors.
    [4, 128, 128],
    [8, 132, 260],
    [9, 36, 129],
    [68, 60, 36],
    [127, 129, 33],
    [128, 128, 20],
    [132, 124, 64],
    // Deep enough for split-K, with slices of equal and of different depths.
    [24, 40, 1024],
    [20, 68, 1023],
    [66, 65, 2052],
];

/// The number of results below which sums must not cancel: the largest of too few is not representative.
const FEW: usize = 16;

pub(super) fn operations() -> Vec<Operation> {
    let name = |form| match form {
        Form::Plain => "matmul plain",
        Form::RightTransposed => "matmul right transposed",
        Form::LeftTransposed => "matmul left transposed",
        Form::BothTransposed => "matmul both transposed",
    };
    let mut operations: Vec<_> = Form::ALL.into_iter().map(|form| operation(name(form), form)).collect();
    operations.push(in_blocks());
    operations
}

/// The product with and without a bias.
fn operation(name: &'static str, form: Form) -> Operation {
    let label = |[m, n, k]: &[usize; 3]| format!("M {m}, N {n}, K {k}");
    Operation::over(name, 100, SHAPES, label, move |sampler, &[m, n, k]| {
        let range = if m * n < FEW { POSITIVE } else { CENTRED };
        let left = if form.left() { [k, m] } else { [m, k] };
        let right = if form.right() { [n, k] } else { [k, n] };
        let (a, b) = (sampler.tensor(&left, range.clone())?, sampler.tensor(&right, range.clone())?);
        let bias = sampler.tensor(&[n], range)?;
        Ok(vec![
            Output::new("c", matmul(&a, &b, form, None)?, sum(k)),
            Output::new("c with bias", matmul(&a, &b, form, Some(bias.view()))?, sum(k)),
        ])
    })
}

/// Depth, columns of A, the selected columns, N, and the depth of a block.
type SlicedProduct = (usize, usize, Range<usize>, usize, usize);

/// Strides and first columns that are multiples of four and that are not; one block, whole blocks, a shorter last block.
const BLOCKS: [SlicedProduct; 7] = [
    (100, 40, 0..40, 20, 512),
    (1024, 48, 16..48, 36, 512),
    (1300, 48, 15..48, 36, 520),
    (1537, 37, 4..36, 65, 515),
    (700, 70, 1..2, 5, 64),
    (96, 130, 0..130, 140, 32),
    (3000, 20, 4..20, 24, 513),
];

/// C += AᵀB for some columns of A; every operand starts at its second row, so that no offset is zero.
fn in_blocks() -> Operation {
    let label = |(depth, width, columns, n, block): &SlicedProduct| {
        format!("K {depth}, columns {columns:?} of {width}, N {n}, blocks of {block}")
    };
    Operation::over("matmul in blocks", 150, BLOCKS, label, |sampler, (depth, width, columns, n, block)| {
        let (&depth, &n, &block) = (depth, n, block);
        let range = if columns.len() * n < FEW { POSITIVE } else { CENTRED };
        let (a, b) = (
            sampler.tensor(&[depth + 1, *width], range.clone())?,
            sampler.tensor(&[depth + 1, n], range.clone())?,
        );
        let mut c = sampler.tensor(&[columns.len(), n], range)?;
        let (a, b) = (a.view().outer(1..depth + 1)?, b.view().outer(1..depth + 1)?);
        matmul_columns_into(c.view_mut()?, a, columns.clone(), b, block)?;
        Ok(vec![Output::new("c", c, sum(depth) + depth.div_ceil(block) as f64)])
    })
}
