//! The hash of the caches that each dispatch looks into.

use std::hash::Hasher;

/// A fast hash, not protected against chosen collisions: each word is multiplied into the previous ones.
#[derive(Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // 2^64 divided by the golden ratio, rounded to an odd number (Knuth, The Art of Computer Programming
        // 3, 6.4).
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        // The upper bits are well mixed; hash tables use the lower bits too.
        self.0 ^ (self.0 >> 32)
    }
}
