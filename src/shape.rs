//! Validated tensor shapes.

use std::fmt;

use crate::{Error, Result};

/// The largest rank a tensor may have.
pub const MAX_RANK: usize = 4;

/// The most elements of a tensor: the range of an index in a shader.
const MAX_ELEMENTS: usize = 1 << 31;

/// The checked product of `sizes`. All sizes from outside the crate are multiplied here.
///
/// # Errors
/// [`Error::Shape`] that names `what`, for a size of zero or a product above 2³¹.
pub(crate) fn product(what: &str, sizes: &[usize]) -> Result<usize> {
    if sizes.contains(&0) {
        return Err(Error::shape(what, "no size of zero", format!("{sizes:?}")));
    }
    let elements = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    elements
        .filter(|&elements| elements <= MAX_ELEMENTS)
        .ok_or_else(|| Error::shape(what, "at most 2^31 elements", format!("{sizes:?}")))
}

/// The sizes of a tensor, outermost first: one to four dimensions, none of them zero.
///
/// ```
/// let shape = refrain::Shape::new(&[2, 3])?;
/// assert_eq!(shape.elements(), 6);
/// assert!(refrain::Shape::new(&[2, 0]).is_err());
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    sizes: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// Creates a shape.
    ///
    /// # Errors
    /// [`Error::Shape`] for a rank outside 1 to 4, a size of zero, or more than 2³¹ elements, the range of an index in a
    /// shader.
    pub fn new(dimensions: &[usize]) -> Result<Self> {
        Self::named("shape", dimensions)
    }

    /// As [`Shape::new`], with the argument's name for the message.
    pub(crate) fn named(what: &str, dimensions: &[usize]) -> Result<Self> {
        let rank = dimensions.len();
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(Error::shape(what, "1 to 4 dimensions", format!("{dimensions:?}")));
        }
        product(what, dimensions)?;
        let mut sizes = [1; MAX_RANK];
        sizes[..rank].copy_from_slice(dimensions);
        Ok(Self { sizes, rank })
    }

    /// The sizes, outermost first.
    pub fn dimensions(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The product of all sizes.
    pub fn elements(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The innermost size: the number of features, columns or classes.
    pub fn last(&self) -> usize {
        self.sizes[self.rank - 1]
    }

    /// The product of all sizes but the innermost.
    pub fn rows(&self) -> usize {
        self.elements() / self.last()
    }

    /// The sizes as an array, if there are exactly `N`.
    ///
    /// # Errors
    /// [`Error::Shape`] that names `what` and the expected `layout`, such as `[time, batch, features]`.
    pub fn exactly<const N: usize>(&self, what: &str, layout: &str) -> Result<[usize; N]> {
        self.dimensions().try_into().map_err(|_| Error::shape(what, layout, self))
    }

    /// Fails unless this shape equals `expected`.
    pub(crate) fn expect(&self, what: &str, expected: &[usize]) -> Result<()> {
        if self.dimensions() == expected {
            return Ok(());
        }
        Err(Error::shape(what, format!("{expected:?}"), self))
    }

    /// As [`Shape::expect`], for a time-major array: if the first two sizes are swapped, the message says so.
    pub(crate) fn expect_time_first(&self, what: &str, expected: &[usize]) -> Result<()> {
        let swapped = match (self.dimensions(), expected) {
            ([batch, steps, rest @ ..], [time, rows, others @ ..]) => {
                [steps, batch] == [time, rows] && rest == others
            }
            _ => false,
        };
        match self.expect(what, expected) {
            Err(_) if swapped => {
                let found = format!("{self}: time comes first, then the batch");
                Err(Error::shape(what, format!("{expected:?}"), found))
            }
            checked => checked,
        }
    }

    /// The shape without the outermost dimension.
    pub(crate) fn inner(&self) -> Self {
        let mut sizes = [1; MAX_RANK];
        sizes[..self.rank - 1].copy_from_slice(&self.dimensions()[1..]);
        Self { sizes, rank: (self.rank - 1).max(1) }
    }

    /// The same shape with another innermost size.
    pub(crate) fn with_last(&self, size: usize) -> Result<Self> {
        let mut sizes = *self;
        sizes.sizes[self.rank - 1] = size;
        Self::new(sizes.dimensions())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.dimensions())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_shapes_are_refused_with_the_reason() {
        let message = |dimensions: &[usize]| Shape::named("x", dimensions).unwrap_err().to_string();
        assert_eq!(message(&[]), "x: expected 1 to 4 dimensions, found []");
        assert_eq!(message(&[3, 0]), "x: expected no size of zero, found [3, 0]");
        assert!(message(&[usize::MAX, 2]).contains("2^31"));
        assert!(message(&[1 << 16, 1 << 16]).contains("2^31"));
        // Products that wrap to zero and to one.
        assert!(message(&[1 << 32, 1 << 32]).contains("2^31"));
        assert!(message(&[usize::MAX, usize::MAX]).contains("2^31"));
    }

    #[test]
    fn time_and_batch_that_are_swapped_are_told_apart_from_other_sizes() {
        let message = |found: &[usize], expected: &[usize]| {
            Shape::new(found).unwrap().expect_time_first("x", expected).unwrap_err().to_string()
        };
        let swapped = "x: expected [5, 4, 3], found [4, 5, 3]: time comes first, then the batch";
        assert_eq!(message(&[4, 5, 3], &[5, 4, 3]), swapped);
        assert!(message(&[4, 5], &[5, 4]).ends_with("then the batch"));
        assert_eq!(message(&[4, 5, 2], &[5, 4, 3]), "x: expected [5, 4, 3], found [4, 5, 2]");
        assert_eq!(message(&[4], &[5]), "x: expected [5], found [4]");
        assert!(Shape::new(&[4, 4, 3]).unwrap().expect_time_first("x", &[4, 4, 3]).is_ok());
    }

    #[test]
    fn rows_times_last_is_all_elements() {
        let shape = Shape::new(&[2, 3, 5]).unwrap();
        assert_eq!((shape.rows(), shape.last(), shape.elements(), shape.rank()), (6, 5, 30, 3));
        assert!(shape.exactly::<2>("x", "[rows, columns]").is_err());
    }
}
