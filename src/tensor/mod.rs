//! Arrays on a device: [`Tensor`] (floats), [`Indices`] (tokens and labels) and borrowed [`View`]s.

mod arithmetic;
mod indices;
mod storage;
mod view;

use std::fmt;
use std::sync::Arc;

pub use indices::{IGNORED, Indices};
pub(crate) use storage::{Real, Storage, expect_capacity, reserved, unwritten};
pub use view::View;
pub(crate) use view::ViewMut;

use crate::device::{Backend, Device, on_device};
use crate::gpu::Context;
use crate::shape::Shape;
use crate::{Error, Result};

/// An immutable array of floats on one device, in row-major order. Clones share the memory.
///
/// [`Tensor::from_slice`] copies host data to the device and [`Tensor::download`] copies it back. Nothing else copies, and
/// only `download` waits for the GPU.
///
/// ```
/// use refrain::{Device, Tensor};
/// let x = Tensor::from_slice(&Device::cpu(), &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(x.shape().dimensions(), [2, 3]);
/// assert_eq!(x.download()?[4], 5.0);
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    device: Device,
    storage: Arc<Storage>,
    offset: usize,
    shape: Shape,
}

impl Tensor {
    /// Copies `data` to `device`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a size is zero or too large, or the sizes do not multiply to `data.len()`; out of memory.
    pub fn from_slice(device: &Device, dimensions: &[usize], data: &[f32]) -> Result<Self> {
        let shape = Self::expect_len(dimensions, data.len())?;
        let storage = on_device!(device,
            F, host => {
                let values = data.iter().map(|&value| F::from_f32(value));
                storage::filled::<F>(host, data.len(), values, "a tensor")?
            },
            context => upload(context, data)?,
        );
        Ok(Self::from_storage(device, storage, shape))
    }

    /// As [`Tensor::from_slice`] for 64-bit floats: exact on [`Device::reference`], rounded on other devices.
    ///
    /// # Errors
    /// As [`Tensor::from_slice`]; [`Error::NonFinite`] for a finite value out of range for the device's floats.
    pub fn from_slice_f64(device: &Device, dimensions: &[usize], data: &[f64]) -> Result<Self> {
        let shape = Self::expect_len(dimensions, data.len())?;
        for (place, &value) in data.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            device.expect_representable(value, || format!("data, value {place}"))?;
        }
        let storage = on_device!(device,
            F, host => {
                let values = data.iter().map(|&value| F::from_f64(value));
                storage::filled::<F>(host, data.len(), values, "a tensor")?
            },
            context => {
                let mut rounded = reserved(data.len(), "a tensor's values")?;
                rounded.extend(data.iter().map(|&value| value as f32));
                upload(context, &rounded)?
            },
        );
        Ok(Self::from_storage(device, storage, shape))
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] if a size is zero or too large; out of memory.
    pub fn zeros(device: &Device, dimensions: &[usize]) -> Result<Self> {
        let shape = Shape::new(dimensions)?;
        let storage = Storage::zeros(device, shape.elements(), "a tensor of zeros")?;
        Ok(Self::from_storage(device, storage, shape))
    }

    fn expect_len(dimensions: &[usize], found: usize) -> Result<Shape> {
        let shape = Shape::new(dimensions)?;
        if shape.elements() == found {
            return Ok(shape);
        }
        let expected = format!("{} values for {shape}", shape.elements());
        Err(Error::shape("data", expected, format!("{found} values")))
    }

    /// Uninitialised device memory; the caller's kernels must fill it.
    pub(crate) fn uninitialized(context: &Context, device: &Device, shape: Shape) -> Result<Self> {
        let buffer = context.allocate(shape.elements(), "a tensor")?;
        Ok(Self::from_storage(device, Storage::Gpu(buffer), shape))
    }

    /// A tensor with arbitrary values; the caller must write every element.
    pub(crate) fn unwritten(device: &Device, dimensions: &[usize]) -> Result<Self> {
        on_device!(device,
            F, host => {
                let dimensions = ndarray::IxDyn(Shape::new(dimensions)?.dimensions());
                Self::from_array(device, unwritten::<F, _>(host, dimensions, "a tensor")?)
            },
            context => Self::uninitialized(context, device, Shape::new(dimensions)?),
        )
    }

    pub(crate) fn from_storage(device: &Device, storage: Storage, shape: Shape) -> Self {
        Self { device: device.clone(), storage: Arc::new(storage), offset: 0, shape }
    }

    /// Wraps a result of the CPU reference.
    pub(crate) fn from_array<F: Real, D: ndarray::Dimension>(
        device: &Device,
        array: ndarray::Array<F, D>,
    ) -> Result<Self> {
        let shape = Shape::new(array.shape())?;
        let standard =
            if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        let (mut values, offset) = standard.into_raw_vec_and_offset();
        // A new array owns exactly its elements; a slice of an array may own more.
        let start = offset.unwrap_or(0);
        values.truncate(start + shape.elements());
        values.drain(..start);
        match device.backend() {
            Backend::Cpu(host) => Ok(Self::from_storage(device, F::wrap(host, values), shape)),
            Backend::Gpu(_) => unreachable!("arrays are results of the CPU"),
        }
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The device that stores the tensor.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A view of the whole tensor.
    pub fn view(&self) -> View<'_> {
        View::new(&self.device, &self.storage, self.offset, self.shape)
    }

    /// Copies the values to the host in row-major order. **Waits** for the GPU.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and other errors reported by the device since the last call.
    pub fn download(&self) -> Result<Vec<f32>> {
        self.view().download()
    }

    /// As [`Tensor::download`], in 64-bit floats: exact on every device.
    ///
    /// # Errors
    /// As [`Tensor::download`].
    pub fn download_f64(&self) -> Result<Vec<f64>> {
        self.view().download_f64()
    }

    /// Returns the value of a tensor with one element, such as a loss. **Waits** for the GPU.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is more than one element; as [`Tensor::download`].
    pub fn read(&self) -> Result<f32> {
        if self.shape.elements() != 1 {
            return Err(Error::shape("read", "a tensor with one element", self.shape));
        }
        Ok(self.download()?[0])
    }

    /// Returns the same values with another shape, without copying.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&self, dimensions: &[usize]) -> Result<Self> {
        let shape = Shape::new(dimensions)?;
        if shape.elements() != self.shape.elements() {
            return Err(Error::shape("reshape", format!("{} elements", self.shape.elements()), shape));
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// Entry `index` of the outermost dimension, without that dimension; does not copy.
    pub(crate) fn entry(&self, index: usize) -> Self {
        let shape = self.shape.inner();
        Self { shape, offset: self.offset + index * shape.elements(), ..self.clone() }
    }

    /// The entries `range` of the outermost dimension; does not copy.
    pub(crate) fn outer(&self, range: std::ops::Range<usize>) -> Result<Self> {
        let cut = self.view().outer(range)?;
        let (offset, shape) = (cut.offset(), *cut.shape());
        Ok(Self { offset, shape, ..self.clone() })
    }

    /// Copies the tensor to `device`; returns a clone if it is already there. **Waits** for the source GPU.
    ///
    /// # Errors
    /// As [`Tensor::download`] and [`Tensor::from_slice`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if &self.device == device {
            return Ok(self.clone());
        }
        Self::from_slice_f64(device, self.shape.dimensions(), &self.download_f64()?)
    }

    /// Mutable access for the operation that has just created this tensor and has not shared it yet.
    pub(crate) fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        let Self { device, storage, offset, shape } = self;
        let storage = Arc::get_mut(storage)
            .ok_or_else(|| Error::config("tensor", "cannot be written while it is shared"))?;
        Ok(ViewMut::new(device, storage, *offset, *shape))
    }
}

impl<'a> From<&'a Tensor> for View<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tensor({} on {})", self.shape, self.device)
    }
}

fn upload<T: bytemuck::Pod>(context: &Context, data: &[T]) -> Result<Storage> {
    let buffer = context.allocate(data.len(), "a tensor")?;
    context.recorder().upload(&buffer, bytemuck::cast_slice(data))?;
    Ok(Storage::Gpu(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Gradients, Model, Parameters};

    #[test]
    fn what_a_user_holds_can_move_between_threads() {
        fn is_send_and_sync<T: Send + Sync>() {}
        is_send_and_sync::<Device>();
        is_send_and_sync::<Tensor>();
        is_send_and_sync::<Indices>();
        is_send_and_sync::<Model>();
        is_send_and_sync::<Parameters>();
        is_send_and_sync::<Gradients>();
        is_send_and_sync::<Error>();
    }
}
