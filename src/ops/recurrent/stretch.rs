//! How a walk over time is cut: blocks of rows and units that fit a grid, stretches of time that fit bindings.

use std::ops::Range;

use super::Sizes;
use super::slices::{Split, UNITS};
use crate::Result;
use crate::gpu::{Bound, Context, Span, pieces};

/// The part of the batch and of the units that one dispatch computes.
pub(super) struct Block {
    pub(super) rows: Range<usize>,
    pub(super) units: Range<usize>,
}

impl Block {
    /// The workgroups of a dispatch of one direction, or of both.
    pub(super) fn grid(&self, split: Split, directions: usize) -> [usize; 3] {
        [self.units.len().div_ceil(UNITS), self.rows.len().div_ceil(split.rows()), directions]
    }
}

/// Blocks that respect the device's grid, each of whole workgroups: one, but for the largest layers.
pub(super) fn blocks(context: &Context, sizes: Sizes, split: Split) -> Vec<Block> {
    let side = context.limits().workgroups;
    let columns = |rows: Range<usize>| {
        pieces(sizes.units, side * UNITS).map(move |units| Block { rows: rows.clone(), units })
    };
    pieces(sizes.rows, side * split.rows()).flat_map(columns).collect()
}

/// A stretch of time whose arrays fit their bindings, and the bound arrays.
pub(super) struct Stretch<'a> {
    pub(super) steps: Range<usize>,
    pub(super) gates: Window<'a>,
    pub(super) output: Window<'a>,
    pub(super) d_output: Option<Window<'a>>,
    pub(super) saved: Window<'a>,
    pub(super) unprojected: Window<'a>,
    pub(super) marks: Option<Window<'a>>,
}

/// A bound stretch of an array.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) bound: Bound<'a>,
    /// The first step that is bound.
    pub(super) first: usize,
    /// The elements from one step to the next.
    pub(super) stride: usize,
    /// Where in a step the direction's part begins.
    pub(super) column: usize,
}

impl Window<'_> {
    /// The place of step `t`; any place where the stretch does not reach that far, for steps that are not read.
    pub(super) fn at(&self, t: usize) -> u32 {
        self.bound.base + (t.saturating_sub(self.first) * self.stride + self.column) as u32
    }
}

/// Which neighbours of a step a pass reads beside the step itself, in the order of the direction.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub(super) before: usize,
    pub(super) after: usize,
}

/// The arrays that a direction walks over, and how far each is read.
pub(super) struct Arrays<'a> {
    pub(super) gates: (Span<'a>, Reach),
    pub(super) output: (Span<'a>, Reach),
    pub(super) d_output: Option<Span<'a>>,
    pub(super) saved: Option<(Span<'a>, Reach)>,
    pub(super) unprojected: Option<Span<'a>>,
    pub(super) marks: Option<(Span<'a>, Reach)>,
    /// Bound where a cell saves nothing, and where nothing is projected.
    pub(super) scraps: [Span<'a>; 2],
    /// Where in a step of the output, and of the gradient at it, the direction's part begins.
    pub(super) columns: [usize; 2],
    pub(super) reversed: bool,
    /// How many directions they are of: two of [2, T, ..], which fit bindings, but for the outputs [T, ..].
    pub(super) directions: usize,
}

impl<'a> Arrays<'a> {
    /// Cuts time so that everything fits, in ascending order.
    pub(super) fn stretches(&self, context: &Context, sizes: Sizes) -> Result<Vec<Stretch<'a>>> {
        if self.directions > 1 {
            return Ok(vec![self.stretch(context, sizes, 0..sizes.steps)?]);
        }
        let elements = context.limits().binding_elements;
        let fitting = |(span, reach): (Span<'_>, Reach)| {
            (elements * sizes.steps / span.len()).saturating_sub(reach.before + reach.after)
        };
        let only = Reach { before: 0, after: 0 };
        let d_output = self.d_output.map(|span| (span, only));
        let unprojected = self.unprojected.map(|span| (span, only));
        let all =
            [Some(self.gates), Some(self.output), self.saved, d_output, unprojected].into_iter().flatten();
        let fitting = all.map(fitting).min().unwrap_or(1).max(1);
        pieces(sizes.steps, fitting).map(|steps| self.stretch(context, sizes, steps)).collect()
    }

    fn stretch(&self, context: &Context, sizes: Sizes, steps: Range<usize>) -> Result<Stretch<'a>> {
        let window = |(span, reach): (Span<'a>, Reach), column: usize, directions: usize| {
            let (earlier, later) =
                if self.reversed { (reach.after, reach.before) } else { (reach.before, reach.after) };
            let first = steps.start.saturating_sub(earlier);
            let stride = span.len() / (directions * sizes.steps);
            let end = (steps.end + later).min(sizes.steps) * directions;
            let bound = context.bind(span.slice(first * stride..end * stride))?;
            Ok::<_, crate::Error>(Window { bound, first, stride, column })
        };
        let only = Reach { before: 0, after: 0 };
        let scrap =
            |span: Span<'a>| Ok(Window { bound: context.bind(span)?, first: 0, stride: 0, column: 0 });
        let saved =
            self.saved.map_or_else(|| scrap(self.scraps[0]), |saved| window(saved, 0, self.directions))?;
        let unprojected =
            self.unprojected.map_or_else(|| scrap(self.scraps[1]), |span| window((span, only), 0, 1))?;
        Ok(Stretch {
            gates: window(self.gates, 0, self.directions)?,
            output: window(self.output, self.columns[0], 1)?,
            d_output: self.d_output.map(|span| window((span, only), self.columns[1], 1)).transpose()?,
            saved,
            unprojected,
            marks: self.marks.map(|marks| window(marks, 0, self.directions)).transpose()?,
            steps,
        })
    }
}
