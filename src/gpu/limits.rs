//! The device limits by which operations split their work.

use std::ops::Range;

/// Invocations per workgroup of every element-wise shader.
pub(crate) const ELEMENTWISE_GROUP: usize = 256;

/// Limits of one dispatch and one binding on this device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most four-byte elements of a binding, at any offset.
    pub(crate) binding_elements: usize,
    /// The most workgroups along one axis of a dispatch.
    pub(crate) workgroups: usize,
    /// The largest buffer, in bytes.
    pub(crate) buffer_bytes: u64,
    /// The alignment of a storage binding's offset, in bytes.
    pub(crate) storage_alignment: u64,
    /// The alignment of a uniform's dynamic offset, in bytes.
    pub(crate) uniform_alignment: u64,
}

impl Limits {
    /// The most elements of an element-wise dispatch with workgroups of `workgroup_size`.
    pub(crate) fn elements(&self, workgroup_size: usize) -> usize {
        self.binding_elements.min(self.workgroups * workgroup_size)
    }
}

/// Splits `0..total` into consecutive ranges of at most `largest`.
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
