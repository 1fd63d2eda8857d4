//! The training text: its vocabulary, training part and held-out part.

use std::path::Path;

use refrain::Error;
use refrain::data::{Text, TextChanges, Vocabulary};
use refrain::io::read_file;

use crate::failure::Result;

/// The text included in the program; for its provenance and licence see `data/README.md`.
const ITALIAN_TOWNS: &str = include_str!("../../data/italian-towns.txt");

/// The largest text in bytes; its tokens need four times as much memory.
const LARGEST: u64 = 1 << 30;

/// A text whose median line is shorter than this is treated as a list: of names, words, titles.
const LIST_LINE: usize = 40;

/// What one sample of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A line, for lists.
    Line,
    /// A fixed number of characters, for running text.
    Window,
}

impl Unit {
    fn of(text: &str) -> Self {
        let lines = text.lines().count();
        let short = text.lines().filter(|line| line.chars().count() < LIST_LINE).count();
        if lines >= 20 && short * 10 >= lines * 9 { Self::Line } else { Self::Window }
    }
}

/// A text as tokens, split into a training and a held-out part.
pub(crate) struct Corpus {
    /// A description of its origin.
    pub(crate) source: String,
    /// The changes made when the file was decoded: byte-order mark, line ends.
    pub(crate) changes: TextChanges,
    /// The number of characters.
    pub(crate) characters: usize,
    /// All characters, including those of the held-out part.
    pub(crate) vocabulary: Vocabulary,
    /// The training part.
    pub(crate) training: Vec<u32>,
    /// The held-out part. Its first token is the last of the training part: the context of the first prediction, not itself
    /// predicted.
    pub(crate) held_out: Vec<u32>,
    /// What one sample is.
    pub(crate) unit: Unit,
}

impl Corpus {
    /// Reads the text at `path`, or the included one. Its last `fraction` is held out, of which up to `most` characters are
    /// used.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, is not UTF-8 or has fewer than two characters.
    pub(crate) fn read(path: Option<&Path>, fraction: f64, most: usize) -> Result<Self> {
        match path {
            None => Self::new("5,852 names of Italian towns".to_owned(), ITALIAN_TOWNS, fraction, most),
            Some(path) => {
                let text = read(path)?;
                let corpus = Self::new(path.display().to_string(), text.as_str(), fraction, most)?;
                Ok(Self { changes: text.changes(), ..corpus })
            }
        }
    }

    fn new(source: String, text: &str, fraction: f64, most: usize) -> Result<Self> {
        let problem = |message: &str| Error::Config { what: source.clone(), message: message.to_owned() };
        if text.is_empty() {
            return Err(problem("the text is empty: there are no characters to learn").into());
        }
        let vocabulary = Vocabulary::of(text)?;
        let mut training = vocabulary.encode(text)?;
        if training.len() < 2 {
            return Err(problem("the text has one character: there is nothing to predict").into());
        }
        let characters = training.len();
        let newline = vocabulary.encode("\n").ok().map(|tokens| tokens[0]);
        let cut = cut(&training, newline, fraction);
        let end = training.len().min(cut.saturating_add(most));
        let held_out = training[cut - 1..end].to_vec();
        training.truncate(cut);
        let (changes, unit) = (TextChanges::default(), Unit::of(text));
        Ok(Self { source, changes, characters, vocabulary, training, held_out, unit })
    }

    /// Fails unless the training part fills one window of `batch` rows and `sequence` steps.
    ///
    /// # Errors
    /// [`Error::Config`] with the length of the text and sizes that would fit.
    pub(crate) fn expect_window(&self, batch: usize, sequence: usize) -> Result<()> {
        let Self { source, characters, training, .. } = self;
        let learned = training.len();
        let needed = batch.saturating_mul(sequence).saturating_add(1);
        if learned >= needed {
            return Ok(());
        }
        let advice = match ((learned - 1) / sequence, (learned - 1) / batch) {
            (0, 0) => "use a longer text".to_owned(),
            (0, longest) => format!("use a longer text or `--sequence {longest}`"),
            (rows, _) => format!("use a longer text or `--batch {rows}`"),
        };
        let message = format!(
            "the text is too short: of its {characters} characters {} are held out for validation and {learned} are left \
             for training, but {batch} x {sequence} steps need {needed}; {advice}",
            characters - learned,
        );
        Err(Error::Config { what: source.clone(), message }.into())
    }
}

/// The start of the held-out part: `fraction` before the end, moved back to the start of a line if there is one within a
/// fifth of that length before it.
fn cut(tokens: &[u32], newline: Option<u32>, fraction: f64) -> usize {
    let held_out = (tokens.len() as f64 * fraction).ceil() as usize;
    let place = tokens.len().saturating_sub(held_out).max(1);
    let earliest = place.saturating_sub(held_out / 5).max(1);
    let starts = |&place: &usize| newline.is_some_and(|newline| tokens[place - 1] == newline);
    (earliest..=place).rev().find(starts).unwrap_or(place)
}

fn read(path: &Path) -> Result<Text> {
    let bytes = read_file(path, LARGEST)?;
    Text::decode(bytes).map_err(|error| match error {
        Error::Config { message, .. } => Error::Config { what: path.display().to_string(), message }.into(),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(text: &str, fraction: f64) -> Corpus {
        Corpus::new("test".to_owned(), text, fraction, usize::MAX).expect("a text of at least two characters")
    }

    #[test]
    fn every_character_is_either_learned_or_predicted_after_its_context() {
        let corpus = corpus("abcdefghij", 0.3);
        assert_eq!(corpus.vocabulary.decode(&corpus.training).unwrap(), "abcdefg");
        assert_eq!(corpus.vocabulary.decode(&corpus.held_out).unwrap(), "ghij");
    }

    #[test]
    fn the_cut_moves_back_to_the_start_of_a_near_line() {
        let near = corpus("aaaaaa\nbbbbbbbbbbb", 0.6);
        assert_eq!(near.vocabulary.decode(&near.training).unwrap(), "aaaaaa\n");
        let far = corpus("a\naaaaaaaabbbbbbbb", 0.4);
        assert_eq!(far.training.len(), 10);
    }

    #[test]
    fn the_text_that_ships_is_a_list_cut_between_names() {
        let corpus = Corpus::read(None, 0.1, usize::MAX).expect("the text ships with the program");
        assert_eq!(corpus.unit, Unit::Line);
        assert_eq!(corpus.vocabulary.len(), 47);
        let held_out = corpus.vocabulary.decode(&corpus.held_out).unwrap();
        assert!(held_out.starts_with('\n') && held_out.ends_with('\n'));
        let names = held_out.lines().count() - 1;
        assert!((580..=600).contains(&names), "{names}");
    }

    #[test]
    fn running_text_is_sampled_in_windows() {
        assert_eq!(Unit::of(&"a line of a book, which goes on for a good while\n".repeat(30)), Unit::Window);
        assert_eq!(Unit::of("one\ntwo\n"), Unit::Window);
    }

    #[test]
    fn a_text_that_is_too_short_is_refused_with_its_counts_and_what_fits() {
        let twelve = corpus("twelve chars", 0.1);
        let refused = twelve.expect_window(1, 32).expect_err("32 steps").to_string();
        for part in
            ["of its 12 characters 2 are held out", "10 are left for training", "need 33", "`--sequence 9`"]
        {
            assert!(refused.contains(part), "{part} in {refused}");
        }
        twelve.expect_window(1, 9).expect("what was advised");
        let refused = twelve.expect_window(4, 3).expect_err("12 predictions").to_string();
        assert!(refused.contains("`--batch 3`"), "{refused}");
        twelve.expect_window(3, 3).expect("what was advised");
        let refused = twelve.expect_window(20, 20).expect_err("400 predictions").to_string();
        assert!(refused.ends_with("use a longer text"), "{refused}");
        assert!(twelve.expect_window(usize::MAX, 2).is_err());
    }

    #[test]
    fn too_little_text_is_refused() {
        for text in ["", "a"] {
            assert!(Corpus::new("test".to_owned(), text, 0.1, 10).is_err());
        }
        assert_eq!(corpus("ab", 0.1).held_out.len(), 2);
    }
}
