//! Keras' recurrent layers: its documented equations, written here in its own layouts and with its own functions, give what
//! the imported layers give; configurations are understood or refused by name.

use refrain::io::{HostArray, KerasClass, KerasConfig, KerasLayer, KerasVersion, KerasWeights};
use refrain::nn::Model;
use refrain::ops::Activation;
use refrain::{Device, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::custom::sigmoid;
use crate::imports::{HIDDEN, INPUTS, STEPS, expect_refused, single};
use crate::support::{expect_close, values};

type Function = fn(f64) -> f64;

/// `hard_sigmoid` of Keras before version 3; its constants are those of 32-bit floats here.
fn hard_sigmoid_2(x: f64) -> f64 {
    (f64::from(0.2_f32) * x + 0.5).clamp(0.0, 1.0)
}

/// `hard_sigmoid` of Keras 3.
fn hard_sigmoid_3(x: f64) -> f64 {
    (f64::from(1.0_f32 / 6.0) * x + 0.5).clamp(0.0, 1.0)
}

fn relu(x: f64) -> f64 {
    x.max(0.0)
}

/// A class with the form of its GRU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Simple,
    Lstm,
    Gru,
    GruResetBefore,
}

const FORMS: [Form; 4] = [Form::Simple, Form::Lstm, Form::Gru, Form::GruResetBefore];

impl Form {
    fn class(self) -> KerasClass {
        match self {
            Self::Simple => KerasClass::SimpleRnn,
            Self::Lstm => KerasClass::Lstm,
            Self::Gru | Self::GruResetBefore => KerasClass::Gru,
        }
    }

    /// The layer as Keras 3 makes it.
    pub(crate) fn config(self) -> KerasConfig {
        let config = KerasConfig::new(self.class(), KerasVersion::V3);
        if self == Self::GruResetBefore { config.reset_before() } else { config }
    }
}

/// The arrays of a Keras layer, drawn at random, and its functions.
pub(crate) struct Keras {
    form: Form,
    gates: usize,
    kernel: Vec<f32>,
    recurrent: Vec<f32>,
    bias: Option<Vec<f32>>,
    activation: Function,
    recurrent_activation: Function,
}

impl Keras {
    pub(crate) fn new(form: Form, seed: u64, biased: bool) -> Self {
        let gates = match form {
            Form::Simple => 1,
            Form::Lstm => 4,
            Form::Gru | Form::GruResetBefore => 3,
        };
        let biases = if form == Form::Gru { 2 } else { 1 };
        Self {
            form,
            gates,
            kernel: single(seed, INPUTS * gates * HIDDEN),
            recurrent: single(seed + 1, HIDDEN * gates * HIDDEN),
            bias: biased.then(|| single(seed + 2, biases * gates * HIDDEN)),
            activation: f64::tanh,
            recurrent_activation: sigmoid,
        }
    }

    fn with_functions(self, activation: Function, recurrent_activation: Function) -> Self {
        Self { activation, recurrent_activation, ..self }
    }

    pub(crate) fn with<T>(&self, run: impl FnOnce(&KerasWeights<'_>) -> T) -> T {
        let columns = self.gates * HIDDEN;
        let (kernel, recurrent) = ([INPUTS, columns], [HIDDEN, columns]);
        let shape: &[usize] = if self.form == Form::Gru { &[2, columns] } else { &[columns] };
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
        let (function, gate_function) = (self.activation, self.recurrent_activation);
        let (mut h, mut c, mut outputs) = (vec![0.0; HIDDEN], vec![0.0; HIDDEN], Vec::new());
        for x in x.chunks(INPUTS) {
            let before = h.clone();
            for unit in 0..HIDDEN {
                let from_x = |gate| self.product(&self.kernel, x, gate, unit) + self.bias(0, gate, unit);
                let from_h = |gate| self.product(&self.recurrent, &before, gate, unit);
                let both = |gate| from_x(gate) + from_h(gate);
                h[unit] = match self.form {
                    Form::Simple => function(both(0)),
                    // i, f, c, o.
                    Form::Lstm => {
                        c[unit] =
                            gate_function(both(1)) * c[unit] + gate_function(both(0)) * function(both(2));
                        gate_function(both(3)) * function(c[unit])
                    }
                    // z, r, h; reset_after = True.
                    Form::Gru => {
                        let second = |gate| from_h(gate) + self.bias(1, gate, unit);
                        let z = gate_function(from_x(0) + second(0));
                        let r = gate_function(from_x(1) + second(1));
                        z * before[unit] + (1.0 - z) * function(from_x(2) + r * second(2))
                    }
                    // z, r, h; reset_after = False.
                    Form::GruResetBefore => {
                        let z = gate_function(both(0));
                        let reset: Vec<f64> = (0..HIDDEN)
                            .map(|unit| {
                                let from_x = self.product(&self.kernel, x, 1, unit) + self.bias(0, 1, unit);
                                let r = from_x + self.product(&self.recurrent, &before, 1, unit);
                                gate_function(r) * before[unit]
                            })
                            .collect();
                        let n = function(from_x(2) + self.product(&self.recurrent, &reset, 2, unit));
                        z * before[unit] + (1.0 - z) * n
                    }
                };
            }
            outputs.extend(&h);
        }
        outputs
    }
}

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

/// Fails unless a layer of this configuration, imported, computes what Keras does.
fn expect_imported(what: &str, keras: &Keras, config: &KerasConfig, x: &[f64]) -> Outcome {
    let found = run(&keras.with(|weights| KerasLayer::new(config, weights))?, x)?;
    expect_close(what, &found, &keras.outputs(x), TOLERANCE)
}

/// Rows of a step each, the last first.
fn reversed(values: &[f64], width: usize) -> Vec<f64> {
    values.chunks(width).rev().flatten().copied().collect()
}

const TOLERANCE: f64 = 100.0 * f64::EPSILON;

fn keras_weights_give_what_keras_computes() -> Outcome {
    let x = values(50, STEPS * INPUTS, 1.0);
    for (form, seed) in FORMS.into_iter().zip([60, 70, 80, 110]) {
        for biased in [true, false] {
            let keras = Keras::new(form, seed, biased);
            expect_imported(&format!("{form:?}, bias {biased}"), &keras, &form.config(), &x)?;
        }
    }
    Ok(())
}

/// The functions are those that the layer's own configuration names, by the version of Keras that wrote it.
fn keras_activations_are_those_of_the_configuration() -> Outcome {
    // Large enough for the flat parts of hard_sigmoid.
    let x = values(52, STEPS * INPUTS, 4.0);
    let hard = r#""recurrent_activation": "hard_sigmoid""#;
    let relu_hard = r#""activation": "relu", "recurrent_activation": "hard_sigmoid""#;
    let cases: [(KerasVersion, &str, Function, Function); 8] = [
        // The defaults of each version.
        (KerasVersion::V1, "", f64::tanh, hard_sigmoid_2),
        (KerasVersion::V2, "", f64::tanh, sigmoid),
        (KerasVersion::V3, "", f64::tanh, sigmoid),
        (KerasVersion::V2, hard, f64::tanh, hard_sigmoid_2),
        (KerasVersion::V3, hard, f64::tanh, hard_sigmoid_3),
        (KerasVersion::V3, relu_hard, relu, hard_sigmoid_3),
        (KerasVersion::V1, r#""recurrent_activation": "sigmoid""#, f64::tanh, sigmoid),
        (KerasVersion::V3, r#""activation": null"#, |x| x, sigmoid),
    ];
    for form in [Form::Lstm, Form::Gru, Form::GruResetBefore] {
        for (version, json, activation, recurrent_activation) in cases {
            let reset = match form {
                Form::Gru => r#""reset_after": true"#,
                Form::GruResetBefore => r#""reset_after": false"#,
                _ => r#""units": 2"#,
            };
            let comma = if json.is_empty() { "" } else { "," };
            let config = KerasConfig::from_json(form.class(), &format!("{{{reset}{comma}{json}}}"), version)?;
            let keras = Keras::new(form, 120, true).with_functions(activation, recurrent_activation);
            expect_imported(&format!("{form:?} {version:?} {json}"), &keras, &config, &x)?;
        }
    }
    // A SimpleRNN has one function; and functions can be given as arguments.
    let simple = Keras::new(Form::Simple, 130, true).with_functions(hard_sigmoid_3, sigmoid);
    let json = r#"{"activation": "hard_sigmoid"}"#;
    let config = KerasConfig::from_json(KerasClass::SimpleRnn, json, KerasVersion::V3)?;
    expect_imported("a SimpleRNN", &simple, &config, &x)?;
    let lstm = Keras::new(Form::Lstm, 135, true).with_functions(relu, hard_sigmoid_2);
    let config = KerasConfig::new(KerasClass::Lstm, KerasVersion::V3)
        .activation(Activation::Relu)
        .recurrent_activation(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 });
    expect_imported("functions as arguments", &lstm, &config, &x)
}

/// What `get_config()` of each version returns is understood; and a GRU without `reset_after` has its version's form.
fn configurations_of_every_version_of_keras_are_read() -> Outcome {
    let keras_2_2 = r#"{"name": "gru_1", "trainable": true, "batch_input_shape": [null, 4, 3], "dtype": "float32",
        "return_sequences": true, "return_state": false, "go_backwards": false, "stateful": false, "unroll": false,
        "units": 2, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": true,
        "kernel_initializer": {"class_name": "VarianceScaling", "config": {"scale": 1.0}}, "recurrent_initializer": null,
        "bias_initializer": null, "kernel_regularizer": null, "recurrent_regularizer": null, "bias_regularizer": null,
        "activity_regularizer": null, "kernel_constraint": null, "recurrent_constraint": null, "bias_constraint": null,
        "dropout": 0.0, "recurrent_dropout": 0.0, "implementation": 1}"#;
    let keras_3 = r#"{"name": "lstm", "trainable": true, "dtype": {"module": "keras", "class_name": "DTypePolicy",
        "config": {"name": "float32"}, "registered_name": null}, "return_sequences": true, "return_state": false,
        "go_backwards": false, "stateful": false, "unroll": true, "zero_output_for_mask": false, "units": 2,
        "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": true, "kernel_initializer": {},
        "recurrent_initializer": {}, "bias_initializer": {}, "unit_forget_bias": true, "kernel_regularizer": null,
        "recurrent_regularizer": null, "bias_regularizer": null, "activity_regularizer": null, "kernel_constraint": null,
        "recurrent_constraint": null, "bias_constraint": null, "dropout": 0.25, "recurrent_dropout": 0.5, "seed": null,
        "use_cudnn": "auto"}"#;
    let x = values(53, STEPS * INPUTS, 1.0);
    let gru = Keras::new(Form::GruResetBefore, 140, true).with_functions(f64::tanh, hard_sigmoid_2);
    let config = KerasConfig::from_json(KerasClass::Gru, keras_2_2, KerasVersion::V1)?;
    expect_imported("a GRU of Keras 2.2", &gru, &config, &x)?;

    let lstm = Keras::new(Form::Lstm, 145, true);
    let config = KerasConfig::from_json(KerasClass::Lstm, keras_3, KerasVersion::V3)?;
    let layer = lstm.with(|weights| KerasLayer::new(&config, weights))?;
    let expected = refrain::nn::Rnn::new(refrain::nn::Cell::Lstm, INPUTS, HIDDEN);
    assert_eq!(layer.description(), &expected.input_dropout(0.25).recurrent_dropout(0.5));
    expect_close("an LSTM of Keras 3", &run(&layer, &x)?, &lstm.outputs(&x), TOLERANCE)
}

fn keys_and_values_that_are_not_understood_are_refused_by_name() -> Outcome {
    let read = |class, json: &str| KerasConfig::from_json(class, json, KerasVersion::V2);
    for (class, json, parts) in [
        (KerasClass::Lstm, r#"{"peepholes": true}"#, ["peepholes", "LSTM"]),
        (KerasClass::Lstm, r#"{"reset_after": true}"#, ["reset_after", "LSTM"]),
        (KerasClass::Gru, r#"{"unit_forget_bias": true}"#, ["unit_forget_bias", "GRU"]),
        (KerasClass::SimpleRnn, r#"{"recurrent_activation": "tanh"}"#, ["recurrent_activation", "SimpleRNN"]),
        (KerasClass::Lstm, r#"{"activation": "swish"}"#, ["activation", "swish"]),
        (KerasClass::Lstm, r#"{"activation": "leaky_relu"}"#, ["leaky_relu", "argument"]),
        (KerasClass::Lstm, r#"{"activation": {"class_name": "function"}}"#, ["activation", "class_name"]),
        (KerasClass::Lstm, r#"{"go_backwards": 1}"#, ["go_backwards", "true or false"]),
        (KerasClass::Lstm, r#"{"units": -3}"#, ["units", "-3"]),
        (KerasClass::Lstm, r#"{"dropout": 1.5}"#, ["dropout", "1.5"]),
        (KerasClass::Lstm, r#"["units"]"#, ["Keras config", "map"]),
        (KerasClass::Lstm, "units", ["Keras config", "expected"]),
    ] {
        expect_refused(read(class, json), &parts)?;
    }
    let lstm = Keras::new(Form::Lstm, 150, true);
    let with = |json| {
        let config = read(KerasClass::Lstm, json)?;
        lstm.with(|weights| KerasLayer::new(&config, weights))
    };
    expect_refused(with(r#"{"units": 3}"#), &["units", "3", "2 units"])?;
    expect_refused(with(r#"{"use_bias": false}"#), &["bias", "use_bias=false"])?;
    let simple = Form::Simple.config().recurrent_activation(Activation::Sigmoid);
    let simple = Keras::new(Form::Simple, 155, true).with(|weights| KerasLayer::new(&simple, weights));
    expect_refused(simple, &["recurrent_activation", "SimpleRNN"])
}

/// Keras returns the outputs in the order in which it computes them; here each is in the place of its step.
fn a_keras_layer_with_go_backwards_runs_from_the_end() -> Outcome {
    let x = values(54, STEPS * INPUTS, 1.0);
    for form in FORMS {
        let keras = Keras::new(form, 160, true);
        let layer = keras.with(|weights| KerasLayer::new(&form.config().go_backwards(), weights))?;
        let of_keras = keras.outputs(&reversed(&x, INPUTS));
        expect_close(&format!("{form:?}"), &run(&layer, &x)?, &reversed(&of_keras, HIDDEN), TOLERANCE)?;
        let twice =
            keras.with(|weights| KerasLayer::bidirectional(&form.config().go_backwards(), weights, weights));
        expect_refused(twice, &["go_backwards", "forward"])?;
    }
    let json = r#"{"go_backwards": true}"#;
    let config = KerasConfig::from_json(KerasClass::Lstm, json, KerasVersion::V3)?;
    assert_eq!(config, Form::Lstm.config().go_backwards());
    Ok(())
}

fn a_bidirectional_keras_layer_is_its_two_directions_concatenated() -> Outcome {
    let x = values(51, STEPS * INPUTS, 1.0);
    for form in FORMS {
        let (forward, backward) = (Keras::new(form, 90, true), Keras::new(form, 95, true));
        let layer =
            forward.with(|one| backward.with(|two| KerasLayer::bidirectional(&form.config(), one, two)))?;
        let second = backward.outputs(&reversed(&x, INPUTS));
        let steps = forward.outputs(&x);
        let steps = steps.chunks(HIDDEN).zip(second.chunks(HIDDEN).rev());
        let expected: Vec<f64> = steps.flat_map(|(one, two)| [one, two].concat()).collect();
        expect_close(&format!("{form:?}"), &run(&layer, &x)?, &expected, TOLERANCE)?;
    }
    Ok(())
}

fn keras_arrays_of_another_shape_are_refused_by_name() -> Outcome {
    let zeros = [0.0; 64];
    let array = |shape: &'static [usize]| HostArray::new(shape, &zeros[..shape.iter().product()]);
    let weights = |kernel, recurrent| KerasWeights::new(array(kernel), array(recurrent));
    let lstm = |weights: KerasWeights<'_>| KerasLayer::new(&Form::Lstm.config(), &weights);
    expect_refused(lstm(weights(&[3, 6], &[2, 8])), &["kernel", "[3, 8]", "[3, 6]"])?;
    expect_refused(lstm(weights(&[3, 8], &[2, 6])), &["recurrent_kernel", "[2, 8]", "[2, 6]"])?;
    expect_refused(lstm(weights(&[24], &[2, 8])), &["kernel", "inputs", "[24]"])?;
    expect_refused(lstm(weights(&[3, 8], &[2, 8]).bias(array(&[2, 8]))), &["bias", "[8]", "[2, 8]"])?;
    let gru = KerasLayer::new(&Form::Gru.config(), &weights(&[3, 6], &[2, 6]).bias(array(&[6])));
    expect_refused(gru, &["bias", "[2, 6]", "[6]"])?;
    let short = KerasWeights::new(HostArray::new(&[3, 8], &zeros[..23]), array(&[2, 8]));
    expect_refused(lstm(short), &["kernel", "24 values", "23 values"])?;
    let (one, other) = (weights(&[3, 8], &[2, 8]), weights(&[5, 8], &[2, 8]));
    let both = KerasLayer::bidirectional(&Form::Lstm.config(), &one, &other);
    expect_refused(both, &["backward", "3 inputs", "5 inputs"])?;
    let both = KerasLayer::bidirectional(&Form::Lstm.config(), &one, &one.bias(array(&[8])));
    expect_refused(both, &["bias", "one direction"])
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        keras_weights_give_what_keras_computes,
        keras_activations_are_those_of_the_configuration,
        configurations_of_every_version_of_keras_are_read,
        keys_and_values_that_are_not_understood_are_refused_by_name,
        a_keras_layer_with_go_backwards_runs_from_the_end,
        a_bidirectional_keras_layer_is_its_two_directions_concatenated,
        keras_arrays_of_another_shape_are_refused_by_name,
    );
}
