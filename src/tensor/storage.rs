//! The memory behind tensors: 32- or 64-bit floats on the host, or a buffer on a GPU.

use std::sync::OnceLock;

use ndarray::{Array, Dimension, NdFloat};

use super::arithmetic::Arithmetic;
use super::store::Block;
use crate::device::{Device, Host, on_device};
use crate::gpu::{Buffer, Span};
use crate::{Error, Result};

/// Memory of one device.
pub(crate) enum Storage {
    F32(Block),
    F64(Vec<f64>),
    Gpu(Buffer),
}

/// The two number types of the twins.
pub(crate) trait Real: NdFloat + std::iter::Sum + Arithmetic {
    /// The host values, if `storage` is of this type.
    fn values(storage: &Storage) -> Option<&[Self]>;
    /// The host values for writing, if `storage` is of this type.
    fn values_mut(storage: &mut Storage) -> Option<&mut [Self]>;
    /// Values as memory of the CPU device `host`.
    fn wrap(host: &Host, values: Vec<Self>) -> Storage;
    /// Memory that `host` keeps for later, with whatever values it has.
    fn kept(host: &Host, elements: usize) -> Option<Vec<Self>>;
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
        Storage::F32(Block::new(values, host.store()))
    }

    fn kept(host: &Host, elements: usize) -> Option<Vec<Self>> {
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

    fn kept(_host: &Host, _elements: usize) -> Option<Vec<Self>> {
        None
    }

    fn from_f32(value: f32) -> Self {
        value.into()
    }

    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Room for `elements` values on the host; a size that cannot be had is an error, not an abort.
pub(crate) fn reserved<T>(elements: usize, what: &str) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(elements).map_err(|_| out_of_memory::<T>(elements, what))?;
    Ok(values)
}

fn out_of_memory<T>(elements: usize, what: &str) -> Error {
    Error::OutOfMemory { what: what.to_owned(), bytes: elements as u64 * size_of::<T>() as u64 }
}

/// Memory of the CPU device `host` that the caller is about to fill to the last element. It has whatever values were there
/// before.
fn unwritten_values<F: Real>(host: &Host, elements: usize, what: &str) -> Result<Vec<F>> {
    if let Some(values) = F::kept(host, elements) {
        return Ok(values);
    }
    let mut values = reserved(elements, what)?;
    values.resize(elements, F::zero());
    Ok(values)
}

/// An array that the caller is about to fill to the last element, and then to make a tensor of. It has whatever values were
/// there before.
pub(crate) fn unwritten<F: Real, D: Dimension>(host: &Host, shape: D, what: &str) -> Result<Array<F, D>> {
    let values = unwritten_values(host, shape.size(), what)?;
    match Array::from_shape_vec(shape, values) {
        Ok(array) => Ok(array),
        Err(error) => unreachable!("there are as many values as the shape has: {error}"),
    }
}

/// Memory of the CPU device `host` with the values `values`, of which there are `elements`.
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
    /// Zeroed memory; a size that cannot be had is an error, not an abort.
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

/// Fails unless the host has room for `elements` values: what an operation on the CPU is about to allocate, scratch memory
/// included. An allocation of `ndarray`'s or the standard library's own that fails ends the program; so the operation asks for
/// all of it first. On a GPU the driver decides.
pub(crate) fn expect_capacity(device: &Device, elements: usize, what: &str) -> Result<()> {
    on_device!(device,
        F => {
            let bytes = elements as u64 * size_of::<F>() as u64;
            // Linux grants more than it has, and ends programs later.
            if host_memory().is_some_and(|memory| bytes > memory) {
                return Err(out_of_memory::<F>(elements, what));
            }
            if elements < LEAST_ASKED {
                return Ok(());
            }
            // Several buffers take a little more than one of their size.
            let room: Vec<F> = reserved(elements + elements / 64 + REST, what)?;
            // Without this the compiler leaves the allocation out.
            std::hint::black_box(room.as_ptr());
            Ok(())
        },
        _context => Ok(()),
    )
}

/// Values that are left over for all that is small.
const REST: usize = 1 << 18;

/// The fewest values that are asked for before they are allocated: less is there if anything is.
const LEAST_ASKED: usize = 1 << 14;

/// The host's memory in bytes, where the system tells: Linux grants far more than it has and kills later.
pub(crate) fn host_memory() -> Option<u64> {
    static MEMORY: OnceLock<Option<u64>> = OnceLock::new();
    *MEMORY.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    })
}
