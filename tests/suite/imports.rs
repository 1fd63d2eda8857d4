//! Recurrent weights as other packages hold them: their equations, written here in their own layouts, give what the
//! imported layers give; what does not fit is refused by name.

use libtest_mimic::Failed;
use refrain::io::{
    HostArray, KerasLayer, OnnxAttributes, OnnxDirection, OnnxNode, OnnxTensors, load_layer_weights,
    save_layer_weights,
};
use refrain::nn::{Cell, Linear, Model, Parameters, Rnn};
use refrain::{Device, Error, Result};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::keras::{Form, Keras};
use crate::support::{Folder, all_parameters, expect_same_bits, values};

pub(crate) const STEPS: usize = 4;
pub(crate) const INPUTS: usize = 3;
pub(crate) const HIDDEN: usize = 2;

pub(crate) fn single(seed: u64, count: usize) -> Vec<f32> {
    values(seed, count, 1.0).into_iter().map(|value| value as f32).collect()
}

/// Fails unless `result` is an error whose message has all `parts`.
pub(crate) fn expect_refused<T>(result: Result<T>, parts: &[&str]) -> Outcome {
    let Err(error) = result else { return Err(Failed::from(format!("{parts:?}: was taken"))) };
    let message = error.to_string();
    match parts.iter().find(|part| !message.contains(**part)) {
        Some(part) => Err(Failed::from(format!("`{message}` does not say `{part}`"))),
        None => Ok(()),
    }
}

fn onnx_tensors_of_another_shape_are_refused_by_name() -> Outcome {
    let zeros = [0.0; 128];
    let array = |shape: &'static [usize]| HostArray::new(shape, &zeros[..shape.iter().product()]);
    let attributes = OnnxAttributes { hidden_size: 2, ..OnnxAttributes::default() };
    let lstm = OnnxNode::new("LSTM", attributes.clone())?;
    let tensors = |w, r| OnnxTensors::new(array(w), array(r));
    let right = tensors(&[1, 8, 3], &[1, 8, 2]);
    expect_refused(lstm.layer(&tensors(&[2, 8, 3], &[1, 8, 2])), &["W", "[1, 8, 3]", "[2, 8, 3]"])?;
    expect_refused(lstm.layer(&tensors(&[8, 3], &[1, 8, 2])), &["W", "[1, 8, inputs]", "[8, 3]"])?;
    expect_refused(lstm.layer(&tensors(&[1, 8, 3], &[1, 8, 3])), &["R", "[1, 8, 2]", "[1, 8, 3]"])?;
    expect_refused(lstm.layer(&right.bias(array(&[1, 8]))), &["B", "[1, 16]", "[1, 8]"])?;
    expect_refused(lstm.layer(&right.peepholes(array(&[1, 8]))), &["P", "[1, 6]", "[1, 8]"])?;
    let rnn = OnnxNode::new("RNN", attributes)?;
    let tensors = tensors(&[1, 2, 3], &[1, 2, 2]).peepholes(array(&[1, 6]));
    expect_refused(rnn.layer(&tensors), &["P", "LSTM"])
}

fn onnx_attributes_that_make_no_sense_are_refused() -> Outcome {
    let usual = OnnxAttributes { hidden_size: 2, ..OnnxAttributes::default() };
    let with = |attributes: OnnxAttributes| OnnxNode::new("LSTM", attributes);
    expect_refused(with(OnnxAttributes::default()), &["hidden_size", "at least 1"])?;
    expect_refused(with(OnnxAttributes { layout: 2, ..usual.clone() }), &["layout", "0 or 1", "2"])?;
    expect_refused(
        with(OnnxAttributes { linear_before_reset: 1, ..usual.clone() }),
        &["linear_before_reset", "Gru", "Lstm"],
    )?;
    expect_refused(OnnxNode::new("Conv", usual.clone()), &["ONNX operator", "Conv", "LSTM"])?;
    let names = ["Tanh", "Relu"].map(str::to_owned).to_vec();
    let both = OnnxAttributes { activations: names, direction: OnnxDirection::Bidirectional, ..usual };
    let zeros = [0.0; 16];
    let tensors =
        OnnxTensors::new(HostArray::new(&[2, 2, 3], &zeros[..12]), HostArray::new(&[2, 2, 2], &zeros[..8]));
    let node = OnnxNode::new("RNN", both)?;
    expect_refused(node.layer(&tensors), &["activations", "layers"])?;
    let layers = node.layers(&tensors)?;
    assert_eq!(layers.iter().map(|layer| layer.directions()).collect::<Vec<_>>(), [0..1, 1..2]);
    assert_eq!(layers[1].description().cell(), &Cell::relu());
    Ok(())
}

fn weights_of_another_layer_are_refused_and_change_nothing() -> Outcome {
    let keras = Keras::new(Form::Lstm, 100, true);
    let layer = keras.with(|weights| KerasLayer::new(&Form::Lstm.config(), weights))?;
    let lstm = || Rnn::new(Cell::Lstm, INPUTS, HIDDEN);
    for (description, parts) in [
        (lstm().bidirectional(), ["weight_ih_l0_reverse", "not among the weights"]),
        (lstm().without_bias(), ["bias_ih_l0", "there is no"]),
        (Rnn::new(Cell::Lstm, INPUTS + 1, HIDDEN), ["[8, 4]", "[8, 3]"]),
        (Rnn::new(Cell::Gru, INPUTS, HIDDEN), ["[6, 3]", "[8, 3]"]),
    ] {
        let mut model = Model::new(2);
        model.add("rnn", description)?;
        let mut parameters = model.initialize(&Device::cpu())?;
        let before = all_parameters(&parameters)?;
        expect_refused(layer.load("rnn", &mut parameters), &parts)?;
        expect_refused(layer.load("lstm", &mut parameters), &["lstm", "rnn.weight_ih_l0"])?;
        expect_same_bits("untouched", &before, &all_parameters(&parameters)?)?;
    }
    Ok(())
}

fn encoder(seed: u64) -> Result<Parameters> {
    let mut model = Model::new(seed);
    model.add("encoder", Rnn::new(Cell::Lstm, 3, 4).layers(2).bidirectional())?;
    model.add("head", Linear::new(8, 2))?;
    model.initialize(&Device::cpu())
}

fn the_state_dict_of_a_single_layer_is_saved_and_loaded() -> Outcome {
    let folder = Folder::new("single-layer")?;
    let path = folder.path().join("lstm.safetensors");
    let (from, mut to) = (encoder(3)?, encoder(4)?);
    save_layer_weights(&path, "encoder", &from)?;

    // PyTorch's names of an nn.LSTM alone.
    let mut model = Model::new(5);
    model.add("encoder", Rnn::new(Cell::Lstm, 3, 4).layers(2).bidirectional())?;
    let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
    for spec in model.specs() {
        let bare = spec.name.trim_start_matches("encoder.");
        assert!(text.contains(&format!("\"{bare}\"")), "{bare}");
    }
    assert!(!text.contains("encoder") && !text.contains("head"), "{text}");

    let head = to.view("head.weight")?.download()?;
    load_layer_weights(&path, "encoder", &mut to)?;
    for name in from.names().filter(|name| name.starts_with("encoder.")) {
        expect_same_bits(name, &from.view(name)?.download()?, &to.view(name)?.download()?)?;
    }
    expect_same_bits("head", &head, &to.view("head.weight")?.download()?)?;

    expect_refused(load_layer_weights(&path, "decoder", &mut to), &["decoder", "encoder.weight_ih_l0"])?;
    expect_refused(save_layer_weights(&path, "decoder", &to), &["decoder"])?;
    let wrong = load_layer_weights(&path, "head", &mut to);
    assert!(matches!(wrong, Err(Error::Checkpoint { .. })), "{wrong:?}");
    expect_refused(wrong, &["weight"])
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        onnx_tensors_of_another_shape_are_refused_by_name,
        onnx_attributes_that_make_no_sense_are_refused,
        weights_of_another_layer_are_refused_and_change_nothing,
        the_state_dict_of_a_single_layer_is_saved_and_loaded,
    );
}
