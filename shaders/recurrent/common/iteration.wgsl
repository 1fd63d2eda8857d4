// How the kernels go on from step to step that take many in one dispatch.

// How many steps of this dispatch came before the present one.
var<private> iteration: u32;

// Of both directions each walks its own way.
fn direction() -> u32 { return select(parameters.direction, 0u - parameters.direction, second != 0u); }
// How far the present step lies from the first one in an array with `stride` elements a step; may be negative, modulo
// 2^32.
fn elapsed(stride: u32) -> u32 { return iteration * direction() * stride; }
