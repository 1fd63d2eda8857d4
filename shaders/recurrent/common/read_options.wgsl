// Reads the real-valued options of a layer: zoneout rates, clipping bounds, parameters of activations. As
// pipeline constants, each value would compile a pipeline of its own.

// 1: the arguments of the gates' activations are clipped.
override CLIPS_GATES: u32 = 0u;
// 1: the cell state is clipped.
override CLIPS_CELL: u32 = 0u;
// 1: activations of gates have parameters.
override HAS_ALPHA: u32 = 0u;

// Zero where the layer has none.
var<private> zoneout_hidden: f32;
var<private> zoneout_cell: f32;
var<private> clip_gates: f32;
var<private> clip_cell: f32;
var<private> gate_alpha: f32;
var<private> gate_beta: f32;
var<private> candidate_alpha: f32;
var<private> candidate_beta: f32;
var<private> output_alpha: f32;
var<private> output_beta: f32;

// The options are stored before the initial state (recurrent/common/option_places.wgsl).
fn option_at(place: u32) -> f32 { return initial[parameters.initial_base - OPTIONS + place]; }

fn read_options() {
    if ZONEOUT != 0u {
        zoneout_hidden = option_at(ZONEOUT_HIDDEN);
        zoneout_cell = option_at(ZONEOUT_CELL);
    }
    if CLIPS_GATES != 0u { clip_gates = option_at(CLIP_GATES); }
    if CLIPS_CELL != 0u { clip_cell = option_at(CLIP_CELL); }
    if HAS_ALPHA != 0u {
        gate_alpha = option_at(GATE_ALPHA);
        gate_beta = option_at(GATE_BETA);
        candidate_alpha = option_at(CANDIDATE_ALPHA);
        candidate_beta = option_at(CANDIDATE_BETA);
        output_alpha = option_at(OUTPUT_ALPHA);
        output_beta = option_at(OUTPUT_BETA);
    }
}
