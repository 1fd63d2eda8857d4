//! Dropout: sets randomly chosen elements to zero.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::device::on_device;
use crate::math::Onto;
use crate::random::Stream;
use crate::tensor::{Tensor, View, ViewMut};
use crate::{Error, Result};

/// The elements that [`dropout`] sets to zero, as a function of a random stream, a rate and a period. Nothing is stored:
/// the backward pass, another device or another run recomputes the same mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    stream: Stream,
    rate: f32,
    period: u32,
    /// The index in the mask of a tensor's first element.
    first: usize,
}

impl Mask {
    /// Element i is dropped if number i of `stream`, uniform among the 32-bit integers, is below `rate` · 2³².
    ///
    /// # Errors
    /// [`Error::Config`] unless 0 ≤ `rate` < 1.
    pub fn new(stream: Stream, rate: f32) -> Result<Self> {
        expect_rate("dropout rate", rate)?;
        Ok(Self { stream, rate, period: u32::MAX, first: 0 })
    }

    /// Repeats the mask of the first `period` elements over all elements. With a period of B·F the mask over \[T, B, F\] is
    /// the same at every time step (variational dropout: Gal & Ghahramani 2016, "A theoretically grounded application of
    /// dropout in recurrent neural networks").
    ///
    /// # Errors
    /// [`Error::Config`] for a period of zero.
    pub fn repeated(self, period: usize) -> Result<Self> {
        if period == 0 {
            return Err(Error::config("dropout period", "must be at least 1 element"));
        }
        // A period longer than any tensor never repeats.
        Ok(Self { period: u32::try_from(period).unwrap_or(u32::MAX), ..self })
    }

    /// Returns the mask without its first `elements` elements: the mask of a section of a larger tensor.
    pub(crate) fn after(self, elements: usize) -> Self {
        Self { first: self.first + elements, ..self }
    }

    /// The expected fraction of elements that is dropped.
    pub fn rate(&self) -> f32 {
        self.rate
    }

    /// Whether element `index` is kept, that is, only scaled.
    pub fn keeps(&self, index: usize) -> bool {
        let period = self.period as usize;
        self.stream.bits(((self.first % period + index % period) % period) as u64) >= self.threshold()
    }

    /// The values of [`Mask::keeps`] for elements 0, 1, 2 and so on.
    fn all(&self) -> impl Iterator<Item = bool> {
        let (threshold, period) = (self.threshold(), self.period as usize);
        let first = self.first % period;
        let begun = self.stream.numbers_from(first as u64).take(period - first);
        let numbers = begun.chain(self.stream.numbers_from(0).take(period).cycle());
        numbers.map(move |number| number >= threshold)
    }

    /// The smallest random number that keeps an element.
    fn threshold(&self) -> u32 {
        threshold(self.rate)
    }
}

/// Returns rate · 2³², how many of the 2³² numbers drop an element. Exact: an f32 below 1 is at most 1 − 2⁻²⁴.
pub(crate) fn threshold(rate: f32) -> u32 {
    (f64::from(rate) * 4_294_967_296.0).ceil() as u32
}

/// Fails unless 0 ≤ `rate` < 1.
pub(crate) fn expect_rate(what: &str, rate: f32) -> Result<()> {
    if (0.0..1.0).contains(&rate) {
        return Ok(());
    }
    Err(Error::config(what, format!("must be at least 0 and below 1, not {rate}")))
}

/// y_i = x_i / (1 − p) if `mask` keeps element i, else 0, even where x is NaN: inverted dropout at the mask's rate p
/// (Srivastava et al. 2014, "Dropout"). Any shape; elements are counted in row-major order.
///
/// The operation is linear and diagonal, so its backward pass is the same function: dx = dropout(dy) with the same mask.
///
/// # Errors
/// Out of memory.
///
/// ```
/// use refrain::random::Stream;
/// use refrain::{Device, Tensor, ops};
/// let x = Tensor::from_slice(&Device::cpu(), &[4], &[1.0; 4])?;
/// let mask = ops::Mask::new(Stream::new(7, 0), 0.5)?;
/// let expected: Vec<f32> = (0..4).map(|index| if mask.keeps(index) { 2.0 } else { 0.0 }).collect();
/// assert_eq!(ops::dropout(&x, mask)?.download()?, expected);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn dropout<'a>(x: impl Into<View<'a>>, mask: Mask) -> Result<Tensor> {
    let x = x.into();
    let mut y = Tensor::unwritten(x.device(), x.shape().dimensions())?;
    run(x, mask, y.view_mut()?, Onto::Nothing)?;
    Ok(y)
}

/// target += dropout(x) with `mask`; x has as many elements as `target`. Accumulates the gradient of a dropped-out copy.
pub(crate) fn dropout_add_into(target: ViewMut<'_>, x: View<'_>, mask: Mask) -> Result<()> {
    x.device().expect_same("the target of dropout", target.device())?;
    target.shape().expect("the target of dropout", x.shape().dimensions())?;
    run(x, mask, target, Onto::Previous)
}

fn run(x: View<'_>, mask: Mask, mut y: ViewMut<'_>, onto: Onto) -> Result<()> {
    on_device!(x.device(),
        F => {
            cpu::dropout(x.array1::<F>(), mask, y.array1(), onto);
            Ok(())
        },
        context => gpu::dropout(context, x.span(), mask, y.span(), onto),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn thresholds_are_exact_at_the_ends_of_the_range() {
        let threshold = |rate| Mask::new(Stream::new(0, 0), rate).map(|mask| mask.threshold());
        assert_eq!(threshold(0.0).unwrap(), 0);
        assert_eq!(threshold(0.5).unwrap(), 1 << 31);
        // The smallest rate drops only the number 0, the largest keeps only the last 256.
        assert_eq!(threshold(f32::MIN_POSITIVE).unwrap(), 1);
        assert_eq!(threshold(1.0f32.next_down()).unwrap(), u32::MAX - 255);
    }

    #[test]
    fn the_mask_of_a_time_chunk_is_that_of_its_place_in_the_whole() {
        let device = Device::cpu();
        let x = Tensor::from_slice(&device, &[40, 3], &[1.0; 120]).unwrap();
        let plain = Mask::new(Stream::new(3, 1), 0.5).unwrap();
        for mask in [plain, plain.repeated(50).unwrap(), plain.repeated(3).unwrap()] {
            let whole = dropout(&x, mask).unwrap().download().unwrap();
            for first in [0, 1, 2, 17, 39] {
                let part = dropout(x.view().outer(first..40).unwrap(), mask.after(3 * first)).unwrap();
                assert_eq!(part.download().unwrap(), whole[3 * first..], "{mask:?} {first}");
                assert_eq!(mask.after(3 * first).keeps(1), mask.keeps(3 * first + 1));
            }
        }
    }

    #[test]
    fn added_dropout_leaves_what_was_there() {
        let device = Device::cpu();
        let x = Tensor::from_slice(&device, &[5], &[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let mask = Mask::new(Stream::new(3, 1), 0.5).unwrap();
        let mut target = Tensor::from_slice(&device, &[5], &[10.0; 5]).unwrap();
        dropout_add_into(target.view_mut().unwrap(), x.view(), mask).unwrap();
        let alone = dropout(&x, mask).unwrap().download().unwrap();
        let expected: Vec<f32> = alone.into_iter().map(|value| value + 10.0).collect();
        assert_eq!(target.download().unwrap(), expected);
    }
}
