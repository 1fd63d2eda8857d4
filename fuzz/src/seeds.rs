//! The seeds of mutations: small inputs under `fuzz/seeds/TARGET/`, which `--write-seeds` writes again, and the smallest
//! golden case of each family of the tests' fixtures. Seeds whose names begin with `hostile` caused a fault once and
//! must be rejected; all others must be accepted.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use refrain::Device;
use refrain::check::golden;
use refrain::io::{Checkpoint, Metadata, save_tuning, save_weights};
use refrain::nn::{Cell, Embedding, Linear, Merge, Model, OneHot, Rnn};
use refrain::ops::{Activation, Form};
use refrain::tuning::{MatmulTile, MatmulVariant, ProductShape, Tuning};

use crate::targets::card;

/// A placeholder for this version of the crate, in files that are valid for one version only.
const VERSION: &str = "CRATE-VERSION";
/// The largest fixture used as a seed, in bytes; larger ones would dominate the time.
const LARGEST_FIXTURE: u64 = 13_000;

/// An input to be mutated.
pub(crate) struct Seed {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

impl Seed {
    /// Whether its target must reject it.
    pub(crate) fn is_hostile(&self) -> bool {
        self.name.starts_with("hostile")
    }
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

/// All seeds of `target`, by name.
pub(crate) fn load(target: &str) -> Result<Vec<Seed>, Box<dyn Error>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder(target))? {
        paths.push(entry?.path());
    }
    if target == "golden" {
        paths.extend(smallest_fixtures()?);
    }
    paths.sort();
    let mut seeds = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut content = fs::read(&path)?;
        if target == "tuning" {
            content = String::from_utf8(content)?.replace(VERSION, env!("CARGO_PKG_VERSION")).into_bytes();
        }
        seeds.push(Seed { name, content });
    }
    Ok(seeds)
}

fn smallest_fixtures() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let mut found = Vec::new();
    for family in fs::read_dir(fixtures)? {
        let mut smallest: Option<(u64, PathBuf)> = None;
        for path in golden::files(&family?.path())? {
            let candidate = (fs::metadata(&path)?.len(), path);
            if smallest.as_ref().is_none_or(|smallest| candidate < *smallest) {
                smallest = Some(candidate);
            }
        }
        found.extend(smallest.filter(|(size, _)| *size <= LARGEST_FIXTURE).map(|(_, path)| path));
    }
    Ok(found)
}

/// Writes all files under `fuzz/seeds/`.
pub(crate) fn write() -> Result<(), Box<dyn Error>> {
    for target in crate::targets::TARGETS {
        fs::create_dir_all(folder(target.name))?;
    }
    checkpoints()?;
    weights()?;
    cases()?;
    arrays()?;
    tuning()?;
    texts()
}

fn checkpoints() -> Result<(), Box<dyn Error>> {
    let save = |name: &str, model: &Model| {
        let parameters = model.initialize(&Device::cpu())?;
        let metadata = Metadata::from([("vocabulary".to_owned(), "\u{1b}[31mab".to_owned())]);
        Checkpoint::save(&folder("checkpoint").join(name), model, &parameters, &metadata)
    };
    let mut model = Model::new(7);
    model.add("embedding", Embedding::new(3, 2))?;
    model.add("rnn", Rnn::new(Cell::Lstm, 2, 4).layers(2).dropout(0.5).projection(2))?;
    model.add("head", Linear::new(2, 3))?;
    save("lstm.safetensors", &model)?;
    let mut model = Model::new(8);
    model.add("letters", OneHot::new(3))?;
    let gru = Rnn::new(Cell::Gru, 3, 2).bidirectional().merge(Merge::Mean).learned_initial_state();
    model.add("rnn", gru.truncated(4))?;
    let vanilla = Cell::Vanilla(Activation::Elu { alpha: 0.5 });
    model.add("top", Rnn::new(vanilla, 2, 2).checkpointed(3).without_bias())?;
    save("gru.safetensors", &model)?;

    let stacks: Vec<String> = (0..20)
        .map(|index| {
            format!(
                r#"["s{index}",{{"layer":"rnn","cell":"lstm","inputs":1,"hidden":1,"layers":1024,"bias":true,"directions":"both"}}]"#
            )
        })
        .collect();
    let description =
        format!(r#"{{"version":1,"model":{{"seed":1,"layers":[{}]}},"metadata":{{}}}}"#, stacks.join(","));
    let header = serde_json::json!({"__metadata__": {"refrain": description}});
    write_tensors("checkpoint", "hostile-stacks.safetensors", &header, 0)
}

/// A safetensors file with this header and `bytes` zero bytes.
fn write_tensors(
    target: &str,
    name: &str,
    header: &serde_json::Value,
    bytes: usize,
) -> Result<(), Box<dyn Error>> {
    let text = header.to_string();
    let content = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &vec![0; bytes]].concat();
    Ok(fs::write(folder(target).join(name), content)?)
}

fn weights() -> Result<(), Box<dyn Error>> {
    let mut model = Model::new(1);
    model.add("head", Linear::new(2, 3))?;
    let parameters = model.initialize(&Device::cpu())?;
    save_weights(&folder("weights").join("model.safetensors"), &parameters)?;
    refrain::io::save_layer_weights(&folder("weights").join("layer.safetensors"), "head", &parameters)?;
    let wide = serde_json::json!({
        "bias": {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]},
        "weight": {"dtype": "F64", "shape": [3, 2], "data_offsets": [24, 72]},
    });
    write_tensors("weights", "wide.safetensors", &wide, 72)
}

fn cases() -> Result<(), Box<dyn Error>> {
    let empty = |shape: &[usize]| serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 0]});
    let onnx = serde_json::json!({
        "__metadata__": {"family": "onnx_node", "op": "LSTM", "kind": "lstm", "outputs": "[\"Y\"]",
            "attributes": format!("{{\"hidden_size\":{}}}", 1u64 << 62)},
        "X": empty(&[1, 0, 1]), "W": empty(&[1, 0, 1]), "R": empty(&[1, 0, 1]),
    });
    write_tensors("golden", "hostile-onnx.safetensors", &onnx, 0)?;
    let training = serde_json::json!({"__metadata__": {"family": "torch_training", "kind": "training", "cell": "lstm",
        "steps": "1", "sequence": "1", "batch": "1", "vocabulary": "2", "embedding": "1", "hidden": "16000",
        "layers": "1", "optimizer": "SGD", "lr": "0.1"}});
    write_tensors("golden", "hostile-training.safetensors", &training, 0)?;
    let stack = serde_json::json!({
        "__metadata__": {"family": "torch_lstm", "kind": "lstm", "layers": "1", "bias": "false"},
        "weight_hh_l0": empty(&[64_000, 0]),
        "x": {"dtype": "F32", "shape": [1, 1, 1], "data_offsets": [0, 4]},
    });
    write_tensors("golden", "hostile-stack.safetensors", &stack, 4)
}

fn arrays() -> Result<(), Box<dyn Error>> {
    let shape = |sizes: &[usize]| serde_json::json!({"shape": sizes});
    let onnx = [
        (
            "rnn",
            serde_json::json!({"operator": "RNN", "attributes": {"hidden_size": 2, "activations": ["Affine"],
            "activation_alpha": [0.5], "activation_beta": [0.1], "direction": "reverse"},
            "W": shape(&[1, 2, 3]), "R": shape(&[1, 2, 2])}),
        ),
        (
            "gru",
            serde_json::json!({"operator": "GRU", "attributes": {"hidden_size": 2, "direction": "bidirectional",
            "linear_before_reset": 1, "activations": ["Sigmoid", "Tanh", "HardSigmoid", "Relu"], "layout": 1},
            "W": shape(&[2, 6, 3]), "R": shape(&[2, 6, 2]), "B": shape(&[2, 12])}),
        ),
        (
            "lstm",
            serde_json::json!({"operator": "LSTM", "attributes": {"hidden_size": 2, "clip": 3.0, "input_forget": 1},
            "W": shape(&[1, 8, 3]), "R": shape(&[1, 8, 2]), "B": shape(&[1, 16]), "P": shape(&[1, 6])}),
        ),
        (
            "hostile-hidden",
            serde_json::json!({"operator": "LSTM", "attributes": {"hidden_size": 1u64 << 62},
            "W": {"shape": [1, 0, 1], "values": 0}, "R": {"shape": [1, 0, 1u64 << 62], "values": 0}}),
        ),
    ];
    let keras = [
        (
            "simple",
            serde_json::json!({"class": "SimpleRNN", "version": 3, "config": {"units": 2, "activation": "elu"},
            "kernel": shape(&[3, 2]), "recurrent_kernel": shape(&[2, 2])}),
        ),
        (
            "lstm",
            serde_json::json!({"class": "LSTM", "version": 1, "config": {"use_bias": true, "dropout": 0.25,
            "unit_forget_bias": true, "kernel_initializer": {"class_name": "Zeros", "config": {}}},
            "kernel": shape(&[3, 8]), "recurrent_kernel": shape(&[2, 8]), "bias": shape(&[8])}),
        ),
        (
            "gru",
            serde_json::json!({"class": "GRU", "version": 2, "config": {"reset_after": true,
            "recurrent_activation": "hard_sigmoid", "recurrent_dropout": 0.5, "name": "gru"},
            "kernel": shape(&[3, 6]), "recurrent_kernel": shape(&[2, 6]), "bias": shape(&[2, 6])}),
        ),
        (
            "hostile-wrap",
            serde_json::json!({"class": "LSTM", "version": 3, "config": {},
            "kernel": {"shape": [1, 0], "values": 0}, "recurrent_kernel": {"shape": [1u64 << 62, 0], "values": 0}}),
        ),
    ];
    for (target, seeds) in [("onnx", onnx), ("keras", keras)] {
        for (name, seed) in seeds {
            fs::write(folder(target).join(format!("{name}.json")), format!("{seed:#}\n"))?;
        }
    }
    Ok(())
}

fn tuning() -> Result<(), Box<dyn Error>> {
    let mut tuning = Tuning::new();
    for (k, block, parts) in [(1000, None, 8), (1000, Some(300), 4), (64, None, 1)] {
        let shape = ProductShape { form: Form::LeftTransposed, m: 3, n: 5, k, block };
        tuning.set_product(shape, MatmulVariant { tile: MatmulTile::Large, parts })?;
    }
    let layer = refrain::tuning::RecurrentShape { gates: 4, hidden_size: 64, rows: 16 };
    tuning.set_recurrent(layer, refrain::tuning::RecurrentStrategy::PerStep)?;
    let path = folder("tuning").join("choices.json");
    save_tuning(&path, &tuning, &card())?;
    let text = fs::read_to_string(&path)?
        .replace(&format!("\"{}\"", env!("CARGO_PKG_VERSION")), &format!("\"{VERSION}\""));
    Ok(fs::write(&path, text)?)
}

fn texts() -> Result<(), Box<dyn Error>> {
    for (name, batch, steps, text) in [
        ("words.bin", 2u64, 3u64, "the quick brown fox jumps over the lazy dog\n"),
        ("letters.bin", 1, 1, "\u{feff}caff\u{e8}\r\n\u{1f600}\u{0}\u{301}\tend"),
        ("hostile-sizes.bin", u64::MAX, 1 << 63, "ab"),
    ] {
        let content = [&batch.to_le_bytes(), &steps.to_le_bytes(), text.as_bytes()].concat();
        fs::write(folder("text").join(name), content)?;
    }
    Ok(())
}
