//! PyTorch's `nn.RNN`: x, h0, parameters, dy, dhn → y, hn and all gradients.

use super::case::{Case, Outcome, Trouble};
use super::elementwise::activation;
use super::layers::expect_kind;
use super::replay::Replay;
use crate::check::tolerance::Recurrence;
use crate::device::Device;
use crate::nn::{Cell, Gradients, Layer, Model, Parameters, Rnn, State};
use crate::tensor::Tensor;

/// A stack with the case's weights.
struct Stack {
    layer: Layer<Rnn>,
    model: Model,
    parameters: Parameters,
    recurrence: Recurrence,
}

impl Stack {
    fn from_case(case: &Case, device: &Device) -> Outcome<Self> {
        let ([steps, batch, inputs], _) = case.floats::<3>("x")?;
        let layers = case.count("layers")?;
        let ([_, hidden], _) = case.floats::<2>("weight_hh_l0")?;
        let cell = Cell::Vanilla(activation(case, case.required("nonlinearity")?)?);
        let description = Rnn::new(cell, inputs, hidden).layers(layers);
        let mut model = Model::new(0);
        let layer =
            model.add("rnn", if case.flag("bias")? { description } else { description.without_bias() })?;
        let mut parameters = model.initialize(device)?;
        assign(case, &model, &mut parameters, |name| name.trim_start_matches("rnn.").to_owned())?;
        let terms = inputs.max(hidden) + hidden;
        let recurrence = Recurrence { steps, batch, layers, terms, slope: 1.0 };
        Ok(Self { layer, model, parameters, recurrence })
    }

    fn check_gradients(&self, replay: &mut Replay<'_>, gradients: &Gradients) -> Outcome {
        for spec in self.model.specs() {
            let name = format!("d_{}", spec.name.trim_start_matches("rnn."));
            replay.check(&name, gradients.view(&spec.name)?, self.recurrence.backward())?;
        }
        Ok(())
    }
}

/// Sets every parameter from the tensor that `rename` gives for its name.
pub(super) fn assign(
    case: &Case,
    model: &Model,
    parameters: &mut Parameters,
    rename: impl Fn(&str) -> String,
) -> Outcome {
    let mut all: Vec<(&str, Vec<f64>)> = Vec::new();
    for spec in model.specs() {
        let name = rename(&spec.name);
        let array = case.array(&name)?;
        if array.shape != spec.shape.dimensions() {
            let (expected, found) = (spec.shape, &array.shape);
            return Err(Trouble::malformed(format!(
                "`{name}` must have the shape {expected}, but has {found:?}"
            )));
        }
        all.push((&spec.name, array.floats(&name)?.iter().copied().map(f64::from).collect()));
    }
    Ok(parameters.set_all(all.iter().map(|(name, values)| (*name, values.as_slice())))?)
}

/// Fails for what is not built yet.
pub(super) fn expect_plain(case: &Case) -> Outcome {
    for (key, value) in [
        ("bidirectional", "false"),
        ("lengths", ""),
        ("proj_size", "0"),
        ("dropout", "0"),
        ("direction", "forward"),
    ] {
        case.expect(key, value)?;
    }
    Ok(())
}

/// A whole sequence at once.
pub(super) fn whole(replay: &mut Replay<'_>) -> Outcome {
    replay.case.expect("truncation", "")?;
    replay.case.expect("truncation_mode", "")?;
    let steps = replay.case.floats::<3>("x")?.0[0];
    chunks(replay, steps)
}

/// The state is detached before every k-th step: a window of k steps after another, as training does it.
pub(super) fn truncated(replay: &mut Replay<'_>) -> Outcome {
    match replay.case.required("truncation_mode")? {
        "chunk" => {}
        other => return Err(Trouble::unsupported(format!("truncation_mode = {other} is not built yet"))),
    }
    let steps = replay.case.count("truncation")?;
    if steps == 0 {
        return Err(Trouble::malformed("truncation = 0 leaves no step"));
    }
    chunks(replay, steps)
}

/// Steps `from..from + count` of a sequence \[T, B, F\] on the host.
fn window(case: &Case, name: &str, device: &Device, from: usize, count: usize) -> Outcome<Tensor> {
    let ([steps, batch, features], values) = case.floats::<3>(name)?;
    let (stride, until) = (batch * features, from + count);
    if until > steps {
        return Err(Trouble::malformed(format!(
            "`{name}` must have at least {until} steps, but has {steps}"
        )));
    }
    Ok(Tensor::from_slice(device, &[count, batch, features], &values[from * stride..until * stride])?)
}

/// Runs the sequence in windows of at most `length` steps. Weight gradients add up over the windows; that at the
/// initial state comes from the first, that at the final state goes into the last.
fn chunks(replay: &mut Replay<'_>, length: usize) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_kind(replay, "rnn")?;
    expect_plain(case)?;
    case.expect("layout", "time_major")?;
    let stack = Stack::from_case(case, device)?;
    let steps = stack.recurrence.steps;
    let mut state = State::from_hidden(case.tensor("h0", device)?);
    let d_last = State::from_hidden(case.tensor("dhn", device)?);
    let mut gradients = stack.parameters.zero_gradients()?;
    let (mut y, mut d_x, mut d_initial) = (Vec::new(), Vec::new(), None);
    for from in (0..steps).step_by(length) {
        let count = length.min(steps - from);
        let x = window(case, "x", device, from, count)?;
        let (output, next, trace) = stack.layer.forward(&stack.parameters, &x, &state)?;
        y.extend(output.download_f64()?);
        let d_y = window(case, "dy", device, from, count)?;
        let at_end = (from + count == steps).then_some(&d_last);
        let (d_window, d_state) = trace.backward(&d_y, at_end, &mut gradients)?;
        d_x.extend(d_window.download_f64()?);
        d_initial.get_or_insert(d_state);
        state = next;
    }
    let recurrence = stack.recurrence;
    let [_, batch, inputs] = case.floats::<3>("x")?.0;
    let hidden = stack.layer.description().hidden();
    replay.check_values("y", &[steps, batch, hidden], &y, recurrence.forward())?;
    replay.check("hn", state.hidden(), recurrence.forward())?;
    replay.check_values("dx", &[steps, batch, inputs], &d_x, recurrence.backward())?;
    if let Some(d_initial) = d_initial {
        replay.check("dh0", d_initial.hidden(), recurrence.backward())?;
    }
    stack.check_gradients(replay, &gradients)
}
