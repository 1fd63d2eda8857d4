// Reductions over the invocations that share one row of a matrix, in a fixed order; each of them receives the result. A
// workgroup of 256 invocations processes 256 >> LANE_BITS rows. src/gpu/row_reduction.rs chooses LANE_BITS.

// 2^LANE_BITS invocations share a row.
override LANE_BITS: u32 = 8u;

var<workgroup> lanes: array<f32, 256>;

// The row of invocation `index` of a workgroup. Invocations of rows past the last one join every reduction with neutral
// values.
fn row_of(group: u32, index: u32) -> u32 {
    return group * (256u >> LANE_BITS) + (index >> LANE_BITS);
}

// The index of the invocation among those that share its row.
fn lane_of(index: u32) -> u32 {
    return index & ((1u << LANE_BITS) - 1u);
}

fn sum_of_lanes(value: f32, index: u32) -> f32 {
    if LANE_BITS == 0u {
        return value;
    }
    let lane = lane_of(index);
    lanes[index] = value;
    workgroupBarrier();
    for (var half = (1u << LANE_BITS) / 2u; half > 0u; half = half / 2u) {
        if lane < half {
            lanes[index] = lanes[index] + lanes[index + half];
        }
        workgroupBarrier();
    }
    let total = lanes[index - lane];
    workgroupBarrier();
    return total;
}

// The result is unspecified if a value is NaN.
fn largest_of_lanes(value: f32, index: u32) -> f32 {
    if LANE_BITS == 0u {
        return value;
    }
    let lane = lane_of(index);
    lanes[index] = value;
    workgroupBarrier();
    for (var half = (1u << LANE_BITS) / 2u; half > 0u; half = half / 2u) {
        if lane < half {
            lanes[index] = max(lanes[index], lanes[index + half]);
        }
        workgroupBarrier();
    }
    let largest = lanes[index - lane];
    workgroupBarrier();
    return largest;
}
