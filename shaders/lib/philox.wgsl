// Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011), a counter-based random number generator. It returns the same integers as
// src/random.rs.

// The 64-bit product a b as (low, high), computed from four products of 16-bit halves.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    // Neither sum overflows: (2^16 - 1)^2 + (2^16 - 1) < 2^32.
    let left = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let right = (a & 0xffffu) * (b >> 16u) + (left & 0xffffu);
    return vec2<u32>(a * b, (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u));
}

// Numbers 4 block to 4 block + 3 of a stream. The key is the seed; low words come first.
fn philox_block(block: u32, seed: vec2<u32>, stream: vec2<u32>) -> vec4<u32> {
    var counter = vec4<u32>(block, 0u, stream.x, stream.y);
    var key = seed;
    for (var round = 0u; round < 10u; round = round + 1u) {
        let left = wide_product(0xD2511F53u, counter.x);
        let right = wide_product(0xCD9E8D57u, counter.z);
        counter = vec4<u32>(right.y ^ counter.y ^ key.x, right.x, left.y ^ counter.w ^ key.y, left.x);
        key = key + vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

// Number `index` of a stream.
fn philox_bits(index: u32, seed: vec2<u32>, stream: vec2<u32>) -> u32 {
    return philox_block(index / 4u, seed, stream)[index % 4u];
}
