//! Splits a time loop into time chunks whose arrays fit a binding each.

use std::ops::Range;

use crate::Result;
use crate::gpu::{Bound, Buffer, Context, Span, pieces};
use crate::ops::recurrent::Sizes;

/// A time chunk: consecutive steps whose arrays fit a binding each, and the bound arrays.
pub(crate) struct TimeChunk<'a> {
    pub(crate) steps: Range<usize>,
    pub(crate) gates: ChunkArray<'a>,
    pub(crate) output: ChunkArray<'a>,
    pub(crate) d_output: ChunkArray<'a>,
    pub(crate) saved: ChunkArray<'a>,
    pub(crate) unprojected: ChunkArray<'a>,
    pub(crate) step_flags: Option<ChunkArray<'a>>,
}

/// The part of an array over time that is bound for a time chunk.
#[derive(Clone, Copy)]
pub(crate) struct ChunkArray<'a> {
    pub(crate) bound: Bound<'a>,
    /// The first bound step.
    pub(crate) first: usize,
    /// Elements from one step to the next.
    pub(crate) stride: usize,
    /// The column of the direction within a row.
    pub(crate) column: usize,
}

impl ChunkArray<'_> {
    /// The offset of step `t`. For a step before the first bound one, which is not read, it is the offset of
    /// the first.
    pub(crate) fn at(&self, t: usize) -> u32 {
        self.bound.base + (t.saturating_sub(self.first) * self.stride + self.column) as u32
    }
}

/// How many steps before and after each step a pass reads, in the order of the direction.
#[derive(Clone, Copy)]
pub(crate) struct Reach {
    pub(crate) before: usize,
    pub(crate) after: usize,
}

/// The arrays over time of a pass, and the neighbouring steps that it reads of each.
pub(crate) struct Arrays<'a> {
    pub(crate) gates: (Span<'a>, Reach),
    pub(crate) output: (Span<'a>, Reach),
    /// The gradient of the output; in the forward pass the output itself, which is not read through it.
    pub(crate) d_output: Span<'a>,
    pub(crate) saved: Option<(Span<'a>, Reach)>,
    pub(crate) unprojected: Option<Span<'a>>,
    pub(crate) step_flags: Option<(Span<'a>, Reach)>,
    /// Buffers bound where a cell saves nothing and where there is no projection.
    pub(crate) dummy_bindings: &'a [Buffer; 2],
    /// The columns of the direction in the output and in d_output.
    pub(crate) columns: [usize; 2],
    pub(crate) reversed: bool,
    /// 1, or 2 for arrays [2, T, ..], whose whole length must fit a binding; outputs are [T, ..] in both
    /// cases.
    pub(crate) directions: usize,
}

impl<'a> Arrays<'a> {
    /// Splits time so that every array fits a binding. The chunks are in ascending order. A dry run has none:
    /// the steps themselves allocate nothing.
    pub(crate) fn time_chunks(&self, context: &Context, sizes: Sizes) -> Result<Vec<TimeChunk<'a>>> {
        if context.is_dry() {
            return Ok(Vec::new());
        }
        if self.directions > 1 {
            return Ok(vec![self.chunk(context, sizes, 0..sizes.steps)?]);
        }
        let elements = context.limits().binding_elements;
        let fitting = |(span, reach): (Span<'_>, Reach)| {
            (elements * sizes.steps / span.len()).saturating_sub(reach.before + reach.after)
        };
        let only = Reach { before: 0, after: 0 };
        let d_output = Some((self.d_output, only));
        let unprojected = self.unprojected.map(|span| (span, only));
        let all =
            [Some(self.gates), Some(self.output), self.saved, d_output, unprojected].into_iter().flatten();
        let fitting = all.map(fitting).min().unwrap_or(1).max(1);
        pieces(sizes.steps, fitting).map(|steps| self.chunk(context, sizes, steps)).collect()
    }

    fn chunk(&self, context: &Context, sizes: Sizes, steps: Range<usize>) -> Result<TimeChunk<'a>> {
        let window = |(span, reach): (Span<'a>, Reach), column: usize, directions: usize| {
            let (earlier, later) =
                if self.reversed { (reach.after, reach.before) } else { (reach.before, reach.after) };
            let first = steps.start.saturating_sub(earlier);
            let stride = span.len() / (directions * sizes.steps);
            let end = (steps.end + later).min(sizes.steps) * directions;
            let bound = context.bind(span.slice(first * stride..end * stride))?;
            Ok::<_, crate::Error>(ChunkArray { bound, first, stride, column })
        };
        let only = Reach { before: 0, after: 0 };
        let dummy = |index: usize| {
            let bound = context.bind(Span::new(&self.dummy_bindings[index], 0, 1))?;
            Ok(ChunkArray { bound, first: 0, stride: 0, column: 0 })
        };
        let saved = self.saved.map_or_else(|| dummy(0), |saved| window(saved, 0, self.directions))?;
        let unprojected = self.unprojected.map_or_else(|| dummy(1), |span| window((span, only), 0, 1))?;
        Ok(TimeChunk {
            gates: window(self.gates, 0, self.directions)?,
            output: window(self.output, self.columns[0], 1)?,
            d_output: window((self.d_output, only), self.columns[1], 1)?,
            saved,
            unprojected,
            step_flags: self
                .step_flags
                .map(|step_flags| window(step_flags, 0, self.directions))
                .transpose()?,
            steps,
        })
    }
}
