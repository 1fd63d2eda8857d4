//! Golden cases: the results of PyTorch and of tutorials' code, reproduced.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use refrain::Device;
use refrain::check::golden::{CaseReport, Status, files, replay};

use crate::adapters::{Outcome, Suite, on_devices, plain_on_cpu};
use crate::support::{Folder, root};

/// All golden cases in the repository.
fn fixtures() -> Vec<PathBuf> {
    let folder = root().join("tests/fixtures");
    files(&folder).expect("the repository has golden cases")
}

fn fixture(name: &str) -> PathBuf {
    let wanted = format!("{name}.safetensors");
    let mut all = fixtures().into_iter();
    all.find(|path| path.ends_with(&wanted)).unwrap_or_else(|| panic!("there is no fixture {name}"))
}

fn every_fixture_is_reproduced(device: &Device) -> Outcome {
    let reports: Vec<CaseReport> = fixtures().iter().map(|path| replay(path, device)).collect();
    let failures: Vec<String> = reports
        .iter()
        .filter(|report| report.status != Status::Pass)
        .map(|report| {
            let message = report.message.as_deref().unwrap_or("no message");
            format!("{} {}: {message}", report.status.name(), report.case)
        })
        .collect();
    assert!(
        failures.is_empty(),
        "on {device}, {} of {}:\n{}",
        failures.len(),
        reports.len(),
        failures.join("\n")
    );
    Ok(())
}

fn the_fixtures_cover_every_family_that_is_built() {
    let families: BTreeSet<String> =
        fixtures().iter().map(|path| replay(path, &Device::reference()).family).collect();
    for family in [
        "torch_rnn_tanh",
        "torch_rnn_relu",
        "torch_gru",
        "torch_lstm",
        "torch_lstm_proj",
        "torch_linear",
        "torch_embedding",
        "torch_softmax",
        "torch_elementwise",
        "torch_clip",
        "torch_optim",
        "torch_loss",
        "torch_training",
        "torch_truncated",
        "ort_rnn",
        "ort_gru",
        "ort_lstm",
        "onnx_node",
        "onnx_peephole",
        "tutorial_stacked_rnn",
        "tutorial_softmax_rnn",
        "tutorial_feature_major_rnn",
        "tutorial_linear_cells",
        "tutorial_layers",
        "tutorial_windowed_rnn",
    ] {
        assert!(families.contains(family), "no fixture of {family} in {families:?}");
    }
}

/// The names of the tensors that replaying a fixture compares.
fn compared(name: &str) -> BTreeSet<String> {
    replay(&fixture(name), &Device::cpu()).tensors.into_iter().map(|tensor| tensor.name).collect()
}

fn a_recurrent_case_compares_outputs_states_and_every_gradient() {
    let mut expected: BTreeSet<String> = ["y", "hn", "dx", "dh0"].map(str::to_owned).into();
    for layer in 0..2 {
        for parameter in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] {
            expected.insert(format!("d_{parameter}_l{layer}"));
        }
    }
    assert_eq!(compared("torch_rnn_tanh_l2"), expected);
}

fn an_lstm_case_compares_cell_states_and_both_directions() {
    let found = compared("torch_lstm_bi");
    for name in ["cn", "dc0", "d_weight_hh_l0", "d_weight_ih_l0_reverse", "d_bias_hh_l0_reverse"] {
        assert!(found.contains(name), "{name} is missing in {found:?}");
    }
    assert_eq!(compared("ort_lstm_bi_varlen"), ["Y", "Y_h", "Y_c"].map(str::to_owned).into());
}

/// A copy of a fixture that is changed before it is replayed; removed when dropped.
struct Altered {
    path: PathBuf,
    _folder: Folder,
}

impl Altered {
    /// A copy of `name` with its bytes changed by `change`.
    fn bytes(name: &str, label: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        change(&mut bytes);
        let folder = Folder::new(label).unwrap();
        let path = folder.path().join(format!("{name}.safetensors"));
        std::fs::write(&path, bytes).unwrap();
        Self { path, _folder: folder }
    }

    /// A copy of `name` with its header, a JSON object, changed by `change`.
    fn header(name: &str, label: &str, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        Self::bytes(name, label, |bytes| {
            let (mut header, data) = split(bytes);
            change(&mut header);
            let text = header.to_string();
            *bytes = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat();
        })
    }

    /// A copy of `name` with one attribute set.
    fn attribute(name: &str, key: &str, value: &str) -> Self {
        Self::header(name, &format!("{name}-{key}"), |header| {
            header["__metadata__"][key] = value.into();
        })
    }

    fn replay(&self) -> CaseReport {
        replay(&self.path, &Device::cpu())
    }
}

/// Header and data of a safetensors file.
fn split(bytes: &[u8]) -> (serde_json::Value, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

/// A copy of `name` with the first value of `tensor` changed by `change`.
fn with_first_value(name: &str, tensor: &str, change: fn(f32) -> f32) -> Altered {
    Altered::bytes(name, &format!("corrupted-{tensor}"), |bytes| {
        let (header, data) = split(bytes);
        let start = bytes.len() - data.len() + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
        let value = f32::from_le_bytes(bytes[start..start + 4].try_into().unwrap());
        bytes[start..start + 4].copy_from_slice(&change(value).to_le_bytes());
    })
}

fn one_corrupted_value_fails_and_is_named() {
    for tensor in ["y", "dh0", "d_weight_hh_l1", "d_bias_ih_l0"] {
        let report = with_first_value("torch_rnn_tanh_l2", tensor, |value| value + 1e-3).replay();
        assert_eq!(report.status, Status::Fail, "{report:?}");
        assert_eq!(report.worst().unwrap().name, tensor);
        assert!(report.message.unwrap().starts_with(&format!("{tensor}[")));
    }
}

fn a_not_a_number_in_the_expected_values_fails() {
    let case = with_first_value("torch_linear_seq", "d_weight", |_| f32::NAN);
    assert_eq!(case.replay().status, Status::Fail);
}

fn a_truncated_file_is_an_error() {
    for (keep, said) in
        [(0, "is empty"), (7, "truncated"), (8, "truncated"), (100, "truncated"), (2000, "truncated")]
    {
        let case =
            Altered::bytes("torch_rnn_tanh_l2", &format!("truncated-{keep}"), |bytes| bytes.truncate(keep));
        let report = case.replay();
        assert_eq!(report.status, Status::Error, "{report:?}");
        assert!(report.message.as_ref().is_some_and(|message| message.contains(said)), "{report:?}");
    }
}

fn a_missing_file_is_an_error() {
    let report = replay(Path::new("nowhere/nothing.safetensors"), &Device::cpu());
    assert_eq!((report.status, report.case.as_str()), (Status::Error, "nothing"));
    assert!(report.message.unwrap().contains("nothing.safetensors"));
}

fn a_case_without_one_of_its_results_is_an_error() {
    for tensor in ["hn", "d_weight_ih_l0"] {
        let case = Altered::header("torch_rnn_tanh_nobias", &format!("without-{tensor}"), |header| {
            let removed = header.as_object_mut().unwrap().remove(tensor).unwrap();
            // Its bytes stay in the file under a name that nothing asks for.
            header["unasked"] = removed;
        });
        let report = case.replay();
        assert_eq!(report.status, Status::Error, "{report:?}");
        assert!(report.message.unwrap().contains(tensor));
    }
}

fn a_case_with_an_unread_tensor_is_unsupported() {
    let case = Altered::header("torch_tanh", "extra", |header| {
        header["__metadata__"]["note"] = "as it was".into();
        let whole = header["y"].clone();
        let start = whole["data_offsets"][1].as_u64().unwrap();
        header["mask"] = serde_json::json!({ "dtype": "F32", "shape": [0], "data_offsets": [start, start] });
    });
    let report = case.replay();
    assert_eq!(report.status, Status::Unsupported, "{report:?}");
    assert!(report.message.unwrap().contains("mask"));
}

/// Fails unless each fixture with this attribute set is reported so, with a message and without a comparison.
fn expect_status(status: Status, attributes: &[(&str, &str, &str)]) {
    for (name, key, value) in attributes {
        let report = Altered::attribute(name, key, value).replay();
        assert_eq!(report.status, status, "{key} = {value}: {report:?}");
        assert!(report.tensors.is_empty() && report.message.is_some_and(|message| !message.is_empty()));
    }
}

fn unknown_kinds_and_options_are_unsupported() {
    let attributes = [
        ("torch_tanh", "kind", "gelu"),
        ("torch_tanh", "family", "torch_gelu"),
        ("torch_linear_seq", "kind", "bilinear"),
        ("torch_linear_seq", "unheard_of", "1"),
        ("torch_rnn_tanh_l2", "kind", "qrnn"),
        ("torch_rnn_tanh_l2", "dropout", "0.5"),
        ("torch_rnn_tanh_l2", "truncation", "3"),
        ("torch_rnn_tanh_l2", "nonlinearity", "swish"),
        ("torch_rnn_tanh_l2", "layout", "batch_major"),
        ("torch_embedding_basic", "padding_idx", "0"),
        ("torch_clip_l2_active", "norm_type", "3.0"),
        ("torch_optim_sgd", "optimizer", "LBFGS"),
        ("torch_optim_sgd", "maximize", "true"),
        ("torch_loss_cross_entropy_mean", "loss", "hinge"),
        ("torch_loss_cross_entropy_mean", "reduction", "median"),
        ("torch_loss_cross_entropy_mean", "input_layout", "[N,C,d]"),
        ("torch_training_tanh_sgd", "cell", "qrnn"),
        ("ort_rnn_sigmoid", "attributes", r#"{"hidden_size": 5, "output_sequence": 1}"#),
        ("ort_rnn_sigmoid", "op", "MGU"),
    ];
    expect_status(Status::Unsupported, &attributes);
}

fn an_attribute_that_cannot_be_read_is_an_error() {
    let attributes = [
        ("torch_optim_sgd", "lr", "fast"),
        ("torch_optim_sgd", "lr", "-1"),
        ("torch_optim_sgd", "steps", "19"),
        ("torch_softmax_large", "dim", "7"),
        ("torch_rnn_tanh_l2", "layers", "3"),
        ("torch_rnn_tanh_l2", "bias", "perhaps"),
        ("torch_training_tanh_sgd", "hidden", "17"),
        ("torch_rnn_tanh_l2", "bidirectional", "true"),
        ("torch_lstm_varlen", "lengths", "4,8,1,7,10"),
        ("torch_lstm_varlen", "lengths", "4,8,-1,7,2"),
        ("torch_lstm_varlen", "lengths", "4,8"),
        ("torch_lstm_varlen", "proj_size", "3"),
        ("torch_trunc_gru_chunk3", "truncation", "0"),
        ("ort_rnn_sigmoid", "attributes", "{"),
        ("ort_rnn_sigmoid", "attributes", r#"{"hidden_size": 5, "direction": "sideways"}"#),
        ("ort_rnn_sigmoid", "attributes", r#"{"hidden_size": 5, "activations": ["Tanh", "Tanh"]}"#),
        ("ort_rnn_sigmoid", "attributes", r#"{"hidden_size": 5, "layout": 2}"#),
        ("ort_rnn_sigmoid", "attributes", r#"{"hidden_size": 5, "activations": ["Affine"]}"#),
        ("ort_rnn_sigmoid", "attributes", r#"{"hidden_size": 5, "activation_alpha": [0.5]}"#),
        ("ort_rnn_sigmoid", "attributes", r#"{"hidden_size": 5, "input_forget": 1}"#),
        ("ort_rnn_sigmoid", "lengths", "4,6,1"),
        ("ort_lstm", "attributes", r#"{"hidden_size": 6}"#),
        ("ort_lstm", "attributes", r#"{"hidden_size": 5, "direction": "bidirectional"}"#),
    ];
    expect_status(Status::Error, &attributes);
}

fn a_folder_without_cases_is_an_error_and_not_an_empty_success() {
    let empty = Folder::new("empty").unwrap();
    let found = files(empty.path());
    assert!(matches!(found, Err(refrain::Error::Config { .. })), "{found:?}");
    assert!(matches!(files(Path::new("nowhere")), Err(refrain::Error::Io { .. })));
}

pub(crate) fn register(suite: &mut Suite) {
    plain_on_cpu!(
        suite,
        the_fixtures_cover_every_family_that_is_built,
        a_recurrent_case_compares_outputs_states_and_every_gradient,
        an_lstm_case_compares_cell_states_and_both_directions,
        one_corrupted_value_fails_and_is_named,
        a_not_a_number_in_the_expected_values_fails,
        a_truncated_file_is_an_error,
        a_missing_file_is_an_error,
        a_case_without_one_of_its_results_is_an_error,
        a_case_with_an_unread_tensor_is_unsupported,
        unknown_kinds_and_options_are_unsupported,
        an_attribute_that_cannot_be_read_is_an_error,
        a_folder_without_cases_is_an_error_and_not_an_empty_success,
    );
    on_devices!(suite, every_fixture_is_reproduced);
}
