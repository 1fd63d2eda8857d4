// Marks of one row of the batch at one time step; set by recurrent/states/step_flags.wgsl, read by all that walk over a batch.
// CPU reference: src/ops/recurrent/traversal.rs, which asks the same questions of the lengths themselves.

const VALID: u32 = 1u;
// The state before this step is the initial one.
const STARTS: u32 = 2u;
// The state before this step is zero, and no gradient flows back past it.
const RESETS: u32 = 4u;
// The state before this step keeps its value, but no gradient flows back to it.
const CUTS: u32 = 8u;
