// Cross-entropy of softmax(x) against labels, with class weights w and label smoothing e, and its gradient, in one pass.
// For row i with label t and p = softmax(x_i), over C classes:
//   loss_i = scale_i [ (1-e) w_t (-ln p_t) + e/C sum_j w_j (-ln p_j) ]
//   dx_ij  = scale_i [ (1-e) w_t (p_j - [j = t]) + e/C (p_j sum_k w_k - w_j) ]
// Rows whose label is IGNORED yield zeros.
//   logits, d_logits [rows, classes]; labels, losses [rows]; weights [classes]; scales [1] or [rows]. Rows are assigned to
//   invocations as in lib/row_reduction.wgsl. CPU reference: src/ops/cross_entropy/cpu.rs.

// The source of scale_i. 0: the parameter; 1: 1 / scales[0]; 2: scales[i].
override SCALE: u32 = 0u;
// 1: classes are weighted.
override WEIGHTED: u32 = 0u;

const IGNORED: u32 = 0xffffffffu;

@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read_write> losses: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_logits: array<f32>;

fn weight(class_index: u32) -> f32 {
    if WEIGHTED != 0u {
        return weights[parameters.weights_base + class_index];
    }
    return 1.0;
}

fn scale_of(row: u32) -> f32 {
    switch SCALE {
        case 1u: { return 1.0 / scales[parameters.scales_base]; }
        case 2u: { return scales[parameters.scales_base + row]; }
        default: { return parameters.scale; }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = lane_of(index);
    let row = row_of(group.x, index);
    let exists = row < parameters.rows;
    let classes = select(0u, parameters.classes, exists);
    let safe_row = select(0u, row, exists);
    let x = parameters.logits_base + safe_row * classes;
    let label = labels[parameters.labels_base + safe_row];
    var seen = logits[x];
    for (var j = lane; j < classes; j = j + (1u << LANE_BITS)) {
        seen = max(seen, logits[x + j]);
    }
    let largest = largest_of_lanes(seen, index);
    var partial = 0.0;
    var partial_weight = 0.0;
    for (var j = lane; j < classes; j = j + (1u << LANE_BITS)) {
        partial = partial + exp_of_nonpositive(logits[x + j] - largest);
        partial_weight = partial_weight + weight(j);
    }
    let sum = sum_of_lanes(partial, index);
    let all_weights = sum_of_lanes(partial_weight, index);
    let log_sum = natural_log(sum);

    let counts = label != IGNORED;
    let target_class = select(0u, label, counts);
    let scale = select(0.0, scale_of(safe_row), counts);
    let hard = (1.0 - parameters.smoothing) * weight(target_class);
    let soft = parameters.smoothing / f32(parameters.classes);
    // Terms with zero weight are skipped: zero times an infinite -ln p_j would be NaN.
    let smooths = parameters.smoothing > 0.0;
    var partial_loss = 0.0;
    for (var j = lane; j < classes; j = j + (1u << LANE_BITS)) {
        let shifted = logits[x + j] - largest;
        let probability = exp_of_nonpositive(shifted) / sum;
        let loss = log_sum - shifted;
        let hit = select(0.0, 1.0, j == target_class);
        var gradient_at_gain = hard * (probability - hit);
        if j == target_class { partial_loss = partial_loss + hard * loss; }
        if smooths {
            partial_loss = partial_loss + soft * (weight(j) * loss);
            gradient_at_gain = gradient_at_gain + soft * (probability * all_weights - weight(j));
        }
        d_logits[parameters.d_logits_base + row * classes + j] = select(0.0, scale * gradient_at_gain, counts);
    }
    let loss = sum_of_lanes(partial_loss, index);
    if exists && lane == 0u {
        losses[parameters.losses_base + row] = select(0.0, scale * loss, counts);
    }
}
