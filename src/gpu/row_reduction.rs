//! How many invocations share a row in the kernels that include `shaders/lib/row_reduction.wgsl`.

use super::{AdapterKind, Context};

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

impl RowReduction {
    /// For rows of `columns` elements.
    pub(crate) fn new(context: &Context, columns: usize) -> Self {
        Self { columns, lane_bits: lane_bits(columns, context.kind()) }
    }

    /// The value of `LANE_BITS`.
    pub(crate) fn constant(self) -> u32 {
        self.lane_bits
    }

    /// The most rows of one dispatch.
    pub(crate) fn rows_at_once(self, context: &Context) -> usize {
        let limits = context.limits();
        (limits.binding_elements / self.columns).clamp(1, limits.workgroups * self.rows_of_group())
    }

    /// Workgroups for `rows` rows.
    pub(crate) fn grid(self, rows: usize) -> [usize; 3] {
        [rows.div_ceil(self.rows_of_group()), 1, 1]
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
