//! Dispatch of `shaders/matmul/{narrow,medium,large,direct}.wgsl`, split so that every block fits a binding, a grid and a
//! loop.

use std::ops::Range;

pub(crate) use super::Add;
use super::kernels::{Loads, MatmulParameters, of_tile};
use super::{Form, MatmulSizes, variants};
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, MatmulTile, MatmulVariant, ProductShape, Span, pieces};

#[cfg(test)]
pub(crate) use super::kernels::KERNELS;

/// The most terms of a sum in one dispatch. Some software drivers silently end loops after 65,536 iterations, and may count
/// those of all loops of an invocation together; the kernels run at most one iteration per four terms plus one per 16.
pub(super) const MAX_DEPTH: usize = 1 << 17;

/// A product and its operands A, B and C.
#[derive(Clone, Copy)]
pub(super) struct MatmulCall<'a> {
    pub(super) spans: [Span<'a>; 3],
    pub(super) sizes: MatmulSizes,
    /// Stride of the stored rows of B, in elements.
    pub(super) b_width: usize,
    pub(super) form: Form,
    pub(super) add: Add<Span<'a>>,
}

/// Computes the product of the spans A and B into the span C. Each is stored row-major, B without gaps.
pub(crate) fn matmul(
    context: &Context,
    spans: [Span<'_>; 3],
    sizes: MatmulSizes,
    form: Form,
    add: Add<Span<'_>>,
) -> Result<()> {
    let MatmulSizes { m, n, k, .. } = sizes;
    let shape = ProductShape { form, m, n, k, block: None };
    let heuristics = || variants::choose(form, [m, n, k], context.kind());
    let variant = context.choices().product(shape, heuristics);
    matmul_by(context, variant, MatmulCall::new(spans, sizes, form, add))
}

/// Computes the product with this variant.
pub(super) fn matmul_by(context: &Context, variant: MatmulVariant, product: MatmulCall<'_>) -> Result<()> {
    // The depth of a split-K slice is a multiple of four, so that rows along K can be read as vectors of four.
    let part = product.sizes.k.div_ceil(variant.parts).next_multiple_of(4);
    match product.parts_together(context, variant.tile, part) {
        0 | 1 => product.in_order(context, variant.tile),
        together => product.in_parts(context, variant.tile, part, together),
    }
}

/// C += op(A)·op(B), where the sum over K is computed in blocks of `block` terms, the last of which may be shorter, and
/// blocks are added to C one by one from the last to the first. The bits do not depend on the number of blocks per call.
pub(crate) fn matmul_blocks(
    context: &Context,
    spans: [Span<'_>; 3],
    sizes: MatmulSizes,
    form: Form,
    block: usize,
) -> Result<()> {
    let MatmulSizes { m, n, k, .. } = sizes;
    let shape = ProductShape { form, m, n, k, block: Some(block) };
    let heuristics = || variants::choose_blocks([m, n, block], k.div_ceil(block), context.kind());
    let variant = context.choices().product(shape, heuristics);
    matmul_blocks_by(context, variant, MatmulCall::new(spans, sizes, form, Add::Previous), block)
}

/// Computes the product in blocks with this variant.
pub(super) fn matmul_blocks_by(
    context: &Context,
    variant: MatmulVariant,
    product: MatmulCall<'_>,
    block: usize,
) -> Result<()> {
    let (k, blocks) = (product.sizes.k, product.sizes.k.div_ceil(block));
    let together = product.parts_together(context, variant.tile, block);
    if variant.parts > 1 && together > 1 {
        return product.in_parts(context, variant.tile, block, together);
    }
    for index in (0..blocks).rev() {
        let depth = index * block..k.min((index + 1) * block);
        product.of_depth(depth).in_order(context, variant.tile)?;
    }
    Ok(())
}

/// Where a dispatch stores its sums.
pub(super) struct MatmulTarget<'a> {
    pub(super) c: Bound<'a>,
    /// Stride of the rows of C, in elements.
    pub(super) stride: usize,
    /// The depth of a split-K slice and the elements of a plane; each slice is stored to its own plane.
    pub(super) part: usize,
    pub(super) plane: usize,
    pub(super) bias: Option<Bound<'a>>,
    pub(super) accumulate: bool,
}

/// The span of the block `rows` by `columns` of a matrix with `width` columns: from its first to its last element.
fn block_span(whole: Span<'_>, width: usize, rows: Range<usize>, columns: Range<usize>) -> Span<'_> {
    whole.slice(rows.start * width + columns.start..(rows.end - 1) * width + columns.end)
}

impl<'a> MatmulCall<'a> {
    pub(super) fn new(spans: [Span<'a>; 3], sizes: MatmulSizes, form: Form, add: Add<Span<'a>>) -> Self {
        let b_width = if form.right() { sizes.k } else { sizes.n };
        Self { spans, sizes, b_width, form, add }
    }

    /// The product restricted to the terms `depth` of the sum over K.
    pub(super) fn of_depth(&self, depth: Range<usize>) -> Self {
        let [a, b, c] = self.spans;
        let a_start = depth.start * if self.form.left() { self.sizes.a_width } else { 1 };
        let b_start = depth.start * if self.form.right() { 1 } else { self.b_width };
        let from = |span: Span<'a>, start: usize| span.slice(start..span.len());
        let sizes = MatmulSizes { k: depth.len(), ..self.sizes };
        Self { spans: [from(a, a_start), from(b, b_start), c], sizes, ..*self }
    }

    /// Computes the sums over K in order, in several dispatches where an operand exceeds a limit.
    fn in_order(&self, context: &Context, tile: MatmulTile) -> Result<()> {
        let MatmulSizes { m, n, k, a_width, c_width } = self.sizes;
        let elements = context.limits().binding_elements;
        let grid = context.limits().workgroups * tile.side();
        // Each operand is split along the dimension of its stored rows.
        let rows = |width: usize| (elements / width).max(1);
        let mut largest = [grid.min(rows(c_width)), grid, MAX_DEPTH];
        let cut = |size: &mut usize, ceiling: usize| *size = ceiling.min(*size);
        cut(&mut largest[if self.form.left() { 2 } else { 0 }], rows(a_width));
        cut(&mut largest[if self.form.right() { 1 } else { 2 }], rows(self.b_width));
        for m in pieces(m, largest[0]) {
            for n in pieces(n, largest[1]) {
                for k in pieces(k, largest[2]) {
                    self.block(context, tile, [m.clone(), n.clone(), k])?;
                }
            }
        }
        Ok(())
    }

    fn block(&self, context: &Context, tile: MatmulTile, [m, n, k]: [Range<usize>; 3]) -> Result<()> {
        // The first dispatch of a sum overwrites or adds to the target as requested; the others add to it.
        let first = k.start == 0;
        let (bias, accumulate) = match self.add {
            Add::Previous => (None, true),
            Add::Bias(bias) => (bias.filter(|_| first), !first),
        };
        let target = MatmulTarget {
            c: context.bind(block_span(self.spans[2], self.sizes.c_width, m.clone(), n.clone()))?,
            stride: self.sizes.c_width,
            part: k.len(),
            plane: 0,
            bias: bias.map(|bias| context.bind(bias.slice(n.clone()))).transpose()?,
            accumulate,
        };
        self.dispatch(context, tile, [m, n, k], &target)
    }

    pub(super) fn dispatch(
        &self,
        context: &Context,
        tile: MatmulTile,
        [m, n, k]: [Range<usize>; 3],
        target: &MatmulTarget<'_>,
    ) -> Result<()> {
        let (form, a_width, b_width) = (self.form, self.sizes.a_width, self.b_width);
        let [a_rows, a_columns] = if form.left() { [&k, &m] } else { [&m, &k] };
        let [b_rows, b_columns] = if form.right() { [&n, &k] } else { [&k, &n] };
        let a = context.bind(block_span(self.spans[0], a_width, a_rows.clone(), a_columns.clone()))?;
        let b = context.bind(block_span(self.spans[1], b_width, b_rows.clone(), b_columns.clone()))?;
        let fours = |bound: Bound<'_>, sizes: [usize; 2]| {
            bound.is_in_fours() && sizes.iter().all(|size| size.is_multiple_of(4))
        };
        let along_k = !form.left() || form.right();
        let vectors = fours(a, [a_width, a_columns.len()])
            && fours(b, [b_width, b_columns.len()])
            && (!along_k || target.part.is_multiple_of(4));
        let side = tile.side();
        context.dispatch(Dispatch {
            kernel: of_tile(tile, if vectors { Loads::Vectors } else { Loads::Scalars }),
            constants: &[form.left().into(), form.right().into()],
            parameters: MatmulParameters {
                m: m.len() as u32,
                n: n.len() as u32,
                k: k.len() as u32,
                a_stride: a_width as u32,
                b_stride: b_width as u32,
                c_stride: target.stride as u32,
                a_base: a.base,
                b_base: b.base,
                c_base: target.c.base,
                bias_base: target.bias.map_or(0, |bias| bias.base),
                has_bias: target.bias.is_some().into(),
                accumulate: target.accumulate.into(),
                part: target.part as u32,
                c_plane: target.plane as u32,
            },
            // Without a bias A is bound in its place; the shader does not read it.
            bindings: &[a, b, target.bias.unwrap_or(a), target.c],
            grid: [n.len().div_ceil(side), m.len().div_ceil(side), k.len().div_ceil(target.part)],
        })
    }
}
