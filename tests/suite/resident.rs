//! Memory of the CPU device: a process has no more in RAM than a training step needs at once, whatever shapes there were before.

use refrain::loss::cross_entropy;
use refrain::nn::{Cell, Linear, Model, Rnn};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{Device, Indices, Result, Tensor, ops};

use crate::adapters::{Outcome, Suite};
use crate::child::{self, Claim, Limit};
use crate::support::tokens;

const MIB: u64 = 1 << 20;
/// What a process may have beyond the formula: code that runs for the first time, threads, the allocator's own.
const ALLOWED: u64 = 16 * MIB;
const INPUTS: usize = 64;
const HIDDEN: usize = 84;
const CLASSES: usize = 10;

/// Memory of this process that is in RAM.
fn resident() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(|| "no VmRSS".to_owned())
}

/// Fails if more is resident than `baseline` and `bytes` beside it.
fn expect_at_most(when: &str, baseline: u64, bytes: u64) -> Outcome {
    let found = resident()?.saturating_sub(baseline);
    if std::env::var_os("REFRAIN_SHOW_MEMORY").is_some() {
        eprintln!("{when}: {found} bytes more than at first, {bytes} allowed");
    }
    if found <= bytes {
        return Ok(());
    }
    Err(format!("{when}: {found} bytes more than at first, not at most {bytes}").into())
}

/// Trains a small LSTM on windows of the shapes [T, B] that `shape` gives, as many as `steps`.
fn train(steps: u64, shape: impl Fn(u64) -> [usize; 2]) -> Outcome {
    let device = Device::cpu();
    let baseline = resident()?;
    {
        let mut model = Model::new(1);
        model.add("rnn", Rnn::new(Cell::Lstm, INPUTS, HIDDEN))?;
        model.add("head", Linear::new(HIDDEN, CLASSES))?;
        let mut parameters = model.initialize(&device)?;
        let mut adam = Adam::new(&parameters, AdamConfig::new(1e-3))?;
        let mut needed = 0;
        for step in 0..steps {
            let [time, batch] = shape(step);
            needed = needed.max(model.cost(time, batch)?.training_bytes);
            let x = Tensor::zeros(&device, &[time, batch, INPUTS])?;
            let labels = tokens(step, time * batch, CLASSES as u32);
            let labels = Indices::from_slice(&device, &[time, batch], &labels)?;
            let state = model.zero_state(&device, batch)?;
            let (logits, _, trace) = model.forward(&parameters, &x, &state)?;
            let (_, d_logits) = cross_entropy(&logits, &labels)?;
            let mut gradients = parameters.zero_gradients()?;
            trace.backward(&d_logits, &mut gradients)?;
            gradients.clip_norm(1.0)?;
            adam.step(&mut parameters, &gradients)?;
            if step % 100 == 99 {
                expect_at_most(&format!("after step {step}"), baseline, needed + ALLOWED)?;
            }
        }
    }
    device.release_unused()?;
    expect_at_most("after everything was released", baseline, ALLOWED / 2)
}

fn fixed_shapes() -> Outcome {
    train(8000, |_| [2, 2])
}

fn changing_shapes() -> Outcome {
    let random = Stream::new(5, 0);
    let size = |index: u64, largest: u32| 1 + (random.bits(index) % largest) as usize;
    train(300, |step| [size(2 * step, 96), size(2 * step + 1, 48)])
}

/// Tensors of ever other sizes on both sides of what allocators give back at once.
fn changing_sizes() -> Outcome {
    let device = Device::cpu();
    let baseline = resident()?;
    let random = Stream::new(5, 1);
    let mut largest = 0;
    for round in 0..60 {
        let elements = 200_000 + random.bits(round) as usize % 10_000_000;
        largest = largest.max(2 * 4 * elements as u64);
        let x = Tensor::zeros(&device, &[elements])?;
        ops::scale(&x, 2.0)?;
        drop(x);
        expect_at_most(&format!("after {round} sizes"), baseline, largest + ALLOWED)?;
    }
    for _ in 0..10_000 {
        Tensor::zeros(&device, &[100])?;
    }
    expect_at_most("after many small tensors", baseline, ALLOWED)?;
    device.release_unused()?;
    expect_at_most("after everything was released", baseline, ALLOWED / 2)
}

pub(crate) const CLAIMS: &[Claim] = &[
    ("fixed shapes", fixed_shapes),
    ("changing shapes", changing_shapes),
    ("changing sizes", changing_sizes),
];

fn training_on_the_cpu_takes_the_memory_of_the_formula_for_fixed_shapes() -> Outcome {
    child::run("fixed shapes", Limit::None)
}

fn training_on_the_cpu_takes_the_memory_of_the_formula_for_changing_shapes() -> Outcome {
    child::run("changing shapes", Limit::None)
}

fn tensors_of_changing_sizes_leave_no_memory_behind() -> Outcome {
    child::run("changing sizes", Limit::None)
}

pub(crate) fn register(suite: &mut Suite) {
    // Elsewhere there is no /proc/self/status, or an allocator that cannot be asked.
    let testable = cfg!(all(target_os = "linux", target_env = "gnu"));
    macro_rules! on_linux {
        ($($claim:ident),+ $(,)?) => {
            $(suite.cpu_if(concat!(module_path!(), "::", stringify!($claim)), testable, $claim);)+
        };
    }
    on_linux!(
        training_on_the_cpu_takes_the_memory_of_the_formula_for_fixed_shapes,
        training_on_the_cpu_takes_the_memory_of_the_formula_for_changing_shapes,
        tensors_of_changing_sizes_leave_no_memory_behind,
    );
}
