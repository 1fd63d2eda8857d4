//! `refrain check`: compares a device with the CPU in 64-bit floats, or with golden cases.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use refrain::Device;
use refrain::check::golden::{self, CaseReport, Status};
use refrain::check::{OperationReport, operations};
use serde::Serialize;

use crate::devices;
use crate::failure::{Failure, Result};
use crate::format::json;
use crate::terminal::stdout;

/// The exit code if no case failed but some are not supported.
const UNSUPPORTED: u8 = 2;

/// Options of `refrain check`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Device to check: auto, cpu, reference, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,
    /// Replay golden cases from this file or folder instead of checking operations; exits with 1 if a case fails, else
    /// with 2 if one is not supported
    #[arg(long, value_name = "PATH")]
    cases: Option<PathBuf>,
    /// Print only JSON, one line for each case
    #[arg(long, requires = "cases")]
    json: bool,
}

/// Runs the checks and prints a line for each operation or case.
///
/// # Errors
/// A device or path that does not exist. A deviation is not an error but sets the exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let device = devices::open(&arguments.device)?;
    match &arguments.cases {
        None => check_operations(&device),
        Some(path) => check_cases(path, &device, arguments.json),
    }
}

fn check_operations(device: &Device) -> Result<ExitCode> {
    let mut out = stdout();
    writeln!(out, "{} against the CPU in 64-bit floats", devices::describe(device))?;
    writeln!(out, "{:32} {:>6} {:>12} {:>12}  verdict", "operation", "cases", "worst error", "tolerance")?;
    let mut written = Ok(());
    let reports = operations(device, |report| {
        if written.is_ok() {
            written = writeln!(stdout(), "{}", operation_row(report));
        }
    })?;
    written?;
    let failed = reports.iter().filter(|report| !report.passed()).count();
    let cases: usize = reports.iter().map(|report| report.cases).sum();
    writeln!(out, "{} operations, {cases} cases: {}", reports.len(), failures(failed))?;
    if reports.is_empty() {
        return Err(Failure::option("check", "found no operation to check"));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn operation_row(report: &OperationReport) -> String {
    let OperationReport { operation, cases, worst, tolerance, .. } = report;
    let verdict = match &report.failure {
        Some(failure) => format!("FAIL: {failure}"),
        None if report.passed() => "pass".to_owned(),
        None => "FAIL".to_owned(),
    };
    format!("{operation:32} {cases:>6} {worst:>12.2e} {tolerance:>12.2e}  {verdict}")
}

fn failures(count: usize) -> String {
    if count == 0 { "all pass".to_owned() } else { format!("{count} failed") }
}

/// A line of JSON for a case.
#[derive(Serialize)]
struct CaseLine<'a> {
    case: &'a str,
    family: &'a str,
    status: &'static str,
    worst: Option<f64>,
    tensor: Option<&'a str>,
    tolerance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

fn check_cases(path: &Path, device: &Device, as_json: bool) -> Result<ExitCode> {
    let files = golden::files(path)?;
    if files.is_empty() {
        return Err(Failure::option("--cases", format!("`{}` has no case files", path.display())));
    }
    let mut out = stdout();
    if !as_json {
        writeln!(out, "{} case files on {}", files.len(), devices::describe(device))?;
    }
    let mut tally = Tally::default();
    for file in files {
        let report = golden::replay(&file, device);
        tally.add(report.status);
        let row = if as_json { json_row(&report)? } else { case_row(&report) };
        writeln!(out, "{row}")?;
    }
    if !as_json {
        writeln!(out, "{}", tally.summary())?;
    }
    Ok(tally.code())
}

fn json_row(report: &CaseReport) -> Result<String> {
    let worst = report.worst();
    let line = CaseLine {
        case: &report.case,
        family: &report.family,
        status: report.status.name(),
        worst: worst.map(|tensor| tensor.error),
        tensor: worst.map(|tensor| tensor.name.as_str()),
        tolerance: worst.map(|tensor| tensor.tolerance),
        message: report.message.as_deref(),
    };
    json(&line)
}

fn case_row(report: &CaseReport) -> String {
    let tensors = report.tensors.iter().map(|tensor| format!("{} {:.1e}", tensor.name, tensor.error));
    let tensors = tensors.collect::<Vec<_>>().join(", ");
    let mut row = format!("{:11} {}  {tensors}", report.status.name(), report.case);
    if report.status == Status::Fail
        && let Some(worst) = report.worst()
    {
        row += &format!("; {} is above its tolerance of {:.1e}", worst.name, worst.tolerance);
    }
    if let Some(message) = &report.message {
        row += &format!("  ({message})");
    }
    row
}

/// The number of cases per status.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    unsupported: usize,
    broken: usize,
}

impl Tally {
    fn add(&mut self, status: Status) {
        match status {
            Status::Pass => self.passed += 1,
            Status::Fail => self.failed += 1,
            Status::Unsupported => self.unsupported += 1,
            Status::Error => self.broken += 1,
        }
    }

    fn summary(&self) -> String {
        let Self { passed, failed, unsupported, broken } = self;
        let total = passed + failed + unsupported + broken;
        format!("{total} cases: {passed} pass, {failed} fail, {broken} in error, {unsupported} unsupported")
    }

    /// A failure takes precedence over an unsupported case, which is never a success.
    fn code(&self) -> ExitCode {
        match self {
            Self { failed: 0, broken: 0, unsupported: 0, .. } => ExitCode::SUCCESS,
            Self { failed: 0, broken: 0, .. } => ExitCode::from(UNSUPPORTED),
            _ => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use refrain::check::golden::TensorReport;

    use super::*;

    fn tally(statuses: &[Status]) -> Tally {
        let mut tally = Tally::default();
        statuses.iter().for_each(|&status| tally.add(status));
        tally
    }

    #[test]
    fn unsupported_cases_are_never_a_success_and_failures_outrank_them() {
        let code = |statuses: &[Status]| format!("{:?}", tally(statuses).code());
        let expected = |code: ExitCode| format!("{code:?}");
        assert_eq!(code(&[Status::Pass]), expected(ExitCode::SUCCESS));
        assert_eq!(code(&[Status::Pass, Status::Unsupported]), expected(ExitCode::from(2)));
        assert_eq!(code(&[Status::Unsupported, Status::Fail]), expected(ExitCode::FAILURE));
        assert_eq!(code(&[Status::Error, Status::Unsupported]), expected(ExitCode::FAILURE));
    }

    #[test]
    fn a_failed_case_names_the_tensor_in_both_forms() {
        let tensors = vec![TensorReport { name: "grad_x".into(), error: 0.5, tolerance: 1e-4 }];
        let (case, family) = ("case_1".to_owned(), "torch_linear".to_owned());
        let report = CaseReport { case, family, status: Status::Fail, tensors, message: None };
        assert!(case_row(&report).contains("grad_x is above its tolerance"), "{}", case_row(&report));
        let json: serde_json::Value = serde_json::from_str(&json_row(&report).expect("JSON")).expect("JSON");
        assert_eq!(json["status"], "fail");
        assert_eq!(json["tensor"], "grad_x");
        assert_eq!(json["worst"], 0.5);
        assert_eq!(json["tolerance"], 1e-4);
    }
}
