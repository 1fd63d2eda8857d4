//! Permutation of dimensions, exact for all ranks.

use super::{Operation, Output};
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
    let label = |(dimensions, axes): &(&[usize], &[usize])| format!("{dimensions:?} by {axes:?}");
    Operation::over("permute", 600, CASES, label, |sampler, &(dimensions, axes)| {
        let x = sampler.tensor(dimensions, CENTRED)?;
        Ok(vec![Output::new("y", permute(&x, axes)?, 1.0)])
    })
}
