//! Strategy `per_step`: one dispatch per time step, of `shaders/recurrent/step/{forward,backward}.wgsl`.

use super::split_k::{Block, SplitK};
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel};

/// The forward or backward kernel of a step, with its constants.
pub(crate) struct StepKernel<'k> {
    pub(crate) kernel: &'k Kernel,
    /// The constants of each dispatch of a step: one dispatch, or two for a cell that needs two phases.
    pub(crate) dispatches: Vec<Vec<u32>>,
    /// How many directions share a dispatch.
    pub(crate) directions: usize,
    pub(crate) split: SplitK,
}

impl StepKernel<'_> {
    /// Dispatches a step for all blocks; `parameters` returns those of a block.
    pub(crate) fn run<P: bytemuck::Pod>(
        &self,
        context: &Context,
        bindings: &[Bound<'_>],
        blocks: &[Block],
        parameters: impl Fn(&Block) -> P,
    ) -> Result<()> {
        for constants in &self.dispatches {
            for block in blocks {
                context.dispatch(Dispatch {
                    kernel: self.kernel,
                    constants,
                    parameters: parameters(block),
                    bindings,
                    grid: block.grid(self.split, self.directions),
                })?;
            }
        }
        Ok(())
    }
}
