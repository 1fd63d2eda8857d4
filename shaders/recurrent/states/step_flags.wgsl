// Computes the step flags of every row and step from the lengths and the reset mask. One invocation per
// element.
//   lengths [B], resets [T, B] -> step_flags [T, B].
// resets[s, b] separates step s - 1 of row b from step s: step s starts from zeros in the forward direction,
// step s - 1 in the reverse direction.
// CPU reference: src/ops/recurrent/traversal.rs.

// 1: the direction runs from the end of each row to its beginning.
override REVERSED: u32 = 0u;
// 1: lengths are bound; 0: every row has all steps.
override RAGGED: u32 = 0u;
// 1: a reset mask is bound.
override MASKED: u32 = 0u;

@group(0) @binding(1) var<storage, read> lengths: array<u32>;
@group(0) @binding(2) var<storage, read> resets: array<u32>;
@group(0) @binding(3) var<storage, read_write> step_flags: array<u32>;

fn compute(i: u32) {
    let step = (parameters.first + i) / parameters.rows;
    let row = (parameters.first + i) % parameters.rows;
    var length = parameters.steps;
    if RAGGED != 0u {
        length = lengths[parameters.lengths_base + row];
    }
    var flags = 0u;
    if step < length {
        flags = VALID;
        // How many steps of this row precede this one in this direction.
        let before = select(step, length - 1u - step, REVERSED != 0u);
        if before == 0u {
            flags = flags | STARTS;
        }
        let position = parameters.earlier + before;
        if parameters.chunk != 0u && position != 0u && position % max(parameters.chunk, 1u) == 0u {
            flags = flags | CUTS;
        }
        let boundary = step + select(0u, 1u, REVERSED != 0u);
        if MASKED != 0u && boundary < length && resets[parameters.resets_base + i] != 0u {
            flags = flags | RESETS;
        }
    }
    step_flags[parameters.step_flags_base + i] = flags;
}
