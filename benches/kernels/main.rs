//! Times the kernels that dominate training, on the device that `REFRAIN_DEVICE` names (default: the CPU). For a
//! description of each group see `benches/README.md`.
//!
//! All work is checked before it is timed: at a small size against the 64-bit reference, at the timed size for finite
//! values.

mod host;
mod stacks;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use refrain::nn::{Cell, Embedding, Gradients, Linear, Model, ModelState, Parameters, Rnn};
use refrain::ops::{self, Form};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{DEVICE_VARIABLE, Device, Error, Indices, Result, Tensor, loss};

/// Time steps and batch size, wherever they apply.
const STEPS: usize = 64;
const BATCH: usize = 32;
/// Classes of the training step: the characters of `data/italian-towns.txt` with the newline.
const VOCABULARY: usize = 47;
/// The largest allowed error, relative to the largest value, of f32 work at the small sizes below.
const TOLERANCE: f64 = 1e-4;

/// A device, and the timer for work on it.
struct Bench {
    criterion: Criterion,
    device: Device,
    /// A value to read: reading it waits for everything recorded before.
    fence: Tensor,
}

impl Bench {
    /// Times `work`, waiting for the device once after all repetitions.
    fn time(
        &mut self,
        group: &str,
        name: &str,
        amount: usize,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let fence = self.fence.clone();
        let mut measure = |repetitions: u64| -> Result<Duration> {
            fence.read()?;
            let start = Instant::now();
            for _ in 0..repetitions {
                work()?;
            }
            fence.read()?;
            Ok(start.elapsed())
        };
        self.measure(group, name, Throughput::Elements(amount as u64), &mut measure)
    }

    /// Times with `measure`, which returns the time of a number of repetitions.
    fn measure(
        &mut self,
        group: &str,
        name: &str,
        throughput: Throughput,
        measure: &mut dyn FnMut(u64) -> Result<Duration>,
    ) -> Result<()> {
        let mut failure = None;
        // The device's name is part of the benchmark's name, so that results are compared with the same device only.
        let mut group = self.criterion.benchmark_group(format!("{group} on {}", self.device));
        group.throughput(throughput);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|repetitions| match measure(repetitions) {
                Ok(elapsed) => elapsed,
                Err(error) => {
                    failure.get_or_insert(error);
                    // Must not be zero, because Criterion divides by it.
                    Duration::from_secs(1)
                }
            });
        });
        group.finish();
        failure.map_or(Ok(()), Err)
    }
}

/// Fails unless `work` computes the same finite numbers on `device` as on the reference.
fn verify(what: &str, device: &Device, work: impl Fn(&Device) -> Result<Vec<f64>>) -> Result<()> {
    let (found, expected) = (work(device)?, work(&Device::reference())?);
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let differences = found.iter().zip(&expected).map(|(one, two)| (one - two).abs());
    // `max` would ignore NaN.
    let within = differences.clone().all(|difference| difference <= TOLERANCE * largest);
    if found.len() == expected.len() && largest > 0.0 && within {
        return Ok(());
    }
    let worst = differences.fold(0.0, f64::max);
    let message = format!("differs from the reference by up to {worst}; the largest value is {largest}");
    Err(Error::Config { what: what.to_owned(), message })
}

fn expect_finite(what: &str, tensor: &Tensor) -> Result<()> {
    match tensor.download()?.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::NonFinite { what: what.to_owned() }),
    }
}

/// Values between −1 and 1, equal on every device.
fn random(device: &Device, dimensions: &[usize], stream: u64) -> Result<Tensor> {
    let stream = Stream::new(7, stream);
    let count = dimensions.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..count).map(|index| stream.uniform_between(index, -1.0, 1.0) as f32).collect();
    Tensor::from_slice(device, dimensions, &values)
}

fn labels(device: &Device, dimensions: &[usize], classes: usize, stream: u64) -> Result<Indices> {
    let stream = Stream::new(7, stream);
    let count = dimensions.iter().product::<usize>() as u64;
    let values: Vec<u32> = (0..count).map(|index| stream.bits(index) % classes as u32).collect();
    Indices::from_slice(device, dimensions, &values)
}

fn matmul(bench: &mut Bench) -> Result<()> {
    let operands = |device: &Device, [m, n, k]: [usize; 3], form: Form| -> Result<[Tensor; 2]> {
        let a = if form == Form::LeftTransposed { [k, m] } else { [m, k] };
        let b = if form == Form::RightTransposed { [n, k] } else { [k, n] };
        Ok([random(device, &a, 0)?, random(device, &b, 1)?])
    };
    let cases = [
        ("input projection", Form::RightTransposed, [STEPS * BATCH, 128, 128]),
        ("input gradient", Form::Plain, [STEPS * BATCH, 128, 128]),
        ("weight gradient", Form::LeftTransposed, [128, 128, STEPS * BATCH]),
        ("one step", Form::RightTransposed, [BATCH, 512, 512]),
        ("square", Form::Plain, [512, 512, 512]),
        ("square", Form::Plain, [1024, 1024, 1024]),
        ("gates' projection", Form::RightTransposed, [STEPS * BATCH, 1024, 128]),
        ("gates' weight gradient", Form::LeftTransposed, [1024, 256, 4 * STEPS * BATCH]),
        ("one row", Form::RightTransposed, [1, 1024, 1024]),
        ("four rows", Form::RightTransposed, [4, 1024, 1024]),
        ("sixteen rows", Form::Plain, [16, 1024, 1024]),
        // No size is a multiple of four, so operands are read as scalars.
        ("odd", Form::Plain, [511, 513, 511]),
    ];
    for (name, form, sizes) in cases {
        verify(name, &bench.device, |device| {
            let [a, b] = operands(device, [33, 17, 65], form)?;
            ops::matmul(&a, &b, form, None)?.download_f64()
        })?;
        let [a, b] = operands(&bench.device, sizes, form)?;
        expect_finite(name, &ops::matmul(&a, &b, form, None)?)?;
        let [m, n, k] = sizes;
        let name = format!("{name} {m}x{n}x{k}");
        bench.time("matmul", &name, 2 * m * n * k, || ops::matmul(&a, &b, form, None).map(drop))?;
    }
    Ok(())
}

fn recurrent(bench: &mut Bench) -> Result<()> {
    let build = |device: &Device, [steps, batch, hidden]: [usize; 3]| {
        let mut model = Model::new(3);
        let layer = model.add("rnn", Rnn::new(Cell::tanh(), hidden, hidden))?;
        let parameters = model.initialize(device)?;
        let x = random(device, &[steps, batch, hidden], 2)?;
        let d_y = random(device, &[steps, batch, hidden], 3)?;
        let state = layer.zero_state(device, batch)?;
        Ok::<_, Error>((layer, parameters, x, d_y, state))
    };
    verify("recurrent layer", &bench.device, |device| {
        let (layer, parameters, x, d_y, state) = build(device, [7, 5, 19])?;
        let mut gradients = parameters.zero_gradients()?;
        let (y, _, trace) = layer.forward(&parameters, &x, &state)?;
        let (d_x, _) = trace.backward(&d_y, None, &mut gradients)?;
        let mut values = y.download_f64()?;
        values.extend(d_x.download_f64()?);
        values.extend(gradients.view("rnn.weight_hh_l0")?.download_f64()?);
        Ok(values)
    })?;
    for hidden in [64, 128, 256] {
        let (layer, parameters, x, d_y, state) = build(&bench.device, [STEPS, BATCH, hidden])?;
        let name = format!("hidden {hidden}");
        expect_finite(&name, &layer.infer(&parameters, &x, &state)?.0)?;
        bench.time("recurrent forward", &name, STEPS * BATCH, || {
            layer.infer(&parameters, &x, &state).map(drop)
        })?;
        let both = |gradients: &mut Gradients| {
            let (_, _, trace) = layer.forward(&parameters, &x, &state)?;
            trace.backward(&d_y, None, gradients)
        };
        let mut gradients = parameters.zero_gradients()?;
        expect_finite(&name, &both(&mut gradients)?.0)?;
        bench.time("recurrent forward and backward", &name, STEPS * BATCH, || {
            both(&mut gradients).map(drop)
        })?;
    }
    Ok(())
}

fn cross_entropy(bench: &mut Bench) -> Result<()> {
    verify("cross-entropy", &bench.device, |device| {
        let (logits, labels) = (random(device, &[9, 5, 47], 4)?, labels(device, &[9, 5], 47, 5)?);
        let (loss, d_logits) = loss::cross_entropy(&logits, &labels)?;
        let mut values = d_logits.download_f64()?;
        values.extend(loss.download_f64()?);
        Ok(values)
    })?;
    for classes in [VOCABULARY, 4096] {
        let rows = [STEPS, BATCH];
        let logits = random(&bench.device, &[STEPS, BATCH, classes], 4)?;
        let labels = labels(&bench.device, &rows, classes, 5)?;
        let name = format!("{classes} classes");
        expect_finite(&name, &loss::cross_entropy(&logits, &labels)?.1)?;
        bench.time("cross-entropy", &name, STEPS * BATCH, || {
            loss::cross_entropy(&logits, &labels).map(drop)
        })?;
    }
    Ok(())
}

/// A linear layer of `size` by `size` with non-zero gradients.
fn with_gradients(device: &Device, size: usize) -> Result<(Parameters, Gradients, Adam)> {
    let mut model = Model::new(3);
    let layer = model.add("head", Linear::new(size, size))?;
    let parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let (_, trace) = layer.forward(&parameters, &random(device, &[4, size], 6)?)?;
    trace.backward(&random(device, &[4, size], 7)?, &mut gradients)?;
    let adam = Adam::new(&parameters, AdamConfig::default())?;
    Ok((parameters, gradients, adam))
}

fn adam(bench: &mut Bench) -> Result<()> {
    verify("adam", &bench.device, |device| {
        let (mut parameters, gradients, mut adam) = with_gradients(device, 13)?;
        for _ in 0..3 {
            adam.step(&mut parameters, &gradients)?;
        }
        parameters.view("head.weight")?.download_f64()
    })?;
    let (mut parameters, gradients, mut adam) = with_gradients(&bench.device, 1024)?;
    let count = parameters.count();
    let name = format!("{count} parameters");
    bench.time("adam", &name, count, || adam.step(&mut parameters, &gradients))?;
    match parameters.view("head.weight")?.download()?.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::NonFinite { what: "the weights after Adam's steps".to_owned() }),
    }
}

/// The state of one training step of a character model.
struct Training {
    model: Model,
    parameters: Parameters,
    adam: Adam,
    state: ModelState,
    tokens: Indices,
    targets: Indices,
}

impl Training {
    fn new(device: &Device, [steps, batch, hidden]: [usize; 3]) -> Result<Self> {
        let mut model = Model::new(3);
        model.add("embedding", Embedding::new(VOCABULARY, hidden))?;
        model.add("rnn", Rnn::new(Cell::tanh(), hidden, hidden))?;
        model.add("head", Linear::new(hidden, VOCABULARY))?;
        let parameters = model.initialize(device)?;
        Ok(Self {
            adam: Adam::new(&parameters, AdamConfig::default())?,
            state: model.zero_state(device, batch)?,
            tokens: labels(device, &[steps, batch], VOCABULARY, 8)?,
            targets: labels(device, &[steps, batch], VOCABULARY, 9)?,
            model,
            parameters,
        })
    }

    /// Returns the loss before the step.
    fn step(&mut self) -> Result<Tensor> {
        let (logits, next, trace) = self.model.forward(&self.parameters, &self.tokens, &self.state)?;
        let (loss, d_logits) = loss::cross_entropy(&logits, &self.targets)?;
        let mut gradients = self.parameters.zero_gradients()?;
        trace.backward(&d_logits, &mut gradients)?;
        gradients.clip_norm(1.0)?;
        self.adam.step(&mut self.parameters, &gradients)?;
        self.state = next;
        Ok(loss)
    }
}

fn training_step(bench: &mut Bench) -> Result<()> {
    verify("training step", &bench.device, |device| {
        let mut training = Training::new(device, [9, 3, 17])?;
        (0..5).map(|_| training.step()?.read().map(f64::from)).collect()
    })?;
    for hidden in [64, 128, 256] {
        let mut training = Training::new(&bench.device, [STEPS, BATCH, hidden])?;
        let name = format!("hidden {hidden}");
        expect_finite(&name, &training.step()?)?;
        bench.time("training step", &name, STEPS * BATCH, || training.step().map(drop))?;
        expect_finite(&name, &training.step()?)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let device = match std::env::var(DEVICE_VARIABLE) {
        Ok(name) => Device::named(&name)?,
        Err(_) => Device::cpu(),
    };
    println!("device: {device}");
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let fence = Tensor::zeros(&device, &[1])?;
    let mut bench = Bench { criterion, device, fence };
    for group in [training_step, recurrent, stacks::stacks, host::host, matmul, cross_entropy, adam] {
        group(&mut bench)?;
    }
    bench.criterion.final_summary();
    Ok(())
}
