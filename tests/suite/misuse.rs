//! Bad input is a typed error that names the argument, what was expected and what came; nothing panics.
//!
//! Long, because it lists the misuses of the whole interface.

use refrain::data::{Vocabulary, Windows};
use refrain::loss::{CrossEntropy, cross_entropy};
use refrain::nn::{Cell, Embedding, LayerConfig, Linear, Merge, Model, OneHot, Rnn, Sequences, State};
use refrain::ops::{self, Activation, Binary, Form, Norm, Reduction};
use refrain::optim::{Adam, AdamConfig, Sgd, SgdConfig, WeightDecay};
use refrain::tuning::{MatmulTile, MatmulVariant};
use refrain::{Device, Error, GpuOptions, IGNORED, Indices, Result, Shape, Tensor, View};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_devices, on_gpu};
use crate::files::head;
use crate::owners::Small;
use crate::support::{all_parameters, random};

/// Asserts that a result is this variant of [`Error`] and that its message has all these parts, or those of an array after
/// `all`.
macro_rules! refuses {
    ($variant:ident, $result:expr, all $parts:expr) => {
        match (&$result.map(drop), &$parts as &[&str]) {
            (Err(error @ refrain::Error::$variant { .. }), parts) => {
                let message = error.to_string();
                for part in parts {
                    assert!(message.contains(part), "`{message}` does not say `{part}`");
                }
            }
            (other, parts) => {
                panic!("{} {parts:?}: {other:?} is no {}", stringify!($result), stringify!($variant))
            }
        }
    };
    ($variant:ident, $result:expr, $($part:expr),+ $(,)?) => {
        $crate::misuse::refuses!($variant, $result, all [$($part),+])
    };
}

pub(crate) use refuses;

fn tensor(device: &Device, dimensions: &[usize]) -> Result<Tensor> {
    random(device, 80, dimensions, 1.0)
}

fn indices(device: &Device, dimensions: &[usize], data: &[u32]) -> Result<Indices> {
    Indices::from_slice(device, dimensions, data)
}

fn sizes_that_do_not_fit_data(device: &Device) -> Outcome {
    refuses!(Shape, Tensor::from_slice(device, &[2, 3], &[1.0; 5]), "data", "6 values", "[2, 3]", "5 values");
    refuses!(Shape, Tensor::from_slice_f64(device, &[4], &[1.0; 5]), "data", "4 values", "5 values");
    refuses!(Shape, Tensor::from_slice(device, &[], &[]), "1 to 4 dimensions", "[]");
    refuses!(Shape, Tensor::zeros(device, &[1, 1, 1, 1, 1]), "1 to 4 dimensions", "[1, 1, 1, 1, 1]");
    refuses!(Shape, Tensor::zeros(device, &[3, 0]), "zero", "[3, 0]");
    refuses!(Shape, Tensor::zeros(device, &[usize::MAX, 3]), "2^31", "3]");
    refuses!(Shape, Indices::from_slice(device, &[2], &[1, 2, 3]), "indices", "2 values", "3 values");
    refuses!(Shape, Indices::from_slice(device, &[0], &[]), "indices", "zero", "[0]");
    refuses!(Shape, Shape::new(&[1 << 40]), "shape", "2^31", "1099511627776");
    let x = tensor(device, &[2, 3])?;
    refuses!(Shape, x.reshape(&[4]), "reshape", "6 elements", "[4]");
    refuses!(Shape, x.reshape(&[]), "1 to 4 dimensions");
    refuses!(Shape, x.read(), "read", "one element", "[2, 3]");
    let layout = "[time, batch, inputs]";
    refuses!(Shape, x.shape().exactly::<3>("x", layout), "x", layout, "[2, 3]");
    Ok(())
}

fn shapes_that_do_not_fit_operations(device: &Device) -> Outcome {
    let (x, other) = (tensor(device, &[2, 3])?, tensor(device, &[3, 2])?);
    refuses!(Shape, ops::binary(&x, &other, Binary::Add), "second operand", "[2, 3]", "[3, 2]");
    refuses!(Shape, ops::unary_backward(&x, &other, &x, Activation::Tanh), "y", "[2, 3]", "[3, 2]");
    refuses!(Shape, ops::unary_backward(&x, &x, &other, Activation::Tanh), "d_y", "[2, 3]", "[3, 2]");
    refuses!(Shape, ops::softmax_backward(&x, &other), "d_y", "[2, 3]", "[3, 2]");
    refuses!(Shape, ops::log_softmax_backward(&x, &other), "d_y", "[2, 3]", "[3, 2]");
    for (form, inner) in [
        (Form::Plain, "3"),
        (Form::RightTransposed, "3"),
        (Form::LeftTransposed, "2"),
        (Form::BothTransposed, "2"),
    ] {
        let wrong = tensor(device, &[7, 7])?;
        refuses!(Shape, ops::matmul(&x, &wrong, form, None), "right operand", "inner size", inner, "[7, 7]");
    }
    let bias = tensor(device, &[5])?;
    let product = ops::matmul(&x, &other, Form::Plain, Some(View::from(&bias)));
    refuses!(Shape, product, "bias", "[2]", "[5]");
    for axes in [&[0][..], &[0, 0], &[0, 2], &[0, 1, 2], &[]] {
        refuses!(Shape, ops::permute(&x, axes), "axes", "each of 0 to 1 once", &format!("{axes:?}"));
    }
    let function = Activation::LeakyRelu { slope: f32::NAN };
    refuses!(Config, ops::unary(&x, function), "leaky_relu", "finite", "NaN");
    refuses!(Config, ops::unary_backward(&x, &x, &x, function), "leaky_relu", "finite", "NaN");
    Ok(())
}

fn tokens_and_tables_that_do_not_fit(device: &Device) -> Outcome {
    let table = tensor(device, &[4, 3])?;
    let tokens = indices(device, &[2], &[1, 4])?;
    refuses!(Index, ops::embedding(&tokens, &table), "tokens", "index 4", "below 4");
    refuses!(Index, ops::one_hot(&tokens, 3), "tokens", "index 4", "below 3");
    refuses!(Index, ops::one_hot(&tokens, 0), "tokens", "below 0");
    let d_y = tensor(device, &[2, 3])?;
    refuses!(Index, ops::embedding_backward(&tokens, &d_y, 2), "tokens", "index 4", "below 2");
    let ignored = indices(device, &[2], &[1, IGNORED])?;
    refuses!(Index, ops::embedding(&ignored, &table), "tokens", "4294967295", "below 4");
    refuses!(Index, ops::one_hot(&ignored, 9), "tokens", "4294967295", "below 9");
    let good = indices(device, &[2], &[1, 2])?;
    let flat = tensor(device, &[12])?;
    refuses!(Shape, ops::embedding(&good, &flat), "table", "[vocabulary, features]", "[12]");
    refuses!(Shape, ops::embedding_backward(&good, &tensor(device, &[3, 3])?, 4), "d_y", "[2, 3]", "[3, 3]");
    refuses!(Shape, ops::embedding_backward(&good, &d_y, 0), "zero", "[0, 3]");
    let deep = indices(device, &[1, 1, 1, 2], &[0, 1])?;
    refuses!(Shape, ops::embedding(&deep, &table), "tokens", "fewer dimensions", "[1, 1, 1, 2]");
    Ok(())
}

fn labels_and_losses_that_do_not_fit(device: &Device) -> Outcome {
    let logits = tensor(device, &[2, 3])?;
    let labels = indices(device, &[2], &[0, 2])?;
    refuses!(Index, cross_entropy(&logits, &indices(device, &[2], &[0, 3])?), "labels", "index 3", "below 3");
    refuses!(Shape, cross_entropy(&logits, &indices(device, &[3], &[0; 3])?), "labels", "[2]", "[3]");
    refuses!(Shape, cross_entropy(&tensor(device, &[3])?, &labels), "logits", "leading dimension", "[3]");
    let none = indices(device, &[2], &[IGNORED; 2])?;
    refuses!(Config, cross_entropy(&logits, &none), "labels", "all ignored", "undefined");
    let (sum, d_logits) = CrossEntropy::default().reduced(&logits, &none, Reduction::Sum)?;
    assert_eq!((sum.read()?, d_logits.download()?), (0.0, vec![0.0; 6]), "the sum of no losses is zero");
    let weighted = CrossEntropy::default().weights(tensor(device, &[2])?);
    refuses!(Shape, weighted.rows(&logits, &labels), "class weights", "[3]", "[2]");
    for smoothing in [-0.1, 1.1, f32::NAN] {
        let loss = CrossEntropy::default().smoothing(smoothing);
        let refused = loss.reduced(&logits, &labels, Reduction::Mean);
        refuses!(Config, refused, "label smoothing", "0 to 1", &smoothing.to_string());
    }
    let d_rows = tensor(device, &[3])?;
    let back = CrossEntropy::default().rows_backward(&logits, &labels, &d_rows);
    refuses!(Shape, back, "d_losses", "[2]", "[3]");
    Ok(())
}

fn inputs_that_do_not_fit_layers(device: &Device) -> Outcome {
    let mut model = Model::new(1);
    let embedding = model.add("embedding", Embedding::new(5, 3))?;
    let rnn = model.add("rnn", Rnn::new(Cell::tanh(), 3, 4).layers(2))?;
    let head = model.add("head", Linear::new(4, 5))?;
    let parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let state = rnn.zero_state(device, 2)?;
    let x = tensor(device, &[6, 2, 3])?;

    let tokens = indices(device, &[1], &[5])?;
    refuses!(Index, embedding.infer(&parameters, &tokens), "tokens", "index 5", "below 5");
    for (sizes, expected) in [(&[6, 3][..], "[time, batch, inputs]"), (&[6, 2, 4], "[time, batch, 3]")] {
        let refused = rnn.infer(&parameters, &tensor(device, sizes)?, &state);
        refuses!(Shape, refused, "x", expected, &format!("{sizes:?}"));
    }
    let narrow = rnn.zero_state(device, 3)?;
    refuses!(Shape, rnn.infer(&parameters, &x, &narrow), "the state", "[2, 2, 4]", "[2, 3, 4]");
    let shallow = State::from_hidden(&tensor(device, &[1, 2, 4])?)?;
    refuses!(Shape, rnn.forward(&parameters, &x, &shallow), "the state", "[2, 2, 4]", "[1, 2, 4]");
    refuses!(Shape, rnn.zero_state(device, 0), "zero", "[2, 0, 4]");
    refuses!(Shape, model.zero_state(device, 0), "zero", "[2, 0, 4]");
    refuses!(Shape, head.infer(&parameters, &tensor(device, &[2, 3])?), "x", "a last size of 4", "[2, 3]");

    let (_, _, trace) = rnn.forward(&parameters, &x, &state)?;
    let wrong = tensor(device, &[6, 2, 5])?;
    refuses!(Shape, trace.backward(&wrong, None, &mut gradients), "d_output", "[6, 2, 4]", "[6, 2, 5]");
    let (y, _, trace) = rnn.forward(&parameters, &x, &state)?;
    refuses!(Shape, trace.backward(&y, Some(&narrow), &mut gradients), "d_state", "[2, 2, 4]", "[2, 3, 4]");
    let (_, trace) = head.forward(&parameters, &y)?;
    refuses!(Shape, trace.backward(&y, &mut gradients), "d_y", "[6, 2, 5]", "[6, 2, 4]");
    let (_, trace) = embedding.forward(&parameters, &indices(device, &[2], &[0, 1])?)?;
    refuses!(Shape, trace.backward(&y, &mut gradients), "d_y", "[2, 3]", "[6, 2, 4]");
    let untouched: f32 = gradients.norm(Norm::Infinity)?.read()?;
    assert_eq!(untouched, 0.0, "what was refused left no gradient behind");
    Ok(())
}

fn models_that_make_no_sense(device: &Device) -> Outcome {
    let empty = Model::new(1);
    let parameters = empty.initialize(device)?;
    assert_eq!(parameters.count(), 0);
    let state = empty.zero_state(device, 1)?;
    let tokens = indices(device, &[1, 1], &[0])?;
    refuses!(Config, empty.infer(&parameters, &tokens, &state), "model", "no layers");

    let mut model = Model::new(1);
    model.add("embedding", Embedding::new(5, 3))?;
    model.add("rnn", Rnn::new(Cell::tanh(), 3, 4))?;
    let parameters = model.initialize(device)?;
    let state = model.zero_state(device, 1)?;
    let features = tensor(device, &[1, 1, 3])?;
    let refused = model.infer(&parameters, &features, &state);
    refuses!(Config, refused, "`embedding`", "reads tokens", "gets features");
    let mut features_first = Model::new(1);
    features_first.add("rnn", Rnn::new(Cell::tanh(), 3, 4))?;
    let own = features_first.initialize(device)?;
    let refused = features_first.forward(&own, &tokens, &features_first.zero_state(device, 1)?);
    refuses!(Config, refused, "`rnn`", "reads features", "gets tokens");

    let of_none = empty.zero_state(device, 1)?;
    refuses!(Config, model.infer(&parameters, &tokens, &of_none), "state", "too few layers");
    let mut two = Model::new(1);
    two.add("tokens", OneHot::new(3))?;
    two.add("lower", Rnn::new(Cell::tanh(), 3, 4))?;
    two.add("upper", Rnn::new(Cell::tanh(), 4, 4))?;
    let of_two = two.zero_state(device, 1)?;
    refuses!(Config, model.infer(&parameters, &tokens, &of_two), "state", "too many layers");
    let wide = model.zero_state(device, 2)?;
    refuses!(Shape, model.infer(&parameters, &tokens, &wide), "the state", "[1, 1, 4]", "[1, 2, 4]");
    Ok(())
}

/// That gradients belong to one initialization is the matter of `owners`.
fn another_models_parameters(device: &Device) -> Outcome {
    let Small { model, embedding, rnn, head } = Small::new()?;
    let (parameters, mut foreign) = (model.initialize(device)?, Small::new()?.model.initialize(device)?);
    let gradients = parameters.zero_gradients()?;
    let tokens = indices(device, &[1, 2], &[0, 1])?;
    let (x, y) = (tensor(device, &[1, 2, 3])?, tensor(device, &[1, 2, 4])?);
    let before = all_parameters(&foreign)?;
    let mut sgd = Sgd::new(&parameters, SgdConfig::new(0.1))?;
    let mut adam = Adam::new(&parameters, AdamConfig::new(0.1))?;
    for refused in [
        embedding.infer(&foreign, &tokens).map(drop),
        rnn.infer(&foreign, &x, &rnn.zero_state(device, 2)?).map(drop),
        head.infer(&foreign, &y).map(drop),
        model.infer(&foreign, &tokens, &model.zero_state(device, 2)?).map(drop),
        sgd.step(&mut foreign, &gradients),
        adam.step(&mut foreign, &gradients),
    ] {
        refuses!(ModelMismatch, refused, "parameters", "another model");
    }
    assert_eq!(all_parameters(&foreign)?, before, "nothing was updated");
    Ok(())
}

fn parameters_that_are_not_there(device: &Device) -> Outcome {
    let (_, mut parameters) = head(device)?;
    let before = all_parameters(&parameters)?;
    refuses!(Config, parameters.view("head.bais"), "head.bais", "head.weight", "head.bias");
    refuses!(Config, parameters.zero_gradients()?.view("weight"), "`weight`", "head.weight");
    refuses!(Config, parameters.set("tail.bias", &[1], &[1.0]), "tail.bias", "head.weight");
    let several = [("head.bias", &[1][..], &[1.0][..]), ("head.weight", &[1, 2][..], &[1.0][..])];
    refuses!(Shape, parameters.set_all(several), "head.weight", "2 values", "1 values");
    assert_eq!(all_parameters(&parameters)?, before, "nothing changed");
    Ok(())
}

fn hyperparameters_that_make_no_sense(device: &Device) -> Outcome {
    let (_, parameters) = head(device)?;
    let mut adam = Adam::new(&parameters, AdamConfig::default())?;
    let mut sgd = Sgd::new(&parameters, SgdConfig::default())?;
    for rate in [-1.0, f64::NAN, f64::INFINITY] {
        for refused in [
            Adam::new(&parameters, AdamConfig::new(rate)).map(drop),
            Sgd::new(&parameters, SgdConfig::new(rate)).map(drop),
            adam.set_learning_rate(rate),
            sgd.set_learning_rate(rate),
        ] {
            refuses!(Config, refused, "learning_rate", "at least 0", &rate.to_string());
        }
    }
    let adam = |change: fn(&mut AdamConfig)| {
        let mut config = AdamConfig::default();
        change(&mut config);
        Adam::new(&parameters, config)
    };
    refuses!(Config, adam(|config| config.betas.0 = 1.0), "betas.0", "below 1", "not 1");
    refuses!(Config, adam(|config| config.betas.1 = -0.5), "betas.1", "at least 0", "-0.5");
    refuses!(Config, adam(|config| config.betas.1 = f64::NAN), "betas.1", "below 1", "NaN");
    refuses!(Config, adam(|config| config.epsilon = -1e-8), "epsilon", "at least 0", "-0.00000001");
    let decay = adam(|config| config.weight_decay = WeightDecay::Penalty(-1.0));
    refuses!(Config, decay, "weight_decay", "at least 0", "-1");
    let decay = adam(|config| config.weight_decay = WeightDecay::Decoupled(f64::NAN));
    refuses!(Config, decay, "weight_decay", "NaN");
    let sgd = |change: fn(&mut SgdConfig)| {
        let mut config = SgdConfig::default();
        change(&mut config);
        Sgd::new(&parameters, config)
    };
    refuses!(Config, sgd(|config| config.momentum = 1.0), "momentum", "below 1", "not 1");
    refuses!(Config, sgd(|config| config.dampening = -1.0), "dampening", "at least 0", "-1");
    refuses!(Config, sgd(|config| config.weight_decay = f64::INFINITY), "weight_decay", "finite", "inf");
    refuses!(Config, sgd(|config| config.nesterov = true), "nesterov", "momentum");
    // Numbers that only 64-bit floats can hold.
    if device != &Device::reference() {
        let largest = "3.4028234663852886e38";
        let (mut slow_adam, mut slow_sgd) = (adam(|_| ())?, sgd(|_| ())?);
        for refused in [
            adam(|config| config.learning_rate = 1e39).map(drop),
            sgd(|config| config.learning_rate = 1e39).map(drop),
            slow_adam.set_learning_rate(1e39),
            slow_sgd.set_learning_rate(1e39),
        ] {
            refuses!(Config, refused, "learning_rate", largest, "1e39");
        }
        refuses!(Config, slow_adam.set_learning_rate(1e38), "learning_rate / (1 - betas.0)", largest);
        refuses!(Config, adam(|config| config.betas.1 = 1.0 - 1e-12), "betas.1", "below 1", "0.999999999999");
        refuses!(Config, adam(|config| config.epsilon = 1e-60), "epsilon", "zero", "1e-60");
        let decay = adam(|config| config.weight_decay = WeightDecay::Penalty(1e39));
        refuses!(Config, decay, "weight_decay", largest, "1e39");
        refuses!(Config, sgd(|config| config.momentum = 1.0 - 1e-12), "momentum", "below 1", "0.99999994");
        refuses!(NonFinite, Tensor::from_slice_f64(device, &[2], &[0.0, 1e300]), "data, value 1", "1e300");
    }
    let mut gradients = parameters.zero_gradients()?;
    for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let parts = ["max_norm", "positive and finite", &limit.to_string()];
        refuses!(Config, gradients.clip_norm(limit), all parts);
        refuses!(Config, gradients.clip(limit, Norm::L1), all parts);
    }
    Ok(())
}

fn layers_that_cannot_be_described() -> Outcome {
    let mut model = Model::new(1);
    model.add("head", Linear::new(2, 1))?;
    for (name, parts) in [("head", ["`head`", "taken"]), ("", ["``", ""]), ("a.b", ["`a.b`", "no dot"])] {
        refuses!(Config, model.add(name, Linear::new(2, 1)), "layer name", parts[0], parts[1]);
    }
    let tanh = |inputs, hidden| Rnn::new(Cell::tanh(), inputs, hidden);
    let layers: [(LayerConfig, &str); 8] = [
        (Linear::new(0, 1).into(), "inputs"),
        (Linear::new(1, 0).into(), "outputs"),
        (Embedding::new(0, 1).into(), "vocabulary"),
        (Embedding::new(1, 0).into(), "features"),
        (OneHot::new(0).into(), "vocabulary"),
        (tanh(0, 1).into(), "inputs"),
        (tanh(1, 0).into(), "hidden"),
        (tanh(1, 1).layers(0).into(), "layers"),
    ];
    for (layer, size) in layers {
        refuses!(Config, model.add("new", layer), &format!("new: {size}"), "between 1 and", "not 0");
    }
    let cell = Cell::Vanilla(Activation::Elu { alpha: f32::INFINITY });
    refuses!(Config, model.add("rnn", Rnn::new(cell, 1, 1)), "elu", "finite", "inf");
    assert_eq!(model.specs().len(), 2, "what was refused was not added");
    Ok(())
}

/// Which options exclude each other, and which cells have them, is the matter of `pairs`.
fn options_whose_numbers_make_no_sense() -> Outcome {
    let refused = |stack: Rnn| Model::new(1).add("rnn", stack);
    let (lstm, gru, tanh) =
        (|| Rnn::new(Cell::Lstm, 3, 4), || Rnn::new(Cell::Gru, 3, 4), || Rnn::new(Cell::tanh(), 3, 4));
    for width in [0, 4, 5, usize::MAX] {
        let parts = ["rnn: projection and hidden", "1 and hidden - 1 = 3", &format!("not {width}")];
        refuses!(Config, refused(lstm().projection(width)), all parts);
    }
    // A single unit cannot be projected.
    let single = Rnn::new(Cell::Lstm, 3, 1).projection(1);
    refuses!(Config, refused(single), "projection and hidden", "hidden - 1 = 0");
    for bound in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        for (stack, option) in [
            (lstm().clip_gates(bound), "rnn: clip_gates"),
            (lstm().clip_cell(bound), "rnn: clip_cell"),
            (gru().clip_gradient(bound), "rnn: clip_gradient"),
        ] {
            refuses!(Config, refused(stack), option, "above 0 and finite", &bound.to_string());
        }
    }
    let (sigmoid, relu) = (Activation::Sigmoid, Activation::Relu);
    for function in [
        Activation::LeakyRelu { slope: -0.5 },
        Activation::Elu { alpha: -0.5 },
        Activation::ThresholdedRelu { alpha: -0.5 },
    ] {
        // A vanilla cell keeps what enters it, and may have them.
        refused(Rnn::new(Cell::Vanilla(function), 3, 4))?;
        for [gates, candidate, output] in
            [[function, relu, relu], [sigmoid, function, relu], [sigmoid, relu, function]]
        {
            let stack = lstm().gate_activations(gates, candidate, output);
            refuses!(Config, refused(stack), "rnn: gate_activations", function.name(), "at least 0", "-0.5");
        }
    }
    let empty = gru().gate_activations(sigmoid, Activation::HardTanh { low: 1.0, high: 1.0 }, relu);
    refuses!(Config, refused(empty), "hard_tanh", "low below high", "1 and 1");
    let steep = Activation::Affine { alpha: f32::NAN, beta: 0.0 };
    refuses!(Config, refused(lstm().gate_activations(steep, relu, relu)), "affine", "finite", "NaN");
    refuses!(Config, refused(tanh().truncated(0)), "rnn: truncated", "between 1 and", "not 0");
    for (every, back) in [(0, 3), (3, 0), (1, 0)] {
        let stack = tanh().truncated_every(every, back);
        refuses!(Config, refused(stack), "rnn: truncated_every", "between 1 and", "not 0");
    }
    let short = refused(tanh().truncated_every(5, 4));
    refuses!(Config, short, "truncated_every", "every 5 steps back through 4", "at least 5");
    refuses!(Config, refused(tanh().windowed(usize::MAX)), "rnn: windowed", "between 1 and");
    for rate in [1.0, -0.1, f32::NAN] {
        let two = || lstm().layers(2);
        for (stack, option) in [
            (two().dropout(rate), "rnn: dropout"),
            (two().input_dropout(rate), "rnn: input_dropout"),
            (two().weight_drop(rate), "rnn: weight_drop"),
            (two().recurrent_dropout(rate), "rnn: recurrent_dropout"),
            (two().zoneout(rate, 0.0), "rnn: zoneout"),
            (two().zoneout(0.0, rate), "rnn: zoneout"),
        ] {
            refuses!(Config, refused(stack), option, "below 1", &rate.to_string());
        }
    }
    refuses!(Config, refused(lstm().dropout(0.5)), "dropout and layers", "there is 1", "input_dropout");
    refuses!(Config, refused(lstm().merge(Merge::Mean)), "merge and bidirectional", "Mean");
    refuses!(Config, refused(lstm().residual()), "residual and layers", "3 inputs and 4 outputs");
    refused(lstm().projection(3).residual())?;
    refused(lstm().dropout(0.0).merge(Merge::Concat))?;
    Ok(())
}

fn lengths_resets_and_states_that_do_not_fit(device: &Device) -> Outcome {
    let mut model = Model::new(1);
    let rnn = model.add("rnn", Rnn::new(Cell::Lstm, 3, 4).projection(2).input_dropout(0.5))?;
    let parameters = model.initialize(device)?;
    let (x, zero) = (tensor(device, &[5, 2, 3])?, rnn.zero_state(device, 2)?);
    let run = |sequences: Sequences<'_>| rnn.infer_sequences(&parameters, &x, &zero, sequences);
    let lengths = |values: &[u32]| indices(device, &[values.len()], values);
    refuses!(Index, run(Sequences::ragged(&lengths(&[6, 1])?)), "lengths", "index 6", "below 6");
    refuses!(Shape, run(Sequences::ragged(&lengths(&[5, 1, 1])?)), "lengths", "[2]", "[3]");
    let resets = indices(device, &[2, 5], &[0; 10])?;
    refuses!(Shape, run(Sequences::whole().resets(&resets)), "resets", "[5, 2]", "[2, 5]");
    let no_mode = rnn.forward(&parameters, &x, &zero);
    refuses!(Config, no_mode, "sequences", "training(random_key)", "evaluation()");
    refuses!(Config, rnn.initial_state(&parameters, 2), "initial_state", "learned_initial_state()");
    // The hidden state is as wide as the projection, the cell state as the layer.
    let (narrow, wide) = (tensor(device, &[1, 2, 2])?, tensor(device, &[1, 2, 4])?);
    let unprojected = State::from_hidden_and_cell(&wide, &wide)?;
    refuses!(Shape, rnn.infer(&parameters, &x, &unprojected), "hidden", "[1, 2, 2]", "[1, 2, 4]");
    let all_projected = State::from_hidden_and_cell(&narrow, &narrow)?;
    refuses!(Shape, rnn.infer(&parameters, &x, &all_projected), "cell", "[1, 2, 4]", "[1, 2, 2]");
    let half = State::from_hidden(&narrow)?;
    refuses!(Shape, rnn.infer(&parameters, &x, &half), "a hidden and a cell state", "a hidden state alone");
    let uneven = State::from_hidden_and_cell(&narrow, &tensor(device, &[2, 2, 4])?);
    refuses!(Shape, uneven, "the cell state", "[1, 2, hidden]", "[2, 2, 4]");
    Ok(())
}

fn absurd_sizes_are_refused_before_anything_is_allocated() -> Outcome {
    let mut model = Model::new(1);
    let huge = 1 << 40;
    let tanh = |inputs, hidden| Rnn::new(Cell::tanh(), inputs, hidden);
    let layers: [(LayerConfig, &str, &str); 6] = [
        (tanh(3, huge).into(), "hidden", "1099511627776"),
        (tanh(huge, 3).into(), "inputs", "1099511627776"),
        (tanh(3, 3).layers(huge).into(), "layers", "1099511627776"),
        (tanh(3, 3).layers(1 << 24).into(), "layers", "16777216"),
        (Embedding::new(huge, 3).into(), "vocabulary", "1099511627776"),
        (OneHot::new(usize::MAX).into(), "vocabulary", "18446744073709551615"),
    ];
    for (layer, size, found) in layers {
        refuses!(Config, model.add("new", layer), &format!("new: {size}"), "between 1 and", found);
    }
    let square = Rnn::new(Cell::tanh(), 1 << 17, 1 << 17);
    refuses!(Shape, model.add("rnn", square), "rnn.weight_ih_l0", "2^31", "131072");
    let many = Linear::new(1 << 15, 1 << 15);
    refuses!(ExceedsLimit, model.add("wide", many), "`wide` (parameters)", "1073774592", "1073741824");
    assert!(model.specs().is_empty(), "what was refused was not added");
    Ok(())
}

/// Bytes of the largest tensor that the reference device can be asked for.
const LARGEST_BYTES: u64 = (1 << 31) * 8;

/// The host's memory, where the system says how much it has.
fn host_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

fn sizes_beyond_the_hosts_memory_are_errors() -> Outcome {
    let refused = Tensor::zeros(&Device::reference(), &[1 << 31]);
    refuses!(OutOfMemory, refused, "zeros", "17179869184 bytes", "smaller");
    Ok(())
}

fn sizes_beyond_the_gpus_buffers_are_errors(adapter: &Adapter) -> Outcome {
    let device = adapter.open_anew()?;
    match Tensor::zeros(&device, &[1 << 31]) {
        Err(error @ (Error::ExceedsLimit { .. } | Error::OutOfMemory { .. })) => {
            assert!(error.to_string().contains("8589934592"), "{error}");
        }
        other => panic!("{other:?} instead of a limit"),
    }
    assert_eq!(ops::sum(&tensor(&device, &[1])?)?.shape().elements(), 1, "the device still works");
    Ok(())
}

fn texts_and_windows_that_are_too_short() -> Outcome {
    refuses!(Config, Vocabulary::of(""), "text", "empty");
    let vocabulary = Vocabulary::of("banana")?;
    refuses!(Config, vocabulary.encode("bandana"), "text", "'d'", "\"abn\"");
    refuses!(Index, vocabulary.decode(&[0, 3]), "tokens", "index 3", "below 3");
    refuses!(Config, Windows::new(vec![], 1, 1), "text", "too short", "needs 2 tokens", "there are 0");
    refuses!(Config, Windows::new(vec![1; 12], 3, 4), "text", "too short", "needs 13 tokens", "there are 12");
    refuses!(Config, Windows::new(vec![1; 9], usize::MAX, usize::MAX), "text", "too short", "there are 9");
    refuses!(Config, Windows::new(vec![1; 9], 0, 4), "windows", "at least 1", "not 0 and 4");
    refuses!(Config, Windows::new(vec![1; 9], 4, 0), "windows", "at least 1", "not 4 and 0");
    assert_eq!(Windows::new(vec![1; 13], 3, 4)?.count(), 1);
    Ok(())
}

fn devices_that_are_not_there() -> Outcome {
    let mut there: Vec<String> = Device::list().into_iter().map(|summary| summary.name).collect();
    there.push("cpu".to_owned());
    for wanted in ["no such adapter", "gpu:99", "gpu:", "gpu:x", "cuda", "gpux"] {
        refuses!(NoAdapter, Device::gpu(wanted), wanted);
        refuses!(NoAdapter, Device::named(wanted), wanted);
        for name in &there {
            refuses!(NoAdapter, Device::gpu(wanted), name.as_str());
        }
    }
    refuses!(NoAdapter, Device::named(""), "available");
    refuses!(NoAdapter, Device::gpu(""), "available");
    assert_eq!(Device::named(" cpu ")?, Device::cpu());
    assert_eq!(Device::named("reference")?, Device::reference());
    for options in [
        GpuOptions { binding_bytes: Some(0), ..GpuOptions::default() },
        GpuOptions { workgroups: Some(0), ..GpuOptions::default() },
        GpuOptions {
            matmul: Some(MatmulVariant { tile: MatmulTile::Large, parts: 0 }),
            ..GpuOptions::default()
        },
    ] {
        refuses!(Config, Device::gpu_with("anything", &options), "GPU options");
    }
    Ok(())
}

/// Tensors, indices, states, weights and gradients of one device given to work on another.
fn devices_that_do_not_match(here: &Device, there: &Device) -> Outcome {
    let (mine, other) = (here.to_string(), there.to_string());
    macro_rules! mismatch {
        ($result:expr, $what:expr) => {
            refuses!(DeviceMismatch, $result, $what, &mine, &other, "to_device")
        };
    }
    let (a, b) = (tensor(here, &[2, 2])?, tensor(there, &[2, 2])?);
    let (tokens, foreign_tokens) = (indices(here, &[2], &[0, 1])?, indices(there, &[2], &[0, 1])?);
    mismatch!(ops::binary(&a, &b, Binary::Mul), "second operand");
    mismatch!(ops::unary_backward(&a, &b, &a, Activation::Tanh), "y");
    mismatch!(ops::unary_backward(&a, &a, &b, Activation::Tanh), "d_y");
    mismatch!(ops::softmax_backward(&a, &b), "d_y");
    mismatch!(ops::matmul(&a, &b, Form::Plain, None), "right operand");
    let bias = tensor(there, &[2])?;
    mismatch!(ops::matmul(&a, &a, Form::Plain, Some(View::from(&bias))), "bias");
    mismatch!(ops::embedding(&foreign_tokens, &a), "tokens");
    mismatch!(ops::embedding_backward(&foreign_tokens, &a, 3), "tokens");
    mismatch!(cross_entropy(&a, &foreign_tokens), "labels");
    mismatch!(CrossEntropy::default().weights(bias.clone()).rows(&a, &tokens), "class weights");
    mismatch!(CrossEntropy::default().rows_backward(&a, &tokens, &bias), "d_losses");

    let mut model = Model::new(1);
    let embedding = model.add("embedding", Embedding::new(3, 2))?;
    let rnn = model.add("rnn", Rnn::new(Cell::tanh(), 2, 2))?;
    let head = model.add("head", Linear::new(2, 3))?;
    let (mut parameters, foreign) = (model.initialize(here)?, model.initialize(there)?);
    let mut foreign_gradients = foreign.zero_gradients()?;
    let mut gradients = parameters.zero_gradients()?;
    let (x, foreign_x) = (tensor(here, &[1, 2, 2])?, tensor(there, &[1, 2, 2])?);
    let (state, foreign_state) = (rnn.zero_state(here, 2)?, rnn.zero_state(there, 2)?);
    mismatch!(embedding.infer(&parameters, &foreign_tokens), "tokens");
    mismatch!(rnn.infer(&parameters, &foreign_x, &state), "x");
    mismatch!(rnn.infer(&parameters, &x, &foreign_state), "the state");
    mismatch!(head.infer(&parameters, &foreign_x), "x");
    let (_, trace) = embedding.forward(&parameters, &tokens)?;
    mismatch!(trace.backward(&b, &mut gradients), "tokens");
    let (y, _, trace) = rnn.forward(&parameters, &x, &state)?;
    mismatch!(trace.backward(&y, None, &mut foreign_gradients), "gradients");
    let (y, _, trace) = rnn.forward(&parameters, &x, &state)?;
    mismatch!(trace.backward(&y, Some(&foreign_state), &mut gradients), "d_state");
    let (_, _, trace) = rnn.forward(&parameters, &x, &state)?;
    mismatch!(trace.backward(&foreign_x, None, &mut gradients), "d_output");
    let (_, trace) = head.forward(&parameters, &y)?;
    mismatch!(trace.backward(&tensor(there, &[1, 2, 3])?, &mut gradients), "operand");
    let mut adam = Adam::new(&parameters, AdamConfig::default())?;
    mismatch!(adam.step(&mut parameters, &foreign_gradients), "gradients");
    // Moved, it fits.
    assert_eq!(ops::binary(&a, &b.to_device(here)?, Binary::Sub)?.shape(), a.shape());
    Ok(())
}

fn misuse_on_the_gpu_records_no_work(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let before = device.counters().dispatches;
    shapes_that_do_not_fit_operations(&device)?;
    tokens_and_tables_that_do_not_fit(&device)?;
    assert_eq!(device.counters().dispatches, before, "work was recorded for arguments that were refused");
    Ok(())
}

fn tensors_of_another_device_are_refused() -> Outcome {
    devices_that_do_not_match(&Device::cpu(), &Device::reference())?;
    devices_that_do_not_match(&Device::reference(), &Device::cpu())
}

fn tensors_of_another_device_are_refused_on_the_gpu(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    devices_that_do_not_match(&device, &Device::cpu())?;
    devices_that_do_not_match(&Device::cpu(), &device)?;
    // The same adapter opened twice makes two devices.
    devices_that_do_not_match(&device, &adapter.open_anew()?)
}

pub(crate) fn register(suite: &mut Suite) {
    on_devices!(
        suite,
        sizes_that_do_not_fit_data,
        shapes_that_do_not_fit_operations,
        tokens_and_tables_that_do_not_fit,
        labels_and_losses_that_do_not_fit,
        inputs_that_do_not_fit_layers,
        lengths_resets_and_states_that_do_not_fit,
        models_that_make_no_sense,
        another_models_parameters,
        parameters_that_are_not_there,
        hyperparameters_that_make_no_sense,
    );
    on_cpu!(
        suite,
        layers_that_cannot_be_described,
        options_whose_numbers_make_no_sense,
        absurd_sizes_are_refused_before_anything_is_allocated,
        texts_and_windows_that_are_too_short,
        devices_that_are_not_there,
        tensors_of_another_device_are_refused,
    );
    let beyond = concat!(module_path!(), "::sizes_beyond_the_hosts_memory_are_errors");
    let testable = host_bytes().is_some_and(|bytes| bytes < LARGEST_BYTES);
    suite.cpu_if(beyond, testable, sizes_beyond_the_hosts_memory_are_errors);
    on_gpu!(suite, misuse_on_the_gpu_records_no_work, tensors_of_another_device_are_refused_on_the_gpu,);
    let beyond = concat!(module_path!(), "::sizes_beyond_the_gpus_buffers_are_errors");
    let testable = |adapter: &Adapter| adapter.summary().max_buffer_bytes < (1 << 31) * 4;
    suite.gpu_if(beyond, testable, sizes_beyond_the_gpus_buffers_are_errors);
}
