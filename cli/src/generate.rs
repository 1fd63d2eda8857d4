//! Generates text from a model, character by character.

use refrain::data::Vocabulary;
use refrain::nn::{Model, ModelState, Parameters};
use refrain::random::Stream;
use refrain::{Device, Error, Indices};

use crate::failure::Result;

/// The first random stream of samples; lower streams are used to initialise parameters.
const FIRST_STREAM: u64 = 1 << 32;

/// A trained model with its vocabulary.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) model: &'a Model,
    pub(crate) parameters: &'a Parameters,
    pub(crate) vocabulary: &'a Vocabulary,
}

/// Sampling options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Logits are divided by it; zero selects the most likely character.
    pub(crate) temperature: f64,
    /// The most characters after the prompt.
    pub(crate) length: usize,
    /// The character at which to stop; it is not part of the text.
    pub(crate) stop: Option<char>,
    /// The seed of the random numbers.
    pub(crate) seed: u64,
}

impl Writer<'_> {
    /// Returns sample number `index`, a continuation of `prompt` without the prompt.
    ///
    /// If the vocabulary contains a line break, the model reads one before the prompt, so that the text starts a line.
    ///
    /// # Errors
    /// [`Error::Config`] for a character of the prompt that is not in the vocabulary; [`Error::NonFinite`] for a
    /// model with non-finite weights; errors of the model's `infer`.
    pub(crate) fn continue_from(&self, prompt: &str, manner: &Manner, index: u64) -> Result<String> {
        let stream = Stream::new(manner.seed, FIRST_STREAM + index);
        let mut state = self.model.zero_state(self.device(), 1)?;
        let stop = match manner.stop {
            Some(stop) => self.vocabulary.encode(&stop.to_string()).ok().map(|tokens| tokens[0]),
            None => None,
        };
        let mut read = self.opening(prompt, &stream)?;
        let mut written = Vec::new();
        for place in 0..manner.length {
            let logits = self.read(&read, &mut state)?;
            let next = choose(&logits, manner.temperature, stream.uniform(place as u64 + 1))?;
            if Some(next) == stop {
                break;
            }
            written.push(next);
            read = vec![next];
        }
        Ok(self.vocabulary.decode(&written)?)
    }

    fn device(&self) -> &Device {
        self.parameters.device()
    }

    /// The tokens to read first: the prompt after a line break, or any character if there is neither.
    fn opening(&self, prompt: &str, stream: &Stream) -> Result<Vec<u32>> {
        let mut opening = self.vocabulary.encode("\n").unwrap_or_default();
        opening.extend(self.vocabulary.encode(prompt).map_err(named_prompt)?);
        if opening.is_empty() {
            opening.push((stream.uniform(0) * self.vocabulary.len() as f64) as u32);
        }
        Ok(opening)
    }

    /// Reads `tokens`; returns the logits of the next character.
    fn read(&self, tokens: &[u32], state: &mut ModelState) -> Result<Vec<f32>> {
        let tokens = Indices::from_slice(self.device(), &[tokens.len(), 1], tokens)?;
        let (logits, next) = self.model.infer(self.parameters, &tokens, state)?;
        *state = next;
        let width = logits.shape().last();
        if width != self.vocabulary.len() {
            let expected = format!("{} outputs, one a character", self.vocabulary.len());
            return Err(Error::Shape { what: "the model".into(), expected, found: width.to_string() }.into());
        }
        let all = logits.download()?;
        Ok(all[all.len() - width..].to_vec())
    }
}

fn named_prompt(error: Error) -> Error {
    match error {
        Error::Config { message, .. } => Error::Config { what: "--prompt".to_owned(), message },
        other => other,
    }
}

/// Samples from softmax(logits / temperature) with the number `uniform` between 0 and 1; returns the most likely token at
/// temperature 0.
fn choose(logits: &[f32], temperature: f64, uniform: f64) -> Result<u32> {
    let likeliest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Err(Error::NonFinite { what: "a logit of the model".to_owned() }.into());
    }
    if temperature == 0.0 {
        return Ok(likeliest as u32);
    }
    let largest = f64::from(logits[likeliest]);
    let weights: Vec<f64> =
        logits.iter().map(|&logit| ((f64::from(logit) - largest) / temperature).exp()).collect();
    let mut left = uniform * weights.iter().sum::<f64>();
    for (token, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return Ok(token as u32);
        }
    }
    // Reached only through rounding.
    Ok(likeliest as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperature_zero_takes_the_likeliest() {
        assert_eq!(choose(&[0.0, 3.0, 1.0], 0.0, 0.999).unwrap(), 1);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0f32, 1.0, -1.0];
        let stream = Stream::new(3, 0);
        let draws = 20_000;
        let mut counts = [0u32; 3];
        for index in 0..draws {
            counts[choose(&logits, 0.5, stream.uniform(index)).unwrap() as usize] += 1;
        }
        let total: f64 = logits.iter().map(|&logit| (f64::from(logit) / 0.5).exp()).sum();
        for (count, logit) in counts.iter().zip(logits) {
            let expected = (f64::from(logit) / 0.5).exp() / total;
            let found = f64::from(*count) / draws as f64;
            // Four standard errors of a proportion.
            assert!((found - expected).abs() < 4.0 * (0.25 / draws as f64).sqrt(), "{found} {expected}");
        }
    }

    #[test]
    fn the_whole_unit_interval_is_covered() {
        assert_eq!(choose(&[1.0, 1.0], 1.0, 1e-9).unwrap(), 0);
        assert_eq!(choose(&[1.0, 1.0], 1.0, 1.0 - 1e-9).unwrap(), 1);
    }

    #[test]
    fn broken_weights_are_named() {
        assert!(choose(&[f32::NAN, 1.0], 1.0, 0.5).is_err());
        assert!(choose(&[f32::INFINITY, 1.0], 0.0, 0.5).is_err());
    }
}
