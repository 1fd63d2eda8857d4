//! What several modules need: random tensors, a small language model and its training loop, comparisons.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use libtest_mimic::Failed;
use refrain::data::Windows;
use refrain::loss::cross_entropy;
use refrain::nn::{Cell, Embedding, Gradients, Linear, Model, Parameters, Rnn, Sequences, State};
use refrain::ops::Activation;
use refrain::optim::{Adam, AdamConfig, Sgd, SgdConfig};
use refrain::random::Stream;
use refrain::tuning::RecurrentStrategy;
use refrain::{AdapterKind, AdapterSummary, Device, GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome};

/// A change of a description.
pub(crate) type Build = fn(Rnn) -> Rnn;

/// `count` numbers uniform between −`scale` and `scale`, from stream `stream` of seed 1.
pub(crate) fn values(stream: u64, count: usize, scale: f64) -> Vec<f64> {
    let stream = Stream::new(1, stream);
    (0..count as u64).map(|index| stream.uniform_between(index, -scale, scale)).collect()
}

/// A tensor of [`values`].
pub(crate) fn random(device: &Device, stream: u64, dimensions: &[usize], scale: f64) -> Result<Tensor> {
    Tensor::from_slice_f64(device, dimensions, &values(stream, dimensions.iter().product(), scale))
}

/// A state of the sizes of `like`, of hidden and cell values one after the other.
pub(crate) fn state_like(like: &State, values: &[f64]) -> Result<State> {
    let part = |like: &Tensor, values: &[f64]| {
        Tensor::from_slice_f64(like.device(), like.shape().dimensions(), values)
    };
    let (hidden, cell) = values.split_at(like.hidden().shape().elements());
    let hidden = part(&like.hidden(), hidden)?;
    match like.cell() {
        Some(like) => State::from_hidden_and_cell(&hidden, &part(&like, cell)?),
        None => State::from_hidden(&hidden),
    }
}

/// A state of the sizes of `like`, of [`values`].
pub(crate) fn random_state(like: &State, stream: u64, scale: f64) -> Result<State> {
    let count = components(like)?.iter().map(Vec::len).sum();
    state_like(like, &values(stream, count, scale))
}

/// The values of the parts of a state, hidden first.
pub(crate) fn components(state: &State) -> Result<Vec<Vec<f64>>> {
    let all = [Some(state.hidden()), state.cell()];
    all.into_iter().flatten().map(|part| part.download_f64()).collect()
}

pub(crate) fn dot(one: &[f64], two: &[f64]) -> f64 {
    one.iter().zip(two).map(|(a, b)| a * b).sum()
}

/// An adapter that no machine has.
pub(crate) fn card() -> AdapterSummary {
    AdapterSummary {
        index: 0,
        name: "Imaginary 9000".into(),
        kind: AdapterKind::Discrete,
        backend: "vulkan".into(),
        driver: "imaginary 1.0".into(),
        max_buffer_bytes: 1 << 31,
        max_binding_bytes: 1 << 27,
        workgroup_bytes: 32 << 10,
        workgroup_invocations: 1024,
        subgroup_sizes: (32, 64),
        immediate_bytes: 128,
        features: Vec::new(),
    }
}

/// A square matrix with `value` on its diagonal.
pub(crate) fn diagonal(width: usize, value: f64) -> Vec<f64> {
    (0..width * width).map(|place| if place % (width + 1) == 0 { value } else { 0.0 }).collect()
}

/// The outputs \[T, B, W\] of units without a function, W_ih one and W_hh `recurrent` in each layer, for inputs that are all
/// `x`, from `initial` \[L, B, W\]: what masks and zoneout do to them can be read off.
pub(crate) fn linear_outputs(
    build: impl Fn(Rnn) -> Rnn,
    [steps, batch, width]: [usize; 3],
    recurrent: &[f64],
    x: f64,
    initial: &[f64],
    sequences: Sequences<'_>,
) -> Result<Vec<f64>> {
    let device = Device::reference();
    let mut model = Model::new(1);
    let stack = Rnn::new(Cell::Vanilla(Activation::Identity), width, width).without_bias();
    let layer = model.add("rnn", build(stack))?;
    let mut parameters = model.initialize(&device)?;
    let one = diagonal(width, 1.0);
    for spec in model.specs() {
        let values = if spec.name.contains("weight_ih") { &one } else { recurrent };
        parameters.set_all([(spec.name.as_str(), spec.shape.dimensions(), values)])?;
    }
    let x = Tensor::from_slice_f64(&device, &[steps, batch, width], &vec![x; steps * batch * width])?;
    let state = state_like(&layer.zero_state(&device, batch)?, initial)?;
    layer.infer_sequences(&parameters, &x, &state, sequences)?.0.download_f64()
}

/// `count` tokens below `bound`, from stream `stream` of seed 1.
pub(crate) fn tokens(stream: u64, count: usize, bound: u32) -> Vec<u32> {
    let stream = Stream::new(1, stream);
    (0..count as u64).map(|index| stream.bits(index) % bound).collect()
}

/// A text with structure: each token follows from the one before, with a little noise.
pub(crate) fn text(length: usize, vocabulary: u32) -> Vec<u32> {
    let noise = Stream::new(1, 77);
    let mut last = 0;
    (0..length as u64)
        .map(|index| {
            last = (last * 3 + 1 + u32::from(noise.bits(index).is_multiple_of(8))) % vocabulary;
            last
        })
        .collect()
}

/// Which optimizer a run uses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    Sgd { momentum: f64 },
    Adam,
}

/// An optimizer of either kind.
pub(crate) enum Optimizer {
    Sgd(Sgd),
    Adam(Adam),
}

impl Optimizer {
    pub(crate) fn new(rule: Rule, learning_rate: f64, parameters: &Parameters) -> Result<Self> {
        Ok(match rule {
            Rule::Sgd { momentum } => {
                Self::Sgd(Sgd::new(parameters, SgdConfig { learning_rate, momentum, ..Default::default() })?)
            }
            Rule::Adam => Self::Adam(Adam::new(parameters, AdamConfig::new(learning_rate))?),
        })
    }

    pub(crate) fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients) -> Result<()> {
        match self {
            Self::Sgd(sgd) => sgd.step(parameters, gradients),
            Self::Adam(adam) => adam.step(parameters, gradients),
        }
    }
}

/// A small language model and how it is trained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) vocabulary: usize,
    pub(crate) features: usize,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) batch: usize,
    pub(crate) sequence: usize,
    pub(crate) rule: Rule,
    pub(crate) learning_rate: f64,
}

impl Setup {
    /// Sizes that are no multiples of any tile.
    pub(crate) const SMALL: Self = Self {
        vocabulary: 11,
        features: 7,
        hidden: 19,
        layers: 2,
        batch: 5,
        sequence: 9,
        rule: Rule::Adam,
        learning_rate: 0.01,
    };

    pub(crate) fn model(&self, seed: u64) -> Result<Model> {
        let mut model = Model::new(seed);
        model.add("embedding", Embedding::new(self.vocabulary, self.features))?;
        model.add("rnn", Rnn::new(Cell::tanh(), self.features, self.hidden).layers(self.layers))?;
        model.add("head", Linear::new(self.hidden, self.vocabulary))?;
        Ok(model)
    }

    pub(crate) fn windows(&self) -> Result<Windows> {
        Windows::new(text(2000, self.vocabulary as u32), self.batch, self.sequence)
    }

    /// `steps` steps of training; the losses stay on the device until all steps are done.
    pub(crate) fn train(&self, device: &Device, steps: usize) -> Result<Run> {
        let model = self.model(3)?;
        let mut parameters = model.initialize(device)?;
        let mut optimizer = Optimizer::new(self.rule, self.learning_rate, &parameters)?;
        let windows = self.windows()?;
        let mut state = model.zero_state(device, self.batch)?;
        let mut losses = Vec::with_capacity(steps);
        for step in 0..steps {
            let window = windows.window(step);
            if window.begins {
                state = model.zero_state(device, self.batch)?;
            }
            let (inputs, targets) = window.to_device(device)?;
            let (logits, next, trace) = model.forward(&parameters, &inputs, &state)?;
            let (loss, d_logits) = cross_entropy(&logits, &targets)?;
            let mut gradients = parameters.zero_gradients()?;
            trace.backward(&d_logits, &mut gradients)?;
            gradients.clip_norm(1.0)?;
            optimizer.step(&mut parameters, &gradients)?;
            state = next;
            losses.push(loss);
        }
        let losses = losses.iter().map(Tensor::read).collect::<Result<_>>()?;
        Ok(Run { losses, parameters: all_parameters(&parameters)? })
    }
}

/// What a training run leaves.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) losses: Vec<f32>,
    pub(crate) parameters: Vec<f32>,
}

impl Run {
    /// Fails unless both left the same bits.
    pub(crate) fn expect_same(&self, other: &Self) -> Outcome {
        expect_same_bits("losses", &self.losses, &other.losses)?;
        expect_same_bits("parameters", &self.parameters, &other.parameters)
    }
}

/// All parameters, one after the other, without padding.
pub(crate) fn all_parameters(parameters: &Parameters) -> Result<Vec<f32>> {
    let mut all = Vec::with_capacity(parameters.count());
    for name in parameters.names() {
        all.extend(parameters.view(name)?.download()?);
    }
    Ok(all)
}

/// All gradients of `parameters`' names, one after the other, without padding.
pub(crate) fn all_gradients(parameters: &Parameters, gradients: &Gradients) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(parameters.count());
    for name in parameters.names() {
        all.extend(gradients.view(name)?.download_f64()?);
    }
    Ok(all)
}

/// The parameters of `model` on `device` with the values of `all`, one after the other.
pub(crate) fn with_values(model: &Model, device: &Device, all: &[f64]) -> Result<Parameters> {
    let mut parameters = model.initialize(device)?;
    let mut rest = all;
    let mut sections = Vec::new();
    for spec in model.specs() {
        let (section, after) = rest.split_at(spec.shape.elements());
        sections.push((spec.name.as_str(), spec.shape.dimensions(), section));
        rest = after;
    }
    parameters.set_all(sections)?;
    Ok(parameters)
}

/// A device whose recurrent layers take a dispatch for each step.
pub(crate) fn step_by_step(adapter: &Adapter) -> Result<Device> {
    adapter.open_with(&GpuOptions { recurrent: RecurrentStrategy::PerStep, ..GpuOptions::default() })
}

/// Fails unless both hold the same bits; NaN anywhere fails too.
pub(crate) fn expect_same_bits<T: Copy + Into<f64>>(what: &str, one: &[T], two: &[T]) -> Outcome {
    if one.len() != two.len() {
        return Err(Failed::from(format!("{what}: {} values and {}", one.len(), two.len())));
    }
    // Widening is exact.
    for (place, (&a, &b)) in one.iter().zip(two).enumerate() {
        let (a, b): (f64, f64) = (a.into(), b.into());
        if a.to_bits() != b.to_bits() || a.is_nan() {
            return Err(Failed::from(format!("{what}[{place}]: {a:e} and {b:e} are not the same bits")));
        }
    }
    Ok(())
}

/// How far an entry may be off: absolutely, and relative to the entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    absolute: f64,
    relative: f64,
}

impl From<f64> for Tolerance {
    fn from(absolute: f64) -> Self {
        Self { absolute, relative: 0.0 }
    }
}

/// `relative` to each entry and to the root mean square of `values`, which is what sums of a tensor's terms round relative to. It
/// is zero for zeros: what is exactly zero has to be found so.
pub(crate) fn by_entry(relative: f64, values: &[f64]) -> Tolerance {
    Tolerance { absolute: relative * root_mean_square(values), relative }
}

/// Fails unless |one − two| ≤ absolute + relative · |entry| everywhere; NaN anywhere fails too.
pub(crate) fn expect_close(what: &str, one: &[f64], two: &[f64], tolerance: impl Into<Tolerance>) -> Outcome {
    if one.len() != two.len() {
        return Err(Failed::from(format!("{what}: {} values and {}", one.len(), two.len())));
    }
    let Tolerance { absolute, relative } = tolerance.into();
    let allowed = |place: usize| absolute + relative * one[place].abs().min(two[place].abs());
    let apart = |place: &usize| {
        let difference = (one[*place] - two[*place]).abs();
        difference > allowed(*place) || !difference.is_finite()
    };
    match (0..one.len()).find(apart) {
        None => Ok(()),
        Some(place) => {
            let (a, b, allowed) = (one[place], two[place], allowed(place));
            let difference = (a - b).abs();
            Err(Failed::from(format!(
                "{what}[{place}]: {a:e} and {b:e} differ by {difference:e}, more than {allowed:e}"
            )))
        }
    }
}

/// √ of the mean square; zero of nothing.
pub(crate) fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|value| value * value).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// Exact widening, for comparisons.
pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The largest magnitude.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Where the package lies: here, or where `CARGO_MANIFEST_DIR` says for a binary that was carried elsewhere.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A folder that no other test has, nor the same test on another adapter; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> std::io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("refrain-{process}-{number}-{name}"));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed from a temporary folder does no harm there.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
