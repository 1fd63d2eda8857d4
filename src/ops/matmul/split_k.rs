//! Split-K products: one dispatch computes the partial sums of all slices in parallel, a second one
//! (`shaders/matmul/sum.wgsl`) adds them up from the last to the first.

use super::gpu::{MAX_DEPTH, MatmulCall, MatmulTarget};
use super::kernels::{SumParameters, sum};
use super::{Add, MatmulSizes};
use crate::Result;
use crate::gpu::{Context, Dispatch, ELEMENTWISE_GROUP, MatmulTile, Span, pieces};

/// The most elements of the partial sums that are stored at once: 32 MiB.
pub(super) const SCRATCH: usize = 1 << 23;

impl MatmulCall<'_> {
    /// The number of slices of depth `part` that one dispatch can compute; 0 or 1 if split-K does not pay.
    pub(super) fn parts_together(&self, context: &Context, tile: MatmulTile, part: usize) -> usize {
        let MatmulSizes { m, n, k, a_width, c_width } = self.sizes;
        let limits = context.limits();
        let elements = limits.binding_elements;
        let grid = limits.workgroups * tile.side();
        if m > grid || n > grid || (m - 1) * c_width + n > elements || part > MAX_DEPTH {
            return 0;
        }
        // The largest depth at which an operand fits a binding.
        let depth = |by_depth: bool, width: usize, others: usize| match by_depth {
            true => elements / width,
            false if others * width <= elements => k,
            false => 0,
        };
        let depth = depth(self.form.left(), a_width, m).min(depth(!self.form.right(), self.b_width, n));
        let by_depth = if depth >= k { k.div_ceil(part) } else { depth / part };
        let plane = m * n;
        by_depth.min(limits.workgroups).min(elements / plane).min(SCRATCH / plane)
    }

    /// Computes the product in slices of depth `part`, `together` of them per dispatch.
    pub(super) fn in_parts(
        &self,
        context: &Context,
        tile: MatmulTile,
        part: usize,
        together: usize,
    ) -> Result<()> {
        let MatmulSizes { m, n, k, .. } = self.sizes;
        let plane = m * n;
        let groups: Vec<_> = pieces(k.div_ceil(part), together).collect();
        let scratch = context.allocate(together * plane, "the partial sums of a matrix product")?;
        for (index, group) in groups.iter().enumerate().rev() {
            let depth = group.start * part..k.min(group.end * part);
            let parts = Span::new(&scratch, 0, group.len() * plane);
            let target = MatmulTarget {
                c: context.bind(parts)?,
                stride: n,
                part,
                plane,
                bias: None,
                accumulate: false,
            };
            let ranges = [0..m, 0..n, 0..depth.len()];
            self.of_depth(depth).dispatch(context, tile, ranges, &target)?;
            // The last group is added first, so it overwrites or adds to the target as requested.
            let last = index + 1 == groups.len();
            let (bias, accumulate) = match self.add {
                Add::Previous => (None, true),
                Add::Bias(bias) => (bias.filter(|_| index == 0), !last),
            };
            self.add_up(context, parts, group.len(), bias, accumulate)?;
        }
        Ok(())
    }

    /// C = bias + Σ_p parts_p, or C += Σ_p parts_p.
    fn add_up(
        &self,
        context: &Context,
        parts: Span<'_>,
        count: usize,
        bias: Option<Span<'_>>,
        accumulate: bool,
    ) -> Result<()> {
        let MatmulSizes { m, n, c_width, .. } = self.sizes;
        let bound = context.bind(parts)?;
        let c = context.bind(self.spans[2].slice(0..(m - 1) * c_width + n))?;
        let bias = bias.map(|bias| context.bind(bias.slice(0..n))).transpose()?;
        for piece in pieces(m * n, context.limits().elements(ELEMENTWISE_GROUP)) {
            context.dispatch(Dispatch {
                kernel: sum(),
                constants: &[],
                parameters: SumParameters {
                    count: piece.len() as u32,
                    first: piece.start as u32,
                    n: n as u32,
                    parts: count as u32,
                    plane: (m * n) as u32,
                    c_stride: c_width as u32,
                    parts_base: bound.base,
                    c_base: c.base,
                    bias_base: bias.map_or(0, |bias| bias.base),
                    has_bias: bias.is_some().into(),
                    accumulate: accumulate.into(),
                },
                bindings: &[bound, bias.unwrap_or(bound), c],
                grid: [piece.len().div_ceil(ELEMENTWISE_GROUP), 1, 1],
            })?;
        }
        Ok(())
    }
}
