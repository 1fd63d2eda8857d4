//! Compares two arrays.

/// The element in which two arrays differ most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    /// Relative to what [`difference`] says; infinite where exactly one is not finite.
    pub(crate) error: f64,
    pub(crate) index: usize,
    pub(crate) expected: f64,
    pub(crate) found: f64,
}

/// The smallest normal f32; GPUs may flush smaller magnitudes to zero.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// Compares arrays of one length, entry by entry. The difference of an entry is divided by its magnitude plus the root mean
/// square of all that is expected, which is what the roundings of its terms are relative to, and by no more than the largest
/// magnitude expected; but by `scale` where that is larger. Where all of that is zero, any difference is infinite.
pub(crate) fn difference(expected: &[f64], found: &[f64], scale: f64) -> Difference {
    debug_assert_eq!(expected.len(), found.len());
    let finite = || expected.iter().filter(|value| value.is_finite());
    let largest = finite().fold(0.0, |most: f64, value| most.max(value.abs()));
    // Of shares of the largest: squares of the largest numbers overflow, and those of the smallest vanish.
    let squares: f64 =
        finite().map(|value| (value / largest).powi(2)).filter(|square| square.is_finite()).sum();
    let typical = largest * (squares / finite().count().max(1) as f64).sqrt();
    let mut worst = Difference { error: -1.0, index: 0, expected: f64::NAN, found: f64::NAN };
    for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
        let own = if expected.is_finite() { expected.abs() } else { 0.0 };
        let divisor = largest.min(own + typical).max(scale);
        let distance = distance(expected, found);
        let error = if distance == 0.0 { 0.0 } else { distance / divisor };
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
    fn differences_are_relative_to_the_entry_and_to_what_is_typical_of_all() {
        let worst = difference(&[1.0, -8.0, 2.0], &[1.0, -8.0, 2.5], 0.0);
        assert_eq!((worst.error, worst.index), (0.5 / (2.0 + 23.0f64.sqrt()), 2));
        // One large entry among many does not hide what a small one lost.
        let mut expected = vec![1e-3; 10_000];
        expected[7] = 1.0;
        let mut found = expected.clone();
        found[9] = 2e-3;
        assert!(difference(&expected, &found, 0.0).error > 0.05);
        // No more lenient than relative to the largest.
        assert_eq!(difference(&[8.0, 8.0], &[8.0, 9.0], 0.0).error, 1.0 / 8.0);
        assert_eq!(difference(&[1.0], &[1.5], 10.0).error, 0.05);
        assert_eq!(difference(&[1e-200], &[1.5e-200], 0.0).error, 0.0);
        assert_eq!(difference(&[1e300, 1e300], &[1e300, 1.5e300], 0.0).error, 0.5);
    }

    #[test]
    fn zeros_are_zeros() {
        assert_eq!(difference(&[0.0, 0.0], &[0.0, 0.25], 0.0).error, f64::INFINITY);
        assert_eq!(difference(&[0.0, 0.0], &[0.0, SMALLEST], 0.0).error, 0.0);
        assert_eq!(difference(&[0.0, 0.0], &[0.0, 0.25], 1.0).error, 0.25);
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
