//! Training data from text: text files, vocabularies, and windows for truncated back-propagation through time.

mod text;
mod vocabulary;
mod windows;

pub use text::{Text, TextChanges};
pub use vocabulary::Vocabulary;
pub use windows::{Window, Windows};
