// partial[g, c] = sum of x[r, c] over the rows r of chunk g, in a fixed order. The host repeats the pass on its own result
// until one row is left.
//   x [rows, columns]; partial [chunks, columns]. A workgroup sums 64 columns of one chunk, 4 rows at a time.
//   CPU reference: src/ops/reduce/cpu.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

var<workgroup> lanes: array<f32, 256>;

@compute @workgroup_size(64, 4)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = parameters.first_column + group.x * 64u + local.x;
    let first = group.y * parameters.chunk;
    let last = min(first + parameters.chunk, parameters.rows);
    var total = 0.0;
    if column < parameters.columns {
        for (var row = first + local.y; row < last; row = row + 4u) {
            total = total + x[parameters.x_base + row * parameters.columns + column];
        }
    }
    lanes[local.y * 64u + local.x] = total;
    workgroupBarrier();
    if local.y == 0u && column < parameters.columns {
        let sum = (lanes[local.x] + lanes[64u + local.x]) + (lanes[128u + local.x] + lanes[192u + local.x]);
        partial[parameters.partial_base + group.y * parameters.columns + column] = sum;
    }
}
