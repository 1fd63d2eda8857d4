//! Unigram and bigram baselines for character models.
//!
//! Both models count characters in the training part and are smoothed by Witten & Bell (1991, "The zero-frequency
//! problem", method C), which has no free constant. With N characters of which D are distinct, a vocabulary
//! of V, counts c(·) and D(a) distinct characters seen after a:
//!
//! - unigram: p(b) = (c(b) + D / V) / (N + D),
//! - bigram, interpolated with it: p(b | a) = (c(ab) + D(a) p(b)) / (c(a) + D(a)).

use std::collections::HashMap;

/// Bits per character of both baselines on the same predictions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Baselines {
    /// The unigram model, which uses only the frequency of each character.
    pub(crate) unigram: f64,
    /// The bigram model, which also uses the previous character.
    pub(crate) bigram: f64,
}

impl Baselines {
    /// Counts `training`; predicts each token of `held_out` but the first from its predecessor.
    pub(crate) fn of(training: &[u32], held_out: &[u32], vocabulary: usize) -> Self {
        let counts = Counts::of(training, vocabulary);
        let pairs = || held_out.windows(2).map(|pair| (pair[0], pair[1]));
        let bits = |sum: f64| -sum / pairs().count() as f64;
        Self {
            unigram: bits(pairs().map(|(_, next)| counts.unigram(next).log2()).sum()),
            bigram: bits(pairs().map(|(last, next)| counts.bigram(last, next).log2()).sum()),
        }
    }
}

/// Counts of characters and pairs of characters.
struct Counts {
    /// c(b).
    single: Vec<f64>,
    /// c(ab).
    pairs: HashMap<(u32, u32), f64>,
    /// c(a) as the first of a pair.
    followed: Vec<f64>,
    /// D(a).
    followers: Vec<f64>,
    /// N.
    total: f64,
    /// D.
    different: f64,
}

impl Counts {
    fn of(tokens: &[u32], vocabulary: usize) -> Self {
        let mut single = vec![0.0; vocabulary];
        for &token in tokens {
            single[token as usize] += 1.0;
        }
        let mut pairs = HashMap::new();
        let (mut followed, mut followers) = (vec![0.0; vocabulary], vec![0.0; vocabulary]);
        for pair in tokens.windows(2) {
            let count = pairs.entry((pair[0], pair[1])).or_insert(0.0);
            followers[pair[0] as usize] += if *count == 0.0 { 1.0 } else { 0.0 };
            followed[pair[0] as usize] += 1.0;
            *count += 1.0;
        }
        let different = single.iter().filter(|&&count| count > 0.0).count() as f64;
        Self { single, pairs, followed, followers, total: tokens.len() as f64, different }
    }

    fn unigram(&self, next: u32) -> f64 {
        let share = self.different / self.single.len() as f64;
        (self.single[next as usize] + share) / (self.total + self.different)
    }

    fn bigram(&self, last: u32, next: u32) -> f64 {
        let (followed, followers) = (self.followed[last as usize], self.followers[last as usize]);
        if followers == 0.0 {
            return self.unigram(next);
        }
        let count = self.pairs.get(&(last, next)).copied().unwrap_or(0.0);
        (count + followers * self.unigram(next)) / (followed + followers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_for_every_context() {
        // Token 3 never occurs, and token 2 is never followed.
        let counts = Counts::of(&[0, 1, 0, 0, 1, 2], 4);
        let unigram: f64 = (0..4).map(|next| counts.unigram(next)).sum();
        assert!((unigram - 1.0).abs() < 1e-12);
        for last in 0..4 {
            let bigram: f64 = (0..4).map(|next| counts.bigram(last, next)).sum();
            assert!((bigram - 1.0).abs() < 1e-12, "context {last}: {bigram}");
        }
    }

    #[test]
    fn the_equations_hold_on_a_counted_example() {
        // c(0) = 3, c(1) = 2, N = 5, D = 2, V = 4; after 0: 1 twice, 0 once.
        let counts = Counts::of(&[0, 1, 0, 0, 1], 4);
        assert!((counts.unigram(0) - 3.5 / 7.0).abs() < 1e-12);
        assert!((counts.unigram(3) - 0.5 / 7.0).abs() < 1e-12);
        assert!((counts.bigram(0, 1) - (2.0 + 2.0 * (2.5 / 7.0)) / 5.0).abs() < 1e-12);
    }

    #[test]
    fn alternating_characters_cost_one_bit_alone_and_almost_none_in_context() {
        let tokens: Vec<u32> = (0..20_000).map(|place| place % 2).collect();
        let baselines = Baselines::of(&tokens, &tokens[..1001], 2);
        assert!((baselines.unigram - 1.0).abs() < 1e-3, "{baselines:?}");
        assert!(baselines.bigram < 1e-3, "{baselines:?}");
    }
}
