//! A stretch of four-byte elements in a buffer, and how a shader sees it.

use std::ops::Range;

use super::pool::Buffer;
use super::{Context, pool::Raw};
use crate::{Error, Result};

/// `len` elements of four bytes, starting at element `start` of a buffer.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    buffer: &'a Buffer,
    start: usize,
    len: usize,
    /// The parameter that it belongs to.
    name: Option<&'a str>,
}

impl<'a> Span<'a> {
    pub(crate) fn new(buffer: &'a Buffer, start: usize, len: usize) -> Self {
        Self { buffer, start, len, name: None }
    }

    /// The same elements, as those of the parameter `name`.
    pub(crate) fn named(self, name: Option<&'a str>) -> Self {
        Self { name, ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements `range` of this span. One that reaches beyond it is refused where it is used.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        let inside = range.start <= range.end && range.end <= self.len;
        let len = if inside { range.len() } else { usize::MAX };
        Self { start: self.start.saturating_add(range.start), len, ..*self }
    }

    /// Itself, if it lies inside its buffer. Shaders run without checks of their own in release builds, so everything that
    /// hands a span to the driver comes by here.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(super) fn inside(self) -> Result<Self> {
        let size = self.buffer.raw.buffer.size();
        let end = self.start.checked_add(self.len).and_then(|end| (end as u64).checked_mul(4));
        if end.is_some_and(|end| end <= size) {
            return Ok(self);
        }
        let Self { start, len, .. } = self;
        Err(Error::internal(format!("{len} elements from {start} on reach beyond a buffer of {size} bytes")))
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

/// A span as a binding: its start rounded down to the device's alignment, the remainder left in `base`.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub(super) raw: &'a Raw,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Index, in the binding, of the span's first element; every kernel adds it.
    pub(crate) base: u32,
}

impl Bound<'_> {
    /// Whether the span starts where a shader can read it by fours, as `array<vec4<f32>>`.
    pub(crate) fn is_in_fours(&self) -> bool {
        self.base.is_multiple_of(4) && self.offset.is_multiple_of(16)
    }
}

impl Context {
    /// Prepares `span` for a dispatch.
    ///
    /// # Errors
    /// [`Error::ExceedsLimit`] if it is larger than one binding; operations cut their work so that it is not.
    pub(crate) fn bind<'a>(&self, span: Span<'a>) -> Result<Bound<'a>> {
        let limits = self.limits();
        let span = span.inside()?;
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
}
