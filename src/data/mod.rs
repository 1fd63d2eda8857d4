//! From text to batches: vocabularies and windows for truncated back-propagation through time.

mod vocabulary;
mod windows;

pub use vocabulary::Vocabulary;
pub use windows::{Window, Windows};
