//! Dispatch of element-wise kernels over any number of elements.

use std::ops::Range;

use super::span::bind_all;
use super::{Bound, Context, Dispatch, ELEMENTWISE_GROUP, Kernel, Span, pieces};
use crate::Result;

/// An operand of an element-wise kernel.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// An element for each invocation.
    Each(Span<'a>),
    /// An element for each row of that many invocations.
    Rows(Span<'a>, usize),
    /// The same elements for all invocations.
    All(Bound<'a>),
    /// None: a dummy binding replaces it, which the kernel does not access.
    Absent,
}

impl Context {
    /// Dispatches `kernel` for `count` elements, once for each piece of them whose operands fit a binding; `parameters`
    /// receives the range of the piece and the base of each binding.
    pub(crate) fn elementwise<P: bytemuck::Pod, const N: usize>(
        &self,
        kernel: &Kernel,
        constants: &[u32],
        count: usize,
        operands: [Operand<'_>; N],
        parameters: impl Fn(Range<usize>, [u32; N]) -> P,
    ) -> Result<()> {
        let is_absent = |operand: &Operand<'_>| matches!(operand, Operand::Absent);
        let dummy = match operands.iter().any(is_absent) {
            true => Some(self.allocate(1, "a dummy binding for an optional buffer")?),
            false => None,
        };
        for piece in pieces(count, self.limits().elements(ELEMENTWISE_GROUP)) {
            let bind = |operand| match (operand, &dummy) {
                (Operand::Each(span), _) => self.bind(span.slice(piece.clone())),
                (Operand::Rows(span, columns), _) => self.bind(span.slice(rows_of(&piece, columns))),
                (Operand::All(bound), _) => Ok(bound),
                (Operand::Absent, Some(dummy)) => self.bind(Span::new(dummy, 0, 1)),
                (Operand::Absent, None) => unreachable!("allocated above"),
            };
            let bindings = bind_all(operands, bind)?;
            let bases = bindings.map(|bound| bound.base);
            self.dispatch(Dispatch {
                kernel,
                constants,
                parameters: parameters(piece.clone(), bases),
                bindings: &bindings,
                grid: [piece.len().div_ceil(ELEMENTWISE_GROUP), 1, 1],
            })?;
        }
        Ok(())
    }
}

/// The rows of `columns` elements that contain the elements `piece`.
fn rows_of(piece: &Range<usize>, columns: usize) -> Range<usize> {
    piece.start / columns..piece.end.div_ceil(columns)
}
