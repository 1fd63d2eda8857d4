//! [`Span`], a range of four-byte elements of a buffer, and [`Bound`], its binding.

use std::ops::Range;

use super::limits::Limits;
use super::pool::{Buffer, Raw};
use crate::{Error, Result};

/// `len` elements of four bytes, starting at element `start` of a buffer.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    buffer: &'a Buffer,
    start: usize,
    len: usize,
    /// The name of the parameter that it is part of.
    name: Option<&'a str>,
}

impl<'a> Span<'a> {
    pub(crate) fn new(buffer: &'a Buffer, start: usize, len: usize) -> Self {
        Self { buffer, start, len, name: None }
    }

    /// The same elements, as part of the parameter `name`.
    pub(crate) fn named(self, name: Option<&'a str>) -> Self {
        Self { name, ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements `range` of this span. A range beyond the span is an error where it is used.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        let (start, len) = subrange(self.start, self.len, range);
        Self { start, len, ..*self }
    }

    /// Returns the span if it lies inside its buffer. Shaders have no run-time checks in release builds, so
    /// every span that is passed to the driver is checked here.
    pub(super) fn inside(self) -> Result<Self> {
        expect_inside(self.start, self.len, self.buffer.raw.size).map(|()| self)
    }

    /// The span as a binding.
    pub(super) fn bind(self, limits: &Limits) -> Result<Bound<'a>> {
        let span = self.inside()?;
        if span.len > limits.binding_elements {
            let tensor = span.name.map_or_else(|| "a tensor".to_owned(), |name| format!("`{name}`"));
            return Err(Error::ExceedsLimit {
                what: format!("one row or block of {tensor} (elements in one binding)"),
                needed: span.len as u64,
                limit: limits.binding_elements as u64,
            });
        }
        let start = span.byte_offset();
        let offset = start - start % limits.storage_alignment;
        Ok(Bound {
            raw: span.raw(),
            offset,
            size: start + span.byte_len() - offset,
            base: ((start - offset) / 4) as u32,
        })
    }

    pub(super) fn raw(&self) -> &'a Raw {
        &self.buffer.raw
    }

    pub(super) fn byte_offset(&self) -> u64 {
        self.start as u64 * 4
    }

    pub(super) fn byte_len(&self) -> u64 {
        self.len as u64 * 4
    }
}

/// A span as a binding: its offset rounded down to the device's alignment, and the remainder in `base`.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub(super) raw: &'a Raw,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// The index of the span's first element in the binding; every kernel adds it.
    pub(crate) base: u32,
}

impl Bound<'_> {
    /// Whether the span can be read as `array<vec4<f32>>`.
    pub(crate) fn is_in_fours(&self) -> bool {
        self.base.is_multiple_of(4) && self.offset.is_multiple_of(16)
    }
}

/// Binds each operand; an array, because time loops come here at every step.
pub(super) fn bind_all<'a, T: Copy, const N: usize>(
    operands: [T; N],
    bind: impl Fn(T) -> Result<Bound<'a>>,
) -> Result<[Bound<'a>; N]> {
    let mut bindings = [bind(operands[0])?; N];
    for (bound, operand) in bindings.iter_mut().zip(operands).skip(1) {
        *bound = bind(operand)?;
    }
    Ok(bindings)
}

/// Start and length of the elements `range` of a span. The length is larger than any buffer if the range
/// reaches beyond the span.
fn subrange(start: usize, len: usize, range: Range<usize>) -> (usize, usize) {
    let inside = range.start <= range.end && range.end <= len;
    (start.saturating_add(range.start), if inside { range.len() } else { usize::MAX })
}

fn expect_inside(start: usize, len: usize, bytes: u64) -> Result<()> {
    let end = start.checked_add(len).and_then(|end| (end as u64).checked_mul(4));
    Error::expect(end.is_some_and(|end| end <= bytes), || {
        format!("{len} elements from {start} on reach beyond a buffer of {bytes} bytes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_beyond_a_buffer_or_a_span_are_an_error_in_every_build() {
        for (start, len, bytes) in [(0, 64, 256), (63, 1, 256), (64, 0, 256)] {
            assert!(expect_inside(start, len, bytes).is_ok(), "{start} {len} {bytes}");
        }
        for (start, len, bytes) in
            [(0, 65, 256), (64, 1, 256), (1, usize::MAX, 256), (0, usize::MAX / 2, 256)]
        {
            assert!(matches!(expect_inside(start, len, bytes), Err(Error::Internal { .. })), "{start} {len}");
        }
        assert_eq!(subrange(8, 8, 2..5), (10, 3));
        // Inside the buffer, but beyond the span.
        let (start, len) = subrange(8, 8, 2..9);
        assert!(expect_inside(start, len, 1 << 20).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "a range that a slip could make")]
        let (start, len) = subrange(8, 8, 5..2);
        assert!(expect_inside(start, len, 1 << 20).is_err());
    }
}
