//! Sums and norms: one row, one column, and more rows than the 65,536 iterations after which some drivers end a loop.

use super::{Operation, Output};
use crate::Result;
use crate::check::sampler::LEANING;
use crate::check::tolerance::{EVALUATION, sum as sum_of};
use crate::ops::{Norm, norm, squared_norm, sum, sum_rows};
use crate::tensor::Tensor;

/// Rows and columns.
const MATRICES: [[usize; 2]; 9] =
    [[1, 1], [1, 33], [5, 1], [16, 17], [31, 65], [255, 2], [257, 4], [5000, 9], [70_000, 3]];

const LENGTHS: [usize; 8] = [1, 31, 255, 256, 257, 5000, 70_000, 300_001];

pub(super) fn operations() -> Vec<Operation> {
    let label = |[rows, columns]: &[usize; 2]| format!("{rows} rows, {columns} columns");
    vec![
        Operation::over("sum_rows", 500, MATRICES, label, |sampler, &[rows, columns]| {
            let x = sampler.tensor(&[rows, columns], LEANING)?;
            Ok(vec![Output::new("s", sum_rows(&x)?, sum_of(rows))])
        }),
        of_all("sum", |x| sum(x)),
        of_all("squared_norm", |x| squared_norm(x)),
        of_all("norm 1", |x| norm(x, Norm::L1)),
        of_all("norm 2", |x| norm(x, Norm::L2)),
        of_all("norm infinity", |x| norm(x, Norm::Infinity)),
    ]
}

fn of_all(name: &'static str, reduce: impl Fn(&Tensor) -> Result<Tensor> + Copy + 'static) -> Operation {
    Operation::over(
        name,
        520,
        LENGTHS,
        |length| format!("length {length}"),
        move |sampler, &length| {
            let x = sampler.tensor(&[length], LEANING)?;
            Ok(vec![Output::new("s", reduce(&x)?, sum_of(length) + EVALUATION)])
        },
    )
}
