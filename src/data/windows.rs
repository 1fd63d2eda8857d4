//! Splits a token sequence into windows over a batch of parallel streams.

use crate::device::Device;
use crate::tensor::Indices;
use crate::{Error, Result};

/// One window: inputs, and for each input the token that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Inputs \[T, B\], time-major.
    pub tokens: Vec<u32>,
    /// The token after each input \[T, B\].
    pub targets: Vec<u32>,
    /// T.
    pub steps: usize,
    /// B.
    pub batch: usize,
    /// Whether the streams start here: use a zero initial state instead of the last window's final state.
    pub begins: bool,
}

impl Window {
    /// Uploads inputs and targets to `device`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn to_device(&self, device: &Device) -> Result<(Indices, Indices)> {
        let sizes = [self.steps, self.batch];
        Ok((
            Indices::from_slice(device, &sizes, &self.tokens)?,
            Indices::from_slice(device, &sizes, &self.targets)?,
        ))
    }
}

/// Splits a sequence into B parallel streams of equal length and yields T tokens of each at a time. Consecutive windows are
/// adjacent in each stream, so a state that is carried over continues the stream (truncated back-propagation through time).
///
/// ```
/// use refrain::data::Windows;
/// let windows = Windows::new(vec![0, 1, 2, 3, 4, 5, 6], 2, 2)?;
/// let first = windows.window(0);
/// assert_eq!(first.tokens, [0, 3, 1, 4]);
/// assert_eq!(first.targets, [1, 4, 2, 5]);
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Windows {
    tokens: Vec<u32>,
    batch: usize,
    steps: usize,
    stream: usize,
}

impl Windows {
    /// Splits `tokens` into `batch` streams with windows of `steps` steps. Tokens that do not fill a window of all
    /// streams are dropped.
    ///
    /// # Errors
    /// [`Error::Config`] if one of the sizes is zero or the sequence is too short for one window.
    pub fn new(tokens: Vec<u32>, batch: usize, steps: usize) -> Result<Self> {
        if batch == 0 || steps == 0 {
            return Err(Error::config(
                "windows",
                format!("need a batch and steps of at least 1, not {batch} and {steps}"),
            ));
        }
        let stream = tokens.len().saturating_sub(1) / batch;
        if stream < steps {
            let needed = batch.saturating_mul(steps).saturating_add(1);
            let found = tokens.len();
            return Err(Error::config(
                "text",
                format!(
                    "is too short: a batch of {batch} sequences of {steps} steps needs {needed} tokens, but there are {found}; use a smaller batch or shorter sequences"
                ),
            ));
        }
        Ok(Self { tokens, batch, steps, stream })
    }

    /// The number of windows per epoch.
    pub fn count(&self) -> usize {
        self.stream / self.steps
    }

    /// Returns window `index`, modulo [`Windows::count`].
    pub fn window(&self, index: usize) -> Window {
        let place = index % self.count();
        let first = place * self.steps;
        let at = |step: usize, row: usize| row * self.stream + first + step;
        let collect = |offset: usize| {
            (0..self.steps)
                .flat_map(|step| (0..self.batch).map(move |row| (step, row)))
                .map(|(step, row)| self.tokens[at(step, row) + offset])
                .collect()
        };
        Window {
            tokens: collect(0),
            targets: collect(1),
            steps: self.steps,
            batch: self.batch,
            begins: place == 0,
        }
    }
}
