//! Which steps of which rows of a batch are there.

use crate::tensor::Indices;

/// How the rows of a batch \[T, B\] are to be read: all of them whole, or ragged, or with restarts inside.
///
/// A row of a ragged batch ends after its length, in any order of lengths: its state stays as it is from there on,
/// its output and the gradient at its input are zero in the padding, whatever stands there, and the reverse
/// direction begins at its last valid step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequences<'a> {
    pub(super) lengths: Option<&'a Indices>,
    pub(super) resets: Option<&'a Indices>,
}

impl<'a> Sequences<'a> {
    /// All steps of all rows.
    pub fn whole() -> Self {
        Self::default()
    }

    /// The first `lengths[b]` steps of each row b; lengths \[B\], from 1 to T.
    pub fn ragged(lengths: &'a Indices) -> Self {
        Self { lengths: Some(lengths), resets: None }
    }

    /// With the state set to zero before each step where `resets` \[T, B\] is not zero; no gradient flows back past
    /// such a step. In the reverse direction "before" is later in time.
    pub fn resets(self, resets: &'a Indices) -> Self {
        Self { resets: Some(resets), ..self }
    }
}
