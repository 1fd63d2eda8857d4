//! Compares two arrays.

/// The element in which two arrays differ most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    /// Relative to the largest expected magnitude; infinite where exactly one of the two values is not finite.
    pub(crate) error: f64,
    pub(crate) index: usize,
    pub(crate) expected: f64,
    pub(crate) found: f64,
}

/// The smallest normal f32; GPUs may flush smaller magnitudes to zero.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// Compares arrays of equal length. Differences are relative to the largest finite expected magnitude or to `scale`,
/// whichever is larger; absolute if both are zero.
pub(crate) fn difference(expected: &[f64], found: &[f64], scale: f64) -> Difference {
    debug_assert_eq!(expected.len(), found.len());
    let finite = expected.iter().filter(|value| value.is_finite());
    let largest = finite.fold(scale, |most, value| most.max(value.abs()));
    let divisor = if largest > 0.0 { largest } else { 1.0 };
    let mut worst = Difference { error: -1.0, index: 0, expected: f64::NAN, found: f64::NAN };
    for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
        let error = distance(expected, found) / divisor;
        if error > worst.error {
            worst = Difference { error, index, expected, found };
        }
    }
    worst.error = worst.error.max(0.0);
    worst
}

fn distance(expected: f64, found: f64) -> f64 {
    if expected == found || (expected.is_nan() && found.is_nan()) {
        return 0.0;
    }
    let distance = (expected - found).abs();
    match distance.is_finite() {
        true if distance <= SMALLEST => 0.0,
        true => distance,
        false => f64::INFINITY,
    }
}

/// The index, per dimension, of element `index` of an array of these sizes.
pub(crate) fn position(dimensions: &[usize], index: usize) -> Vec<usize> {
    let mut rest = index;
    let mut position: Vec<usize> = dimensions
        .iter()
        .rev()
        .map(|&size| {
            let place = rest % size.max(1);
            rest /= size.max(1);
            place
        })
        .collect();
    position.reverse();
    position
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_magnitude_expected() {
        let worst = difference(&[1.0, -8.0, 2.0], &[1.0, -8.0, 2.5], 0.0);
        assert_eq!((worst.error, worst.index), (0.5 / 8.0, 2));
        assert_eq!(difference(&[0.0, 0.0], &[0.0, 0.25], 0.0).error, 0.25);
        assert_eq!(difference(&[1.0], &[1.5], 10.0).error, 0.05);
    }

    #[test]
    fn what_is_not_finite_must_agree() {
        let nan = f64::NAN;
        let infinite = f64::INFINITY;
        assert_eq!(difference(&[nan, infinite, 1.0], &[nan, infinite, 1.0], 0.0).error, 0.0);
        for (expected, found) in
            [(1.0, nan), (nan, 1.0), (infinite, 1.0), (infinite, -infinite), (1.0, infinite)]
        {
            assert_eq!(
                difference(&[expected, 1.0], &[found, 1.0], 0.0).error,
                infinite,
                "{expected} {found}"
            );
        }
    }

    #[test]
    fn a_position_is_the_row_major_one() {
        assert_eq!(position(&[2, 3, 4], 23), [1, 2, 3]);
        assert_eq!(position(&[2, 3, 4], 4), [0, 1, 0]);
    }
}
