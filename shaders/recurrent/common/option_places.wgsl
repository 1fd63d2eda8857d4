// Where the real-valued options of a recurrent layer stand, before its initial state: written once a pass by
// recurrent/common/write_options.wgsl, read by the kernels of the layer.

const ZONEOUT_HIDDEN: u32 = 0u;
const ZONEOUT_CELL: u32 = 1u;
const CLIP_GATES: u32 = 2u;
const CLIP_CELL: u32 = 3u;
const CLIP_GRADIENT: u32 = 4u;
const GATE_ALPHA: u32 = 5u;
const GATE_BETA: u32 = 6u;
const CANDIDATE_ALPHA: u32 = 7u;
const CANDIDATE_BETA: u32 = 8u;
const OUTPUT_ALPHA: u32 = 9u;
const OUTPUT_BETA: u32 = 10u;
// How many there are.
const OPTIONS: u32 = 11u;
