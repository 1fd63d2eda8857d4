//! Tokens and class labels.

use std::fmt;
use std::sync::Arc;

use super::expect_capacity;
use crate::device::{Backend, Device};
use crate::gpu::{Buffer, Span};
use crate::shape::Shape;
use crate::{Error, Result};

/// The label of a position that the loss ignores (PyTorch's `ignore_index`).
pub const IGNORED: u32 = u32::MAX;

/// An array of unsigned integers on a device: tokens to embed, or labels to predict.
///
/// The host keeps a copy, so that ranges are checked before work is submitted and without waiting.
///
/// ```
/// use refrain::{Device, Indices};
/// let tokens = Indices::from_slice(&Device::cpu(), &[2, 2], &[0, 3, 1, 2])?;
/// assert_eq!(tokens.largest(), Some(3));
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone)]
pub struct Indices {
    device: Device,
    shape: Shape,
    host: Arc<[u32]>,
    buffer: Option<Arc<Buffer>>,
    largest: Option<u32>,
    counted: usize,
}

impl Indices {
    /// Copies `data` to `device`; [`IGNORED`] marks positions without a label.
    ///
    /// # Errors
    /// [`Error::Shape`] if a size is zero or too large, or the sizes do not multiply to `data.len()`; out of memory.
    pub fn from_slice(device: &Device, dimensions: &[usize], data: &[u32]) -> Result<Self> {
        let shape = Shape::named("indices", dimensions)?;
        if shape.elements() != data.len() {
            let expected = format!("{} values for {shape}", shape.elements());
            return Err(Error::shape("indices", expected, format!("{} values", data.len())));
        }
        let buffer = match device.backend() {
            Backend::Cpu(_) => {
                expect_capacity(device, data.len(), "indices")?;
                None
            }
            Backend::Gpu(context) => {
                let buffer = context.allocate(data.len(), "indices")?;
                context.recorder().upload(&buffer, bytemuck::cast_slice(data))?;
                Some(Arc::new(buffer))
            }
        };
        let labels = || data.iter().copied().filter(|&index| index != IGNORED);
        let (largest, counted) = (labels().max(), labels().count());
        Ok(Self { device: device.clone(), shape, host: data.into(), buffer, largest, counted })
    }

    /// Indices of which only the shape is known, on the device of a dry run.
    pub(crate) fn dry(device: &Device, dimensions: &[usize]) -> Result<Self> {
        let shape = Shape::named("indices", dimensions)?;
        let buffer = match device.backend() {
            Backend::Cpu(_) => None,
            Backend::Gpu(context) => Some(Arc::new(context.allocate(shape.elements(), "indices")?)),
        };
        let counted = shape.elements();
        Ok(Self { device: device.clone(), shape, host: Arc::default(), buffer, largest: None, counted })
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The device that stores the values.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The values in row-major order, from the host's copy.
    pub fn values(&self) -> &[u32] {
        &self.host
    }

    /// The largest value that is not [`IGNORED`]; `None` if all are.
    pub fn largest(&self) -> Option<u32> {
        self.largest
    }

    /// The number of values that are not [`IGNORED`].
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// Fails unless every value is below `bound`; [`IGNORED`] is not accepted.
    pub(crate) fn expect_below(&self, what: &str, bound: usize) -> Result<()> {
        let largest = if self.counted < self.shape.elements() { Some(IGNORED) } else { self.largest };
        check(what, largest, bound)
    }

    /// Fails unless every value is below `bound` or [`IGNORED`].
    pub(crate) fn expect_labels(&self, what: &str, bound: usize) -> Result<()> {
        check(what, self.largest, bound)
    }

    /// The device memory. Call it only for a GPU device.
    pub(crate) fn span(&self) -> Span<'_> {
        match &self.buffer {
            Some(buffer) => Span::new(buffer, 0, self.shape.elements()),
            None => unreachable!("a GPU device stores its indices on the GPU"),
        }
    }
}

fn check(what: &str, largest: Option<u32>, bound: usize) -> Result<()> {
    match largest {
        Some(index) if index as usize >= bound => {
            Err(Error::Index { what: what.to_owned(), index: index.into(), bound: bound as u64 })
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for Indices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Indices({} on {})", self.shape, self.device)
    }
}
