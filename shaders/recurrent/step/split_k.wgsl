// The product of a time step, for recurrent/step/{forward,backward,boundary}.wgsl, as split-K. A workgroup of
// 256 invocations computes 16 units of 4 << ROW_BITS rows, with each sum in slices: an invocation adds every
// slices()-th term for one unit of four rows. It reads weights from storage, and the other operand from
// workgroup memory, where it is loaded in chunks. Finally the slices are added in order. So a small batch
// uses all invocations, with many loads of weights in flight.
//
// The including kernel defines `operand`, an element of a row of the other operand, and `add_term`, which
// adds a term to the sums.

// Rows of a workgroup, as `SplitK` in src/ops/recurrent/gpu/split_k.rs chooses.
override ROW_BITS: u32 = 0u;

const UNITS: u32 = 16u;
const GROUP: u32 = 256u;

// Four rows per element: a chunk of the operand, [depth, rows / 4]; later up to four sums of every
// invocation.
var<workgroup> pool: array<vec4<f32>, 1024>;
const SUMS: u32 = 4u;

fn group_rows() -> u32 { return 4u << ROW_BITS; }
fn slices() -> u32 { return 16u >> ROW_BITS; }
// The depth of a chunk.
fn chunk() -> u32 { return 1024u >> ROW_BITS; }

// The unit, four rows and slice of an invocation. Neighbouring invocations have neighbouring units.
fn own_unit_of(index: u32) -> u32 { return index % UNITS; }
fn own_quad(index: u32) -> u32 { return (index / UNITS) & ((1u << ROW_BITS) - 1u); }
fn own_slice(index: u32) -> u32 { return index / (UNITS << ROW_BITS); }

// Adds this invocation's slice of the first `terms` terms; `weights` is the offset of its unit's first
// weight, and `stride` the distance to the next term's weight.
fn add_terms(index: u32, first_row: u32, terms: u32, weights: u32, stride: u32) {
    let quad = own_quad(index);
    let further = slices() * stride;
    for (var first = 0u; first < terms; first = first + chunk()) {
        let end = min(terms - first, chunk());
        if first != 0u { workgroupBarrier(); }
        for (var place = index; place < end << ROW_BITS; place = place + GROUP) {
            let row = first_row + 4u * (place & ((1u << ROW_BITS) - 1u));
            var rows: vec4<f32>;
            for (var four = 0u; four < 4u; four = four + 1u) { rows[four] = operand(row + four, first + (place >> ROW_BITS)); }
            pool[place] = rows;
        }
        workgroupBarrier();
        var inner = own_slice(index);
        var at = weights + (first + inner) * stride;
        // Four terms at a time keep four loads in flight; their operands are 16 elements apart, slices() <<
        // ROW_BITS.
        for (; inner + 3u * slices() < end; inner = inner + 4u * slices()) {
            let place = (inner << ROW_BITS) + quad;
            add_term(at, pool[place]);
            add_term(at + further, pool[place + 16u]);
            add_term(at + 2u * further, pool[place + 32u]);
            add_term(at + 3u * further, pool[place + 48u]);
            at = at + 4u * further;
        }
        for (; inner < end; inner = inner + slices()) {
            add_term(at, pool[(inner << ROW_BITS) + quad]);
            at = at + further;
        }
    }
}

// The row of the workgroup for which this invocation adds the slices; there is none from group_rows() on.
fn summed_row(index: u32) -> u32 { return index / UNITS; }

// Returns the sum for that row and the invocation's unit; every invocation has stored its slice as number
// `sum`.
fn add_slices(index: u32, sum: u32) -> f32 {
    let row = summed_row(index);
    let slices = select(0u, slices(), row < group_rows());
    var place = sum * GROUP + row / 4u * UNITS + own_unit_of(index);
    var total = 0.0;
    for (var count = 0u; count < slices; count = count + 1u) {
        total = total + pool[place][row % 4u];
        place = place + (UNITS << ROW_BITS);
    }
    return total;
}
