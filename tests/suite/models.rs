//! Whole models over ragged batches in training and evaluation, learned initial states, last valid outputs, and what
//! a configuration stores.

use refrain::loss::cross_entropy;
use refrain::nn::{
    Cell, Draw, Embedding, Layer, LayerConfig, Linear, Merge, Model, ModelConfig, OneHot, Parameters, Rnn,
    Sequences, State,
};
use refrain::{Device, Error, IGNORED, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::gradients::check;
use crate::support::{all_gradients, expect_close, largest, random, tokens, values};

const STEPS: usize = 4;
const BATCH: usize = 3;
const LENGTHS: [u32; BATCH] = [2, 4, 1];

/// Asserts that a result is an [`Error::Config`] whose message has all these parts.
fn refused<T>(result: Result<T>, parts: &[&str]) {
    match result.map(drop) {
        Err(error @ Error::Config { .. }) => {
            let message = error.to_string();
            for part in parts {
                assert!(message.contains(part), "`{message}` does not say `{part}`");
            }
        }
        other => panic!("{parts:?}: {other:?} is no refusal"),
    }
}

fn lengths(device: &Device) -> Result<Indices> {
    Indices::from_slice(device, &[BATCH], &LENGTHS)
}

/// A tagger with most options at once.
fn tagger() -> Result<Model> {
    let mut model = Model::new(11);
    model.add("embedding", Embedding::new(6, 3))?;
    let lower = Rnn::new(Cell::Lstm, 3, 3).layers(2).bidirectional().merge(Merge::Mean);
    model.add("lower", lower.dropout(0.3).residual().learned_initial_state())?;
    model.add("between", Linear::new(3, 4))?;
    model.add("upper", Rnn::new(Cell::Gru, 4, 3).input_dropout(0.3).weight_drop(0.3))?;
    model.add("head", Linear::new(3, 5))?;
    Ok(model)
}

/// Sets all parameters of `model` to `all`, one after the other.
fn with_values(model: &Model, device: &Device, all: &[f64]) -> Result<Parameters> {
    let mut parameters = model.initialize(device)?;
    let mut rest = all;
    let mut sections = Vec::new();
    for spec in model.specs() {
        let (section, after) = rest.split_at(spec.shape.elements());
        sections.push((spec.name.as_str(), section));
        rest = after;
    }
    parameters.set_all(sections)?;
    Ok(parameters)
}

/// Loss and gradients of the tagger over ragged rows with these tokens in their padding.
fn loss_and_gradients(
    device: &Device,
    model: &Model,
    all: &[f64],
    sequences: Sequences<'_>,
    padding: u32,
) -> Result<(f64, Vec<f64>)> {
    let parameters = with_values(model, device, all)?;
    let (mut inputs, mut labels) = (tokens(80, STEPS * BATCH, 6), tokens(81, STEPS * BATCH, 5));
    for place in 0..STEPS * BATCH {
        if place / BATCH >= LENGTHS[place % BATCH] as usize {
            (inputs[place], labels[place]) = (padding, IGNORED);
        }
    }
    let inputs = Indices::from_slice(device, &[STEPS, BATCH], &inputs)?;
    let labels = Indices::from_slice(device, &[STEPS, BATCH], &labels)?;
    let state = model.initial_state(&parameters, BATCH)?;
    let (logits, _, trace) = model.forward_sequences(&parameters, &inputs, &state, sequences)?;
    let (loss, d_logits) = cross_entropy(&logits, &labels)?;
    let mut gradients = parameters.zero_gradients()?;
    trace.backward(&d_logits, &mut gradients)?;
    Ok((loss.download_f64()?[0], all_gradients(&parameters, &gradients)?))
}

fn modes<'a>(lengths: &'a Indices) -> [Sequences<'a>; 2] {
    let ragged = Sequences::ragged(lengths);
    [ragged.training(Draw::new(1, 2)), ragged.evaluation()]
}

fn a_models_gradients_over_ragged_rows_match_finite_differences() -> Outcome {
    let (device, model) = (Device::reference(), tagger()?);
    let count = model.specs().iter().map(|spec| spec.shape.elements()).sum();
    let (point, lengths) = (values(82, count, 1.0), lengths(&device)?);
    for sequences in modes(&lengths) {
        let (_, gradients) = loss_and_gradients(&device, &model, &point, sequences, 0)?;
        let other = loss_and_gradients(&device, &model, &point, sequences, 5)?;
        assert_eq!(gradients, other.1, "tokens in the padding reach a gradient");
        check("tagger", &point, &gradients, |all| {
            Ok(loss_and_gradients(&device, &model, all, sequences, 0)?.0)
        })?;
    }
    Ok(())
}

fn a_models_gradients_over_ragged_rows_agree_with_the_reference(adapter: &Adapter) -> Outcome {
    let (device, reference, model) = (adapter.open()?, Device::reference(), tagger()?);
    let count = model.specs().iter().map(|spec| spec.shape.elements()).sum();
    let point: Vec<f64> = values(82, count, 1.0).into_iter().map(|value| f64::from(value as f32)).collect();
    let (here, there) = (lengths(&device)?, lengths(&reference)?);
    for (here, there) in modes(&here).into_iter().zip(modes(&there)) {
        let (loss, found) = loss_and_gradients(&device, &model, &point, here, 1)?;
        let (expected_loss, expected) = loss_and_gradients(&reference, &model, &point, there, 1)?;
        // Some hundred roundings in numbers of order one.
        let allowed = 300.0 * f64::from(f32::EPSILON) * largest(&expected).max(1.0);
        expect_close("loss", &[expected_loss], &[loss], allowed)?;
        expect_close("gradients", &expected, &found, allowed)?;
    }
    Ok(())
}

fn padding_reaches_no_layer_of_a_model_on(device: &Device) -> Outcome {
    let mut model = Model::new(3);
    model.add("first", Linear::new(3, 4))?;
    model.add("rnn", Rnn::new(Cell::Gru, 4, 3).bidirectional())?;
    model.add("head", Linear::new(6, 2))?;
    let parameters = model.initialize(device)?;
    let (lengths, zero) = (lengths(device)?, model.zero_state(device, BATCH)?);
    let mut results = Vec::new();
    for garbage in [0.0, f64::NAN] {
        let spoilt = |stream: u64, width: usize| -> Result<Tensor> {
            let mut all = values(stream, STEPS * BATCH * width, 1.0);
            for (place, value) in all.iter_mut().enumerate() {
                if place / width / BATCH >= LENGTHS[place / width % BATCH] as usize {
                    *value = garbage;
                }
            }
            Tensor::from_slice_f64(device, &[STEPS, BATCH, width], &all)
        };
        let ragged = Sequences::ragged(&lengths);
        let (y, _, trace) = model.forward_sequences(&parameters, &spoilt(83, 3)?, &zero, ragged)?;
        let (silent, _) = model.infer_sequences(&parameters, &spoilt(83, 3)?, &zero, ragged)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&spoilt(84, 2)?, &mut gradients)?;
        let y = y.download()?;
        assert_eq!(y, silent.download()?);
        for (place, value) in y.iter().enumerate() {
            let padding = place / 2 / BATCH >= LENGTHS[place / 2 % BATCH] as usize;
            assert_eq!(padding, *value == 0.0, "{place}: {value}");
        }
        results.push((y, all_gradients(&parameters, &gradients)?));
    }
    assert_eq!(results[0], results[1]);
    Ok(())
}

fn padding_reaches_no_layer_of_a_model() -> Outcome {
    padding_reaches_no_layer_of_a_model_on(&Device::cpu())
}

fn padding_reaches_no_layer_of_a_model_on_the_gpu(adapter: &Adapter) -> Outcome {
    padding_reaches_no_layer_of_a_model_on(&adapter.open()?)
}

/// The initial states' gradients of one pass from `state`, and the sums over the batch of what it returns for them.
fn initial_gradients(
    layer: &Layer<Rnn>,
    parameters: &Parameters,
    state: &State,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let x = random(parameters.device(), 85, &[STEPS, BATCH, 2], 1.0)?;
    let (y, _, trace) = layer.forward(parameters, &x, state)?;
    let mut gradients = parameters.zero_gradients()?;
    let (_, d_initial) = trace.backward(&y, None, &mut gradients)?;
    let (hidden, cell) = (d_initial.hidden().download_f64()?, d_initial.cell());
    let cell = cell.map(|cell| cell.download_f64()).transpose()?.unwrap_or_default();
    let (mut own, mut sums) = (Vec::new(), Vec::new());
    for (place, suffix) in ["", "_reverse"].into_iter().enumerate() {
        for (part, values) in [("hidden", &hidden), ("cell", &cell)] {
            own.extend(gradients.view(&format!("rnn.initial_{part}_l0{suffix}"))?.download_f64()?);
            let rows = &values[place * BATCH * 4..][..BATCH * 4];
            sums.extend((0..4).map(|unit| rows.iter().skip(unit).step_by(4).sum::<f64>()));
        }
    }
    Ok((own, sums))
}

fn only_a_pass_from_the_learned_state_teaches_it() -> Outcome {
    let device = Device::reference();
    let stack = Rnn::new(Cell::Lstm, 2, 4).bidirectional().learned_initial_state();
    let mut model = Model::new(1);
    let layer = model.add("rnn", stack.clone())?;
    let parameters = model.initialize(&device)?;
    let learned = layer.initial_state(&parameters, BATCH)?;
    assert_eq!(learned.hidden().download()?, [0.0; 2 * BATCH * 4], "first values are zero");
    let (own, sums) = initial_gradients(&layer, &parameters, &learned)?;
    assert!(own.iter().all(|gradient| *gradient != 0.0), "{own:?}");
    expect_close("batch sums", &sums, &own, 1e-14)?;
    // The same values from elsewhere: the gradient is returned, and stays out of the parameters.
    let mut other = Model::new(1);
    let stranger = other.add("rnn", stack)?;
    let others = stranger.initial_state(&other.initialize(&device)?, BATCH)?;
    for state in [layer.zero_state(&device, BATCH)?, others] {
        let (own, given_sums) = initial_gradients(&layer, &parameters, &state)?;
        assert_eq!((own, given_sums), (vec![0.0; 16], sums.clone()));
    }
    // A model takes learned states where there are some, and zeros elsewhere.
    let mut mixed = Model::new(1);
    mixed.add("one", Rnn::new(Cell::tanh(), 2, 2).learned_initial_state())?;
    mixed.add("two", Rnn::new(Cell::Gru, 2, 3))?;
    let mut parameters = mixed.initialize(&device)?;
    parameters.set("one.initial_hidden_l0", &[1.0, 2.0])?;
    let states = mixed.initial_state(&parameters, 2)?;
    assert_eq!(states.states()[0].hidden().download()?, [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(states.states()[1].hidden().download()?, [0.0; 6]);
    Ok(())
}

fn last_valid_outputs_are_the_final_states_on(device: &Device) -> Outcome {
    let lengths = lengths(device)?;
    for (way, stack) in [
        ("forward", Rnn::new(Cell::Gru, 2, 4)),
        ("reverse", Rnn::new(Cell::Lstm, 2, 4).reverse()),
        ("both", Rnn::new(Cell::tanh(), 2, 4).bidirectional()),
    ] {
        let mut model = Model::new(1);
        let layer = model.add("rnn", stack)?;
        let parameters = model.initialize(device)?;
        let x = random(device, 86, &[STEPS, BATCH, 2], 1.0)?;
        let zero = layer.zero_state(device, BATCH)?;
        let (y, last) = layer.infer_sequences(&parameters, &x, &zero, Sequences::ragged(&lengths))?;
        let picked = layer.last_valid(&y, &lengths)?;
        let width = y.shape().last();
        picked.shape().exactly::<2>("picked", "[batch, features]")?;
        // [D, B, H] and [B, D, H] hold the same blocks.
        let (states, picked) = (last.hidden().download()?, picked.download()?);
        for (place, block) in states.chunks(4).enumerate() {
            let (direction, row) = (place / BATCH, place % BATCH);
            assert_eq!(block, &picked[row * width + direction * 4..][..4], "{way}, row {row}");
        }
        // Σ last · d and Σ y · dy are the same number: backward is the transpose.
        let d_last = random(device, 87, &[BATCH, width], 1.0)?;
        let d_y = layer.last_valid_backward(&d_last, &lengths, STEPS)?;
        assert_eq!(d_y.shape(), y.shape());
        let dot = |one: &[f32], two: &[f32]| one.iter().zip(two).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let (one, two) = (dot(&picked, &d_last.download()?), dot(&y.download()?, &d_y.download()?));
        assert!((one - two).abs() < 1e-5, "{way}: {one} and {two}");
        let moved = d_y.download()?.iter().filter(|value| **value != 0.0).count();
        assert_eq!(moved, BATCH * width, "{way}: a gradient beside the last steps");
    }
    Ok(())
}

fn last_valid_outputs_are_the_final_states() -> Outcome {
    last_valid_outputs_are_the_final_states_on(&Device::cpu())
}

fn last_valid_outputs_are_the_final_states_on_the_gpu(adapter: &Adapter) -> Outcome {
    last_valid_outputs_are_the_final_states_on(&adapter.open()?)
}

fn options_that_make_no_sense_are_refused_by_name() -> Outcome {
    let refuse = |stack: Rnn, parts: &[&str]| refused(Model::new(1).add("rnn", stack), parts);
    let one = || Rnn::new(Cell::Gru, 3, 4);
    refuse(one().dropout(0.5), &["rnn", "dropout", "layers", "input_dropout"]);
    for rate in [1.0, -0.5, f32::NAN] {
        let found = rate.to_string();
        refuse(one().layers(2).dropout(rate), &["dropout", "below 1", &found]);
        refuse(one().input_dropout(rate), &["input_dropout", "below 1", &found]);
        refuse(one().weight_drop(rate), &["weight_drop", "below 1", &found]);
    }
    for merge in [Merge::Sum, Merge::Mean, Merge::Product] {
        refuse(one().merge(merge), &["merge", "bidirectional", &format!("{merge:?}")]);
        refuse(one().reverse().merge(merge), &["merge", "bidirectional"]);
    }
    refuse(one().residual(), &["residual", "layers", "3 inputs", "4 outputs"]);
    for fine in [
        one().dropout(0.0),
        one().merge(Merge::Concat),
        one().layers(2).residual(),
        Rnn::new(Cell::Gru, 4, 4).residual(),
    ] {
        Model::new(1).add("rnn", fine)?;
    }
    Ok(())
}

fn passes_that_do_not_say_what_they_are_are_refused() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(1);
    let layer = model.add("rnn", Rnn::new(Cell::Gru, 3, 3).weight_drop(0.5))?;
    let parameters = model.initialize(&device)?;
    let x = random(&device, 88, &[STEPS, BATCH, 3], 1.0)?;
    let zero = layer.zero_state(&device, BATCH)?;
    let choice = ["training(draw)", "evaluation()"];
    refused(layer.forward(&parameters, &x, &zero), &choice);
    let lengths = lengths(&device)?;
    refused(layer.forward_sequences(&parameters, &x, &zero, Sequences::ragged(&lengths)), &choice);
    refused(model.forward(&parameters, &x, &model.zero_state(&device, BATCH)?), &choice);
    layer.forward_sequences(&parameters, &x, &zero, Sequences::whole().evaluation())?;
    layer.infer(&parameters, &x, &zero)?;
    refused(layer.initial_state(&parameters, 1), &["learned_initial_state", "zero_state"]);

    let mut flat = Model::new(1);
    flat.add("head", Linear::new(3, 2))?;
    let parameters = flat.initialize(&device)?;
    let none = flat.zero_state(&device, BATCH)?;
    let ragged = flat.infer_sequences(&parameters, &x, &none, Sequences::ragged(&lengths));
    refused(ragged, &["sequences", "no recurrent layer"]);
    Ok(())
}

fn last_steps_that_are_not_there_are_refused() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(1);
    let layer = model.add("rnn", Rnn::new(Cell::Gru, 3, 3).bidirectional())?;
    let merged = model.add("sum", Rnn::new(Cell::Gru, 3, 3).bidirectional().merge(Merge::Sum))?;
    let of = |values: &[u32]| Indices::from_slice(&device, &[values.len()], values);
    let y = random(&device, 89, &[STEPS, 2, 6], 1.0)?;
    let d_last = random(&device, 89, &[2, 6], 1.0)?;
    refused(layer.last_valid(&y, &of(&[0, 1])?), &["lengths", "at least 1"]);
    assert!(matches!(layer.last_valid(&y, &of(&[5, 1])?), Err(Error::Index { .. })));
    assert!(matches!(layer.last_valid(&y, &of(&[1])?), Err(Error::Shape { .. })));
    assert!(matches!(layer.last_valid(&d_last, &of(&[1, 1])?), Err(Error::Shape { .. })));
    let absurd = layer.last_valid_backward(&d_last, &of(&[1, 1])?, usize::MAX);
    assert!(matches!(absurd, Err(Error::Shape { .. })), "{absurd:?}");
    let narrow = random(&device, 89, &[STEPS, 2, 3], 1.0)?;
    refused(merged.last_valid(&narrow, &of(&[1, 1])?), &["last_valid", "merge", "Sum"]);
    Ok(())
}

fn configurations_come_back_as_they_were_and_store_no_absent_option() -> Outcome {
    let text = serde_json::to_string(&tagger()?.config())?;
    let config: ModelConfig = serde_json::from_str(&text)?;
    assert_eq!(config, tagger()?.config());
    let again = Model::from_config(&config)?;
    assert_eq!(again.specs(), tagger()?.specs());
    for option in ["dropout", "input_dropout", "weight_drop", "merge", "residual", "learned_initial_state"] {
        assert!(text.contains(&format!("\"{option}\"")), "{option} is missing in {text}");
        let plain = LayerConfig::Rnn(Rnn::new(Cell::Gru, 3, 4));
        let plain = serde_json::to_string(&plain)?;
        assert!(!plain.contains(option), "{plain}");
    }
    Ok(())
}

/// What one more trace keeps of device memory, once all passing buffers are there; all sizes are powers of two, which the
/// pool gives without waste.
fn bytes_of_a_trace(adapter: &Adapter, model: &Model, sizes: [usize; 3]) -> Result<u64> {
    let device = adapter.open()?;
    // What a model before has let go of would be taken first.
    device.release_unused()?;
    let parameters = model.initialize(&device)?;
    let mut held = Vec::new();
    let mut bytes = Vec::new();
    for step in 0..6 {
        let x = Tensor::zeros(&device, &sizes)?;
        let state = model.zero_state(&device, sizes[1])?;
        let sequences = Sequences::whole().training(Draw::new(1, step));
        let (y, _, trace) = model.forward_sequences(&parameters, &x, &state, sequences)?;
        y.download()?;
        held.push(trace);
        bytes.push(device.counters().bytes);
    }
    assert_eq!(bytes[5] - bytes[4], bytes[4] - bytes[3], "{bytes:?} has not settled");
    Ok(bytes[5] - bytes[4])
}

fn a_trace_keeps_the_bytes_that_the_cost_says(adapter: &Adapter) -> Outcome {
    const SIZES: [usize; 3] = [8, 16, 32];
    let stack = |cell| Rnn::new(cell, 32, 32);
    for (name, lower) in [
        ("plain", stack(Cell::tanh())),
        ("lstm", stack(Cell::Lstm)),
        ("deep", stack(Cell::Lstm).layers(2)),
        ("dropped", stack(Cell::tanh()).layers(2).dropout(0.5)),
        ("masked", stack(Cell::Lstm).layers(2).input_dropout(0.5).weight_drop(0.5)),
        ("both", stack(Cell::tanh()).bidirectional().merge(Merge::Sum).residual()),
    ] {
        let mut model = Model::new(1);
        model.add("first", Linear::new(32, 32))?;
        let outputs = lower.outputs();
        model.add("rnn", lower)?;
        model.add("head", Linear::new(outputs, 8))?;
        let cost = model.cost(SIZES[0], SIZES[1])?;
        assert_eq!(bytes_of_a_trace(adapter, &model, SIZES)?, cost.trace_bytes, "{name}");
    }
    Ok(())
}

/// Of a model that reads data and of a stack asked for no more, the gradients of the parameters have the same bits as with the
/// gradient at the input, for fewer multiplications.
fn gradients_at_data_are_not_computed() -> Outcome {
    let device = Device::cpu();
    let stacks: [fn(Rnn) -> Rnn; 3] =
        [|stack| stack, |stack| stack.bidirectional().layers(2), |stack| stack.residual().checkpointed(1)];
    for build in stacks {
        let mut model = Model::new(3);
        let layer = model.add("rnn", build(Rnn::new(Cell::Gru, 5, 5)))?;
        let parameters = model.initialize(&device)?;
        let x = random(&device, 40, &[STEPS, BATCH, 5], 1.0)?;
        let d_y = random(&device, 41, &[STEPS, BATCH, layer.description().outputs()], 1.0)?;
        let zero = layer.zero_state(&device, BATCH)?;
        let pass = || layer.forward(&parameters, &x, &zero).map(|(_, _, trace)| trace);

        let mut expected = parameters.zero_gradients()?;
        pass()?.backward(&d_y, None, &mut expected)?;
        let mut found = parameters.zero_gradients()?;
        pass()?.backward_parameters(&d_y, &mut found)?;
        let mut of_model = parameters.zero_gradients()?;
        let (_, _, trace) = model.forward(&parameters, &x, &model.zero_state(&device, BATCH)?)?;
        trace.backward(&d_y, &mut of_model)?;
        let expected = all_gradients(&parameters, &expected)?;
        assert!(expected == all_gradients(&parameters, &found)?);
        assert!(expected == all_gradients(&parameters, &of_model)?);
        let of_no_size = Tensor::zeros(&device, &[STEPS, BATCH, 1])?;
        let refused = pass()?.backward_parameters(&of_no_size, &mut found);
        assert!(matches!(refused, Err(Error::Shape { .. })));
    }
    let mut model = Model::new(3);
    model.add("tokens", OneHot::new(7))?;
    model.add("rnn", Rnn::new(Cell::Gru, 7, 6))?;
    let (rows, w_ih, w_hh) = (9 * 4, 3 * 6 * 7, 3 * 6 * 6);
    let cost = model.cost(9, 4)?;
    assert_eq!((cost.forward, cost.backward), (rows * (w_ih + w_hh), rows * (w_ih + 2 * w_hh)));
    Ok(())
}

fn costs_count_the_entries_of_all_matrices() -> Outcome {
    let mut model = Model::new(1);
    model.add("embedding", Embedding::new(7, 5))?;
    model.add("rnn", Rnn::new(Cell::Gru, 5, 6).layers(2).bidirectional().merge(Merge::Sum))?;
    model.add("head", Linear::new(6, 7))?;
    let matrices = model.specs().iter().filter(|spec| spec.shape.rank() == 2);
    // An embedding is a table and no factor.
    let entries: usize = matrices.skip(1).map(|spec| spec.shape.elements()).sum();
    let cost = model.cost(9, 4)?;
    assert_eq!((cost.forward, cost.backward), (36 * entries as u64, 72 * entries as u64));
    let summary = model.summary();
    assert_eq!(summary.parameters(), model.initialize(&Device::cpu())?.count());
    assert_eq!(summary.rows()[1].features, 6);
    assert!(matches!(model.cost(0, 4), Err(Error::Shape { .. })));
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_models_gradients_over_ragged_rows_match_finite_differences,
        padding_reaches_no_layer_of_a_model,
        only_a_pass_from_the_learned_state_teaches_it,
        last_valid_outputs_are_the_final_states,
        options_that_make_no_sense_are_refused_by_name,
        passes_that_do_not_say_what_they_are_are_refused,
        last_steps_that_are_not_there_are_refused,
        gradients_at_data_are_not_computed,
        costs_count_the_entries_of_all_matrices,
        configurations_come_back_as_they_were_and_store_no_absent_option,
    );
    on_gpu!(
        suite,
        a_models_gradients_over_ragged_rows_agree_with_the_reference,
        a_trace_keeps_the_bytes_that_the_cost_says,
        padding_reaches_no_layer_of_a_model_on_the_gpu,
        last_valid_outputs_are_the_final_states_on_the_gpu,
    );
}
