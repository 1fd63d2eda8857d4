// The marks of every row and step from the lengths and the mask of resets; one invocation a mark.
//   lengths [B], resets [T, B] -> marks [T, B]. CPU reference: src/ops/recurrent/traversal.rs.
// resets[s, b] parts step s - 1 of a row from step s: the later one starts from zeros forward, the earlier one in reverse.

// 1: the direction runs from the end of each row to its beginning.
override REVERSED: u32 = 0u;
// 1: there are lengths; 0: every row has all steps.
override RAGGED: u32 = 0u;
// 1: there is a mask of resets.
override MASKED: u32 = 0u;

@group(0) @binding(1) var<storage, read> lengths: array<u32>;
@group(0) @binding(2) var<storage, read> resets: array<u32>;
@group(0) @binding(3) var<storage, read_write> step_flags: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= parameters.count {
        return;
    }
    let step = (parameters.first + id.x) / parameters.rows;
    let row = (parameters.first + id.x) % parameters.rows;
    var length = parameters.steps;
    if RAGGED != 0u {
        length = lengths[parameters.lengths_base + row];
    }
    var flags = 0u;
    if step < length {
        flags = VALID;
        // How many steps of this row come before this one, in this direction.
        let before = select(step, length - 1u - step, REVERSED != 0u);
        if before == 0u {
            flags = flags | STARTS;
        }
        let position = parameters.earlier + before;
        if parameters.chunk != 0u && position != 0u && position % max(parameters.chunk, 1u) == 0u {
            flags = flags | CUTS;
        }
        let boundary = step + select(0u, 1u, REVERSED != 0u);
        if MASKED != 0u && boundary < length && resets[parameters.resets_base + id.x] != 0u {
            flags = flags | RESETS;
        }
    }
    step_flags[parameters.step_flags_base + id.x] = flags;
}
