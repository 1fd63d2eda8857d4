//! Counter-based random numbers: number n of a stream depends only on (seed, stream, n), so that any device can compute any
//! of them in any order.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").

/// A stream of random numbers, identified by a seed and a stream number.
///
/// ```
/// use refrain::random::Stream;
/// let one = Stream::new(7, 0);
/// assert_eq!(one.bits(3), Stream::new(7, 0).bits(3));
/// assert_ne!(one.bits(3), Stream::new(7, 1).bits(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    stream: u64,
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The Philox4x32-10 bijection of a 128-bit counter under a 64-bit key.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let wide = |multiplier: u32, word: u32| u64::from(multiplier) * u64::from(word);
        let (left, right) = (wide(MULTIPLIERS[0], counter[0]), wide(MULTIPLIERS[1], counter[2]));
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

impl Stream {
    /// The stream `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream }
    }

    /// 32 random bits: number `index` of the stream.
    pub fn bits(&self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// Returns numbers 4 · `block` to 4 · `block` + 3, which are computed together.
    fn block(&self, block: u64) -> [u32; 4] {
        let [seed_low, seed_high, stream_low, stream_high] = self.words();
        let counter = [block as u32, (block >> 32) as u32, stream_low, stream_high];
        philox(counter, [seed_low, seed_high])
    }

    /// Iterates over the numbers of the stream, starting with number `first`.
    pub(crate) fn numbers_from(self, first: u64) -> impl Iterator<Item = u32> + Clone {
        (first / 4..).flat_map(move |block| self.block(block)).skip((first % 4) as usize)
    }

    /// Seed and stream, low words first, for shaders that compute the same numbers.
    pub(crate) fn words(&self) -> [u32; 4] {
        [self.seed as u32, (self.seed >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32]
    }

    /// Number `index` of the stream, uniform in the open interval (0, 1).
    pub fn uniform(&self, index: u64) -> f64 {
        (f64::from(self.bits(index)) + 0.5) / 4_294_967_296.0
    }

    /// Number `index` of the stream, uniform between `low` and `high`.
    pub fn uniform_between(&self, index: u64, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform(index)
    }

    /// Number `index` of the stream, normal with mean 0 and variance 1 (Box & Muller 1958). Uses numbers 2·`index` and
    /// 2·`index` + 1.
    pub fn normal(&self, index: u64) -> f64 {
        let (radius, angle) = (self.uniform(2 * index), self.uniform(2 * index + 1));
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_its_authors() {
        // kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn numbers_in_order_are_those_of_their_places() {
        let stream = Stream::new(5, 1 << 40);
        for first in [0, 1, 7, 1 << 33] {
            let drawn: Vec<u32> = stream.numbers_from(first).take(11).collect();
            let placed: Vec<u32> = (first..first + 11).map(|index| stream.bits(index)).collect();
            assert_eq!(drawn, placed);
        }
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let stream = Stream::new(1, 2);
        let values: Vec<f64> = (0..20_000).map(|index| stream.normal(index)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        // Four standard errors: 1/sqrt(n) for the mean, sqrt(2/n) for the variance.
        assert!(mean.abs() < 4.0 / 20_000f64.sqrt(), "{mean}");
        assert!((variance - 1.0).abs() < 4.0 * (2.0 / 20_000f64).sqrt(), "{variance}");
    }
}
