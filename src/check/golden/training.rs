//! Whole PyTorch training runs: embedding, recurrent stack, head; every loss, every gradient norm, the final weights.

use super::case::{GoldenCase, Outcome, Trouble, unsigned};
use super::layers::expect_kind;
use super::optim::Optimizer;
use super::replay::Replay;
use super::rnn::expect_plain;
use crate::check::tolerance::{EVALUATION, Recurrence, sum};
use crate::device::Device;
use crate::loss::cross_entropy;
use crate::nn::{Cell, Embedding, Linear, Model, Rnn};
use crate::ops::Norm;
use crate::tensor::Indices;

/// The sizes of a run.
struct TrainingSizes {
    steps: usize,
    sequence: usize,
    batch: usize,
    vocabulary: usize,
    embedding: usize,
    hidden: usize,
    layers: usize,
}

impl TrainingSizes {
    fn from_case(case: &GoldenCase) -> Outcome<Self> {
        Ok(Self {
            steps: case.value("steps")?,
            sequence: case.value("sequence")?,
            batch: case.value("batch")?,
            vocabulary: case.value("vocabulary")?,
            embedding: case.value("embedding")?,
            hidden: case.value("hidden")?,
            layers: case.value("layers")?,
        })
    }

    fn model(&self, cell: &Cell) -> Outcome<Model> {
        let mut model = Model::new(0);
        model.add("embedding", Embedding::new(self.vocabulary, self.embedding))?;
        model.add("rnn", Rnn::new(cell.clone(), self.embedding, self.hidden).layers(self.layers))?;
        model.add("head", Linear::new(self.hidden, self.vocabulary))?;
        Ok(model)
    }

    /// The roundings of one step's gradient and of the updates of all steps.
    fn roundings(&self, cell: &Cell) -> f64 {
        let terms = self.embedding.max(self.hidden) + self.hidden;
        let Self { sequence, batch, layers, .. } = *self;
        let recurrence = Recurrence { cell: cell.clone(), steps: sequence, batch, layers, terms };
        self.steps as f64 * (recurrence.backward() + sum(self.vocabulary) + 2.0 * EVALUATION)
    }
}

pub(super) fn run(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_kind(replay, "training")?;
    expect_plain(case)?;
    case.expect("layout", "time_major")?;
    let cell = match case.required("cell")? {
        "tanh" => Cell::tanh(),
        "relu" => Cell::relu(),
        "lstm" => Cell::Lstm,
        "gru" => Cell::Gru,
        other => return Err(Trouble::unsupported(format!("the cell `{other}` is not supported"))),
    };
    let sizes = TrainingSizes::from_case(case)?;
    let model = sizes.model(&cell)?;
    let mut parameters = replay.load(&model, str::to_owned)?;
    let mut optimizer = Optimizer::from_case(case, &parameters)?;
    expect_no_stray_momentum(case, &optimizer)?;
    let max_norm = case.value_or::<f64>("clip_norm", 0.0)? as f32;
    let (tokens, targets) =
        (windows(case, "tokens", &sizes, device)?, windows(case, "targets", &sizes, device)?);

    let mut state = model.zero_state(device, sizes.batch)?;
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for (tokens, targets) in tokens.iter().zip(&targets) {
        let (logits, next, trace) = model.forward(&parameters, tokens, &state)?;
        let (loss, d_logits) = cross_entropy(&logits, targets)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&d_logits, &mut gradients)?;
        let norm = if max_norm > 0.0 { gradients.clip_norm(max_norm)? } else { gradients.norm(Norm::L2)? };
        optimizer.step(&mut parameters, &gradients)?;
        losses.extend(loss.download_f64()?);
        norms.extend(norm.download_f64()?);
        state = next;
    }
    replay.check_values("losses", &[sizes.steps], &losses, sizes.roundings(&cell))?;
    replay.check_values("gradient_norms", &[sizes.steps], &norms, sizes.roundings(&cell))?;
    for spec in model.specs() {
        let name = format!("final_{}", spec.name);
        replay.check(&name, parameters.view(&spec.name)?, sizes.roundings(&cell))?;
    }
    Ok(())
}

/// Momentum is an option of SGD; for other optimizers the files contain 0.
fn expect_no_stray_momentum(case: &GoldenCase, optimizer: &Optimizer) -> Outcome {
    match optimizer {
        Optimizer::Sgd(_) => Ok(()),
        Optimizer::Adam(_) if case.value_or::<f64>("momentum", 0.0)? == 0.0 => Ok(()),
        Optimizer::Adam(_) => Err(Trouble::unsupported("Adam with a momentum is not supported")),
    }
}

/// The tokens of each step \[T, B\] from \[steps, T, B\].
fn windows(case: &GoldenCase, name: &str, sizes: &TrainingSizes, device: &Device) -> Outcome<Vec<Indices>> {
    let (shape, values) = case.integers(name)?;
    let expected = [sizes.steps, sizes.sequence, sizes.batch];
    if shape != expected || values.is_empty() {
        return Err(Trouble::malformed(format!(
            "`{name}` must have the shape {expected:?}, but has {shape:?}"
        )));
    }
    let tokens = unsigned(name, values)?;
    let windows = tokens.chunks(sizes.sequence * sizes.batch);
    Ok(windows
        .map(|window| Indices::from_slice(device, &expected[1..], window))
        .collect::<crate::Result<_>>()?)
}
