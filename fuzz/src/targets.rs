//! The parsers of untrusted input, each as a function that returns whether it accepted an input.

use std::path::Path;

use refrain::check::golden::{self, Status};
use refrain::data::{Text, Vocabulary, Windows};
use refrain::io::{
    Checkpoint, HostArray, KerasClass, KerasConfig, KerasLayer, KerasVersion, KerasWeights, OnnxAttributes,
    OnnxNode, OnnxTensors, load_layer_weights, load_weights, read_file,
};
use refrain::nn::{Linear, Model, Rnn};
use refrain::tuning::Tuning;
use refrain::{AdapterKind, AdapterSummary, Device, Result, Tensor};
use serde_json::Value;

use crate::mutate::Format;

/// A parser and the format of its input.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) format: Format,
    /// Parses the file at this path; returns whether it was accepted.
    pub(crate) run: fn(&Path) -> bool,
}

pub(crate) const TARGETS: [Target; 7] = [
    Target { name: "checkpoint", format: Format::Tensors, run: |path| checkpoint(path).is_ok() },
    Target { name: "weights", format: Format::Tensors, run: weights },
    Target { name: "golden", format: Format::Tensors, run: case },
    Target { name: "onnx", format: Format::Json, run: |path| onnx(path).unwrap_or(false) },
    Target { name: "keras", format: Format::Json, run: |path| keras(path).unwrap_or(false) },
    Target { name: "tuning", format: Format::Json, run: |path| Tuning::load(path, &card()).is_ok() },
    Target { name: "text", format: Format::Bytes, run: |path| text(path).is_ok() },
];

fn checkpoint(path: &Path) -> Result<()> {
    let loaded = Checkpoint::load(path, &Device::cpu())?;
    loaded.model.summary().to_string();
    loaded.model.cost(3, 2)?;
    Ok(())
}

/// Loads the model of the seeds as a whole, and its layer.
fn weights(path: &Path) -> bool {
    let model = || {
        let mut model = Model::new(1);
        model.add("head", Linear::new(2, 3))?;
        model.initialize(&Device::cpu())
    };
    let Ok(mut parameters) = model() else { return false };
    load_weights(path, &mut parameters).is_ok() | load_layer_weights(path, "head", &mut parameters).is_ok()
}

fn case(path: &Path) -> bool {
    let report = golden::replay(path, &Device::cpu());
    matches!(report.status, Status::Pass | Status::Fail)
}

/// The most values of an array.
const MOST_VALUES: usize = 4096;

/// An array as described by an input: `{"shape": [2, 3], "values": 6}`; without `values`, as many as the shape requires.
struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Array {
    fn read(value: &Value) -> Option<Self> {
        let sizes = value.get("shape")?.as_array()?.iter().take(MOST_VALUES);
        let shape: Vec<usize> =
            sizes.map(|size| size.as_u64().map(|size| size as usize)).collect::<Option<_>>()?;
        let fitting = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)).unwrap_or(0);
        let count = value.get("values").and_then(Value::as_u64).map_or(fitting, |count| count as usize);
        let values = (0..count.min(MOST_VALUES)).map(|place| (place % 7) as f32 * 0.125 - 0.375).collect();
        Some(Self { shape, values })
    }

    fn host(&self) -> HostArray<'_> {
        HostArray::new(&self.shape, &self.values)
    }
}

/// Runs an imported layer over two steps.
fn infer(
    description: &Rnn,
    inputs: usize,
    load: impl FnOnce(&mut refrain::nn::Parameters) -> Result<()>,
) -> Result<()> {
    let device = Device::cpu();
    let mut model = Model::new(1);
    let rnn = model.add("rnn", description.clone())?;
    let mut parameters = model.initialize(&device)?;
    load(&mut parameters)?;
    let x = Tensor::zeros(&device, &[2, 1, inputs])?;
    rnn.infer(&parameters, &x, &rnn.zero_state(&device, 1)?)?.0.download()?;
    Ok(())
}

fn parsed(path: &Path) -> Option<Value> {
    serde_json::from_slice(&read_file(path, 1 << 20).ok()?).ok()
}

fn onnx(path: &Path) -> Option<bool> {
    let input = parsed(path)?;
    let attributes = OnnxAttributes::from_json(&input.get("attributes")?.to_string()).ok()?;
    let node = OnnxNode::new(input.get("operator")?.as_str()?, attributes).ok()?;
    let arrays = ["W", "R", "B", "P"].map(|name| input.get(name).and_then(Array::read));
    let [Some(w), Some(r), b, p] = &arrays else { return None };
    let mut tensors = OnnxTensors::new(w.host(), r.host());
    if let Some(b) = b {
        tensors = tensors.bias(b.host());
    }
    if let Some(p) = p {
        tensors = tensors.peepholes(p.host());
    }
    let layers = node.layers(&tensors).ok()?;
    let inputs = w.shape.last().copied()?;
    let run = |layer: &refrain::io::OnnxLayer| {
        infer(layer.description(), inputs, |parameters| layer.load("rnn", parameters)).is_ok()
    };
    Some(layers.iter().all(run))
}

fn keras(path: &Path) -> Option<bool> {
    let input = parsed(path)?;
    let class = match input.get("class")?.as_str()? {
        "SimpleRNN" => KerasClass::SimpleRnn,
        "LSTM" => KerasClass::Lstm,
        "GRU" => KerasClass::Gru,
        _ => return None,
    };
    let version = match input.get("version")?.as_u64()? {
        1 => KerasVersion::V1,
        2 => KerasVersion::V2,
        _ => KerasVersion::V3,
    };
    let config = KerasConfig::from_json(class, &input.get("config")?.to_string(), version).ok()?;
    let read = |name: &str| input.get(name).and_then(Array::read);
    let (kernel, recurrent, bias) = (read("kernel")?, read("recurrent_kernel")?, read("bias"));
    let mut weights = KerasWeights::new(kernel.host(), recurrent.host());
    if let Some(bias) = &bias {
        weights = weights.bias(bias.host());
    }
    let both = KerasLayer::bidirectional(&config, &weights, &weights);
    let layer = KerasLayer::new(&config, &weights).ok()?;
    let inputs = kernel.shape.first().copied()?;
    let run = |layer: &KerasLayer| {
        infer(layer.description(), inputs, |parameters| layer.load("rnn", parameters)).is_ok()
    };
    Some(run(&layer) & both.is_ok_and(|both| run(&both)))
}

/// A batch size and a number of steps of 8 bytes each, followed by a text.
fn text(path: &Path) -> Result<()> {
    let bytes = read_file(path, 1 << 20)?;
    let (sizes, text) = bytes.split_at(bytes.len().min(16));
    let mut sizes = sizes.chunks(8).map(|size| {
        let mut word = [0; 8];
        word[..size.len()].copy_from_slice(size);
        u64::from_le_bytes(word) as usize
    });
    let (batch, steps) = (sizes.next().unwrap_or(0), sizes.next().unwrap_or(0));
    let text = Text::decode(text.to_vec())?;
    let text = text.as_str();
    let vocabulary = Vocabulary::of(text)?;
    let tokens = vocabulary.encode(text)?;
    assert_eq!(vocabulary.decode(&tokens)?, text, "decoding the tokens returns the text");
    vocabulary.encode(&text.chars().rev().chain(['\u{10ffff}']).collect::<String>()).ok();
    vocabulary.decode(&tokens.iter().map(|token| token.wrapping_mul(3)).collect::<Vec<_>>()).ok();
    let windows = Windows::new(tokens, batch, steps)?;
    for index in [0, 1, windows.count(), usize::MAX] {
        windows.window(index).to_device(&Device::cpu())?;
    }
    Ok(())
}

/// The adapter on which choices were measured.
pub(crate) fn card() -> AdapterSummary {
    AdapterSummary {
        index: 0,
        name: "Imaginary 9000".into(),
        kind: AdapterKind::Discrete,
        backend: "vulkan".into(),
        driver: "imaginary 1.0".into(),
        max_buffer_bytes: 1 << 31,
        max_binding_bytes: 1 << 27,
        workgroup_bytes: 32 << 10,
        workgroup_invocations: 1024,
        subgroup_sizes: (32, 64),
        immediate_bytes: 128,
        features: Vec::new(),
    }
}
