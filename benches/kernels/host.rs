//! What a kernel call costs the host: nothing here waits for the device inside the time that is measured.

use std::time::{Duration, Instant};

use criterion::Throughput;
use refrain::nn::{Cell, Gradients, Layer, Model, Parameters, Rnn, State};
use refrain::{Device, GpuOptions, ParameterPath, RecurrentStrategy, Result, Tensor};

use crate::{Bench, expect_finite, random};

/// Two kernel calls a step, as many as one submission takes and a little less.
const STEPS: usize = 1900;

/// A layer of one unit: its kernels take no time, so that the host has the machine for itself.
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

    /// Records forward and backward; returns the gradient at x.
    fn record(&mut self) -> Result<Tensor> {
        let (_, _, trace) = self.layer.forward(&self.parameters, &self.x, &self.state)?;
        Ok(trace.backward(&self.d_y, None, &mut self.gradients)?.0)
    }
}

/// Where the clock stops.
#[derive(Clone, Copy)]
enum Until {
    Recorded,
    Submitted,
}

/// Kernel calls of a loop of one dispatch a step, recorded, and recorded and submitted.
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
