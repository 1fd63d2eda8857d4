//! The work that is timed, with its operands.

use std::time::Instant;

use refrain::nn::{Gradients, Layer, Linear, Model, ModelState, Parameters, Rnn, State};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{Device, Indices, Result, Tensor, loss};

use super::shape::{Shape, Work};

/// The seed of all random numbers.
const SEED: u64 = 3;

/// A tensor of shape `dimensions` with values between −1 and 1, equal on every device.
pub(crate) fn random(device: &Device, dimensions: &[usize], stream: u64) -> Result<Tensor> {
    let stream = Stream::new(SEED, stream);
    let count = dimensions.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..count).map(|index| stream.uniform_between(index, -1.0, 1.0) as f32).collect();
    Tensor::from_slice(device, dimensions, &values)
}

/// Labels of shape `dimensions` below `classes`, equal on every device.
pub(crate) fn labels(device: &Device, dimensions: &[usize], classes: usize) -> Result<Indices> {
    let stream = Stream::new(SEED, 9);
    let count = dimensions.iter().product::<usize>() as u64;
    let values: Vec<u32> = (0..count).map(|index| stream.bits(index) % classes as u32).collect();
    Indices::from_slice(device, dimensions, &values)
}

/// One shape and work, prepared on one device.
pub(crate) struct Setting {
    device: Device,
    parameters: Parameters,
    x: Tensor,
    task: Task,
}

enum Task {
    Infer { stack: Layer<Rnn>, state: State },
    Backward { stack: Layer<Rnn>, state: State, d_y: Tensor },
    Train { model: Box<Model>, state: ModelState, targets: Indices, adam: Box<Adam> },
}

/// The result of one call.
struct StepOutput {
    /// The outputs, the gradient of the input, or the loss.
    value: Tensor,
    gradients: Option<Gradients>,
}

/// The host's side of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Seconds spent on recording and submitting.
    pub(crate) host: f64,
    /// Kernel dispatches.
    pub(crate) dispatches: u64,
    /// How often the host waited before everything was submitted.
    pub(crate) waits: u64,
}

impl Setting {
    /// Samples weights from U(±1/√H) and an input between −1 and 1; the initial state is zero.
    pub(crate) fn new(device: &Device, shape: Shape, work: Work) -> Result<Self> {
        let Shape { cell, inputs, hidden, batch, sequence, layers, classes } = shape;
        let mut model = Model::new(SEED);
        let stack = model.add("rnn", Rnn::new(cell.clone(), inputs, hidden).layers(layers))?;
        if work == Work::Train {
            model.add("head", Linear::new(hidden, classes))?;
        }
        let parameters = model.initialize(device)?;
        let state = || stack.zero_state(device, batch);
        let task = match work {
            Work::Infer => Task::Infer { state: state()?, stack },
            Work::Backward => {
                let count = sequence * batch * hidden;
                let share = vec![1.0 / count as f32; count];
                let d_y = Tensor::from_slice(device, &[sequence, batch, hidden], &share)?;
                Task::Backward { state: state()?, stack, d_y }
            }
            Work::Train => Task::Train {
                state: model.zero_state(device, batch)?,
                targets: labels(device, &[sequence, batch], classes)?,
                adam: Box::new(Adam::new(&parameters, AdamConfig::default())?),
                model: Box::new(model),
            },
        };
        let x = random(device, &[sequence, batch, inputs], 1)?;
        Ok(Self { device: device.clone(), parameters, x, task })
    }

    /// Records and submits the work once.
    fn record(&mut self) -> Result<StepOutput> {
        let Self { device, parameters, x, task } = self;
        let result = match task {
            Task::Infer { stack, state } => {
                StepOutput { value: stack.infer(parameters, x, state)?.0, gradients: None }
            }
            Task::Backward { stack, state, d_y } => {
                let (_, _, trace) = stack.forward(parameters, x, state)?;
                let mut gradients = parameters.zero_gradients()?;
                let (d_x, _) = trace.backward(d_y, None, &mut gradients)?;
                StepOutput { value: d_x, gradients: Some(gradients) }
            }
            Task::Train { model, state, targets, adam } => {
                let (logits, _, trace) = model.forward(parameters, &*x, state)?;
                let (loss, d_logits) = loss::cross_entropy(&logits, targets)?;
                drop(logits);
                let mut gradients = parameters.zero_gradients()?;
                trace.backward_from(d_logits, &mut gradients)?;
                gradients.clip_norm(1.0)?;
                adam.step(parameters, &gradients)?;
                StepOutput { value: loss, gradients: None }
            }
        };
        device.flush()?;
        Ok(result)
    }

    /// Runs the work once and waits for it; of a training step it reads the loss.
    pub(crate) fn run(&mut self) -> crate::failure::Result<Run> {
        let before = self.device.counters();
        let start = Instant::now();
        let result = self.record()?;
        let host = start.elapsed().as_secs_f64();
        let after = self.device.counters();
        match &self.task {
            Task::Train { .. } => {
                result.value.read()?;
            }
            Task::Infer { .. } | Task::Backward { .. } => self.device.synchronize()?,
        }
        let (dispatches, waits) = (after.dispatches - before.dispatches, after.waits - before.waits);
        Ok(Run { host, dispatches, waits })
    }

    /// The peak bytes of a training step according to the library; `None` for other work.
    pub(crate) fn training_bytes(&self) -> Result<Option<u64>> {
        let Task::Train { model, targets, .. } = &self.task else { return Ok(None) };
        let [steps, batch] = *targets.shape().dimensions() else { return Ok(None) };
        Ok(Some(model.cost(steps, batch)?.training_bytes))
    }

    /// Runs once and returns the mean magnitude of the outputs or of the input's gradient, or the loss.
    pub(crate) fn checksum(&mut self) -> Result<f64> {
        let values = self.record()?.value.download()?;
        Ok(values.iter().map(|&value| f64::from(value.abs())).sum::<f64>() / values.len() as f64)
    }

    /// Runs `runs` times and returns all resulting tensors by name: outputs, gradients, losses.
    pub(crate) fn tensors(&mut self, runs: usize) -> Result<Vec<(String, Vec<f64>)>> {
        let mut tensors = Vec::new();
        for run in 0..runs {
            let result = self.record()?;
            let value = match &self.task {
                Task::Infer { .. } => "outputs",
                Task::Backward { .. } => "the gradient at the input",
                Task::Train { .. } => "the loss",
            };
            tensors.push((format!("{value} of run {run}"), result.value.download_f64()?));
            if let Some(gradients) = &result.gradients {
                for name in self.parameters.names() {
                    let gradient = gradients.view(name)?.download_f64()?;
                    tensors.push((format!("the gradient of {name} of run {run}"), gradient));
                }
            }
        }
        Ok(tensors)
    }
}
