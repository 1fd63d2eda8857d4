//! Networks from tutorials, with their own layouts.

use super::case::{Outcome, Trouble};
use super::elementwise::activation;
use super::layers::expect_kind;
use super::replay::Replay;
use super::rnn::expect_plain;
use super::windowed::slots;
use crate::check::tolerance::{EVALUATION, Recurrence, sum};
use crate::loss::cross_entropy;
use crate::nn::{Cell, Linear, Model, Parameters, Rnn, State};
use crate::ops::{Activation, permute, softmax, unary, unary_backward};
use crate::tensor::Tensor;

/// The attributes that all recurrent tutorials share.
fn expect_recurrent(replay: &Replay<'_>, layout: &str) -> Outcome<Cell> {
    let case = replay.case;
    expect_kind(replay, "rnn")?;
    expect_plain(case)?;
    for (key, value) in [("bias", "false"), ("truncation", ""), ("layout", layout)] {
        case.expect(key, value)?;
    }
    Ok(Cell::Vanilla(activation(case, case.required("nonlinearity")?)?))
}

/// Sets the parameter `name` to the transposed matrix `tensor` of the case.
fn set_transposed(replay: &Replay<'_>, parameters: &mut Parameters, name: &str, tensor: &str) -> Outcome {
    let transposed = permute(&replay.case.tensor(tensor, replay.device)?, &[1, 0])?;
    Ok(parameters.set(name, transposed.shape().dimensions(), &transposed.download()?)?)
}

/// x \[T, B, F\] → out \[T, H, B\], hidden \[L, H, B\]; no biases, the state starts at zero.
pub(super) fn stacked(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let cell = expect_recurrent(replay, "x time_major [T,B,F]; out [T,H,B]; hidden [L,H,B]")?;
    let layers = case.value("layers")?;
    let ([steps, batch, inputs], _) = case.floats::<3>("x")?;
    let ([hidden, _], _) = case.floats::<2>("Whh0")?;
    let mut model = Model::new(0);
    let layer = model.add("rnn", Rnn::new(cell.clone(), inputs, hidden).layers(layers).without_bias())?;
    let parameters = replay
        .load(&model, |name| name.replace("rnn.weight_ih_l", "Wih").replace("rnn.weight_hh_l", "Whh"))?;
    let state = layer.zero_state(device, batch)?;
    let (y, last) = layer.infer(&parameters, &case.tensor("x", device)?, &state)?;
    let terms = inputs.max(hidden) + hidden;
    let roundings = Recurrence { cell, steps, batch, layers, terms }.forward();
    replay.check("out", &permute(&y, &[0, 2, 1])?, roundings)?;
    replay.check("hidden", &permute(&last.hidden(), &[0, 2, 1])?, roundings)
}

/// x \[B, T, I\] → states s \[B, T + 1, H\] (the last slot is the zero state) and outputs \[B, T, Q\]: softmax over each
/// row (`o_rowwise`), and over the whole \[B, Q\] of a step (`o_literal`).
pub(super) fn softmax_rnn(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let cell = expect_recurrent(replay, "batch_major")?;
    case.expect("layers", "1")?;
    let ([inputs, hidden], _) = case.floats::<2>("U")?;
    let ([_, classes], _) = case.floats::<2>("V")?;
    let mut model = Model::new(0);
    let rnn = model.add("rnn", Rnn::new(cell.clone(), inputs, hidden).without_bias())?;
    let head = model.add("head", Linear::new(hidden, classes).without_bias())?;
    let mut parameters = replay.initialize(&model)?;
    for (name, tensor) in [("rnn.weight_ih_l0", "U"), ("rnn.weight_hh_l0", "W"), ("head.weight", "V")] {
        set_transposed(replay, &mut parameters, name, tensor)?;
    }
    let x = permute(&case.tensor("x", device)?, &[1, 0, 2])?;
    let [steps, batch, _] = x.shape().exactly("x", "[batch, time, inputs]")?;
    let (states, _) = rnn.infer(&parameters, &x, &rnn.zero_state(device, batch)?)?;
    let logits = head.infer(&parameters, &states)?;
    let by_row = softmax(&logits)?;
    let by_step = softmax(&logits.reshape(&[steps, batch * classes])?)?.reshape(&[steps, batch, classes])?;

    let forward = Recurrence { cell, steps, batch, layers: 1, terms: inputs + hidden }.forward();
    replay.check("s", &slots(&states)?, forward)?;
    let roundings = forward + sum(hidden) + sum(batch * classes) + 2.0 * EVALUATION;
    replay.check("o_rowwise", &permute(&by_row, &[1, 0, 2])?, roundings)?;
    replay.check("o_literal", &permute(&by_step, &[1, 0, 2])?, roundings)
}

/// x \[I, B, T\] → states a \[H, B, T\] and softmax outputs y_pred \[V, B, T\], or one step of it without the last
/// dimension; one bias before tanh.
pub(super) fn feature_major(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_plain(case)?;
    for (key, value) in [("nonlinearity", "tanh"), ("bias", "true"), ("layers", "1"), ("truncation", "")] {
        case.expect(key, value)?;
    }
    case.expect("layout", "x [n_x,m,T_x], a [n_a,m,T_x], y_pred [n_y,m,T_x]")?;
    let [x, before, after, outputs] = match case.required("kind")? {
        "rnn" => ["x", "a0", "a", "y_pred"],
        "rnn_cell" => ["xt", "a_prev", "a_next", "yt_pred"],
        other => return Err(Trouble::unsupported(format!("cases of the kind `{other}` are not supported"))),
    };
    let ([hidden, inputs], weight_ih) = case.floats::<2>("Wax")?;
    let (head_shape @ [classes, _], head) = case.floats::<2>("Wya")?;
    let mut model = Model::new(0);
    let rnn = model.add("rnn", Rnn::new(Cell::tanh(), inputs, hidden))?;
    let layer = model.add("head", Linear::new(hidden, classes))?;
    let mut parameters = replay.initialize(&model)?;
    let (recurrent, weight_hh) = case.floats::<2>("Waa")?;
    parameters.set("rnn.weight_ih_l0", &[hidden, inputs], weight_ih)?;
    parameters.set("rnn.weight_hh_l0", &recurrent, weight_hh)?;
    // The biases are columns in the file.
    parameters.set("rnn.bias_ih_l0", &[hidden], case.floats::<2>("ba")?.1)?;
    parameters.set("rnn.bias_hh_l0", &[hidden], &vec![0.0; hidden])?;
    parameters.set("head.weight", &head_shape, head)?;
    parameters.set("head.bias", &[classes], case.floats::<2>("by")?.1)?;

    let x = case.tensor(x, device)?;
    let sizes = x.shape().dimensions().to_vec();
    let steps = sizes.get(2).copied().unwrap_or(1);
    let batch = sizes.get(1).copied().unwrap_or(1);
    let x = permute(&x.reshape(&[inputs, batch, steps])?, &[2, 1, 0])?;
    let state = permute(&case.tensor(before, device)?, &[1, 0])?.reshape(&[1, batch, hidden])?;
    let (states, _) = rnn.infer(&parameters, &x, &State::from_hidden(&state)?)?;
    let predicted = softmax(&layer.infer(&parameters, &states)?)?;

    let recurrence = Recurrence { cell: Cell::tanh(), steps, batch, layers: 1, terms: inputs + hidden };
    let forward = recurrence.forward();
    let of_head = forward + sum(hidden) + sum(classes) + EVALUATION;
    for (name, result, roundings) in [(after, states, forward), (outputs, predicted, of_head)] {
        let mut shape = vec![result.shape().last(), batch];
        shape.extend(sizes.get(2));
        replay.check(name, &permute(&result, &[2, 1, 0])?.reshape(&shape)?, roundings)?;
    }
    Ok(())
}

/// A chain of cells h = x K + h' R, each of its own size; x \[B, T, I\] → the last cell's output at each step, its final
/// output y, and the gradients of Σ y dy.
pub(super) fn linear_cells(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let cell = expect_recurrent(replay, "batch_major")?;
    let cells = case.value("layers")?;
    let mut model = Model::new(0);
    let mut layers = Vec::new();
    for index in 0..cells {
        let ([inputs, hidden], _) = case.floats::<2>(&format!("kernel{index}"))?;
        layers
            .push(model.add(&format!("cell{index}"), Rnn::new(cell.clone(), inputs, hidden).without_bias())?);
    }
    let mut parameters = replay.initialize(&model)?;
    for index in 0..cells {
        for (weight, kernel) in [("ih", "kernel"), ("hh", "recurrent_kernel")] {
            let name = format!("cell{index}.weight_{weight}_l0");
            set_transposed(replay, &mut parameters, &name, &format!("{kernel}{index}"))?;
        }
    }
    let mut signal = permute(&case.tensor("x", device)?, &[1, 0, 2])?;
    let [steps, batch, inputs] = signal.shape().exactly("x", "[batch, time, inputs]")?;
    let (mut traces, mut finals, mut terms) = (Vec::new(), Vec::new(), inputs);
    for layer in &layers {
        let (y, last, trace) = layer.forward(&parameters, &signal, &layer.zero_state(device, batch)?)?;
        traces.push(trace);
        finals.push(last.hidden());
        terms = terms.max(y.shape().last());
        signal = y;
    }
    let hidden = signal.shape().last();
    let recurrence = Recurrence { cell, steps, batch, layers: cells, terms: 2 * terms };
    replay.check("y_sequence", &permute(&signal, &[1, 0, 2])?, recurrence.forward())?;
    let last = signal.download_f64()?.split_off((steps - 1) * batch * hidden);
    replay.check_values("y", &[batch, hidden], &last, recurrence.forward())?;
    for (index, last) in finals.iter().enumerate() {
        let last = last.reshape(&last.shape().dimensions()[1..])?;
        replay.check(&format!("h{index}"), &last, recurrence.forward())?;
    }

    // Only the final output has a gradient.
    let mut d_y = vec![0.0; (steps - 1) * batch * hidden];
    d_y.extend(case.floats::<2>("dy")?.1);
    let mut d_y = Tensor::from_slice(device, &[steps, batch, hidden], &d_y)?;
    let mut gradients = parameters.zero_gradients()?;
    while let Some(trace) = traces.pop() {
        d_y = trace.backward(&d_y, None, &mut gradients)?.0;
    }
    replay.check("dx", &permute(&d_y, &[1, 0, 2])?, recurrence.backward())?;
    for index in 0..cells {
        for (weight, kernel) in [("ih", "kernel"), ("hh", "recurrent_kernel")] {
            let gradient = gradients.view(&format!("cell{index}.weight_{weight}_l0"))?;
            replay.check(
                &format!("d_{kernel}{index}"),
                &permute(gradient, &[1, 0])?,
                recurrence.backward(),
            )?;
        }
    }
    Ok(())
}

/// Single layers of a course on convolutional networks, except convolutions.
pub(super) fn layers(replay: &mut Replay<'_>) -> Outcome {
    match replay.case.required("kind")? {
        "affine" => affine(replay),
        "relu" => relu(replay),
        "softmax_loss" => softmax_loss(replay),
        other => Err(Trouble::unsupported(format!("cases of the kind `{other}` are not supported"))),
    }
}

/// y = x w + b with w \[D, M\]; x of any shape is flattened to \[N, D\]; db is \[1, M\].
fn affine(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let ([inputs, outputs], _) = case.floats::<2>("w")?;
    let mut model = Model::new(0);
    let layer = model.add("affine", Linear::new(inputs, outputs))?;
    let mut parameters = replay.initialize(&model)?;
    set_transposed(replay, &mut parameters, "affine.weight", "w")?;
    parameters.set("affine.bias", &[outputs], case.floats::<1>("b")?.1)?;
    let x = case.tensor("x", device)?;
    let shape = x.shape().dimensions();
    let rows = shape[0];
    let mut gradients = parameters.zero_gradients()?;
    let (y, trace) = layer.forward(&parameters, &x.reshape(&[rows, inputs])?)?;
    let d_x = trace.backward(&case.tensor("dout", device)?, &mut gradients)?;
    replay.check("out", &y, sum(inputs))?;
    replay.check("dx", &d_x.reshape(shape)?, sum(outputs))?;
    replay.check("dw", &permute(gradients.view("affine.weight")?, &[1, 0])?, sum(rows))?;
    let d_bias = gradients.view("affine.bias")?.download_f64()?;
    replay.check_values("db", &[1, outputs], &d_bias, sum(rows))
}

fn relu(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let x = case.tensor("x", device)?;
    let y = unary(&x, Activation::Relu)?;
    let d_x = unary_backward(&x, &y, &case.tensor("dout", device)?, Activation::Relu)?;
    replay.check("out", &y, 1.0)?;
    replay.check("dx", &d_x, 1.0)
}

/// Mean cross-entropy of x \[N, C\] against y \[N\].
fn softmax_loss(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let x = case.tensor("x", device)?;
    let labels = case.tokens("y", device)?;
    let (loss, d_x) = cross_entropy(&x, &labels)?;
    let roundings = sum(x.shape().last()) + sum(x.shape().rows()) + 2.0 * EVALUATION;
    replay.check("loss", &loss, roundings)?;
    replay.check("dx", &d_x, roundings)
}
