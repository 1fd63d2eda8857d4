//! Checks work before it is timed: at small sizes, against the CPU in 64-bit floats.

use refrain::Device;

use super::shape::{Shape, Work};
use super::work::Setting;
use crate::failure::{Failure, Result};

/// The largest allowed error, relative to the largest value, of work at the sizes of [`small`]. Sums of some tens of
/// products in f32, through 8 steps and 3 updates, stay below 1e-5; wrong work exceeds that by orders of magnitude.
pub(crate) const TOLERANCE: f64 = 1e-4;
/// The number of runs that are compared: a training step affects the loss of the next one.
const RUNS: usize = 3;

/// The sizes at which work is compared: same cell and depth, no multiples of any tile.
fn small(shape: Shape) -> Shape {
    Shape { inputs: 13, hidden: 20, batch: 3, sequence: 8, classes: 7, ..shape }
}

/// One job of each kind: jobs that differ only in their sizes are compared once.
pub(crate) fn kinds(jobs: &[(Shape, Work)]) -> Vec<(Shape, Work)> {
    let mut kinds: Vec<(Shape, Work)> = Vec::new();
    for &(shape, work) in jobs {
        let kind = (small(shape), work);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Fails unless `device` computes the same as the reference.
pub(crate) fn expect_right(device: &Device, (shape, work): (Shape, Work)) -> Result<()> {
    let tensors = |device: &Device| Setting::new(device, shape, work)?.tensors(RUNS);
    let (found, expected) = (tensors(device)?, tensors(&Device::reference())?);
    found.iter().zip(&expected).try_for_each(|((name, found), (_, expected))| {
        expect_close(&format!("{work} {shape}"), name, found, expected)
    })
}

/// Fails unless all numbers are finite and their errors are within [`TOLERANCE`] of the largest expected one.
pub(crate) fn expect_close(what: &str, tensor: &str, found: &[f64], expected: &[f64]) -> Result<()> {
    let wrong = |deviation: String| Err(Failure::Wrong { what: what.to_owned(), deviation });
    if found.len() != expected.len() {
        let (found, expected) = (found.len(), expected.len());
        return wrong(format!("{tensor} has {found} numbers, but {expected} on the reference"));
    }
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let bound = TOLERANCE * largest;
    // A comparison with NaN is false.
    let off = |&(_, (one, two)): &(usize, (&f64, &f64))| !((one - two).abs() <= bound && largest > 0.0);
    match found.iter().zip(expected).enumerate().find(off) {
        None => Ok(()),
        Some((place, (one, two))) => wrong(format!(
            "{tensor} has {one:e} at {place}, but {two:e} on the reference; the largest value is {largest:e}, the largest \
             allowed error {bound:e}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use refrain::nn::Cell;

    use super::*;

    #[test]
    fn wrong_numbers_are_refused_with_place_and_values() {
        let expected = [0.5, -2.0, 1.0];
        assert!(expect_close("infer", "outputs", &[0.5001, -2.0, 1.0], &expected).is_ok());
        for (found, part) in [
            (&[0.5003, -2.0, 1.0][..], "outputs has 5.003e-1 at 0, but 5e-1"),
            (&[0.5, f64::NAN, 1.0], "NaN at 1"),
            (&[0.5, -2.0], "2 numbers, but 3 on"),
        ] {
            let message = expect_close("infer lstm", "outputs", found, &expected);
            let message = message.expect_err("wrong").to_string();
            assert!(message.starts_with("infer lstm is not timed, because it is wrong"), "{message}");
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(expect_close("infer", "outputs", &[0.0], &[0.0]).is_err(), "zeros prove nothing");
    }

    #[test]
    fn every_kind_is_right_on_the_cpu_and_compared_once() {
        let shape =
            Shape { cell: &Cell::Gru, inputs: 64, hidden: 64, batch: 2, sequence: 5, layers: 2, classes: 9 };
        let wider = Shape { hidden: 128, ..shape };
        let jobs: Vec<_> =
            [shape, wider].into_iter().flat_map(|shape| Work::ALL.map(|work| (shape, work))).collect();
        let kinds = kinds(&jobs);
        assert_eq!(kinds.len(), 3);
        for kind in kinds {
            expect_right(&Device::cpu(), kind).expect("the CPU is right");
        }
    }
}
