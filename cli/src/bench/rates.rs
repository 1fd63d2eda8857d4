//! Measures the device's peak rates in the same run, as a reference for all other measurements.

use refrain::nn::{Linear, Model};
use refrain::ops::{Form, matmul};
use refrain::optim::{Sgd, SgdConfig};
use refrain::{Device, Result as Outcome, Tensor};

use super::check::expect_close;
use super::measure::{Effort, Timing, repeat_short};
use super::shape::DeviceClass;
use super::work::random;
use crate::failure::Result;

/// The length of each measurement.
const EFFORT: Effort = Effort { runs: 5, seconds: 0.5 };

/// The measured peak rates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// M = N = K of the matrix product.
    pub(crate) side: usize,
    /// Floating-point operations per second of the product.
    pub(crate) gemm: f64,
    /// Elements of the vector in p ← p − ηg.
    pub(crate) numbers: usize,
    /// Bytes per second that this update reads and writes.
    pub(crate) bandwidth: f64,
}

impl Rates {
    /// Measures both at sizes that suit this class of devices.
    pub(crate) fn measure(device: &Device, strategy: DeviceClass) -> Result<Self> {
        let (side, width) = match strategy {
            DeviceClass::Hardware => (2048, 4096),
            DeviceClass::Cpu => (512, 2048),
            DeviceClass::Software => (512, 1024),
        };
        let product = |device: &Device| {
            let (a, b) = (random(device, &[33, 65], 0)?, random(device, &[65, 17], 1)?);
            matmul(&a, &b, Form::Plain, None)?.download_f64()
        };
        expect_close("the matrix product", "C", &product(device)?, &product(&Device::reference())?)?;
        let rates = Self {
            side,
            gemm: 2.0 * (side as f64).powi(3) / gemm(device, side)?.median,
            numbers: width * width,
            // p is read and written, g is read.
            bandwidth: 3.0 * 4.0 * (width * width) as f64 / axpy(device, width)?.median,
        };
        device.release_unused()?;
        Ok(rates)
    }
}

fn gemm(device: &Device, side: usize) -> Result<Timing> {
    let (a, b) = (random(device, &[side, side], 0)?, random(device, &[side, side], 1)?);
    repeat_short(&EFFORT, |repeats| {
        for _ in 0..repeats {
            matmul(&a, &b, Form::Plain, None)?;
        }
        Ok(device.synchronize()?)
    })
}

/// p ← p − ηg by steps of plain gradient descent, which allocate nothing and access two vectors.
fn axpy(device: &Device, width: usize) -> Result<Timing> {
    let descend = |device: &Device, width: usize| -> Outcome<_> {
        let mut model = Model::new(0);
        let layer = model.add("vector", Linear::new(width, width).without_bias())?;
        let parameters = model.initialize(device)?;
        let mut gradients = parameters.zero_gradients()?;
        let one = Tensor::from_slice(device, &[1, width], &vec![1.0; width])?;
        let (_, trace) = layer.forward(&parameters, &one)?;
        trace.backward(&random(device, &[1, width], 1)?, &mut gradients)?;
        let sgd = Sgd::new(&parameters, SgdConfig { learning_rate: 1e-3, ..SgdConfig::default() })?;
        Ok((parameters, gradients, sgd))
    };
    let stepped = |device: &Device| -> Outcome<_> {
        let (mut parameters, gradients, mut sgd) = descend(device, 33)?;
        sgd.step(&mut parameters, &gradients)?;
        parameters.view("vector.weight")?.download_f64()
    };
    expect_close("axpy", "the vector", &stepped(device)?, &stepped(&Device::reference())?)?;
    let (mut parameters, gradients, mut sgd) = descend(device, width)?;
    repeat_short(&EFFORT, |repeats| {
        for _ in 0..repeats {
            sgd.step(&mut parameters, &gradients)?;
        }
        Ok(device.synchronize()?)
    })
}
