//! Dispatch of `shaders/matmul.wgsl`, cut so that every block fits a binding, a grid and a loop.

use std::ops::Range;

use super::{Form, Sizes};
use crate::Result;
use crate::gpu::{Context, Dispatch, Span, kernel, parameters, pieces};

parameters!(MatmulParameters {
    m: u32,
    n: u32,
    k: u32,
    a_stride: u32,
    b_stride: u32,
    c_stride: u32,
    a_base: u32,
    b_base: u32,
    c_base: u32,
    bias_base: u32,
    has_bias: u32,
    accumulate: u32,
});

/// Outputs along each side of a workgroup's block.
const TILE: usize = 64;
/// The deepest sum of one dispatch: some software drivers end any loop after 65,536 turns without a word.
const MAX_DEPTH: usize = 1 << 18;

kernel!(MATMUL: "matmul" {
    files: ["matmul"],
    parameters: MatmulParameters,
    constants: [("TRANSPOSE_A", 2), ("TRANSPOSE_B", 2)],
    bindings: [Read, Read, Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&crate::gpu::Kernel] = &[&MATMUL];

/// What is added to the product.
#[derive(Clone, Copy)]
pub(crate) enum Add<'a> {
    /// What the target holds.
    Previous,
    /// A bias, or nothing; the target's old values are not read.
    Bias(Option<Span<'a>>),
}

/// Spans are A, B and C, each stored row-major, B without gaps.
pub(crate) fn matmul(
    context: &Context,
    spans: [Span<'_>; 3],
    sizes: Sizes,
    form: Form,
    add: Add<'_>,
) -> Result<()> {
    let Sizes { m, n, k, a_width, c_width } = sizes;
    let elements = context.limits().binding_elements;
    let grid = context.limits().workgroups * TILE;
    // Each operand is cut along the dimension that its rows are stored by.
    let rows = |width: usize| (elements / width).max(1);
    let b_width = if form.right() { k } else { n };
    let mut largest = Sizes { m: grid.min(rows(c_width)), n: grid, k: MAX_DEPTH, a_width, c_width };
    let cut = |size: &mut usize, ceiling: usize| *size = ceiling.min(*size);
    cut(if form.left() { &mut largest.k } else { &mut largest.m }, rows(a_width));
    cut(if form.right() { &mut largest.n } else { &mut largest.k }, rows(b_width));

    for m in pieces(m, largest.m) {
        for n in pieces(n, largest.n) {
            for k in pieces(k, largest.k) {
                block(context, spans, sizes, form, add, [m.clone(), n.clone(), k])?;
            }
        }
    }
    Ok(())
}

/// The block `rows` by `columns` of a matrix of `width` columns: from its first to its last element.
fn stretch(whole: Span<'_>, width: usize, rows: Range<usize>, columns: Range<usize>) -> Span<'_> {
    whole.slice(rows.start * width + columns.start..(rows.end - 1) * width + columns.end)
}

fn block(
    context: &Context,
    [a, b, c]: [Span<'_>; 3],
    sizes: Sizes,
    form: Form,
    add: Add<'_>,
    [m, n, k]: [Range<usize>; 3],
) -> Result<()> {
    let a = match form.left() {
        true => stretch(a, sizes.a_width, k.clone(), m.clone()),
        false => stretch(a, sizes.a_width, m.clone(), k.clone()),
    };
    let (b_width, b) = match form.right() {
        true => (sizes.k, stretch(b, sizes.k, n.clone(), k.clone())),
        false => (sizes.n, stretch(b, sizes.n, k.clone(), n.clone())),
    };
    // The first piece of a sum writes or adds to the target as asked; the others add to it.
    let first = k.start == 0;
    let (bias, accumulate) = match add {
        Add::Previous => (None, true),
        Add::Bias(bias) => (bias.filter(|_| first), !first),
    };
    let a = context.bind(a)?;
    let b = context.bind(b)?;
    let c = context.bind(stretch(c, sizes.c_width, m.clone(), n.clone()))?;
    // Something must be bound where there is no bias; it is not read.
    let bias_bound = bias.map(|bias| context.bind(bias.slice(n.clone()))).transpose()?;
    context.dispatch(Dispatch {
        kernel: &MATMUL,
        constants: &[form.left().into(), form.right().into()],
        parameters: MatmulParameters {
            m: m.len() as u32,
            n: n.len() as u32,
            k: k.len() as u32,
            a_stride: sizes.a_width as u32,
            b_stride: b_width as u32,
            c_stride: sizes.c_width as u32,
            a_base: a.base,
            b_base: b.base,
            c_base: c.base,
            bias_base: bias_bound.map_or(0, |bound| bound.base),
            has_bias: bias_bound.is_some().into(),
            accumulate: accumulate.into(),
        },
        bindings: &[a, b, bias_bound.unwrap_or(a), c],
        grid: [n.len().div_ceil(TILE), m.len().div_ceil(TILE), 1],
    })
}
