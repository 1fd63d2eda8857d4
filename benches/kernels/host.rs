//! Times the host's side of a kernel call; the measured time does not include waiting for the device.

use std::time::{Duration, Instant};

use criterion::Throughput;
use refrain::nn::{Cell, Gradients, Layer, Model, Parameters, Rnn, State};
use refrain::testing::ParameterPath;
use refrain::tuning::RecurrentStrategy;
use refrain::{Device, GpuOptions, Result, Tensor};

use crate::{Bench, expect_finite, random};

/// Two kernel calls per step, slightly fewer in total than one submission may contain.
const STEPS: usize = 1900;

/// A layer of one unit: its kernels take almost no time and leave the processor to the host.
struct Loop {
    layer: Layer<Rnn>,
    parameters: Parameters,
    gradients: Gradients,
    state: State,
    x: Tensor,
    d_y: Tensor,
}

impl Loop {
    fn new(device: &Device) -> Result<Self> {
        let mut model = Model::new(3);
        let layer = model.add("rnn", Rnn::new(Cell::Lstm, 1, 1))?;
        let parameters = model.initialize(device)?;
        Ok(Self {
            gradients: parameters.zero_gradients()?,
            state: layer.zero_state(device, 1)?,
            x: random(device, &[STEPS, 1, 1], 2)?,
            d_y: random(device, &[STEPS, 1, 1], 3)?,
            layer,
            parameters,
        })
    }

    /// Records forward and backward; returns the gradient with respect to x.
    fn record(&mut self) -> Result<Tensor> {
        let (_, _, trace) = self.layer.forward(&self.parameters, &self.x, &self.state)?;
        Ok(trace.backward(&self.d_y, None, &mut self.gradients)?.0)
    }
}

/// Where the measured time ends.
#[derive(Clone, Copy)]
enum Until {
    Recorded,
    Submitted,
}

/// Times the kernel calls of a loop with one dispatch per step: recording, and recording with submission.
pub(crate) fn host(bench: &mut Bench) -> Result<()> {
    if bench.device.adapter_kind().is_none() {
        return Ok(());
    }
    for (path, parameters) in [("", ParameterPath::Fastest), (", uniforms", ParameterPath::Uniforms)] {
        let options =
            GpuOptions { recurrent: RecurrentStrategy::PerStep, parameters, ..GpuOptions::default() };
        let device = Device::gpu_with(&bench.device.to_string(), &options)?;
        let mut work = Loop::new(&device)?;
        expect_finite("the gradient at x", &work.record()?)?;
        let before = device.counters().dispatches;
        work.record()?;
        let calls = device.counters().dispatches - before;
        device.synchronize()?;
        for (name, until) in [("recorded", Until::Recorded), ("submitted", Until::Submitted)] {
            let mut measure = |repetitions: u64| -> Result<Duration> {
                let mut total = Duration::ZERO;
                for _ in 0..repetitions {
                    let start = Instant::now();
                    work.record()?;
                    let recorded = start.elapsed();
                    device.flush()?;
                    total += match until {
                        Until::Recorded => recorded,
                        Until::Submitted => start.elapsed(),
                    };
                    device.synchronize()?;
                }
                Ok(total)
            };
            bench.measure("host", &format!("{name}{path}"), Throughput::Elements(calls), &mut measure)?;
        }
    }
    Ok(())
}
