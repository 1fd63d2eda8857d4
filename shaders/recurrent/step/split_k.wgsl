// The product of a time step, for recurrent_{forward,backward,boundary}.wgsl. A workgroup of 256 invocations computes 16 units
// of 4 << ROW_BITS rows, and cuts their sums into slices: an invocation adds up each slices()-th term at one unit of four
// rows. It reads weights where they stand, and the other operand from workgroup memory, whence it comes in chunks. In the
// end the slices are added up, in order. So a small batch, too, keeps all invocations busy, with many weights under way.
//
// The kernel around it has `operand`, that of a row at a place of the sums, and `add_term`, which adds a term to the sums.

// How many rows there are to a workgroup: Split in src/ops/recurrent/slices.rs.
override ROW_BITS: u32 = 0u;

const UNITS: u32 = 16u;
const GROUP: u32 = 256u;

// Of four rows each: a chunk of the operand, [depth, rows / 4]; then up to four sums of every invocation.
var<workgroup> pool: array<vec4<f32>, 1024>;
const SUMS: u32 = 4u;

fn group_rows() -> u32 { return 4u << ROW_BITS; }
fn slices() -> u32 { return 16u >> ROW_BITS; }
// How deep a chunk is.
fn chunk() -> u32 { return 1024u >> ROW_BITS; }

// The unit, the four rows and the slice of an invocation. Neighbours have neighbouring units.
fn own_unit_of(index: u32) -> u32 { return index % UNITS; }
fn own_quad(index: u32) -> u32 { return (index / UNITS) & ((1u << ROW_BITS) - 1u); }
fn own_slice(index: u32) -> u32 { return index / (UNITS << ROW_BITS); }

// Adds this invocation's slice of the first `terms` terms; `weights` is the place of the first weight of its unit, and
// `stride` how far the next term's lies from it.
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
        // Four at a time, so that as many weights are under way; their operands are 16 places apart, slices() << ROW_BITS.
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

// The row, of those of the workgroup, at which this invocation adds up the slices; beyond them there is none.
fn summed_row(index: u32) -> u32 { return index / UNITS; }

// The sum at that row and the invocation's unit, of what every invocation has put of its slice as number `sum`.
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
