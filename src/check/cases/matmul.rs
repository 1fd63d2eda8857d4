//! Matrix products: shapes around tile edges, single rows and columns, a deep sum.

use super::{Case, Operation, Output};
use crate::check::draw::{CENTRED, POSITIVE};
use crate::check::tolerance::sum;
use crate::ops::{Form, matmul};

/// M, N and K.
const SHAPES: [[usize; 3]; 13] = [
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
];

/// Results below which sums must not cancel: too few for the largest to stand for all.
const FEW: usize = 16;

pub(super) fn operations() -> Vec<Operation> {
    let name = |form| match form {
        Form::Plain => "matmul plain",
        Form::RightTransposed => "matmul right transposed",
        Form::LeftTransposed => "matmul left transposed",
        Form::BothTransposed => "matmul both transposed",
    };
    Form::ALL.into_iter().map(|form| Operation::new(name(form), cases(form))).collect()
}

fn cases(form: Form) -> Vec<Case> {
    let numbered = SHAPES.into_iter().zip(100..);
    numbered.map(|(shape, seed)| case(form, shape, seed)).collect()
}

/// The product with and without a bias.
fn case(form: Form, [m, n, k]: [usize; 3], seed: u64) -> Case {
    Case::new(format!("M {m}, N {n}, K {k}"), seed, move |draw| {
        let range = if m * n < FEW { POSITIVE } else { CENTRED };
        let left = if form.left() { [k, m] } else { [m, k] };
        let right = if form.right() { [n, k] } else { [k, n] };
        let (a, b) = (draw.tensor(&left, range.clone())?, draw.tensor(&right, range.clone())?);
        let bias = draw.tensor(&[n], range)?;
        Ok(vec![
            Output::new("c", matmul(&a, &b, form, None)?, sum(k)),
            Output::new("c with bias", matmul(&a, &b, form, Some(bias.view()))?, sum(k)),
        ])
    })
}
