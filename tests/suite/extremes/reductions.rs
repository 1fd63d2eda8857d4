//! Operations that add up or compare many elements: products, sums, norms, layer normalisation, optimizers and clipping.

use refrain::nn::{Embedding, Layer, Model, Parameters};
use refrain::ops::{self, Form, Norm};
use refrain::optim::{Adam, AdamConfig, Sgd, SgdConfig, WeightDecay};
use refrain::{Device, Indices, Result};

use super::{NANS, Results, as_on_the_cpu, builds, on_builds, ordinary, specials, tensor, vector};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::support::{Optimizer, expect_same_bits};

const NORMS: [Norm; 3] = [Norm::L1, Norm::L2, Norm::Infinity];

/// The places of an array that several workgroups reduce, one at a time: its ends, and those of workgroups.
const LENGTH: usize = 9001;
const PLACES: [usize; 5] = [0, 255, 4095, 4096, LENGTH - 1];

fn norms_and_sums_of_nan_are_nan(device: &Device) -> Outcome {
    for (place, nan) in PLACES.into_iter().cycle().zip(NANS.map(f32::from_bits).repeat(2)) {
        let mut values = ordinary(40, LENGTH);
        values[place] = nan;
        // Larger than all others, before and after.
        (values[7], values[LENGTH - 7]) = (f32::INFINITY, 50.0);
        let x = vector(device, &values)?;
        for norm in NORMS {
            let value = ops::norm(&x, norm)?.read()?;
            assert!(value.is_nan(), "{norm:?} of NaN at {place} is {value} on {device}");
        }
        for value in [ops::sum(&x)?.read()?, ops::squared_norm(&x)?.read()?] {
            assert!(value.is_nan(), "a sum with NaN at {place} is {value} on {device}");
        }
    }
    Ok(())
}

fn norms_and_sums_of_extremes_are_as_on_the_cpu(device: &Device) -> Result<Results> {
    let mut results = Results::new();
    for special in specials() {
        let mut values = ordinary(41, LENGTH);
        values[4097] = special;
        let x = vector(device, &values)?;
        for norm in NORMS {
            results.push((format!("{norm:?} with {special}"), ops::norm(&x, norm)?.download()?));
        }
        results.push((format!("sum with {special}"), ops::sum(&x)?.download()?));
    }
    let columns = specials().len();
    let mut rows = ordinary(42, 300 * columns);
    rows[140 * columns..141 * columns].copy_from_slice(&specials());
    results.push((
        "sums of rows".to_owned(),
        ops::sum_rows(&tensor(device, &[300, columns], &rows)?)?.download()?,
    ));
    Ok(results)
}

/// M, N, K beyond the edges of tiles.
const PRODUCTS: [[usize; 3]; 2] = [[33, 17, 65], [70, 66, 9]];

/// In one row of the left matrix; all other rows of the product are as without it.
fn a_row_of_nan_stays_in_its_row_of_a_product(adapter: &Adapter) -> Outcome {
    for device in builds(adapter)? {
        for ([m, n, k], special) in PRODUCTS.into_iter().zip([f32::NAN, f32::INFINITY]) {
            for form in [Form::Plain, Form::LeftTransposed, Form::RightTransposed] {
                let mut left = ordinary(43, m * k);
                let right = ordinary(44, k * n);
                let product = |left: &[f32]| {
                    let left_sizes = if form == Form::LeftTransposed { [k, m] } else { [m, k] };
                    let right_sizes = if form == Form::RightTransposed { [n, k] } else { [k, n] };
                    let (a, b) =
                        (tensor(&device, &left_sizes, left)?, tensor(&device, &right_sizes, &right)?);
                    ops::matmul(&a, &b, form, None)?.download()
                };
                let clean = product(&left)?;
                let (row, depth) = (m / 2, k - 1);
                left[if form == Form::LeftTransposed { depth * m + row } else { row * k + depth }] = special;
                let found = product(&left)?;
                let name = format!("{m} x {n} x {k}, {form:?}, {special}");
                assert!(found[row * n..(row + 1) * n].iter().all(|value| !value.is_finite()), "{name}");
                expect_same_bits(&name, &clean[..row * n], &found[..row * n])?;
                expect_same_bits(&name, &clean[(row + 1) * n..], &found[(row + 1) * n..])?;
            }
        }
    }
    Ok(())
}

/// One special value in each row but the first and the last, of x or of the gradient at y.
fn layer_norm_of_extremes_is_as_on_the_cpu(device: &Device) -> Result<Results> {
    let mut results = Results::new();
    for columns in [1, 4, 70] {
        let specials = specials();
        let rows = specials.len() + 2;
        let mut extreme = ordinary(45, rows * columns);
        for (row, special) in specials.into_iter().enumerate() {
            extreme[(row + 1) * columns + row * 7 % columns] = special;
        }
        let extreme = tensor(device, &[rows, columns], &extreme)?;
        let plain = tensor(device, &[rows, columns], &ordinary(46, rows * columns))?;
        let gain = vector(device, &ordinary(47, columns))?;
        let shift = vector(device, &ordinary(48, columns))?;
        let y = ops::layer_norm(&extreme, &gain, Some(shift.view()), &[columns])?;
        results.push((format!("layer norm of {columns} columns"), y.download()?));
        for (name, x, d_y) in [("x", &extreme, &plain), ("d_y", &plain, &extreme)] {
            let (d_x, d_gain) = ops::layer_norm_backward(x, &gain, d_y, &[columns])?;
            results.push((format!("d_x of {columns} columns, extremes in {name}"), d_x.download()?));
            results.push((format!("d_gain of {columns} columns, extremes in {name}"), d_gain.download()?));
        }
    }
    Ok(results)
}

fn embeddings_of_extremes_are_as_on_the_cpu(device: &Device) -> Result<Results> {
    let specials = specials();
    let features = specials.len();
    let mut table = ordinary(49, 3 * features);
    table[features..2 * features].copy_from_slice(&specials);
    let table = tensor(device, &[3, features], &table)?;
    let tokens = Indices::from_slice(device, &[5], &[0, 1, 2, 0, 1])?;
    let y = ops::embedding(&tokens, &table)?;
    let d_table = ops::embedding_backward(&tokens, &y, 3)?;
    Ok(vec![("embedding".to_owned(), y.download()?), ("its gradient".to_owned(), d_table.download()?)])
}

/// Parameters whose gradient is what is given: an embedding of which each row is read once.
struct Bench {
    layer: Layer<Embedding>,
    parameters: Parameters,
}

const WEIGHT: &str = "table.weight";

impl Bench {
    fn new(device: &Device, values: &[f32]) -> Result<Self> {
        let mut model = Model::new(0);
        let layer = model.add("table", Embedding::new(values.len(), 1))?;
        let mut parameters = model.initialize(device)?;
        parameters.set(WEIGHT, &[values.len(), 1], values)?;
        Ok(Self { layer, parameters })
    }

    fn gradients(&self, values: &[f32]) -> Result<refrain::nn::Gradients> {
        let device = self.parameters.device();
        let mut gradients = self.parameters.zero_gradients()?;
        let rows: Vec<u32> = (0..values.len() as u32).collect();
        let tokens = Indices::from_slice(device, &[values.len()], &rows)?;
        let (_, trace) = self.layer.forward(&self.parameters, &tokens)?;
        trace.backward(&tensor(device, &[values.len(), 1], values)?, &mut gradients)?;
        Ok(gradients)
    }
}

/// Steps whose gradients are special and then ordinary, from ordinary parameters and from those at the ends of the range.
fn optimizers_of_extremes_are_as_on_the_cpu(device: &Device) -> Result<Results> {
    let specials = specials();
    let ends: Vec<f32> = specials.iter().map(|&value| if value.is_finite() { value } else { -0.0 }).collect();
    let count = specials.len();
    let plain = ordinary(50, count);
    let momentum = SgdConfig { momentum: 0.9, weight_decay: 0.01, nesterov: true, ..SgdConfig::new(0.1) };
    let adam = AdamConfig::new(0.01);
    let decayed = AdamConfig { weight_decay: WeightDecay::Decoupled(0.3), amsgrad: true, ..adam };
    let mut results = Results::new();
    for (from, parameters, gradients) in
        [("gradients", &plain, [&specials, &plain]), ("parameters", &ends, [&plain, &plain])]
    {
        for name in ["sgd", "momentum", "adam", "amsgrad"] {
            let mut bench = Bench::new(device, parameters)?;
            let own = &bench.parameters;
            let mut optimizer = match name {
                "sgd" => Optimizer::Sgd(Sgd::new(own, SgdConfig::new(0.1))?),
                "momentum" => Optimizer::Sgd(Sgd::new(own, momentum)?),
                "adam" => Optimizer::Adam(Adam::new(own, adam)?),
                _ => Optimizer::Adam(Adam::new(own, decayed)?),
            };
            for (step, values) in gradients.into_iter().enumerate() {
                let gradients = bench.gradients(values)?;
                optimizer.step(&mut bench.parameters, &gradients)?;
                let values = bench.parameters.view(WEIGHT)?.download()?;
                results.push((format!("{name}, step {step}, extreme {from}"), values));
            }
        }
    }
    Ok(results)
}

/// What a gradient that was NaN once leaves NaN for ever, AMSGrad's largest second moment included.
fn a_nan_gradient_makes_parameters_nan(device: &Device) -> Outcome {
    let nans = NANS.map(f32::from_bits);
    for amsgrad in [false, true] {
        let mut bench = Bench::new(device, &[0.5; NANS.len()])?;
        let mut adam = Adam::new(&bench.parameters, AdamConfig { amsgrad, ..AdamConfig::new(0.01) })?;
        for values in [[1.0; NANS.len()], nans, [1.0; NANS.len()]] {
            let gradients = bench.gradients(&values)?;
            adam.step(&mut bench.parameters, &gradients)?;
        }
        let values = bench.parameters.view(WEIGHT)?.download()?;
        assert!(values.iter().all(|value| value.is_nan()), "amsgrad {amsgrad}: {values:?} on {device}");
    }
    Ok(())
}

/// Gradients, the norm, and what PyTorch's `clip_grad_norm_` makes of them at a largest norm of 1: of a NaN norm all are NaN;
/// of an infinite one finite gradients become zero and infinite ones NaN.
fn clipping_by_extreme_norms_is_that_of_pytorch(device: &Device) -> Outcome {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let all = [
        (Norm::L2, [0.5, NAN, -0.25], NAN, [NAN; 3]),
        (Norm::Infinity, [0.5, NAN, INF], NAN, [NAN; 3]),
        (Norm::L1, [0.5, 0.25, NAN], NAN, [NAN; 3]),
        (Norm::L2, [0.5, -INF, -0.25], INF, [0.0, NAN, 0.0]),
        (Norm::Infinity, [INF, -0.5, -INF], INF, [NAN, 0.0, NAN]),
        (Norm::Infinity, [3e38, -1.5e38, 1.0], 3e38, [1.0, -0.5, 0.0]),
        (Norm::L1, [1e30, -1e30, 0.0], 2e30, [0.5, -0.5, 0.0]),
        (Norm::L2, [0.0, 1e-40, -0.0], 0.0, [0.0; 3]),
    ];
    for (kind, values, norm, clipped) in all {
        let bench = Bench::new(device, &[0.0; 3])?;
        let mut gradients = bench.gradients(&values)?;
        let found = gradients.clip(1.0, kind)?;
        let name = format!("{kind:?} of {values:?} on {device}");
        super::expect_alike(&name, &[norm], &found.download()?)?;
        super::expect_alike(&format!("clipped by {name}"), &clipped, &gradients.view(WEIGHT)?.download()?)?;
    }
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_builds!(
        suite,
        norms_and_sums_of_nan_are_nan,
        a_nan_gradient_makes_parameters_nan,
        clipping_by_extreme_norms_is_that_of_pytorch,
    );
    as_on_the_cpu!(
        suite,
        norms_and_sums_of_extremes_are_as_on_the_cpu,
        layer_norm_of_extremes_is_as_on_the_cpu,
        embeddings_of_extremes_are_as_on_the_cpu,
        optimizers_of_extremes_are_as_on_the_cpu,
    );
    on_gpu!(suite, a_row_of_nan_stays_in_its_row_of_a_product);
}
