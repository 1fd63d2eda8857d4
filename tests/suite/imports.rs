//! Recurrent weights as other packages hold them: their equations, written here in their own layouts, give what the
//! imported layers give; what does not fit is refused by name.

use libtest_mimic::Failed;
use refrain::io::{
    HostArray, KerasCell, KerasLayer, KerasWeights, OnnxAttributes, OnnxDirection, OnnxNode, OnnxTensors,
    load_layer_weights, save_layer_weights,
};
use refrain::nn::{Cell, Linear, Model, Parameters, Rnn};
use refrain::ops::Activation;
use refrain::{Device, Error, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::{Folder, all_parameters, expect_close, expect_same_bits, values};

const STEPS: usize = 4;
const INPUTS: usize = 3;
const HIDDEN: usize = 2;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn single(seed: u64, count: usize) -> Vec<f32> {
    values(seed, count, 1.0).into_iter().map(|value| value as f32).collect()
}

/// The arrays of a Keras layer, drawn at random.
struct Keras {
    cell: KerasCell,
    gates: usize,
    kernel: Vec<f32>,
    recurrent: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Keras {
    fn new(cell: KerasCell, seed: u64, biased: bool) -> Self {
        let gates = match cell {
            KerasCell::Lstm => 4,
            KerasCell::Gru | KerasCell::GruResetBefore => 3,
            _ => 1,
        };
        let biases = if cell == KerasCell::Gru { 2 } else { 1 };
        Self {
            cell,
            gates,
            kernel: single(seed, INPUTS * gates * HIDDEN),
            recurrent: single(seed + 1, HIDDEN * gates * HIDDEN),
            bias: biased.then(|| single(seed + 2, biases * gates * HIDDEN)),
        }
    }

    fn with<T>(&self, run: impl FnOnce(&KerasWeights<'_>) -> T) -> T {
        let columns = self.gates * HIDDEN;
        let (kernel, recurrent) = ([INPUTS, columns], [HIDDEN, columns]);
        let shape: &[usize] = if self.cell == KerasCell::Gru { &[2, columns] } else { &[columns] };
        let weights = KerasWeights::new(
            HostArray::new(&kernel, &self.kernel),
            HostArray::new(&recurrent, &self.recurrent),
        );
        match &self.bias {
            Some(bias) => run(&weights.bias(HostArray::new(shape, bias))),
            None => run(&weights),
        }
    }

    /// Column `unit` of gate `gate` of x · kernel.
    fn product(&self, kernel: &[f32], x: &[f64], gate: usize, unit: usize) -> f64 {
        let columns = self.gates * HIDDEN;
        let at = |row: usize| f64::from(kernel[row * columns + gate * HIDDEN + unit]);
        x.iter().enumerate().map(|(row, x)| x * at(row)).sum()
    }

    fn bias(&self, which: usize, gate: usize, unit: usize) -> f64 {
        let place = (which * self.gates + gate) * HIDDEN + unit;
        self.bias.as_ref().and_then(|bias| bias.get(place)).map_or(0.0, |&value| value.into())
    }

    /// The outputs over one row, by Keras' documented equations.
    fn outputs(&self, x: &[f64]) -> Vec<f64> {
        let (mut h, mut c, mut outputs) = (vec![0.0; HIDDEN], vec![0.0; HIDDEN], Vec::new());
        for x in x.chunks(INPUTS) {
            let before = h.clone();
            for unit in 0..HIDDEN {
                let from_x = |gate| self.product(&self.kernel, x, gate, unit) + self.bias(0, gate, unit);
                let from_h = |gate| self.product(&self.recurrent, &before, gate, unit);
                let both = |gate| from_x(gate) + from_h(gate);
                h[unit] = match self.cell {
                    // i, f, c, o.
                    KerasCell::Lstm => {
                        c[unit] = sigmoid(both(1)) * c[unit] + sigmoid(both(0)) * both(2).tanh();
                        sigmoid(both(3)) * c[unit].tanh()
                    }
                    // z, r, h; reset_after = True.
                    KerasCell::Gru => {
                        let second = |gate| from_h(gate) + self.bias(1, gate, unit);
                        let z = sigmoid(from_x(0) + second(0));
                        let r = sigmoid(from_x(1) + second(1));
                        z * before[unit] + (1.0 - z) * (from_x(2) + r * second(2)).tanh()
                    }
                    // z, r, h; reset_after = False.
                    KerasCell::GruResetBefore => {
                        let z = sigmoid(both(0));
                        let reset: Vec<f64> = (0..HIDDEN)
                            .map(|unit| {
                                let from_x = self.product(&self.kernel, x, 1, unit) + self.bias(0, 1, unit);
                                let r = sigmoid(from_x + self.product(&self.recurrent, &before, 1, unit));
                                r * before[unit]
                            })
                            .collect();
                        let n = (from_x(2) + self.product(&self.recurrent, &reset, 2, unit)).tanh();
                        z * before[unit] + (1.0 - z) * n
                    }
                    _ => both(0).tanh(),
                };
            }
            outputs.extend(&h);
        }
        outputs
    }
}

const KERAS: [KerasCell; 4] =
    [KerasCell::SimpleRnn(Activation::Tanh), KerasCell::Lstm, KerasCell::Gru, KerasCell::GruResetBefore];

/// The outputs of an imported layer over one row.
fn run(layer: &KerasLayer, x: &[f64]) -> Result<Vec<f64>> {
    let device = Device::reference();
    let mut model = Model::new(1);
    let rnn = model.add("rnn", layer.description().clone())?;
    let mut parameters = model.initialize(&device)?;
    layer.load("rnn", &mut parameters)?;
    let x = Tensor::from_slice_f64(&device, &[STEPS, 1, INPUTS], x)?;
    rnn.infer(&parameters, &x, &rnn.zero_state(&device, 1)?)?.0.download_f64()
}

fn keras_weights_give_what_keras_computes() -> Outcome {
    let x = values(50, STEPS * INPUTS, 1.0);
    for (cell, seed) in KERAS.into_iter().zip([60, 70, 80, 110]) {
        for biased in [true, false] {
            let keras = Keras::new(cell, seed, biased);
            let found = run(&keras.with(|weights| KerasLayer::new(cell, weights))?, &x)?;
            let name = format!("{cell:?}, bias {biased}");
            expect_close(&name, &found, &keras.outputs(&x), 100.0 * f64::EPSILON)?;
        }
    }
    Ok(())
}

fn a_bidirectional_keras_layer_is_its_two_side_by_side() -> Outcome {
    let x = values(51, STEPS * INPUTS, 1.0);
    let reversed: Vec<f64> = x.chunks(INPUTS).rev().flatten().copied().collect();
    for cell in KERAS {
        let (forward, backward) = (Keras::new(cell, 90, true), Keras::new(cell, 95, true));
        let layer = forward.with(|one| backward.with(|two| KerasLayer::bidirectional(cell, one, two)))?;
        let second = backward.outputs(&reversed);
        let steps = forward.outputs(&x);
        let steps = steps.chunks(HIDDEN).zip(second.chunks(HIDDEN).rev());
        let expected: Vec<f64> = steps.flat_map(|(one, two)| [one, two].concat()).collect();
        expect_close(&format!("{cell:?}"), &run(&layer, &x)?, &expected, 100.0 * f64::EPSILON)?;
    }
    Ok(())
}

/// Fails unless `result` is an error whose message has all `parts`.
fn expect_refused<T>(result: Result<T>, parts: &[&str]) -> Outcome {
    let Err(error) = result else { return Err(Failed::from(format!("{parts:?}: was taken"))) };
    let message = error.to_string();
    match parts.iter().find(|part| !message.contains(**part)) {
        Some(part) => Err(Failed::from(format!("`{message}` does not say `{part}`"))),
        None => Ok(()),
    }
}

fn keras_arrays_of_another_shape_are_refused_by_name() -> Outcome {
    let zeros = [0.0; 64];
    let array = |shape: &'static [usize]| HostArray::new(shape, &zeros[..shape.iter().product()]);
    let weights = |kernel, recurrent| KerasWeights::new(array(kernel), array(recurrent));
    let lstm = |weights: KerasWeights<'_>| KerasLayer::new(KerasCell::Lstm, &weights);
    expect_refused(lstm(weights(&[3, 6], &[2, 8])), &["kernel", "[3, 8]", "[3, 6]"])?;
    expect_refused(lstm(weights(&[3, 8], &[2, 6])), &["recurrent_kernel", "[2, 8]", "[2, 6]"])?;
    expect_refused(lstm(weights(&[24], &[2, 8])), &["kernel", "inputs", "[24]"])?;
    expect_refused(lstm(weights(&[3, 8], &[2, 8]).bias(array(&[2, 8]))), &["bias", "[8]", "[2, 8]"])?;
    let gru = KerasLayer::new(KerasCell::Gru, &weights(&[3, 6], &[2, 6]).bias(array(&[6])));
    expect_refused(gru, &["bias", "[2, 6]", "[6]"])?;
    let short = KerasWeights::new(HostArray::new(&[3, 8], &zeros[..23]), array(&[2, 8]));
    expect_refused(lstm(short), &["kernel", "24 values", "23 values"])?;
    let (one, other) = (weights(&[3, 8], &[2, 8]), weights(&[5, 8], &[2, 8]));
    let both = KerasLayer::bidirectional(KerasCell::Lstm, &one, &other);
    expect_refused(both, &["backward", "3 inputs", "5 inputs"])?;
    let both = KerasLayer::bidirectional(KerasCell::Lstm, &one, &one.bias(array(&[8])));
    expect_refused(both, &["bias", "one direction"])
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
    assert_eq!(layers[1].description().cell(), Cell::relu());
    Ok(())
}

fn weights_of_another_layer_are_refused_and_change_nothing() -> Outcome {
    let keras = Keras::new(KerasCell::Lstm, 100, true);
    let layer = keras.with(|weights| KerasLayer::new(KerasCell::Lstm, weights))?;
    let lstm = || Rnn::new(Cell::Lstm, INPUTS, HIDDEN);
    for (description, parts) in [
        (lstm().bidirectional(), ["weight_ih_l0_reverse", "no counterpart"]),
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
        keras_weights_give_what_keras_computes,
        a_bidirectional_keras_layer_is_its_two_side_by_side,
        keras_arrays_of_another_shape_are_refused_by_name,
        onnx_tensors_of_another_shape_are_refused_by_name,
        onnx_attributes_that_make_no_sense_are_refused,
        weights_of_another_layer_are_refused_and_change_nothing,
        the_state_dict_of_a_single_layer_is_saved_and_loaded,
    );
}
