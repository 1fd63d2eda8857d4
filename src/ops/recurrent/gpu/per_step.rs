//! A step of its own: `shaders/recurrent_{forward,backward}.wgsl`.

use super::split_k::SplitK;
use super::time_chunks::Block;
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, parameters};

parameters!(ForwardParameters {
    rows: u32,
    hidden_size: u32,
    /// P.
    projection_size: u32,
    width: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    /// From one unit's weight to the next one's, and from one term's: one of them is 1.
    weight_unit: u32,
    weight_term: u32,
    bias_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    step_flags_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    unprojected_base: u32,
    pass_flags: u32,
    /// Of both directions: how many steps behind the first one's place the second one's is in arrays [2, T, ..], and in
    /// arrays [T, ..]; modulo 2^32.
    second_behind: u32,
    second_beside: u32,
    /// Of the random numbers: the first that this step draws, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});
parameters!(BackwardParameters {
    rows: u32,
    batch: u32,
    hidden_size: u32,
    width: u32,
    d_width: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    step_flags_base: u32,
    /// The step after this one, in this direction.
    next_step_flags_base: u32,
    next_gates_base: u32,
    next_saved_base: u32,
    output_base: u32,
    d_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    carry_out_base: u32,
    carry_cell_out_base: u32,
    pass_flags: u32,
    /// Of both directions: how many steps behind the first one's place the second one's is in arrays [2, T, ..], and in
    /// arrays [T, ..]; modulo 2^32.
    second_behind: u32,
    second_beside: u32,
    /// Of the random numbers: the first that these rows draw, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});

/// One of the two kernels of a step, ready to be called.
pub(crate) struct StepKernel {
    pub(crate) kernel: &'static Kernel,
    /// The constants of each dispatch of a step.
    pub(crate) dispatches: Vec<Vec<u32>>,
    /// How many directions share a dispatch.
    pub(crate) directions: usize,
    pub(crate) split: SplitK,
}

impl StepKernel {
    /// Runs a step over all blocks; `parameters` are those of a block.
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
