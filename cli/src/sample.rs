//! `refrain sample`: generates text from a checkpoint.

use std::path::{Path, PathBuf};

use clap::Args;
use refrain::Error;
use refrain::data::Vocabulary;
use refrain::io::{Checkpoint, Metadata};

use crate::devices;
use crate::failure::{Failure, Result};
use crate::generate::{Manner, Writer};
use crate::terminal::stdout;
use crate::train::VOCABULARY_KEY;
use crate::values::{temperature, whole};

/// The most characters per call.
const LONGEST: usize = 10_000_000;

/// Options of `refrain sample`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Checkpoint written by `refrain train`
    checkpoint: PathBuf,
    /// Text to continue
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    prompt: String,
    /// Sampling temperature: lower is more conservative, 0 always selects the most likely character
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f64,
    /// Number of characters to generate after the prompt
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = whole::<usize>)]
    length: usize,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u64>)]
    seed: u64,
    /// Device: auto, cpu, reference, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,
}

/// Prints the prompt and the generated text.
///
/// # Errors
/// A file that is not a checkpoint of `refrain train`; a prompt with characters that are not in the vocabulary.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    temperature(arguments.temperature)?;
    if !(1..=LONGEST).contains(&arguments.length) {
        let message = format!("must be between 1 and {LONGEST}, not {}", arguments.length);
        return Err(Failure::option("--length", message));
    }
    let device = devices::open(&arguments.device)?;
    let Checkpoint { model, parameters, metadata } = Checkpoint::load(&arguments.checkpoint, &device)?;
    let vocabulary = vocabulary(&arguments.checkpoint, &metadata)?;
    let Arguments { temperature, length, seed, .. } = *arguments;
    let manner = Manner { temperature, length, stop: None, seed };
    let writer = Writer { model: &model, parameters: &parameters, vocabulary: &vocabulary };
    let text = writer.continue_from(&arguments.prompt, &manner, 0)?;
    Ok(writeln!(stdout(), "{}{}", arguments.prompt, text.trim_end_matches('\n'))?)
}

/// The vocabulary of a checkpoint.
fn vocabulary(path: &Path, metadata: &Metadata) -> Result<Vocabulary> {
    let refused = |message: &str| Error::Checkpoint { path: path.to_owned(), message: message.to_owned() };
    let characters = metadata.get(VOCABULARY_KEY).ok_or_else(|| {
        refused("contains a model without a vocabulary: it was not written by `refrain train`")
    })?;
    let vocabulary = Vocabulary::of(characters)?;
    if &vocabulary.characters() != characters {
        return Err(refused("has an invalid vocabulary: its characters are not in order").into());
    }
    Ok(vocabulary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_must_be_there_and_in_order() {
        let path = Path::new("model.safetensors");
        let with = |characters: &str| Metadata::from([(VOCABULARY_KEY.to_owned(), characters.to_owned())]);
        assert_eq!(vocabulary(path, &with("\nab")).expect("a vocabulary").len(), 3);
        for damaged in [Metadata::new(), with(""), with("ba"), with("aab")] {
            assert!(vocabulary(path, &damaged).is_err(), "{damaged:?}");
        }
    }
}
