//! Training and validation steps of the model.

use refrain::data::Window;
use refrain::loss::{CrossEntropy, cross_entropy};
use refrain::nn::{
    Embedding, Gradients, Linear, Model, ModelState, OneHot, Parameters, RandomKey, Rnn, Sequences,
};
use refrain::ops::{Norm, Reduction};
use refrain::optim::{Adam, AdamConfig, Sgd, SgdConfig, WeightDecay};
use refrain::{Device, IGNORED, Result, Tensor};

use super::arguments::{Network, Optimization, Rule, Truncation};

/// A model with its weights and all training state.
pub(crate) struct Learner {
    pub(crate) model: Model,
    pub(crate) parameters: Parameters,
    optimizer: Optimizer,
    state: Option<ModelState>,
    /// The seed of the random numbers.
    seed: u64,
    /// The number of steps so far.
    steps: u64,
    largest_norm: Option<f32>,
}

/// The results of a step, still on the device; reading them waits.
pub(crate) struct Measured {
    /// Mean cross-entropy of the window, in nats.
    pub(crate) loss: Tensor,
    /// ‖g‖ before clipping.
    pub(crate) norm: Tensor,
}

enum Optimizer {
    Adam(Adam),
    Sgd(Sgd),
}

impl Optimizer {
    fn new(parameters: &Parameters, options: &Optimization) -> Result<Self> {
        let rate = options.rate();
        match options.optimizer {
            Rule::Adam => {
                let weight_decay = WeightDecay::Decoupled(options.decay());
                Adam::new(parameters, AdamConfig { weight_decay, ..AdamConfig::new(rate) }).map(Self::Adam)
            }
            Rule::Sgd => {
                let momentum = options.momentum.unwrap_or(0.9);
                let weight_decay = options.decay();
                Sgd::new(parameters, SgdConfig { momentum, weight_decay, ..SgdConfig::new(rate) })
                    .map(Self::Sgd)
            }
        }
    }

    fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        match self {
            Self::Adam(adam) => adam.set_learning_rate(rate),
            Self::Sgd(sgd) => sgd.set_learning_rate(rate),
        }
    }

    fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients) -> Result<()> {
        match self {
            Self::Adam(adam) => adam.step(parameters, gradients),
            Self::Sgd(sgd) => sgd.step(parameters, gradients),
        }
    }
}

/// Embedding or one-hot vectors, a stack of recurrent layers, and a linear layer with one logit per character.
fn build(network: &Network, optimization: &Optimization, vocabulary: usize) -> Result<Model> {
    let mut model = Model::new(optimization.seed);
    let features = match network.one_hot {
        true => {
            model.add("characters", OneHot::new(vocabulary))?;
            vocabulary
        }
        false => {
            model.add("characters", Embedding::new(vocabulary, network.embedding))?;
            network.embedding
        }
    };
    let stack = Rnn::new(network.cell.clone(), features, network.hidden)
        .layers(network.layers)
        .dropout(network.dropout);
    let stack = match optimization.truncation {
        Truncation::None => stack,
        Truncation::Chunks(steps) => stack.truncated(steps),
        Truncation::Window(steps) => stack.windowed(steps),
    };
    model.add("rnn", stack)?;
    model.add("head", Linear::new(network.hidden, vocabulary))?;
    Ok(model)
}

impl Learner {
    /// A newly initialised model on `device`.
    pub(crate) fn new(
        network: &Network,
        optimization: &Optimization,
        vocabulary: usize,
        device: &Device,
    ) -> Result<Self> {
        let model = build(network, optimization, vocabulary)?;
        let parameters = model.initialize(device)?;
        let optimizer = Optimizer::new(&parameters, optimization)?;
        let (seed, largest_norm) = (optimization.seed, optimization.largest_norm());
        Ok(Self { model, parameters, optimizer, state: None, seed, steps: 0, largest_norm })
    }

    /// One optimizer step with learning rate `rate` over one window. Does not wait for the device.
    pub(crate) fn step(&mut self, window: &Window, rate: f64) -> Result<Measured> {
        let device = self.parameters.device().clone();
        let (tokens, targets) = window.to_device(&device)?;
        let state = match self.state.take() {
            Some(state) if !window.begins => state,
            _ => self.model.zero_state(&device, window.batch)?,
        };
        let training = Sequences::whole().training(RandomKey::new(self.seed, self.steps));
        let (logits, next, trace) =
            self.model.forward_sequences(&self.parameters, &tokens, &state, training)?;
        let (loss, d_logits) = cross_entropy(&logits, &targets)?;
        drop(logits);
        let mut gradients = self.parameters.zero_gradients()?;
        trace.backward_from(d_logits, &mut gradients)?;
        let norm = match self.largest_norm {
            Some(largest) => gradients.clip_norm(largest)?,
            None => gradients.norm(Norm::L2)?,
        };
        self.optimizer.set_learning_rate(rate)?;
        self.optimizer.step(&mut self.parameters, &gradients)?;
        self.state = Some(next);
        self.steps += 1;
        Ok(Measured { loss, norm })
    }

    /// Mean bits per character over all targets of `windows`, in evaluation mode. **Waits** for the device.
    pub(crate) fn validate(&self, windows: &[Window]) -> Result<f64> {
        let device = self.parameters.device();
        let mut state = None;
        let (mut losses, mut count) = (Vec::with_capacity(windows.len()), 0);
        for window in windows {
            let (tokens, targets) = window.to_device(device)?;
            let before = match state.take() {
                Some(before) => before,
                None => self.model.zero_state(device, window.batch)?,
            };
            let (logits, next) = self.model.infer(&self.parameters, &tokens, &before)?;
            state = Some(next);
            let (loss, _) = CrossEntropy::default().reduced(&logits, &targets, Reduction::Sum)?;
            count += targets.counted();
            losses.push(loss);
        }
        let mut nats = 0.0;
        for loss in losses {
            nats += f64::from(loss.read()?);
        }
        Ok(nats / count as f64 / std::f64::consts::LN_2)
    }
}

/// Splits a sequence into windows that predict every token but the first exactly once: up to `batch` parallel streams of at
/// least 256 tokens each, if there are as many, padded with ignored targets.
pub(crate) fn covering_windows(tokens: &[u32], batch: usize, sequence: usize) -> Vec<Window> {
    const SHORTEST: usize = 256;
    let predictions = tokens.len() - 1;
    let batch = (predictions / SHORTEST).clamp(1, batch);
    let stream = predictions.div_ceil(batch);
    let window = |first: usize| {
        let steps = sequence.min(stream - first);
        let places = || {
            let rows = move |step| (0..batch).map(move |row| (row * stream, step));
            (first..first + steps).flat_map(rows).map(|(start, step)| start + step)
        };
        Window {
            // Any token may pad the end, because its target is ignored.
            tokens: places().map(|place| if place < predictions { tokens[place] } else { 0 }).collect(),
            targets: places()
                .map(|place| if place < predictions { tokens[place + 1] } else { IGNORED })
                .collect(),
            steps,
            batch,
            begins: first == 0,
        }
    };
    (0..stream).step_by(sequence).map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_windows_predict_every_token_after_the_first_once() {
        for (length, batch, sequence) in [(2, 4, 8), (5, 1, 2), (1000, 3, 7), (1025, 4, 256), (5217, 32, 32)]
        {
            let tokens: Vec<u32> = (0..length).collect();
            let mut predicted = Vec::new();
            for window in covering_windows(&tokens, batch, sequence) {
                assert_eq!(window.tokens.len(), window.steps * window.batch);
                for (&token, &target) in window.tokens.iter().zip(&window.targets) {
                    if target != IGNORED {
                        assert_eq!(target, token + 1);
                        predicted.push(target);
                    }
                }
            }
            predicted.sort_unstable();
            assert_eq!(predicted, tokens[1..], "{length} {batch} {sequence}");
        }
    }
}
