//! The conformance suite: checks that a device computes the documented equations.
//!
//! Both checks run the public operations and layers of this crate:
//!
//! - [`operations`] samples random inputs and compares every operation on a device with the same operation on
//!   [`Device::reference`], the CPU in 64-bit floats, over a table of awkward shapes.
//! - [`golden`] replays case files that contain inputs and results of other packages, mainly PyTorch.
//!
//! [`custom_cell`] checks a user-defined cell: its WGSL, its CPU reference and finite differences must agree.
//!
//! Errors are those of the worst entry: relative to its magnitude plus the root mean square of the expected tensor, or to the
//! largest magnitude if that is less. Tolerances are derived, not tuned: see `tolerance.rs` beside this file.

mod cases;
mod compare;
mod custom;
pub mod golden;
mod sampler;
mod tolerance;

pub use self::custom::{CellCheck, CellReport, custom_cell};

use self::cases::{Case, Operation, Output};
use self::compare::difference;
use self::sampler::Sampler;
use crate::device::Device;
use crate::{Error, Result};

/// The result of one operation over all its cases.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationReport {
    /// The operation's name, such as `matmul plain`.
    pub operation: String,
    /// How many cases ran.
    pub cases: usize,
    /// The relative error with the largest ratio to its tolerance.
    pub worst: f64,
    /// The tolerance of that error.
    pub tolerance: f64,
    /// The worst failed comparison: tensor, index, both values, case and seed. `None` if all passed.
    pub failure: Option<String>,
}

impl OperationReport {
    /// Whether every comparison was within its tolerance.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    fn start(operation: &Operation) -> Self {
        Self {
            operation: operation.name.clone(),
            cases: operation.cases.len(),
            worst: 0.0,
            tolerance: 0.0,
            failure: None,
        }
    }

    /// Records one comparison.
    fn record(&mut self, error: f64, tolerance: f64, describe: impl FnOnce() -> String) {
        let worse = self.tolerance == 0.0 || error / tolerance > self.worst / self.tolerance;
        if !worse {
            return;
        }
        (self.worst, self.tolerance) = (error, tolerance);
        if error > tolerance {
            self.failure = Some(describe());
        }
    }
}

/// Runs every operation over its case table on `device` and on [`Device::reference`], and compares the results. Calls
/// `progress` after each operation.
///
/// A wrong result is not an error: the report then has not [`passed`](OperationReport::passed).
///
/// # Errors
/// Errors of the operations, such as out of memory or a lost device.
pub fn operations(
    device: &Device,
    mut progress: impl FnMut(&OperationReport),
) -> Result<Vec<OperationReport>> {
    let mut reports = Vec::new();
    for operation in cases::table()? {
        let mut report = OperationReport::start(&operation);
        for case in &operation.cases {
            run(case, device, &mut report)?;
        }
        progress(&report);
        reports.push(report);
    }
    Ok(reports)
}

fn run(case: &Case, device: &Device, report: &mut OperationReport) -> Result<()> {
    let expected = (case.run)(&Sampler::new(&Device::reference(), case.seed))?;
    let found = (case.run)(&Sampler::new(device, case.seed))?;
    if expected.len() != found.len() {
        return Err(Error::config(
            &report.operation,
            "returns a different number of results on different devices",
        ));
    }
    for (expected, found) in expected.iter().zip(&found) {
        found.tensor.shape().expect(&found.name, expected.tensor.shape().dimensions())?;
        let values = (expected.tensor.download_f64()?, found.tensor.download_f64()?);
        let worst = difference(&values.0, &values.1, expected.scale);
        report.record(worst.error, tolerance::independent(expected.roundings), || {
            let Output { name, tensor, .. } = expected;
            let position = compare::position(tensor.shape().dimensions(), worst.index);
            format!(
                "{name}{position:?} is {} on {device} and {} on the reference, relative error {:.2e} over \
                 {:.2e}; case {}, seed {}",
                worst.found,
                worst.expected,
                worst.error,
                tolerance::independent(expected.roundings),
                case.label,
                case.seed
            )
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    /// An operation that is wrong on every device but the reference.
    fn wrong_by(relative: f32) -> Case {
        Case::new("size 3", 5, move |sampler| {
            let factor = if sampler.device() == &Device::reference() { 1.0 } else { 1.0 + relative };
            let values = [1.0, 2.0, 4.0 * factor];
            Ok(vec![Output::new("y", Tensor::from_slice(sampler.device(), &[3], &values)?, 1.0)])
        })
    }

    fn report_of(case: Case) -> OperationReport {
        let operation = Operation::new("wrong", vec![case]);
        let mut report = OperationReport::start(&operation);
        run(&operation.cases[0], &Device::cpu(), &mut report).unwrap();
        report
    }

    #[test]
    fn a_wrong_result_is_reported_with_tensor_index_values_case_and_seed() {
        let report = report_of(wrong_by(1e-3));
        assert!(!report.passed());
        let failure = report.failure.unwrap();
        for part in ["y[2]", "4.004", "and 4 on", "size 3", "seed 5"] {
            assert!(failure.contains(part), "{part} is missing in: {failure}");
        }
    }

    #[test]
    fn a_result_that_is_not_a_number_is_a_failure() {
        assert!(!report_of(wrong_by(f32::NAN)).passed());
        assert!(!report_of(wrong_by(f32::INFINITY)).passed());
        assert!(report_of(wrong_by(0.0)).passed());
    }
}
