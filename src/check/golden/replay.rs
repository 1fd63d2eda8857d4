//! Compares the results of a case with its file, and computes the tolerance of each tensor.

use super::TensorReport;
use super::case::{GoldenCase, Outcome, Trouble};
use crate::check::compare::{difference, position};
use crate::check::tolerance;
use crate::device::Device;
use crate::nn::{Model, Parameters};
use crate::tensor::View;

/// The tolerance as a multiple of the error of the case's own package in float32.
///
/// That error is one sample of rounding errors, and ours is another, with additions in another order. Both are sums of many
/// independent roundings of the same size; in a small tensor the largest of few errors may be small by chance. An order of
/// magnitude, rounded up to a power of two, covers this scatter and drivers that divide or fuse differently.
const FACTOR: f64 = 16.0;

/// A case that is being run on a device.
pub(super) struct Replay<'c> {
    pub(super) case: &'c GoldenCase,
    pub(super) device: &'c Device,
    tensors: Vec<TensorReport>,
    failure: Option<(f64, String)>,
}

impl<'c> Replay<'c> {
    pub(super) fn new(case: &'c GoldenCase, device: &'c Device) -> Self {
        Self { case, device, tensors: Vec::new(), failure: None }
    }

    /// Initial values for the parameters of `model`, all of which the case replaces: so it may not have more parameters
    /// than the file has numbers.
    pub(super) fn initialize(&self, model: &Model) -> Outcome<Parameters> {
        let parameters = model.specs().iter().map(|spec| spec.shape.elements()).sum::<usize>();
        let numbers = self.case.numbers();
        if parameters > numbers {
            let message =
                format!("describes {parameters} parameters, but the file has only {numbers} numbers");
            return Err(Trouble::malformed(message));
        }
        Ok(model.initialize(self.device)?)
    }

    /// Loads the parameters of `model`; `rename` maps each parameter's name to the tensor's.
    pub(super) fn load(&self, model: &Model, rename: impl Fn(&str) -> String) -> Outcome<Parameters> {
        for spec in model.specs() {
            self.case.expect_shape(&rename(&spec.name), spec.shape.dimensions())?;
        }
        let mut all: Vec<(&str, &[usize], Vec<f64>)> = Vec::new();
        for spec in model.specs() {
            let name = rename(&spec.name);
            let values = self.case.array(&name)?.floats(&name)?;
            let shape = spec.shape.dimensions();
            all.push((&spec.name, shape, values.iter().copied().map(f64::from).collect()));
        }
        let mut parameters = self.initialize(model)?;
        parameters.set_all(all.iter().map(|(name, shape, values)| (*name, *shape, values.as_slice())))?;
        Ok(parameters)
    }

    /// Compares a result with the tensor `name` of the file. `roundings` determines the tolerance if the file does not
    /// contain its float32 error; see `check/tolerance.rs`.
    pub(super) fn check<'v>(&mut self, name: &str, found: impl Into<View<'v>>, roundings: f64) -> Outcome {
        let found = found.into();
        let shape = found.shape().dimensions();
        self.check_values(name, shape, &found.download_f64()?, roundings)
    }

    /// As [`Replay::check`], for values on the host.
    pub(super) fn check_values(
        &mut self,
        name: &str,
        shape: &[usize],
        found: &[f64],
        roundings: f64,
    ) -> Outcome {
        let array = self.case.array(name)?;
        if found.is_empty() {
            return Err(Trouble::malformed(format!("`{name}` has no values to compare")));
        }
        if array.shape != shape {
            let expected = array.shape;
            return Err(Trouble::malformed(format!(
                "`{name}` has the shape {expected:?}, but the result has {shape:?}"
            )));
        }
        let expected: Vec<f64> = array.floats(name)?.iter().copied().map(f64::from).collect();
        let worst = difference(&expected, found, 0.0);
        let tolerance = self.tolerance(name, roundings)?;
        let ratio = worst.error / tolerance;
        if ratio > 1.0 && self.failure.as_ref().is_none_or(|(most, _)| ratio > *most) {
            let message = format!(
                "{name}{:?} is {}, expected {}: relative error {:.2e} over {tolerance:.2e}",
                position(shape, worst.index),
                worst.found,
                worst.expected,
                worst.error
            );
            self.failure = Some((ratio, message));
        }
        self.tensors.push(TensorReport { name: name.to_owned(), error: worst.error, tolerance });
        Ok(())
    }

    /// [`FACTOR`] times the float32 error, at least one unit in the last place (some errors are zero by chance). Without
    /// that error: the derived bound for two float32 evaluations, the file's and this one.
    fn tolerance(&self, name: &str, roundings: f64) -> Outcome<f64> {
        Ok(match self.case.float32_error(name)? {
            Some(error) => FACTOR * error.max(f64::from(f32::EPSILON)),
            None => tolerance::independent(2.0 * roundings),
        })
    }

    pub(super) fn finish(self) -> (Vec<TensorReport>, Option<String>) {
        (self.tensors, self.failure.map(|(_, message)| message))
    }
}
