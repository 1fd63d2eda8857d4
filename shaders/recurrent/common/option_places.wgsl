// Offsets of a recurrent layer's real-valued options, which are stored before its initial state.
// recurrent/common/write_options.wgsl writes them once per pass; recurrent/common/read_options.wgsl reads
// them.

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
// The number of options.
const OPTIONS: u32 = 11u;
