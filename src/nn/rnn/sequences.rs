//! [`Sequences`]: the lengths and resets of a batch's rows, and whether a pass is training or evaluation.

use crate::nn::RandomKey;
use crate::tensor::Indices;

/// Whether a pass through a stack uses random numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::nn) enum Mode {
    Training(RandomKey),
    Evaluation,
}

/// The sequences in the rows of a batch \[T, B\]: whole, ragged, or with resets inside; and whether the pass
/// is training or evaluation.
///
/// A row of a ragged batch ends after its length; lengths need not be sorted. From there on its state is
/// constant, its output and the gradient of its input are zero whatever the input holds, and the reverse
/// direction starts at its last valid step.
///
/// ```
/// use refrain::Device;
/// use refrain::nn::{Cell, RandomKey, Model, Rnn, Sequences};
/// # use refrain::Tensor;
/// let device = Device::cpu();
/// let mut model = Model::new(1);
/// let rnn = model.add("rnn", Rnn::new(Cell::Gru, 3, 8).layers(2).dropout(0.2))?;
/// let parameters = model.initialize(&device)?;
/// let (x, state) = (Tensor::zeros(&device, &[5, 4, 3])?, rnn.zero_state(&device, 4)?);
/// for step in 0..3 {
///     let sequences = Sequences::whole().training(RandomKey::new(7, step));
///     let (y, _, trace) = rnn.forward_sequences(&parameters, &x, &state, sequences)?;
/// #   trace.backward(&y, None, &mut parameters.zero_gradients()?)?;
/// }
/// // The stack uses random numbers in training: a forward pass must request training or evaluation.
/// assert!(rnn.forward(&parameters, &x, &state).is_err());
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequences<'a> {
    pub(in crate::nn) lengths: Option<&'a Indices>,
    pub(super) resets: Option<&'a Indices>,
    pub(super) mode: Option<Mode>,
    /// How many steps of the sequence precede these.
    pub(super) first: usize,
}

impl<'a> Sequences<'a> {
    /// All steps of all rows.
    pub fn whole() -> Self {
        Self::default()
    }

    /// The first `lengths[b]` steps of each row b; lengths \[B\], from 0 to T. The outputs of a row of length
    /// 0 are zero, its final state is its initial state, and the gradients of the two are equal.
    pub fn ragged(lengths: &'a Indices) -> Self {
        Self { lengths: Some(lengths), ..Self::default() }
    }

    /// Resets the state where `resets` \[T, B\] is not zero. An entry at step s separates steps s − 1 and s
    /// of a row, so that neither state nor gradient crosses. The forward direction starts from zeros at step
    /// s, the reverse direction at step s − 1: sequences packed into one row yield what each yields alone
    /// from a zero state. An entry at a row's first step replaces the initial state of the forward direction
    /// by zeros and has no effect in reverse; an entry in the padding has no effect.
    ///
    /// A row has one initial and one final state. In the forward direction the initial state belongs to the
    /// row's first sequence and the final state to its last; in reverse it is the other way round. Chunks of
    /// [`Rnn::truncated`](super::Rnn::truncated) and windows of [`Rnn::windowed`](super::Rnn::windowed) count
    /// the steps of the whole row.
    pub fn resets(self, resets: &'a Indices) -> Self {
        Self { resets: Some(resets), ..self }
    }

    /// Training: dropout and zoneout use the random numbers of `random_key`.
    pub fn training(self, random_key: RandomKey) -> Self {
        Self { mode: Some(Mode::Training(random_key)), ..self }
    }

    /// Evaluation: dropout and zoneout are not random. Gradients can be computed here too.
    pub fn evaluation(self) -> Self {
        Self { mode: Some(Mode::Evaluation), ..self }
    }

    /// Whether there are neither lengths nor resets.
    pub(in crate::nn) fn is_whole(&self) -> bool {
        self.lengths.is_none() && self.resets.is_none()
    }

    /// The same sequences, in evaluation unless training was requested.
    pub(super) fn or_evaluation(self) -> Self {
        Self { mode: Some(self.mode.unwrap_or(Mode::Evaluation)), ..self }
    }
}
