//! Dispatch of the kernels that include `shaders/lib/row_reduction.wgsl`: how many invocations share a row.

use std::ops::Range;

use super::kernel::MAX_CONSTANTS;
use super::span::bind_all;
use super::{AdapterKind, Bound, Context, Dispatch, Kernel, Span, pieces};
use crate::Result;

/// Invocations per workgroup of these kernels.
const GROUP: usize = 256;
/// The longest row that a single invocation of a software adapter reduces. Such an adapter has few threads,
/// which any number of rows fills, and each barrier switches between all invocations of a workgroup.
const ALONE: usize = 1024;

/// How the rows of a matrix are divided between invocations. It depends only on their length: a row has the
/// same bits whatever the other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowReduction {
    columns: usize,
    lane_bits: u32,
}

/// An operand of a kernel over rows.
#[derive(Clone, Copy)]
pub(crate) enum RowOperand<'a> {
    /// That many elements for each row.
    Each(Span<'a>, usize),
    /// The same elements for all rows.
    All(Bound<'a>),
}

impl RowReduction {
    /// For rows of `columns` elements.
    pub(crate) fn new(context: &Context, columns: usize) -> Self {
        Self { columns, lane_bits: lane_bits(columns, context.kind()) }
    }

    /// Dispatches `kernel` for `rows` rows, once for each piece of them that fits; `constants` follow `LANE_BITS`, and
    /// `parameters` receives the range of the piece and the base of each binding.
    pub(crate) fn dispatch<P: bytemuck::Pod, const N: usize>(
        self,
        context: &Context,
        kernel: &Kernel,
        constants: &[u32],
        rows: usize,
        operands: [RowOperand<'_>; N],
        parameters: impl Fn(Range<usize>, [u32; N]) -> P,
    ) -> Result<()> {
        let mut all_constants = [self.lane_bits; MAX_CONSTANTS];
        let last = constants.len() + 1;
        all_constants[1..last].copy_from_slice(constants);
        let limits = context.limits();
        let most =
            (limits.binding_elements / self.columns).clamp(1, limits.workgroups * self.rows_of_group());
        for piece in pieces(rows, most) {
            let bind = |operand| match operand {
                RowOperand::Each(span, width) => {
                    context.bind(span.slice(piece.start * width..piece.end * width))
                }
                RowOperand::All(bound) => Ok(bound),
            };
            let bindings = bind_all(operands, bind)?;
            let bases = bindings.map(|bound| bound.base);
            context.dispatch(Dispatch {
                kernel,
                constants: &all_constants[..last],
                parameters: parameters(piece.clone(), bases),
                bindings: &bindings,
                grid: [piece.len().div_ceil(self.rows_of_group()), 1, 1],
            })?;
        }
        Ok(())
    }

    fn rows_of_group(self) -> usize {
        GROUP >> self.lane_bits
    }
}

/// At least two elements per invocation, so that short rows share a workgroup; at least eight invocations on
/// hardware, which loads 32 bytes at a time.
fn lane_bits(columns: usize, kind: AdapterKind) -> u32 {
    if kind == AdapterKind::Software && columns <= ALONE {
        return 0;
    }
    (columns / 2).next_power_of_two().clamp(8, GROUP).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_gives_a_row_as_many_invocations_as_have_work() {
        let bits = |columns| lane_bits(columns, AdapterKind::Discrete);
        assert_eq!([1, 16, 17, 64, 100, 128, 512, 513, 1 << 20].map(bits), [3, 3, 3, 5, 6, 6, 8, 8, 8]);
    }

    #[test]
    fn a_software_adapter_gives_a_row_one_invocation_until_it_is_long() {
        let bits = |columns| lane_bits(columns, AdapterKind::Software);
        assert_eq!([1, 64, ALONE, ALONE + 1].map(bits), [0, 0, 0, 8]);
    }
}
