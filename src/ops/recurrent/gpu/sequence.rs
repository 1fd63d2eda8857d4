//! The strategies that compute many steps per dispatch: `sequence` with
//! `shaders/recurrent/sequence/{forward,backward}.wgsl`, and `persistent`, whose dispatch is in
//! `persistent/mod.rs`.

use std::ops::Range;

use super::operands::BackwardPass;
use super::parameters::{BackwardOperands, BackwardParameters, ForwardOperands, ForwardParameters};
use super::persistent::PersistentKernel;
use super::strategy::RowDivision;
use super::time_chunks::TimeChunk;
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, pieces};
use crate::ops::recurrent::{Call, Sizes};

/// A kernel that computes many steps per dispatch.
pub(crate) struct SequenceKernel<'k> {
    pub(crate) kind: KernelKind<'k>,
    /// How many directions share a dispatch.
    pub(crate) directions: usize,
}

/// The strategy of the kernel, with its constants and its division of the work.
pub(crate) enum KernelKind<'k> {
    /// `sequence`: each workgroup computes all units of some rows.
    Rows { kernel: &'k Kernel, constants: Vec<u32>, division: RowDivision },
    /// `persistent`: each workgroup computes some units, whose weights it keeps.
    Persistent(PersistentKernel<'k>),
}

impl SequenceKernel<'_> {
    /// Splits the steps `order` into groups that fit one dispatch each, and each group into ranges of rows.
    fn pieces<'o>(
        &self,
        context: &Context,
        call: &Call<'_>,
        sizes: Sizes,
        order: &'o [usize],
    ) -> impl Iterator<Item = (&'o [usize], Range<usize>)> {
        let (most, side) = match &self.kind {
            KernelKind::Rows { division, .. } => (
                division.steps(call.equations.gates(), sizes.hidden_size),
                context.limits().workgroups * division.rows(),
            ),
            KernelKind::Persistent(kernel) => (kernel.steps(), sizes.rows),
        };
        order.chunks(most).flat_map(move |steps| pieces(sizes.rows, side).map(move |rows| (steps, rows)))
    }

    fn dispatch<P: bytemuck::Pod>(
        &self,
        context: &Context,
        [steps, rows]: [usize; 2],
        bindings: &[Bound<'_>],
        parameters: P,
    ) -> Result<()> {
        match &self.kind {
            KernelKind::Rows { kernel, constants, division } => context.dispatch(Dispatch {
                kernel,
                constants,
                parameters,
                bindings,
                grid: [rows.div_ceil(division.rows()), 1, self.directions],
            }),
            KernelKind::Persistent(kernel) => kernel.dispatch(context, steps, bindings, parameters),
        }
    }

    /// Whether this is the persistent kernel. It reads W_hh as [G·H, H]; the others read it as [H, G·H] in
    /// the forward pass.
    pub(crate) fn is_persistent(&self) -> bool {
        matches!(self.kind, KernelKind::Persistent(_))
    }

    /// Computes all steps of a time chunk. W_hh must be transposed unless [`SequenceKernel::is_persistent`].
    pub(crate) fn forward(&self, operands: &ForwardOperands<'_>, chunk: &TimeChunk<'_>) -> Result<()> {
        let ForwardOperands { context, calls, sizes, .. } = *operands;
        let bound = operands.bind(chunk)?;
        let order = calls[0].traversal.order_of(chunk.steps.clone());
        for (steps, rows) in self.pieces(context, &calls[0], sizes, &order) {
            let parameters = ForwardParameters { first_row: rows.start as u32, ..bound.parameters(steps) };
            self.dispatch(context, [steps.len(), rows.len()], &bound.bindings(), parameters)?;
        }
        Ok(())
    }

    /// Computes the backward pass of a time chunk, from the last step to the first.
    pub(crate) fn backward(&self, operands: &BackwardOperands<'_>, chunk: &TimeChunk<'_>) -> Result<()> {
        let BackwardPass { context, call, sizes, .. } = *operands.pass;
        let bound = operands.bind(chunk)?;
        let mut order = call.traversal.order_of(chunk.steps.clone());
        order.reverse();
        for (steps, rows) in self.pieces(context, call, sizes, &order) {
            let parameters = BackwardParameters { first_row: rows.start as u32, ..bound.parameters(steps) };
            self.dispatch(context, [steps.len(), rows.len()], &bound.bindings(), parameters)?;
        }
        Ok(())
    }
}
