//! Step flags: what differs between the steps and rows of a batch (`shaders/recurrent/states/step_flags.wgsl`). CPU
//! reference: `src/ops/recurrent/traversal.rs`.

use std::ops::Range;

use crate::Result;
use crate::gpu::{Bound, Buffer, Context, Dispatch, ELEMENTWISE_GROUP, Span, kernels, parameters, pieces};
use crate::ops::recurrent::Call;
use crate::ops::recurrent::traversal::Traversal;

parameters!(StepFlagsParameters {
    count: u32,
    /// Index of the first flag of this dispatch among all flags.
    first: u32,
    rows: u32,
    steps: u32,
    lengths_base: u32,
    /// Offset, in the reset mask, of the boundary of the first flag: its own step, or the next one in
    /// reverse.
    resets_base: u32,
    step_flags_base: u32,
    /// The gradient is cut before every `chunk`-th step of the sequence; 0: nowhere.
    chunk: u32,
    /// Steps of the sequence before these.
    earlier: u32,
});

kernels! {
    STEP_FLAGS: "recurrent/states/step_flags" {
        uses: ["lib/elements", "recurrent/common/step_flag_bits"],
        parameters: StepFlagsParameters,
        constants: [("REVERSED", 2), ("RAGGED", 2), ("MASKED", 2)],
        bindings: [Read, Read, Write],
    }
}

/// The flags of all steps and rows [T, B]; none where no step needs any.
#[derive(Clone, Copy)]
pub(crate) struct StepFlags<'a> {
    pub(crate) span: Option<Span<'a>>,
}

impl<'a> StepFlags<'a> {
    /// The `count` flags of a buffer, if there is one.
    pub(crate) fn new(flags: Option<&'a Buffer>, count: usize) -> Self {
        Self { span: flags.map(|flags| Span::new(flags, 0, count)) }
    }

    /// Binds the flags `range`, if there are any.
    pub(crate) fn bind(&self, context: &Context, range: Range<usize>) -> Result<Option<Bound<'a>>> {
        self.span.map(|flags| context.bind(flags.slice(range))).transpose()
    }

    /// The flags of one of `count` directions.
    pub(crate) fn of(&self, index: usize, count: usize) -> Self {
        let part = |span: Span<'_>| span.len() / count;
        Self { span: self.span.map(|span| span.slice(index * part(span)..(index + 1) * part(span))) }
    }
}

/// Computes the flags of all directions, concatenated; none where every step of every row is alike.
pub(crate) fn step_flags(
    context: &Context,
    calls: &[Call<'_>],
    steps: usize,
    rows: usize,
) -> Result<Option<Buffer>> {
    if !calls[0].traversal.has_step_flags() {
        return Ok(None);
    }
    let count = steps * rows;
    let result = context.allocate(calls.len() * count, "the step flags of a batch")?;
    for (index, call) in calls.iter().enumerate() {
        write_step_flags(context, &call.traversal, Span::new(&result, index * count, count), rows)?;
    }
    Ok(Some(result))
}

fn write_step_flags(
    context: &Context,
    traversal: &Traversal<'_>,
    result: Span<'_>,
    rows: usize,
) -> Result<()> {
    let count = result.len();
    // A dummy binding replaces missing lengths or resets; the kernel does not read it.
    let dummy = context.allocate(1, "a dummy binding for lengths or resets")?;
    let dummy = context.bind(Span::new(&dummy, 0, 1))?;
    let lengths = traversal.lengths.map(|lengths| context.bind(lengths.span())).transpose()?;
    for piece in pieces(count, context.limits().elements(ELEMENTWISE_GROUP)) {
        let target = context.bind(result.slice(piece.clone()))?;
        // The boundary before a step is in the mask at that step, and in reverse at the next one; the last
        // step has none.
        let ahead = if traversal.reversed() { rows } else { 0 };
        let boundaries = (piece.start + ahead).min(count)..(piece.end + ahead).min(count);
        let resets = match traversal.resets {
            Some(resets) if !boundaries.is_empty() => Some(context.bind(resets.span().slice(boundaries))?),
            _ => None,
        };
        context.dispatch(Dispatch {
            kernel: &STEP_FLAGS,
            constants: &[traversal.reversed().into(), lengths.is_some().into(), resets.is_some().into()],
            parameters: StepFlagsParameters {
                count: piece.len() as u32,
                first: piece.start as u32,
                rows: rows as u32,
                steps: (count / rows) as u32,
                lengths_base: lengths.map_or(0, |bound| bound.base),
                resets_base: resets.map_or(0, |bound| bound.base),
                step_flags_base: target.base,
                chunk: traversal.chunk().unwrap_or(0) as u32,
                earlier: traversal.first as u32,
            },
            bindings: &[lengths.unwrap_or(dummy), resets.unwrap_or(dummy), target],
            grid: [piece.len().div_ceil(ELEMENTWISE_GROUP), 1, 1],
        })?;
    }
    Ok(())
}
