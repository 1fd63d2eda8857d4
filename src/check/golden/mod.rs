//! Replays golden cases: files with inputs, attributes and the results of another package.
//!
//! A case is a safetensors file with F32 tensors (labels and indices I32) and text attributes in `__metadata__`; `family`,
//! `case` and `kind` select what to run. Every attribute and tensor of a file must be used: otherwise the case is
//! [`Status::Unsupported`], never passed.

mod case;
mod elementwise;
mod layers;
mod loss;
mod onnx;
mod optim;
mod replay;
mod rnn;
mod training;
mod tutorial;
mod windowed;

use std::path::{Path, PathBuf};

use self::case::{GoldenCase, Trouble};
use self::replay::Replay;
use crate::device::Device;
use crate::{Error, Result};

/// The result of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every result agrees within its tolerance.
    Pass,
    /// Some result does not agree.
    Fail,
    /// The case is of a kind, or has an attribute, that this crate does not support.
    Unsupported,
    /// The file cannot be read or is incomplete, or the device failed.
    Error,
}

impl Status {
    /// `pass`, `fail`, `unsupported` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unsupported => "unsupported",
            Self::Error => "error",
        }
    }
}

/// The comparison of one tensor of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Its name in the file.
    pub name: String,
    /// The error of the worst entry.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
}

/// The result of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseReport {
    /// The name in the file's metadata; if there is none, the file's name.
    pub case: String,
    /// The family in the file's metadata; if there is none, the folder's name.
    pub family: String,
    /// The result.
    pub status: Status,
    /// All results that were compared. Empty if the case could not be run.
    pub tensors: Vec<TensorReport>,
    /// What is wrong, unless the case passed.
    pub message: Option<String>,
}

impl CaseReport {
    /// The tensor with the largest ratio of error to tolerance.
    pub fn worst(&self) -> Option<&TensorReport> {
        let ratio = |tensor: &TensorReport| tensor.error / tensor.tolerance;
        self.tensors.iter().max_by(|one, two| ratio(one).total_cmp(&ratio(two)))
    }
}

/// The case files at `path`: the file itself, or all `.safetensors` files in the folder and its subfolders, sorted.
///
/// # Errors
/// [`Error::Io`] for a path that cannot be read; [`Error::Config`] for a folder without case files.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let kind = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    if !kind.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))? {
            let entry = entry.map_err(|error| Error::io(&folder, error))?;
            let kind = entry.file_type().map_err(|error| Error::io(&entry.path(), error))?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
                found.push(entry.path());
            }
        }
    }
    if found.is_empty() {
        let message = format!("{} contains no .safetensors file", path.display());
        return Err(Error::config("golden cases", message));
    }
    found.sort();
    Ok(found)
}

/// Runs the case in the file `path` on `device` and compares every result. Errors in the file are reported as the status
/// and the message.
pub fn replay(path: &Path, device: &Device) -> CaseReport {
    let case = match GoldenCase::read(path) {
        Ok(case) => case,
        Err(trouble) => return unread(path, &trouble),
    };
    let mut replay = Replay::new(&case, device);
    let outcome = run(&mut replay).and_then(|()| case.expect_all_understood());
    let (tensors, failure) = replay.finish();
    let (status, message) = match (outcome, failure) {
        (Err(trouble), _) => (trouble.status(), Some(trouble.to_string())),
        (Ok(()), Some(failure)) => (Status::Fail, Some(failure)),
        (Ok(()), None) if tensors.is_empty() => {
            (Status::Error, Some("nothing was compared: the file contains no result".to_owned()))
        }
        (Ok(()), None) => (Status::Pass, None),
    };
    let ran = matches!(status, Status::Pass | Status::Fail);
    let tensors = if ran { tensors } else { Vec::new() };
    CaseReport { case: case.name(), family: case.family(), status, tensors, message }
}

fn unread(path: &Path, trouble: &Trouble) -> CaseReport {
    CaseReport {
        case: case::file_stem(path),
        family: case::folder(path),
        status: trouble.status(),
        tensors: Vec::new(),
        message: Some(trouble.to_string()),
    }
}

/// Runs the case according to its family.
fn run(replay: &mut Replay<'_>) -> Result<(), Trouble> {
    match replay.case.family().as_str() {
        "torch_rnn_tanh" | "torch_rnn_relu" | "torch_lstm" | "torch_lstm_proj" | "torch_gru"
        | "torch_truncated" => rnn::whole(replay),
        "torch_linear" => layers::linear(replay),
        "torch_embedding" => layers::embedding(replay),
        "torch_softmax" => layers::softmax(replay),
        "torch_elementwise" => elementwise::run(replay),
        "torch_clip" => optim::clip(replay),
        "torch_optim" => optim::optimizer(replay),
        "torch_loss" => loss::run(replay),
        "torch_training" => training::run(replay),
        "onnx_node" | "onnx_peephole" | "ort_rnn" | "ort_gru" | "ort_lstm" => onnx::run(replay),
        "tutorial_stacked_rnn" => tutorial::stacked(replay),
        "tutorial_softmax_rnn" => tutorial::softmax_rnn(replay),
        "tutorial_feature_major_rnn" => tutorial::feature_major(replay),
        "tutorial_linear_cells" => tutorial::linear_cells(replay),
        "tutorial_windowed_rnn" => windowed::run(replay),
        "tutorial_layers" => tutorial::layers(replay),
        other => Err(Trouble::unsupported(format!("cases of the family `{other}` are not supported"))),
    }
}
