//! A steady training loop asks for no memory: not the GPU's after its tenth step, not the host's after its first
//! hundred. Nor does it compile, bind anew or wait while it records a step.

use libtest_mimic::Failed;
use refrain::loss::cross_entropy;
use refrain::testing::{DeviceCounters, ParameterPath};
use refrain::{Device, GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite};
use crate::support::{Optimizer, Rule, Setup};

const STEPS: usize = 1000;
/// After this step the GPU's memory is all there.
const WARM: usize = 10;
/// After this step the host's memory is all there: caches have seen every combination of buffers.
const SETTLED: usize = 100;
/// What the process may grow by from step [`SETTLED`] to step [`STEPS`]. A leak of one buffer, bind group or
/// command of a few hundred bytes in each of the hundred dispatches of a step would be 20 MiB or more.
const GROWTH_BYTES: u64 = 8 << 20;

/// How often a loop waits for its loss.
#[derive(Clone, Copy)]
enum Reading {
    EveryHundred,
    Never,
}

/// What a loop sees after each step.
struct Observer<'a> {
    device: &'a Device,
    warm: Option<(u64, u64)>,
    settled: Option<u64>,
    /// Bind groups and pipelines of a loop that has settled.
    settled_objects: Option<(u64, u64)>,
}

impl Observer<'_> {
    fn after(&mut self, step: usize) -> Outcome {
        let counters = self.device.counters();
        let now = (counters.allocations, counters.bytes);
        if step == WARM {
            self.warm = Some(now);
        }
        if self.warm.is_some_and(|warm| warm != now) {
            let warm = self.warm;
            return Err(Failed::from(format!(
                "step {step}: (allocations, bytes) {now:?}, {warm:?} after {WARM}"
            )));
        }
        let now = (counters.bind_groups, counters.pipelines);
        if step == SETTLED {
            self.settled = resident_bytes();
            self.settled_objects = Some(now);
        }
        if self.settled_objects.is_some_and(|objects| objects != now) {
            let objects = self.settled_objects;
            return Err(Failed::from(format!(
                "step {step}: (bind groups, pipelines) {now:?}, {objects:?} after {SETTLED}"
            )));
        }
        Ok(())
    }
}

/// Memory of this process that is in RAM; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// Trains for [`STEPS`] steps under the eyes of an observer.
fn observe(device: &Device, reading: Reading) -> Outcome {
    let setup = Setup {
        vocabulary: 9,
        features: 4,
        hidden: 8,
        layers: 1,
        batch: 2,
        sequence: 4,
        rule: Rule::Adam,
        learning_rate: 0.01,
    };
    let model = setup.model(3)?;
    let mut parameters = model.initialize(device)?;
    let mut optimizer = Optimizer::new(setup.rule, setup.learning_rate, &parameters)?;
    let windows = setup.windows()?;
    let mut state = model.zero_state(device, setup.batch)?;
    let mut observer = Observer { device, warm: None, settled: None, settled_objects: None };
    for step in 1..=STEPS {
        let (inputs, targets) = windows.window(step).to_device(device)?;
        let before = device.counters();
        let (logits, next, trace) = model.forward(&parameters, &inputs, &state)?;
        let (loss, d_logits) = cross_entropy(&logits, &targets)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&d_logits, &mut gradients)?;
        gradients.clip_norm(1.0)?;
        expect_recording_only(&before, &device.counters())?;
        optimizer.step(&mut parameters, &gradients)?;
        state = next;
        // The first reading belongs to the warm-up: it needs a buffer to read into.
        if matches!(reading, Reading::EveryHundred) && (step == 1 || step % 100 == 0) {
            expect_finite(&loss)?;
        }
        observer.after(step)?;
    }
    if let (Some(before), Some(after)) = (observer.settled, resident_bytes()) {
        let growth = after.saturating_sub(before);
        println!("resident memory: {before} bytes after {SETTLED} steps, {after} after {STEPS}");
        assert!(growth <= GROWTH_BYTES, "the process grew by {growth} bytes");
    }
    Ok(())
}

/// Fails if something was submitted or waited for between the two, or nothing was recorded.
fn expect_recording_only(before: &DeviceCounters, after: &DeviceCounters) -> Outcome {
    let recorded = after.dispatches - before.dispatches;
    match recorded > 0 && (before.submissions, before.waits) == (after.submissions, after.waits) {
        true => Ok(()),
        false => {
            Err(Failed::from(format!("a step that submits or waits, or does nothing: {before:?}, {after:?}")))
        }
    }
}

fn expect_finite(loss: &Tensor) -> Result<()> {
    let value = loss.read()?;
    assert!(value.is_finite(), "a loss of {value}");
    Ok(())
}

fn with(adapter: &Adapter, parameters: ParameterPath) -> Result<Device> {
    adapter.open_anew_with(&GpuOptions { parameters, ..GpuOptions::default() })
}

fn training_allocates_nothing_after_the_tenth_step(adapter: &Adapter) -> Outcome {
    observe(&with(adapter, ParameterPath::Fastest)?, Reading::EveryHundred)
}

fn training_with_uniforms_allocates_nothing_after_the_tenth_step(adapter: &Adapter) -> Outcome {
    observe(&with(adapter, ParameterPath::Uniforms)?, Reading::EveryHundred)
}

fn training_that_never_reads_keeps_its_memory(adapter: &Adapter) -> Outcome {
    observe(&with(adapter, ParameterPath::Fastest)?, Reading::Never)
}

pub(crate) fn register(suite: &mut Suite) {
    macro_rules! alone {
        ($($claim:ident),+ $(,)?) => {
            $(suite.gpu_alone(concat!(module_path!(), "::", stringify!($claim)), $claim);)+
        };
    }
    alone!(
        training_allocates_nothing_after_the_tenth_step,
        training_with_uniforms_allocates_nothing_after_the_tenth_step,
        training_that_never_reads_keeps_its_memory,
    );
}
