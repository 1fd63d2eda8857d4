//! Devices under several threads: each value is what the thread would have read alone, to the bit, and each error is returned
//! to the thread whose call caused it.

use std::collections::VecDeque;
use std::sync::Barrier;
use std::time::Duration;

use libtest_mimic::Failed;
use refrain::loss::cross_entropy;
use refrain::nn::{Cell, Embedding, Linear, Model, ModelState, Parameters, Rnn};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{Device, Error, GpuOptions, Indices, Result, Tensor, ops, testing};

use crate::adapters::{Adapter, Outcome, Suite};
use crate::support::{random, tokens};

const THREADS: usize = 8;
/// Calls of each thread, and how often all of it is repeated.
const CALLS: usize = 150;
/// Values that each thread reads where threads do nothing else.
const READS: usize = 3000;
/// As [`CALLS`], where the environment variable [`FULL_VARIABLE`] is set.
const FULL_CALLS: usize = 2000;
const FULL_REPETITIONS: usize = 20;
/// Asks for the whole stress in place of a short one.
const FULL_VARIABLE: &str = "REFRAIN_TEST_FULL";
/// Tensors that a thread keeps for a later look.
const HELD: usize = 6;

pub(crate) fn register(suite: &mut Suite) {
    suite.gpu("threads that share a device read what each reads alone", threads_share_a_device);
    suite.gpu("threads that read all the time read what each wrote", readers_share_a_device);
    suite.gpu("threads with a device each read what each reads alone", devices_on_threads);
    suite.gpu("an error is returned to the thread that caused it", errors_stay_with_their_thread);
    suite.gpu("a device that gave up waiting stays lost for all", a_device_stays_lost);
    suite.gpu("what a refused submission lost is an error for ever", lost_work_is_a_permanent_error);
    suite.gpu("memory that cannot be had loses no work", failed_allocations_lose_no_work);
}

/// What one thread does: calls in an order drawn from its seed, each value that it reads kept by its bits.
struct Worker {
    device: Device,
    stream: Stream,
    model: Model,
    parameters: Parameters,
    adam: Adam,
    state: ModelState,
    kept: VecDeque<(Tensor, Vec<f32>)>,
    losses: Vec<Tensor>,
    read: Vec<u32>,
}

const BATCH: usize = 3;
const STEPS: usize = 4;
const VOCABULARY: usize = 7;

impl Worker {
    fn new(device: &Device, seed: usize) -> Result<Self> {
        let cell = [Cell::Gru, Cell::Lstm, Cell::tanh()][seed % 3].clone();
        let mut model = Model::new(seed as u64);
        model.add("embedding", Embedding::new(VOCABULARY, 5))?;
        model.add("rnn", Rnn::new(cell, 5, 6 + seed))?;
        model.add("head", Linear::new(6 + seed, VOCABULARY))?;
        let parameters = model.initialize(device)?;
        Ok(Self {
            device: device.clone(),
            stream: Stream::new(9, seed as u64),
            adam: Adam::new(&parameters, AdamConfig::new(0.01))?,
            state: model.zero_state(device, BATCH)?,
            model,
            parameters,
            kept: VecDeque::new(),
            losses: Vec::new(),
            read: Vec::new(),
        })
    }

    fn note(&mut self, tensor: &Tensor) -> Result<()> {
        self.read.extend(tensor.download()?.into_iter().map(f32::to_bits));
        Ok(())
    }

    fn tokens(&self, call: u64) -> Result<Indices> {
        let stream = 100 + self.stream.bits(3 * call + 1) as u64 % 50;
        Indices::from_slice(&self.device, &[STEPS, BATCH], &tokens(stream, STEPS * BATCH, VOCABULARY as u32))
    }

    /// One call of five kinds.
    fn call(&mut self, number: u64) -> Outcome {
        match self.stream.bits(3 * number) % 5 {
            0 => {
                let count = 1 + self.stream.bits(3 * number + 2) as usize % 3000;
                let tensor = random(&self.device, number, &[count], 1.0)?;
                let values = Device::cpu();
                let values = random(&values, number, &[count], 1.0)?.download()?;
                self.kept.push_back((tensor, values));
            }
            1 => {
                let (logits, _) = self.model.infer(&self.parameters, &self.tokens(number)?, &self.state)?;
                self.note(&logits)?;
            }
            2 | 3 => {
                let (inputs, targets) = (self.tokens(number)?, self.tokens(number + 1)?);
                let (logits, next, trace) = self.model.forward(&self.parameters, &inputs, &self.state)?;
                let (loss, d_logits) = cross_entropy(&logits, &targets)?;
                let mut gradients = self.parameters.zero_gradients()?;
                trace.backward(&d_logits, &mut gradients)?;
                gradients.clip_norm(1.0)?;
                self.adam.step(&mut self.parameters, &gradients)?;
                self.state = next;
                self.losses.push(loss);
            }
            _ => {
                if let Some(loss) = self.losses.pop() {
                    self.note(&loss)?;
                }
                self.losses.clear();
            }
        }
        while self.kept.len() > HELD {
            let Some((tensor, values)) = self.kept.pop_front() else { continue };
            let found = tensor.download()?;
            if found != values {
                return Err(Failed::from(format!(
                    "call {number}: an upload of {} came back changed",
                    values.len()
                )));
            }
        }
        Ok(())
    }

    /// All calls, and then the parameters.
    fn run(mut self, calls: usize) -> std::result::Result<Vec<u32>, Failed> {
        for number in 0..calls as u64 {
            self.call(number).map_err(|error| {
                Failed::from(format!("call {number}: {}", error.message().unwrap_or("it failed")))
            })?;
        }
        for name in ["rnn.weight_hh_l0", "head.weight"] {
            let values = self.parameters.view(name)?.download()?;
            self.read.extend(values.into_iter().map(f32::to_bits));
        }
        Ok(self.read)
    }
}

/// Calls of a thread, and repetitions.
fn extent() -> (usize, usize) {
    match std::env::var(FULL_VARIABLE).is_ok_and(|value| value == "1") {
        true => (FULL_CALLS, FULL_REPETITIONS),
        false => (CALLS, 1),
    }
}

/// What each worker reads when it runs alone.
fn alone(device: &Device, calls: usize) -> std::result::Result<Vec<Vec<u32>>, Failed> {
    (0..THREADS).map(|seed| Worker::new(device, seed)?.run(calls)).collect()
}

/// All workers at once, the one of each seed on the device that `device` gives it.
fn together(
    calls: usize,
    device: impl Fn(usize) -> Result<Device> + Sync,
) -> Vec<std::result::Result<Vec<u32>, Failed>> {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let (start, device) = (&start, &device);
        let run = move |seed: usize| {
            let worker = device(seed).and_then(|device| Worker::new(&device, seed));
            start.wait();
            worker?.run(calls)
        };
        let threads: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || run(seed))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(Failed::from("a thread panicked")))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Fails unless each worker read the expected bits.
fn compare(expected: &[Vec<u32>], found: Vec<std::result::Result<Vec<u32>, Failed>>) -> Outcome {
    for (seed, (expected, found)) in expected.iter().zip(found).enumerate() {
        let found = found.map_err(|error| {
            Failed::from(format!("thread {seed}: {}", error.message().unwrap_or("it failed")))
        })?;
        let wrong = expected.iter().zip(&found).filter(|(one, other)| one != other).count();
        if wrong > 0 || expected.len() != found.len() {
            return Err(Failed::from(format!(
                "thread {seed}: {wrong} of {} values differ, {} were read",
                expected.len(),
                found.len()
            )));
        }
    }
    Ok(())
}

fn threads_share_a_device(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let (calls, repetitions) = extent();
    let expected = alone(&device, calls)?;
    assert!(expected.iter().all(|read| read.len() > calls), "a worker reads more than a value a call");
    for repetition in 1..=repetitions {
        compare(&expected, together(calls, |_| Ok(device.clone())))?;
        println!(
            "{}: repetition {repetition}: {THREADS} threads, {calls} calls each: no error, no other bit",
            device
        );
    }
    Ok(())
}

/// Nothing but transfers and one kernel: the reports of buffers that are mapped often arrive on another thread's poll.
fn readers_share_a_device(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let (_, repetitions) = extent();
    let read = |thread: usize| -> Outcome {
        for call in 0..READS * repetitions {
            let values: Vec<f32> =
                (0..4).map(|index| (8 * call + index) as f32 + thread as f32 / 16.0).collect();
            let doubled: Vec<f32> = values.iter().map(|value| 2.0 * value).collect();
            let found = ops::scale(&Tensor::from_slice(&device, &[4], &values)?, 2.0)?.download()?;
            if found != doubled {
                return Err(Failed::from(format!("call {call}: {found:?} in place of {doubled:?}")));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let read = &read;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || read(thread))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Outcome>| {
            thread.join().unwrap_or_else(|_| Err(Failed::from("a thread panicked")))
        };
        threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    })
}

fn devices_on_threads(adapter: &Adapter) -> Outcome {
    let calls = CALLS / 5;
    let expected = alone(&adapter.open()?, calls)?;
    compare(&expected, together(calls, |_| adapter.open_anew()))
}

fn errors_stay_with_their_thread(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let expected = alone(&device, CALLS)?;
    let finished = std::sync::atomic::AtomicBool::new(false);
    let (found, errors) = std::thread::scope(|scope| {
        let guilty = scope.spawn(|| {
            let mut errors = 0;
            while !finished.load(std::sync::atomic::Ordering::Relaxed) {
                match testing::refused_kernel(&device) {
                    Err(Error::Shader { .. }) => errors += 1,
                    other => return Err(Failed::from(format!("a refused kernel gave {other:?}"))),
                }
            }
            Ok(errors)
        });
        let found = together(CALLS, |_| Ok(device.clone()));
        finished.store(true, std::sync::atomic::Ordering::Relaxed);
        let errors = guilty.join().unwrap_or_else(|_| Err(Failed::from("the thread panicked")));
        (found, errors)
    });
    assert!(errors? > 0, "the thread with the refused kernel has met its error");
    compare(&expected, found)
}

fn lost_work_is_a_permanent_error(adapter: &Adapter) -> Outcome {
    let device = adapter.open_anew()?;
    let old = Tensor::from_slice(&device, &[4], &[10.0, 20.0, 30.0, 40.0])?;
    let read = old.download()?;
    assert_eq!(read, [10.0, 20.0, 30.0, 40.0]);
    drop(old);
    let x = Tensor::from_slice(&device, &[4], &[1.0, 2.0, 3.0, 4.0])?;
    let y = ops::scale(&x, 10.0)?;
    let flushed = std::thread::scope(|scope| {
        let guilty = || testing::break_submission(&device).and_then(|()| device.flush());
        scope.spawn(guilty).join().map_err(|_| Failed::from("the thread panicked"))
    })?;
    // The thread that caused it gets the error first, and then every caller whose work was lost with it.
    assert!(
        matches!(&flushed, Err(Error::DeviceLost { reason }) if reason.contains("a submission failed")),
        "{flushed:?}"
    );
    for outcome in [x.download(), y.download(), y.download(), ops::scale(&x, 2.0).and_then(|z| z.download())]
    {
        assert!(matches!(outcome, Err(Error::DeviceLost { .. })), "{outcome:?}");
    }
    assert!(matches!(Tensor::zeros(&device, &[2]), Err(Error::DeviceLost { .. })));
    assert!(matches!(device.synchronize(), Err(Error::DeviceLost { .. })));
    // A device opened anew is another one.
    let anew = adapter.open_anew()?;
    assert_eq!(ops::scale(&Tensor::from_slice(&anew, &[1], &[2.0])?, 3.0)?.download()?, [6.0]);
    Ok(())
}

fn a_device_stays_lost(adapter: &Adapter) -> Outcome {
    let options = GpuOptions { wait_limit: Duration::from_nanos(1), ..GpuOptions::default() };
    let device = adapter.open_anew_with(&options)?;
    let kept = Tensor::from_slice(&device, &[3], &[1.0, 2.0, 3.0])?;
    let x = random(&device, 1, &[256, 256], 1.0)?;
    let y = ops::matmul(&x, &x, ops::Form::Plain, None)?;
    let first = y.download();
    assert!(
        matches!(&first, Err(Error::DeviceLost { reason }) if reason.contains("did not end within")),
        "{first:?}"
    );
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| kept.download()).join());
    for outcome in [kept.download(), y.download(), elsewhere.map_err(|_| Failed::from("it panicked"))?] {
        assert!(matches!(outcome, Err(Error::DeviceLost { .. })), "{outcome:?}");
    }
    let more = Tensor::from_slice(&device, &[1], &[1.0]);
    assert!(matches!(more, Err(Error::DeviceLost { .. })), "{more:?}");
    Ok(())
}

fn failed_allocations_lose_no_work(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let x = Tensor::from_slice(&device, &[4], &[1.0, 2.0, 3.0, 4.0])?;
    let y = ops::scale(&x, 10.0)?;
    let mut kept = Vec::new();
    // 8 GiB at a time, until there is no more or one buffer alone is too large.
    let refused = (0..1000).find_map(|_| match Tensor::zeros(&device, &[1 << 31]) {
        Ok(tensor) => {
            kept.push(tensor);
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(Error::OutOfMemory { .. } | Error::ExceedsLimit { .. })), "{refused:?}");
    drop(kept);
    assert_eq!(y.download()?, [10.0, 20.0, 30.0, 40.0]);
    Ok(())
}
