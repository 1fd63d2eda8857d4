//! The memory of tensors: 32- or 64-bit floats on the host, or a buffer on a GPU.

use std::sync::OnceLock;

use ndarray::{Array, Dimension, NdFloat};

use super::arithmetic::Arithmetic;
use crate::device::{Device, Host, MemoryBlock, on_device};
use crate::gpu::{Buffer, Span};
use crate::{Error, Result};

/// The memory of a tensor.
pub(crate) enum Storage {
    F32(MemoryBlock),
    F64(Vec<f64>),
    Gpu(Buffer),
}

/// The number types of the CPU: f32 and f64.
pub(crate) trait Real: NdFloat + std::iter::Sum + Arithmetic {
    /// The host values if `storage` is of this type.
    fn values(storage: &Storage) -> Option<&[Self]>;
    /// The mutable host values if `storage` is of this type.
    fn values_mut(storage: &mut Storage) -> Option<&mut [Self]>;
    /// Wraps values as memory of the CPU device `host`.
    fn wrap(host: &Host, values: Vec<Self>) -> Storage;
    /// A cached buffer of `host`, with arbitrary values.
    fn recycled(host: &Host, elements: usize) -> Option<Vec<Self>>;
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    fn values(storage: &Storage) -> Option<&[Self]> {
        match storage {
            Storage::F32(block) => Some(block.values()),
            _ => None,
        }
    }

    fn values_mut(storage: &mut Storage) -> Option<&mut [Self]> {
        match storage {
            Storage::F32(block) => Some(block.values_mut()),
            _ => None,
        }
    }

    fn wrap(host: &Host, values: Vec<Self>) -> Storage {
        Storage::F32(MemoryBlock::new(values, host.store()))
    }

    fn recycled(host: &Host, elements: usize) -> Option<Vec<Self>> {
        host.store().take(elements)
    }

    fn from_f32(value: f32) -> Self {
        value
    }

    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    fn values(storage: &Storage) -> Option<&[Self]> {
        match storage {
            Storage::F64(values) => Some(values),
            _ => None,
        }
    }

    fn values_mut(storage: &mut Storage) -> Option<&mut [Self]> {
        match storage {
            Storage::F64(values) => Some(values),
            _ => None,
        }
    }

    fn wrap(_host: &Host, values: Vec<Self>) -> Storage {
        Storage::F64(values)
    }

    fn recycled(_host: &Host, _elements: usize) -> Option<Vec<Self>> {
        None
    }

    fn from_f32(value: f32) -> Self {
        value.into()
    }

    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Reserves capacity for `elements` values on the host; returns an error instead of aborting if memory does not suffice.
pub(crate) fn reserved<T>(elements: usize, what: &str) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(elements).map_err(|_| out_of_memory::<T>(elements, what))?;
    Ok(values)
}

fn out_of_memory<T>(elements: usize, what: &str) -> Error {
    Error::OutOfMemory { what: what.to_owned(), bytes: elements as u64 * size_of::<T>() as u64 }
}

/// Allocates memory of the CPU device `host` with arbitrary values; the caller must write every element.
fn unwritten_values<F: Real>(host: &Host, elements: usize, what: &str) -> Result<Vec<F>> {
    if let Some(values) = F::recycled(host, elements) {
        return Ok(values);
    }
    let mut values = reserved(elements, what)?;
    values.resize(elements, F::zero());
    Ok(values)
}

/// Allocates an array with arbitrary values; the caller must write every element and then wrap it in a tensor.
pub(crate) fn unwritten<F: Real, D: Dimension>(host: &Host, shape: D, what: &str) -> Result<Array<F, D>> {
    let values = unwritten_values(host, shape.size(), what)?;
    match Array::from_shape_vec(shape, values) {
        Ok(array) => Ok(array),
        Err(error) => unreachable!("there are as many values as the shape has: {error}"),
    }
}

/// Allocates memory of the CPU device `host` and fills it with `values`, of which there are `elements`.
pub(super) fn filled<F: Real>(
    host: &Host,
    elements: usize,
    values: impl Iterator<Item = F>,
    what: &str,
) -> Result<Storage> {
    let mut all = unwritten_values(host, elements, what)?;
    all.iter_mut().zip(values).for_each(|(target, value)| *target = value);
    Ok(F::wrap(host, all))
}

impl Storage {
    /// Allocates zeroed memory; returns an error instead of aborting if memory does not suffice.
    pub(crate) fn zeros(device: &Device, elements: usize, what: &str) -> Result<Self> {
        on_device!(device,
            F, host => {
                expect_capacity(device, elements, what)?;
                let mut values = unwritten_values::<F>(host, elements, what)?;
                values.fill(F::from_f32(0.0));
                Ok(F::wrap(host, values))
            },
            context => {
                let buffer = context.allocate(elements, what)?;
                context.recorder().clear(Span::new(&buffer, 0, elements))?;
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

/// Fails unless the host can allocate `elements` values: all that an operation on the CPU is about to allocate, scratch
/// memory included. A failed allocation inside `ndarray` or the standard library aborts the program, so operations call
/// this first. On a GPU the driver reports the failure.
pub(crate) fn expect_capacity(device: &Device, elements: usize, what: &str) -> Result<()> {
    on_device!(device,
        F => {
            let bytes = elements as u64 * size_of::<F>() as u64;
            // Linux grants more than it has, and kills the process later.
            if host_memory().is_some_and(|memory| bytes > memory) {
                return Err(out_of_memory::<F>(elements, what));
            }
            if elements < LEAST_ASKED {
                return Ok(());
            }
            // Several buffers need slightly more than one of their total size.
            let room: Vec<F> = reserved(elements + elements / 64 + REST, what)?;
            // Keeps the compiler from removing the allocation.
            std::hint::black_box(room.as_ptr());
            Ok(())
        },
        _context => Ok(()),
    )
}

/// The number of values reserved for small allocations.
const REST: usize = 1 << 18;

/// The smallest number of values that is checked; smaller allocations are assumed to succeed.
const LEAST_ASKED: usize = 1 << 14;

/// The host's memory in bytes, if the system reports it; Linux grants allocations beyond it.
pub(crate) fn host_memory() -> Option<u64> {
    static MEMORY: OnceLock<Option<u64>> = OnceLock::new();
    *MEMORY.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    })
}
