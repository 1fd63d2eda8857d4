//! The limits that operations cut their work by.

use std::ops::Range;

/// What one dispatch and one binding may hold on this device, in the units that operations think in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Four-byte elements that one binding may span, wherever it starts.
    pub(crate) binding_elements: usize,
    /// Workgroups along one axis of a dispatch.
    pub(crate) workgroups: usize,
    /// The largest buffer, in bytes.
    pub(crate) buffer_bytes: u64,
    /// Alignment of a storage binding's start, in bytes.
    pub(crate) storage_alignment: u64,
    /// Alignment of a uniform's dynamic offset, in bytes.
    pub(crate) uniform_alignment: u64,
}

impl Limits {
    /// How many elements an element-wise dispatch of `workgroup_size` invocations may cover.
    pub(crate) fn elements(&self, workgroup_size: usize) -> usize {
        self.binding_elements.min(self.workgroups * workgroup_size)
    }
}

/// Consecutive ranges of at most `largest` that cover `0..total`.
pub(crate) fn pieces(total: usize, largest: usize) -> impl Iterator<Item = Range<usize>> {
    let largest = largest.max(1);
    (0..total).step_by(largest).map(move |start| start..total.min(start + largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_once_and_in_order() {
        let cut: Vec<_> = pieces(10, 4).collect();
        assert_eq!(cut, [0..4, 4..8, 8..10]);
        assert_eq!(pieces(3, 100).next(), Some(0..3));
        assert_eq!(pieces(3, 100).count(), 1);
    }
}
