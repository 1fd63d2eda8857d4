//! Permutation of dimensions, exact for all ranks.

use super::{Case, Operation, Output};
use crate::check::sampler::CENTRED;
use crate::ops::permute;

const CASES: [(&[usize], &[usize]); 9] = [
    (&[1], &[0]),
    (&[33, 17], &[1, 0]),
    (&[5, 3], &[0, 1]),
    (&[7, 5, 3], &[1, 0, 2]),
    (&[7, 5, 3], &[2, 1, 0]),
    (&[31, 2, 65], &[1, 2, 0]),
    (&[3, 4, 5, 6], &[3, 1, 0, 2]),
    (&[2, 1, 33, 1], &[3, 2, 1, 0]),
    (&[300, 2, 127], &[2, 0, 1]),
];

pub(super) fn operation() -> Operation {
    let cases = CASES.into_iter().zip(600..).map(|((dimensions, axes), seed)| {
        Case::new(format!("{dimensions:?} by {axes:?}"), seed, move |sampler| {
            let x = sampler.tensor(dimensions, CENTRED)?;
            Ok(vec![Output::new("y", permute(&x, axes)?, 1.0)])
        })
    });
    Operation::new("permute", cases.collect())
}
