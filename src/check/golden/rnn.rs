//! PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU`: x, initial states, parameters, gradients → outputs and all gradients.

use super::case::{GoldenCase, Outcome, Trouble};
use super::elementwise::activation;
use super::replay::Replay;
use crate::check::tolerance::Recurrence;
use crate::device::Device;
use crate::nn::{Cell, Gradients, Layer, Model, Parameters, Rnn, Sequences, State};
use crate::ops::recurrent::{SlidingWindows, Truncation};
use crate::tensor::Indices;

/// A stack with the case's weights.
struct GoldenStack {
    layer: Layer<Rnn>,
    model: Model,
    parameters: Parameters,
    lengths: Option<Indices>,
    recurrence: Recurrence,
}

/// The cell selected by the case's `kind` and `nonlinearity`.
fn cell(case: &GoldenCase) -> Outcome<Cell> {
    let kind = case.required("kind")?;
    match kind {
        "rnn" => Ok(Cell::Vanilla(activation(case, case.required("nonlinearity")?)?)),
        "lstm" | "gru" => {
            case.expect("nonlinearity", "tanh")?;
            Ok(if kind == "lstm" { Cell::Lstm } else { Cell::Gru })
        }
        other => Err(Trouble::unsupported(format!("kind = {other} is not supported"))),
    }
}

impl GoldenStack {
    fn from_case(replay: &Replay<'_>) -> Outcome<Self> {
        let (case, device) = (replay.case, replay.device);
        let ([steps, batch, inputs], _) = case.floats::<3>("x")?;
        let layers: usize = case.value("layers")?;
        let cell = cell(case)?;
        // The width of W_hh is the projection size, if there is a projection.
        let ([rows, _], _) = case.floats::<2>("weight_hh_l0")?;
        let hidden = rows / cell.gates();
        let mut description = Rnn::new(cell.clone(), inputs, hidden).layers(layers);
        match case.value_or::<usize>("proj_size", 0)? {
            0 => {}
            units => description = description.projection(units),
        }
        if !case.value_or("bias", false)? {
            description = description.without_bias();
        }
        if case.value_or("bidirectional", false)? {
            description = description.bidirectional();
        }
        description = description.with_truncation(truncation(case)?);
        let mut model = Model::new(0);
        let layer = model.add("rnn", description)?;
        let parameters = replay.load(&model, |name| name.trim_start_matches("rnn.").to_owned())?;
        case.expect_shape("y", &[steps, batch, layer.description().outputs()])?;
        let terms = inputs.max(layer.description().outputs()) + hidden;
        let recurrence = Recurrence { cell, steps, batch, layers, terms };
        let lengths = lengths(case)?;
        let lengths = lengths.map(|lengths| Indices::from_slice(device, &[lengths.len()], &lengths));
        Ok(Self { layer, model, parameters, lengths: lengths.transpose()?, recurrence })
    }

    fn check_gradients(&self, replay: &mut Replay<'_>, gradients: &Gradients) -> Outcome {
        for spec in self.model.specs() {
            let name = format!("d_{}", spec.name.trim_start_matches("rnn."));
            replay.check(&name, gradients.view(&spec.name)?, self.recurrence.backward())?;
        }
        Ok(())
    }
}

/// Parses the case's `truncation_mode` and `truncation`: `chunk` detaches the state before every step whose index is a
/// multiple of a number; with `window` the gradient of each output goes through its own step and a number of steps before
/// it.
pub(super) fn truncation(case: &GoldenCase) -> Outcome<Truncation> {
    let mode = case.text("truncation_mode").unwrap_or_default();
    match (mode, case.text("truncation").unwrap_or_default()) {
        ("", "") => Ok(Truncation::None),
        ("chunk", _) => match case.value("truncation")? {
            0 => Err(Trouble::malformed("truncation must be at least 1, not 0")),
            steps => Ok(Truncation::Chunks(steps)),
        },
        ("window", _) => {
            let depth = case.value::<usize>("truncation")?.saturating_add(1);
            Ok(Truncation::SlidingWindows(SlidingWindows { every: 1, depth }))
        }
        (other, _) => Err(Trouble::unsupported(format!("truncation_mode = {other} is not supported"))),
    }
}

/// The lengths of the rows if they differ, written as `4,8,1`.
fn lengths(case: &GoldenCase) -> Outcome<Option<Vec<u32>>> {
    match case.text("lengths").unwrap_or_default() {
        "" => Ok(None),
        text => {
            let parsed: Result<Vec<u32>, _> = text.split(',').map(|length| length.trim().parse()).collect();
            parsed
                .map(Some)
                .map_err(|_| Trouble::malformed(format!("lengths = {text} is not a list of numbers")))
        }
    }
}

/// Fails for unsupported attributes.
pub(super) fn expect_plain(case: &GoldenCase) -> Outcome {
    let plain = [
        ("bidirectional", "false"),
        ("lengths", ""),
        ("proj_size", "0"),
        ("dropout", "0"),
        ("direction", "forward"),
    ];
    plain.into_iter().try_for_each(|(key, value)| case.expect(key, value))
}

/// The state `h`, and for an LSTM `c`, of the case.
fn state(case: &GoldenCase, device: &Device, cell: &Cell, h: &str, c: &str) -> Outcome<State> {
    let hidden = case.tensor(h, device)?;
    let cell = cell.has_cell_state().then(|| case.tensor(c, device)).transpose()?;
    Ok(State::from_parts(&hidden, cell.as_ref())?)
}

/// One forward and one backward pass.
pub(super) fn whole(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    case.expect("dropout", "0")?;
    case.expect("layout", "time_major")?;
    let stack = GoldenStack::from_case(replay)?;
    let cell = stack.layer.description().cell();
    let initial = state(case, device, cell, "h0", "c0")?;
    let d_last = state(case, device, cell, "dhn", "dcn")?;
    let sequences = stack.lengths.as_ref().map_or_else(Sequences::whole, Sequences::ragged);
    let x = case.tensor("x", device)?;
    let mut gradients = stack.parameters.zero_gradients()?;
    let (y, last, trace) = stack.layer.forward_sequences(&stack.parameters, &x, &initial, sequences)?;
    let (d_x, d_initial) = trace.backward(&case.tensor("dy", device)?, Some(&d_last), &mut gradients)?;

    let (forward, backward) = (stack.recurrence.forward(), stack.recurrence.backward());
    replay.check("y", &y, forward)?;
    replay.check("hn", &last.hidden(), forward)?;
    replay.check("dx", &d_x, backward)?;
    replay.check("dh0", &d_initial.hidden(), backward)?;
    if let (Some(c), Some(d_c)) = (last.cell(), d_initial.cell()) {
        replay.check("cn", &c, forward)?;
        replay.check("dc0", &d_c, backward)?;
    }
    stack.check_gradients(replay, &gradients)
}
