//! Maps characters to tokens.

use std::collections::BTreeSet;

use crate::{Error, Result};

/// The distinct characters of a text, ordered by code point. A character's token is its index.
///
/// ```
/// use refrain::data::Vocabulary;
/// let vocabulary = Vocabulary::of("banana")?;
/// assert_eq!(vocabulary.encode("nab")?, [2, 0, 1]);
/// assert_eq!(vocabulary.decode(&[1, 0, 2])?, "ban");
/// assert!(vocabulary.encode("x").is_err());
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    characters: Vec<char>,
}

/// The most characters listed in an error message.
const LISTED: usize = 200;

impl Vocabulary {
    /// The vocabulary of all characters of `text`.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty text.
    pub fn of(text: &str) -> Result<Self> {
        let characters: BTreeSet<char> = text.chars().collect();
        if characters.is_empty() {
            return Err(Error::config("text", "is empty: there are no characters to learn"));
        }
        Ok(Self { characters: characters.into_iter().collect() })
    }

    /// The number of characters.
    pub fn len(&self) -> usize {
        self.characters.len()
    }

    /// Always `false`: a vocabulary has at least one character.
    pub fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }

    /// The characters in the order of their tokens; [`Vocabulary::of`] of the result is the same vocabulary.
    pub fn characters(&self) -> String {
        self.characters.iter().collect()
    }

    /// Returns the tokens of `text`.
    ///
    /// # Errors
    /// [`Error::Config`] for a character that is not in the vocabulary; the message names the first one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let token = |character: char| match self.characters.binary_search(&character) {
            Ok(place) => Ok(place as u32),
            Err(_) => {
                let some: String = self.characters.iter().take(LISTED).collect();
                let more = match self.len().saturating_sub(LISTED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let message = format!(
                    "contains the character {character:?}, which is not in the vocabulary: {some:?}{more}"
                );
                Err(Error::config("text", message))
            }
        };
        text.chars().map(token).collect()
    }

    /// Returns the text of `tokens`.
    ///
    /// # Errors
    /// [`Error::Index`] for a token outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let character = |&token: &u32| {
            self.characters.get(token as usize).copied().ok_or_else(|| Error::Index {
                what: "tokens".to_owned(),
                index: token.into(),
                bound: self.len() as u64,
            })
        };
        tokens.iter().map(character).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_lists_some_characters_of_a_large_alphabet() -> Result<()> {
        let all: String = ('\u{4e00}'..='\u{9fff}').collect();
        let message = match Vocabulary::of(&all)?.encode("x") {
            Err(error) => error.to_string(),
            Ok(tokens) => panic!("{tokens:?}"),
        };
        assert!(message.contains("'x'") && message.contains("and 20792 more"), "{message}");
        assert!(message.chars().count() < 400, "{message}");
        let few = Vocabulary::of("ab")?.encode("x").map_err(|error| error.to_string());
        assert_eq!(
            few,
            Err("text: contains the character 'x', which is not in the vocabulary: \"ab\"".to_owned())
        );
        Ok(())
    }
}
