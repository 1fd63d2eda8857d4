// Reads the operands of a matrix product value by value: they may start at any offset and have rows of any length.

@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;

const FOUR: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

// The first `there` of the four values that start at `at`, followed by zeros. For each missing value the operand's first
// value is read instead, because branches are slow on software drivers.
fn read_a(at: u32, there: u32) -> vec4<f32> {
    let found = FOUR < vec4<u32>(there);
    let places = select(vec4<u32>(parameters.a_base), at + FOUR, found);
    return select(vec4<f32>(), vec4<f32>(a[places.x], a[places.y], a[places.z], a[places.w]), found);
}

fn read_b(at: u32, there: u32) -> vec4<f32> {
    let found = FOUR < vec4<u32>(there);
    let places = select(vec4<u32>(parameters.b_base), at + FOUR, found);
    return select(vec4<f32>(), vec4<f32>(b[places.x], b[places.y], b[places.z], b[places.w]), found);
}
