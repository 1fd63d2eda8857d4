//! How a batch is to be read: which steps of which rows there are, and whether numbers are drawn.

use crate::nn::RandomKey;
use crate::tensor::Indices;

/// Whether a pass through a stack draws random numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::nn) enum Mode {
    Training(RandomKey),
    Evaluation,
}

/// How the rows of a batch \[T, B\] are to be read: all of them whole, or ragged, or with restarts inside; and whether
/// the pass is one of training or of evaluation.
///
/// A row of a ragged batch ends after its length, in any order of lengths: its state stays as it is from there on,
/// its output and the gradient at its input are zero in the padding, whatever stands there, and the reverse
/// direction begins at its last valid step.
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
/// // The stack draws numbers in training: whoever wants gradients has to say which it is.
/// assert!(rnn.forward(&parameters, &x, &state).is_err());
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequences<'a> {
    pub(in crate::nn) lengths: Option<&'a Indices>,
    pub(super) resets: Option<&'a Indices>,
    pub(super) mode: Option<Mode>,
    /// How many steps of the sequence came before these.
    pub(super) first: usize,
}

impl<'a> Sequences<'a> {
    /// All steps of all rows.
    pub fn whole() -> Self {
        Self::default()
    }

    /// The first `lengths[b]` steps of each row b; lengths \[B\], from 0 to T. In a row of length 0 nothing happens: its
    /// outputs are zero, its final state is the initial one, and so are the gradients at the two.
    pub fn ragged(lengths: &'a Indices) -> Self {
        Self { lengths: Some(lengths), ..Self::default() }
    }

    /// With rows parted where `resets` \[T, B\] is not zero: a mark at step s of a row is the boundary between its steps
    /// s − 1 and s, which neither a state nor a gradient passes. The forward direction starts from zeros at step s, the
    /// reverse direction at step s − 1, so that sequences packed into one row yield what each yields alone from a zero
    /// state. A mark at a row's first step replaces the initial state of the forward direction by zeros and changes
    /// nothing in reverse; a mark in the padding changes nothing.
    ///
    /// A row has one initial and one final state: the first sequence has the final state of the reverse direction, the last
    /// one that of the forward direction, and the initial states are theirs the other way round.
    /// Chunks of [`Rnn::truncated`](super::Rnn::truncated) and windows of [`Rnn::windowed`](super::Rnn::windowed) count the
    /// steps of the row, whatever it is parted into.
    pub fn resets(self, resets: &'a Indices) -> Self {
        Self { resets: Some(resets), ..self }
    }

    /// In training: dropout and whatever else is random draws the numbers of `draw`.
    pub fn training(self, random_key: RandomKey) -> Self {
        Self { mode: Some(Mode::Training(random_key)), ..self }
    }

    /// In evaluation: nothing is random, and everything is kept. Gradients exist here too.
    pub fn evaluation(self) -> Self {
        Self { mode: Some(Mode::Evaluation), ..self }
    }

    /// Whether rows are neither ragged nor reset.
    pub(in crate::nn) fn is_whole(&self) -> bool {
        self.lengths.is_none() && self.resets.is_none()
    }

    /// The same steps, in evaluation unless something else was said.
    pub(super) fn or_evaluation(self) -> Self {
        Self { mode: Some(self.mode.unwrap_or(Mode::Evaluation)), ..self }
    }
}
