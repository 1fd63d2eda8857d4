// d_table[v, :] += sum of dy[i, :] over all positions i with tokens[i] = v, in ascending order of i. It uses no atomics, so
// equal inputs give equal bits. The host groups the positions by token: group g is token groups[3g], with groups[3g + 2]
// positions starting at places[groups[3g + 1]].
//   places [T]; groups [G, 3]; d_y [T, features]; d_table [vocabulary, features]. One workgroup per group, one invocation
//   per feature at a time. CPU reference: src/ops/embedding/cpu.rs.

@group(0) @binding(1) var<storage, read> places: array<u32>;
@group(0) @binding(2) var<storage, read> groups: array<u32>;
@group(0) @binding(3) var<storage, read> d_y: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_table: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let entry = parameters.groups_base + 3u * (parameters.first_group + group.x);
    let token = groups[entry] - parameters.first_token;
    let first = parameters.places_base + groups[entry + 1u];
    let count = groups[entry + 2u];
    for (var feature = lane; feature < parameters.features; feature = feature + 64u) {
        var total = 0.0;
        for (var i = 0u; i < count; i = i + 1u) {
            let place = places[first + i] - parameters.first_place;
            total = total + d_y[parameters.d_y_base + place * parameters.features + feature];
        }
        let at = parameters.d_table_base + token * parameters.features + feature;
        d_table[at] = d_table[at] + total;
    }
}
