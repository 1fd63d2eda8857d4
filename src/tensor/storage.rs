//! The memory behind tensors: 32- or 64-bit floats on the host, or a buffer on a GPU.

use std::sync::OnceLock;

use ndarray::{Array, Dimension, NdFloat};

use super::arithmetic::Arithmetic;
use super::recycle;
use crate::device::{Device, on_device};
use crate::gpu::{Buffer, Span};
use crate::{Error, Result};

/// Memory of one device.
pub(crate) enum Storage {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Gpu(Buffer),
}

/// The two number types of the twins.
pub(crate) trait Real: NdFloat + std::iter::Sum + Arithmetic {
    /// The host values, if `storage` is of this type.
    fn values(storage: &Storage) -> Option<&[Self]>;
    /// The host values for writing, if `storage` is of this type.
    fn values_mut(storage: &mut Storage) -> Option<&mut [Self]>;
    fn wrap(values: Vec<Self>) -> Storage;
    /// Memory that was given back by a tensor, with whatever stands in it.
    fn recycled(elements: usize) -> Option<Vec<Self>>;
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
}

macro_rules! real {
    ($type:ty, $variant:ident, $recycled:expr) => {
        impl Real for $type {
            fn values(storage: &Storage) -> Option<&[Self]> {
                match storage {
                    Storage::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn values_mut(storage: &mut Storage) -> Option<&mut [Self]> {
                match storage {
                    Storage::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn wrap(values: Vec<Self>) -> Storage {
                Storage::$variant(values)
            }

            fn recycled(elements: usize) -> Option<Vec<Self>> {
                $recycled(elements)
            }

            fn from_f32(value: f32) -> Self {
                value.into()
            }

            fn from_f64(value: f64) -> Self {
                value as Self
            }
        }
    };
}

real!(f32, F32, recycle::take);
real!(f64, F64, |_| None);

impl Drop for Storage {
    fn drop(&mut self) {
        if let Self::F32(values) = self {
            recycle::give(std::mem::take(values));
        }
    }
}

/// An array that the caller is about to fill to the last element, and then to make a tensor of. Whatever was there stands
/// in it.
pub(crate) fn unwritten<F: Real, D: Dimension>(shape: D) -> Array<F, D> {
    match F::recycled(shape.size()).map(|values| Array::from_shape_vec(shape.clone(), values)) {
        Some(Ok(array)) => array,
        _ => Array::zeros(shape),
    }
}

impl Storage {
    /// Zeroed memory; a size that cannot be had is an error, not an abort.
    pub(crate) fn zeros(device: &Device, elements: usize, what: &str) -> Result<Self> {
        on_device!(device,
            F => {
                expect_room(device, elements, what)?;
                let mut values: Vec<F> = Vec::new();
                values.try_reserve_exact(elements).map_err(|_| Error::OutOfMemory {
                    what: what.to_owned(),
                    bytes: elements as u64 * size_of::<F>() as u64,
                })?;
                values.resize(elements, F::from_f32(0.0));
                Ok(F::wrap(values))
            },
            context => {
                let buffer = context.allocate(elements, what)?;
                context.clear(Span::new(&buffer, 0, elements))?;
                Ok(Self::Gpu(buffer))
            },
        )
    }

    /// The device memory `offset..offset + len`; `None` on the host.
    pub(crate) fn span(&self, offset: usize, len: usize) -> Option<Span<'_>> {
        match self {
            Self::Gpu(buffer) => Some(Span::new(buffer, offset, len)),
            _ => None,
        }
    }
}

/// Fails if `elements` values cannot fit the host at all: the twins' own allocations would end the program. On a
/// GPU the driver decides.
pub(crate) fn expect_room(device: &Device, elements: usize, what: &str) -> Result<()> {
    on_device!(device,
        F => {
            let bytes = elements as u64 * size_of::<F>() as u64;
            match host_memory() {
                Some(memory) if bytes > memory => Err(Error::OutOfMemory { what: what.to_owned(), bytes }),
                _ => Ok(()),
            }
        },
        _context => Ok(()),
    )
}

/// The host's memory in bytes, where the system tells: Linux grants far more than it has and kills later.
pub(crate) fn host_memory() -> Option<u64> {
    static MEMORY: OnceLock<Option<u64>> = OnceLock::new();
    *MEMORY.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    })
}
