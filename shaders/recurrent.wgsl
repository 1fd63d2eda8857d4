// What the two step kernels and the cells share. GATES is the cell's.

// The state of one unit.
struct Memory {
    hidden: f32,
    cell: f32,
}

const TILE: u32 = 16u;
// One more column than needed keeps neighbouring invocations off the same memory bank.
const PITCH: u32 = 17u;

// 1: marks are bound; 0: every step is valid, and only the first one starts.
override MARKED: u32 = 0u;
// 1: a projection stands between what the cell makes of h and h itself.
override PROJECTED: u32 = 0u;
// 0: a dispatch does all of a step. For a cell whose last gate has a product of its own: 1: all before that product; 2: it
// and what follows.
override PHASE: u32 = 0u;

// The unit that this invocation computes, for cells that have weights of their own for each.
var<private> own_unit: u32;

fn marks_of(row: u32) -> u32 {
    if MARKED != 0u {
        return marks[parameters.marks_base + row];
    }
    return select(VALID, VALID | STARTS, parameters.starts != 0u);
}

struct Forward {
    // What backward needs of the gates.
    gates: array<f32, GATES>,
    // What backward needs beside them: the new cell state, where there is one.
    saved: f32,
    hidden: f32,
}

struct Step {
    gates: array<f32, GATES>,
    saved: f32,
    previous: Memory,
    hidden: f32,
}

struct Backward {
    // The gradient at the gates before their activation, as the projected input sees them.
    d_gates: array<f32, GATES>,
    // The gradient at the last gate's recurrent part, where it is not the same.
    d_apart: f32,
    // What flows to the previous state beside the product with the weights.
    d_hidden: f32,
    d_cell: f32,
}
