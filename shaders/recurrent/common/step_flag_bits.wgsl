// Step flags: bits of one row of the batch at one time step. Written by recurrent/states/step_flags.wgsl. CPU
// reference: src/ops/recurrent/traversal.rs, which computes the same from the lengths.

const VALID: u32 = 1u;
// The state before this step is the initial state.
const STARTS: u32 = 2u;
// The state before this step is zero, and no gradient flows to the step before.
const RESETS: u32 = 4u;
// The state before this step keeps its value, but no gradient flows to it.
const CUTS: u32 = 8u;
