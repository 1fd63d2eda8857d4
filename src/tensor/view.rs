//! Borrowed sections of tensors and of flat parameter buffers: the arguments of operations.

use std::ops::Range;

use ndarray::{
    ArrayView1, ArrayView2, ArrayView3, ArrayViewD, ArrayViewMut1, ArrayViewMut2, ArrayViewMut3, IxDyn,
};

use super::storage::{Real, Storage, reserved};
use crate::device::{Backend, Device};
use crate::gpu::Span;
use crate::shape::Shape;
use crate::{Error, Result};

/// A borrowed array: a whole [`Tensor`](crate::Tensor), or one named section of a model's parameters.
#[derive(Clone, Copy)]
pub struct View<'a> {
    device: &'a Device,
    storage: &'a Storage,
    offset: usize,
    shape: Shape,
    /// The name of the parameter, for messages.
    name: Option<&'a str>,
}

impl<'a> View<'a> {
    pub(crate) fn new(device: &'a Device, storage: &'a Storage, offset: usize, shape: Shape) -> Self {
        Self { device, storage, offset, shape, name: None }
    }

    /// The same view, as the parameter `name`.
    pub(crate) fn named(self, name: &'a str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The same view with the name of `original`, of which it is a copy.
    pub(crate) fn named_as(self, original: View<'a>) -> Self {
        Self { name: original.name, ..self }
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The device that stores the values.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Copies the values to the host in row-major order. **Waits** for the GPU.
    ///
    /// # Errors
    /// As [`Tensor::download`](crate::Tensor::download).
    pub fn download(&self) -> Result<Vec<f32>> {
        match (self.storage, self.device.backend()) {
            (Storage::F32(block), _) => copied(block.values()[self.range()].iter().copied()),
            (Storage::F64(values), _) => copied(values[self.range()].iter().map(|&value| value as f32)),
            (Storage::Gpu(_), Backend::Gpu(context)) => context.recorder().download(self.span()),
            (Storage::Gpu(_), Backend::Cpu(_)) => unreachable!("GPU memory on a CPU device"),
        }
    }

    /// As [`View::download`], in 64-bit floats.
    ///
    /// # Errors
    /// As [`View::download`].
    pub fn download_f64(&self) -> Result<Vec<f64>> {
        match self.storage {
            Storage::F64(values) => copied(values[self.range()].iter().copied()),
            _ => copied(self.download()?.into_iter().map(f64::from)),
        }
    }

    /// The offset in the storage.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.shape.elements()
    }

    /// The same values with another shape of as many elements.
    pub(crate) fn reshaped(self, dimensions: &[usize]) -> Result<Self> {
        let shape = Shape::new(dimensions)?;
        if shape.elements() != self.shape.elements() {
            return Err(Error::shape("reshape", format!("{} elements", self.shape.elements()), shape));
        }
        Ok(Self { shape, ..self })
    }

    /// As a matrix whose rows are all dimensions but the innermost.
    pub(crate) fn matrix(self) -> Result<Self> {
        self.reshaped(&[self.shape.rows(), self.shape.last()])
    }

    /// The entries `range` of the outermost dimension.
    pub(crate) fn outer(self, range: Range<usize>) -> Result<Self> {
        let dimensions = self.shape.dimensions();
        expect_within(dimensions[0], &range)?;
        let stride = self.shape.elements() / dimensions[0];
        let mut cut = dimensions.to_vec();
        cut[0] = range.len();
        Ok(Self { offset: self.offset + range.start * stride, shape: Shape::new(&cut)?, ..self })
    }

    /// Entry `index` of the outermost dimension, without that dimension.
    pub(crate) fn entry(self, index: usize) -> Result<Self> {
        let cut = self.outer(index..index + 1)?;
        cut.reshaped(&self.shape.dimensions()[1..])
    }

    /// The values as an array of the CPU reference.
    pub(crate) fn array<F: Real>(&self) -> ArrayViewD<'a, F> {
        shaped(IxDyn(self.shape.dimensions()), self.values())
    }

    pub(crate) fn array1<F: Real>(&self) -> ArrayView1<'a, F> {
        shaped(ndarray::Ix1(self.shape.elements()), self.values())
    }

    /// As a matrix of [`Shape::rows`] by [`Shape::last`].
    pub(crate) fn array2<F: Real>(&self) -> ArrayView2<'a, F> {
        shaped(ndarray::Ix2(self.shape.rows(), self.shape.last()), self.values())
    }

    /// As a three-dimensional array. Call it only for a view of rank 3.
    pub(crate) fn array3<F: Real>(&self) -> ArrayView3<'a, F> {
        let dimensions = self.shape.dimensions();
        shaped(ndarray::Ix3(dimensions[0], dimensions[1], dimensions[2]), self.values())
    }

    fn values<F: Real>(&self) -> &'a [F] {
        match F::values(self.storage) {
            Some(values) => &values[self.range()],
            None => unreachable!("a device stores one number type"),
        }
    }

    /// The device memory. Call it only for a GPU device.
    pub(crate) fn span(&self) -> Span<'a> {
        match self.storage.span(self.offset, self.shape.elements()) {
            Some(span) => span.named(self.name),
            None => unreachable!("a GPU device stores its tensors on the GPU"),
        }
    }
}

/// Copies the values to the host.
fn copied<T>(values: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut all = reserved(values.len(), "a copy on the host")?;
    all.extend(values);
    Ok(all)
}

/// Fails unless `range` ends within the `size` entries of the outermost dimension.
fn expect_within(size: usize, range: &Range<usize>) -> Result<()> {
    if range.end <= size {
        return Ok(());
    }
    Err(Error::Index {
        what: "the outermost dimension".to_owned(),
        index: range.end as u64 - 1,
        bound: size as u64,
    })
}

fn shaped<F, D: ndarray::Dimension>(dimensions: D, values: &[F]) -> ndarray::ArrayView<'_, F, D> {
    match ndarray::ArrayView::from_shape(dimensions, values) {
        Ok(view) => view,
        Err(error) => unreachable!("a shape always fits its storage: {error}"),
    }
}

fn shaped_mut<F, D: ndarray::Dimension>(dimensions: D, values: &mut [F]) -> ndarray::ArrayViewMut<'_, F, D> {
    match ndarray::ArrayViewMut::from_shape(dimensions, values) {
        Ok(view) => view,
        Err(error) => unreachable!("a shape always fits its storage: {error}"),
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "View({} on {})", self.shape, self.device)
    }
}

/// A section of a flat buffer, or a new tensor, that an operation writes or adds to.
pub(crate) struct ViewMut<'a> {
    device: &'a Device,
    storage: &'a mut Storage,
    offset: usize,
    shape: Shape,
}

impl<'a> ViewMut<'a> {
    pub(crate) fn new(device: &'a Device, storage: &'a mut Storage, offset: usize, shape: Shape) -> Self {
        Self { device, storage, offset, shape }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn device(&self) -> &'a Device {
        self.device
    }

    /// As a matrix whose rows are all dimensions but the innermost.
    pub(crate) fn matrix(self) -> Result<Self> {
        let shape = Shape::new(&[self.shape.rows(), self.shape.last()])?;
        Ok(Self { shape, ..self })
    }

    /// Entry `index` of the outermost dimension, without that dimension.
    pub(crate) fn entry(self, index: usize) -> Result<Self> {
        expect_within(self.shape.dimensions()[0], &(index..index + 1))?;
        let shape = Shape::new(&self.shape.dimensions()[1..])?;
        Ok(Self { offset: self.offset + index * shape.elements(), shape, ..self })
    }

    pub(crate) fn array1<F: Real>(&mut self) -> ArrayViewMut1<'_, F> {
        ArrayViewMut1::from(self.values())
    }

    /// The entries `range` of the outermost dimension, borrowed from this view.
    pub(crate) fn outer(&mut self, range: Range<usize>) -> Result<ViewMut<'_>> {
        let mut cut = self.shape.dimensions().to_vec();
        expect_within(cut[0], &range)?;
        let stride = self.shape.elements() / cut[0];
        cut[0] = range.len();
        let offset = self.offset + range.start * stride;
        Ok(ViewMut { device: self.device, storage: self.storage, offset, shape: Shape::new(&cut)? })
    }

    /// As a three-dimensional array. Call it only for a view of rank 3.
    pub(crate) fn array3<F: Real>(&mut self) -> ArrayViewMut3<'_, F> {
        let shape = self.shape;
        let dimensions = shape.dimensions();
        shaped_mut(ndarray::Ix3(dimensions[0], dimensions[1], dimensions[2]), self.values())
    }

    /// As a matrix of [`Shape::rows`] by [`Shape::last`].
    pub(crate) fn array2<F: Real>(&mut self) -> ArrayViewMut2<'_, F> {
        let shape = self.shape;
        shaped_mut(ndarray::Ix2(shape.rows(), shape.last()), self.values())
    }

    fn values<F: Real>(&mut self) -> &mut [F] {
        let range = self.offset..self.offset + self.shape.elements();
        match F::values_mut(self.storage) {
            Some(values) => &mut values[range],
            None => unreachable!("a device stores one number type"),
        }
    }

    /// The device memory. Call it only for a GPU device.
    pub(crate) fn span(&self) -> Span<'_> {
        match self.storage.span(self.offset, self.shape.elements()) {
            Some(span) => span,
            None => unreachable!("a GPU device stores its tensors on the GPU"),
        }
    }
}
