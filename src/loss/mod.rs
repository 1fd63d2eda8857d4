//! Loss functions and their gradients.

use crate::ops::cross_entropy::{self, LossOptions, Scale};
use crate::ops::{Reduction, sum};
use crate::tensor::{Indices, Tensor, View};
use crate::{Error, Result};

/// Mean cross-entropy of softmax(logits) against labels, with the gradient with respect to the logits:
/// −1/N Σ_i ln softmax(x_i)_{label_i} over the N rows whose label is not [`IGNORED`](crate::IGNORED).
///
/// logits \[..., C\], labels \[...\] → loss \[1\], d_logits \[..., C\]. The loss is in nats; divide by ln 2 for bits.
///
/// A logit of −∞ gives its class probability 0; if it is the label's, the loss is +∞. NaN and +∞ make the loss and the
/// gradient of their row NaN, unless its label is ignored.
///
/// # Errors
/// [`Error::Shape`], [`Error::DeviceMismatch`], [`Error::Index`] for a label of C or more, [`Error::Config`] if
/// every label is ignored.
///
/// ```
/// use refrain::{Device, Indices, Tensor, loss};
/// let device = Device::cpu();
/// let logits = Tensor::zeros(&device, &[1, 4])?;
/// let labels = Indices::from_slice(&device, &[1], &[2])?;
/// let (loss, d_logits) = loss::cross_entropy(&logits, &labels)?;
/// assert!((loss.read()? - 4f32.ln()).abs() < 1e-6);
/// assert_eq!(d_logits.download()?, [0.25, 0.25, -0.75, 0.25]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn cross_entropy(logits: &Tensor, labels: &Indices) -> Result<(Tensor, Tensor)> {
    CrossEntropy::default().reduced(logits, labels, Reduction::Mean)
}

/// Cross-entropy with class weights w and label smoothing ε (Szegedy et al. 2016), as PyTorch defines them. With
/// p = softmax(x_i) and label t, the loss of row i is
///
/// ℓ_i = (1 − ε) w_t (−ln p_t) + ε/C Σ_j w_j (−ln p_j).
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    weights: Option<Tensor>,
    smoothing: f32,
}

impl CrossEntropy {
    /// Sets a weight per class \[C\].
    pub fn weights(self, weights: Tensor) -> Self {
        Self { weights: Some(weights), ..self }
    }

    /// Sets label smoothing, from 0 (none) to 1.
    pub fn smoothing(self, smoothing: f32) -> Self {
        Self { smoothing, ..self }
    }

    fn options(&self) -> LossOptions<'_> {
        LossOptions { weights: self.weights.as_ref().map(View::from), smoothing: self.smoothing }
    }

    /// Returns the reduced loss \[1\] and its gradient with respect to the logits \[..., C\].
    ///
    /// # Errors
    /// As [`cross_entropy`]; [`Error::Config`] for a smoothing outside 0 to 1.
    pub fn reduced(
        &self,
        logits: &Tensor,
        labels: &Indices,
        reduction: Reduction,
    ) -> Result<(Tensor, Tensor)> {
        let scale = match reduction {
            Reduction::Sum => Scale::Same(1.0),
            Reduction::Mean if labels.counted() == 0 => {
                return Err(Error::config("labels", "are all ignored, so their mean loss is undefined"));
            }
            Reduction::Mean => Scale::MeanWeight,
        };
        let rows = cross_entropy::rows(logits.view(), labels, self.options(), scale)?;
        Ok((sum(&rows.losses)?, rows.d_logits))
    }

    /// Returns the loss of each row \[...\]; zero if the label is ignored.
    ///
    /// # Errors
    /// As [`CrossEntropy::reduced`].
    pub fn rows(&self, logits: &Tensor, labels: &Indices) -> Result<Tensor> {
        Ok(cross_entropy::rows(logits.view(), labels, self.options(), Scale::Same(1.0))?.losses)
    }

    /// Returns the gradient with respect to the logits \[..., C\], from the gradient `d_losses` of the rows' losses \[...\].
    ///
    /// # Errors
    /// As [`CrossEntropy::reduced`].
    pub fn rows_backward(&self, logits: &Tensor, labels: &Indices, d_losses: &Tensor) -> Result<Tensor> {
        let scale = Scale::Rows(d_losses.view());
        Ok(cross_entropy::rows(logits.view(), labels, self.options(), scale)?.d_logits)
    }
}
