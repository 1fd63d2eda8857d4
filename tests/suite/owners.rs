//! What belongs together: parameters with the shapes of their model, gradients, optimizers and learned states with the
//! parameters that they were created from, and a description with all of its layers.

use refrain::io::{Checkpoint, Metadata, load_layer_weights, load_weights, save_layer_weights, save_weights};
use refrain::nn::{Cell, Embedding, Layer, Linear, Model, Rnn};
use refrain::optim::{Adam, AdamConfig, Sgd, SgdConfig};
use refrain::{Device, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_devices};
use crate::misuse::refuses;
use crate::support::{Folder, all_parameters, random};

/// A model of three layers, with an initial state that is learned.
pub(crate) struct Small {
    pub(crate) model: Model,
    pub(crate) embedding: Layer<Embedding>,
    pub(crate) rnn: Layer<Rnn>,
    pub(crate) head: Layer<Linear>,
}

impl Small {
    pub(crate) fn new() -> Result<Self> {
        let mut model = Model::new(1);
        Ok(Self {
            embedding: model.add("embedding", Embedding::new(5, 3))?,
            rnn: model.add("rnn", Rnn::new(Cell::Lstm, 3, 4).learned_initial_state())?,
            head: model.add("head", Linear::new(4, 5))?,
            model,
        })
    }
}

fn values_are_set_by_shape_and_must_be_finite(device: &Device) -> Outcome {
    let mut model = Model::new(1);
    model.add("head", Linear::new(3, 20))?;
    let mut parameters = model.initialize(device)?;
    let before = all_parameters(&parameters)?;
    let values = [0.5; 60];
    refuses!(Shape, parameters.set("head.weight", &[3, 20], &values), "head.weight", "[20, 3]", "[3, 20]");
    refuses!(Shape, parameters.set("head.weight", &[60], &values), "head.weight", "[20, 3]", "[60]");
    refuses!(Shape, parameters.set("head.weight", &[20, 3], &values[..59]), "60 values", "59 values");
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut wide = [0.0; 20];
        wide[7] = value;
        let narrow = wide.map(|value| value as f32);
        let named = &*format!("`head.bias`, value 7 ({value:e})");
        refuses!(NonFinite, parameters.set("head.bias", &[20], &narrow), named);
        refuses!(NonFinite, parameters.set_all([("head.bias", &[20][..], &wide[..])]), named);
    }
    // Beyond the largest 32-bit float, where that is what the device computes with.
    let mut wide = [0.25; 20];
    wide[19] = -1e300;
    let large = parameters.set_all([("head.bias", &[20][..], &wide[..])]);
    if device == &Device::reference() {
        large?;
        assert_eq!(parameters.view("head.bias")?.download_f64()?, wide);
        return Ok(());
    }
    refuses!(NonFinite, large, "`head.bias`, value 19 (-1e300)");
    assert_eq!(all_parameters(&parameters)?, before, "nothing changed");
    parameters.set("head.bias", &[20], &[f32::MAX; 20])?;
    assert_eq!(parameters.view("head.bias")?.download()?, [f32::MAX; 20]);
    Ok(())
}

fn each_initialization_has_gradients_of_its_own(device: &Device) -> Outcome {
    let Small { model, embedding, rnn, head } = Small::new()?;
    let (mut one, mut two) = (model.initialize(device)?, model.initialize(device)?);
    let foreign = Small::new()?.model.initialize(device)?;
    let own = one.zero_gradients()?;
    let tokens = Indices::from_slice(device, &[2, 1], &[0, 1])?;
    let (x, y) = (random(device, 1, &[2, 1, 3], 1.0)?, random(device, 2, &[2, 1, 4], 1.0)?);
    let d_logits = random(device, 3, &[2, 1, 5], 1.0)?;
    let state = rnn.zero_state(device, 1)?;
    let advice = "created from";

    // Gradients of another initialization of the model, and of another model.
    for mut other in [two.zero_gradients()?, foreign.zero_gradients()?] {
        let (_, trace) = embedding.forward(&one, &tokens)?;
        refuses!(ModelMismatch, trace.backward(&x, &mut other), "gradients", advice);
        let (_, _, trace) = rnn.forward(&one, &x, &state)?;
        refuses!(ModelMismatch, trace.backward(&y, None, &mut other), "gradients", advice);
        let (_, _, trace) = rnn.forward(&one, &x, &state)?;
        refuses!(ModelMismatch, trace.backward_parameters(&y, &mut other), "gradients", advice);
        let (_, trace) = head.forward(&one, &y)?;
        refuses!(ModelMismatch, trace.backward(&d_logits, &mut other), "gradients", advice);
        let (_, _, trace) = model.forward(&one, &tokens, &model.zero_state(device, 1)?)?;
        refuses!(ModelMismatch, trace.backward(&d_logits, &mut other), "gradients", advice);
    }
    let (other, of_another_model) = (two.zero_gradients()?, foreign.zero_gradients()?);
    // A learned state of other parameters would get no gradient.
    let learned = rnn.initial_state(&two, 1)?;
    refuses!(ModelMismatch, rnn.forward(&one, &x, &learned), "the learned initial state", advice);
    refuses!(ModelMismatch, rnn.infer(&one, &x, &learned), "the learned initial state", advice);
    let learned = model.initial_state(&two, 1)?;
    refuses!(ModelMismatch, model.forward(&one, &tokens, &learned), "the learned initial state", advice);
    rnn.infer(&two, &x, &rnn.initial_state(&two, 1)?)?;

    let before = (all_parameters(&one)?, all_parameters(&two)?);
    let mut adam = Adam::new(&one, AdamConfig::new(0.1))?;
    let mut sgd = Sgd::new(&one, SgdConfig { momentum: 0.5, ..SgdConfig::new(0.1) })?;
    for other in [&other, &of_another_model] {
        refuses!(ModelMismatch, adam.step(&mut one, other), "gradients", advice);
        refuses!(ModelMismatch, sgd.step(&mut one, other), "gradients", advice);
    }
    refuses!(ModelMismatch, adam.step(&mut two, &other), "parameters", advice);
    refuses!(ModelMismatch, sgd.step(&mut two, &other), "parameters", advice);
    assert_eq!((all_parameters(&one)?, all_parameters(&two)?), before, "nothing was updated");
    adam.step(&mut one, &own)?;
    sgd.step(&mut one, &own)?;
    Ok(())
}

fn no_layer_is_added_after_initialize(device: &Device) -> Outcome {
    let folder = Folder::new("frozen")?;
    let path = folder.path().join("model.safetensors");
    let Small { mut model, .. } = Small::new()?;
    let mut parameters = model.initialize(device)?;
    Checkpoint::save(&path, &model, &parameters, &Metadata::new())?;
    let described = model.config();
    refuses!(Config, model.add("late", Linear::new(5, 5)), "layer `late`", "before `initialize`");
    refuses!(Config, model.add("rnn2", Rnn::new(Cell::Gru, 5, 5)), "layer `rnn2`", "before `initialize`");
    assert_eq!(model.config(), described);
    // What there was goes on as if nothing had been asked for.
    let tokens = Indices::from_slice(device, &[2, 1], &[0, 1])?;
    let (logits, _, trace) = model.forward(&parameters, &tokens, &model.initial_state(&parameters, 1)?)?;
    let mut gradients = parameters.zero_gradients()?;
    trace.backward(&random(device, 4, logits.shape().dimensions(), 1.0)?, &mut gradients)?;
    Adam::new(&parameters, AdamConfig::new(0.1))?.step(&mut parameters, &gradients)?;
    Checkpoint::save(&path, &model, &parameters, &Metadata::new())?;
    let loaded = Checkpoint::load(&path, device)?;
    assert_eq!(loaded.model.config(), described);
    assert_eq!(all_parameters(&loaded.parameters)?, all_parameters(&parameters)?);
    // One that was loaded is initialized, too.
    let mut model = loaded.model;
    refuses!(Config, model.add("late", Linear::new(5, 5)), "layer `late`", "before `initialize`");
    Ok(())
}

fn values_that_are_not_finite_are_neither_saved_nor_loaded(device: &Device) -> Outcome {
    let folder = Folder::new("finite")?;
    let path = folder.path().join("model.safetensors");
    let small = Small::new()?;
    let mut parameters = small.model.initialize(device)?;
    Checkpoint::save(&path, &small.model, &parameters, &Metadata::new())?;
    let whole = std::fs::read(&path)?;

    // Gradients of NaN, by way of a NaN at the output.
    let mut gradients = parameters.zero_gradients()?;
    let (_, trace) = small.head.forward(&parameters, &Tensor::zeros(device, &[1, 4])?)?;
    trace.backward(&Tensor::from_slice(device, &[1, 5], &[f32::NAN; 5])?, &mut gradients)?;
    Sgd::new(&parameters, SgdConfig::new(0.1))?.step(&mut parameters, &gradients)?;
    let saved = Checkpoint::save(&path, &small.model, &parameters, &Metadata::new());
    refuses!(NonFinite, saved, "`head.", "NaN", "model.safetensors", "last checkpoint");
    let weights = folder.path().join("weights.safetensors");
    refuses!(NonFinite, save_weights(&weights, &parameters), "`head.", "weights.safetensors");
    refuses!(NonFinite, save_layer_weights(&weights, "head", &parameters), "`head.", "weights.safetensors");
    save_layer_weights(&weights, "rnn", &parameters)?;
    assert_eq!(std::fs::read(&path)?, whole, "the good checkpoint is still there");

    // The last value of the file, as if another program had written it.
    for bits in [f32::NAN, f32::INFINITY] {
        let mut broken = whole.clone();
        let end = broken.len() - 4;
        broken[end..].copy_from_slice(&bits.to_le_bytes());
        let other = folder.path().join("broken.safetensors");
        std::fs::write(&other, &broken)?;
        let value = format!("({bits:e})");
        refuses!(NonFinite, Checkpoint::load(&other, device), "broken.safetensors", &value);
        let mut fresh = small.model.initialize(device)?;
        let before = all_parameters(&fresh)?;
        refuses!(NonFinite, load_weights(&other, &mut fresh), "broken.safetensors", &value);
        assert_eq!(all_parameters(&fresh)?, before, "nothing changed");
    }
    let mut fresh = small.model.initialize(device)?;
    load_layer_weights(&weights, "rnn", &mut fresh)?;
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_devices!(
        suite,
        values_are_set_by_shape_and_must_be_finite,
        each_initialization_has_gradients_of_its_own,
        no_layer_is_added_after_initialize,
        values_that_are_not_finite_are_neither_saved_nor_loaded,
    );
}
