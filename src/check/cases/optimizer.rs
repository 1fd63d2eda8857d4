//! Optimizer updates over several steps, and clipping.

use super::{Operation, Output, download};
use crate::Result;
use crate::check::sampler::{CENTRED, Sampler};
use crate::check::tolerance::{EVALUATION, sum};
use crate::nn::{Embedding, Gradients, Layer, Model, Parameters};
use crate::ops::Norm;
use crate::optim::{Adam, AdamConfig, Sgd, SgdConfig, WeightDecay};
use crate::tensor::{Indices, Tensor};

const STEPS: usize = 6;

/// Sections of \[rows, columns\]; several, so that the padding between them is tested.
const SECTIONS: [[usize; 2]; 3] = [[1, 1], [33, 17], [65, 9]];

pub(super) fn operations() -> Vec<Operation> {
    vec![sgd(), adam(), clip(), extremes()]
}

fn sgd() -> Operation {
    let plain = SgdConfig::new(0.1);
    let momentum = SgdConfig { momentum: 0.9, ..plain };
    let configs = [
        ("plain", plain),
        ("weight decay", SgdConfig { weight_decay: 0.01, ..plain }),
        ("momentum", momentum),
        ("momentum, dampening and decay", SgdConfig { dampening: 0.3, weight_decay: 0.05, ..momentum }),
        ("nesterov and decay", SgdConfig { nesterov: true, weight_decay: 0.01, ..momentum }),
    ];
    Operation::over(
        "sgd",
        4000,
        configs,
        |(name, _)| name.to_string(),
        |sampler, &(_, config)| {
            let mut bench = Bench::new(sampler)?;
            let mut sgd = Sgd::new(&bench.parameters, config)?;
            bench.steps(sampler, |parameters, gradients| sgd.step(parameters, gradients))
        },
    )
}

fn adam() -> Operation {
    let plain = AdamConfig::new(0.01);
    let decoupled = AdamConfig { weight_decay: WeightDecay::Decoupled(0.3), ..plain };
    let configs = [
        ("plain", plain),
        ("penalty", AdamConfig { weight_decay: WeightDecay::Penalty(0.1), ..plain }),
        ("decoupled decay", decoupled),
        ("amsgrad", AdamConfig { amsgrad: true, betas: (0.5, 0.6), ..plain }),
        ("amsgrad, decoupled decay", AdamConfig { amsgrad: true, epsilon: 1e-3, ..decoupled }),
    ];
    Operation::over(
        "adam",
        4100,
        configs,
        |(name, _)| name.to_string(),
        |sampler, &(_, config)| {
            let mut bench = Bench::new(sampler)?;
            let mut adam = Adam::new(&bench.parameters, config)?;
            bench.steps(sampler, |parameters, gradients| adam.step(parameters, gradients))
        },
    )
}

fn clip() -> Operation {
    let norms = [("norm 1", Norm::L1), ("norm 2", Norm::L2), ("norm infinity", Norm::Infinity)];
    let all =
        norms.into_iter().flat_map(|norm| [("clipped", 0.5), ("untouched", 1e6)].map(|limit| (norm, limit)));
    let label = |((name, _), (effect, _)): &((&str, Norm), (&str, f32))| format!("{name}, {effect}");
    Operation::over("clip", 4200, all, label, |sampler, &((_, norm), (_, limit))| {
        let bench = Bench::new(sampler)?;
        let mut gradients = bench.gradients(sampler, None)?;
        let total = gradients.clip(limit, norm)?;
        // The norm is a sum over all gradients, followed by a quotient and a product.
        let roundings = sum(bench.parameters.count()) + EVALUATION;
        let mut results = bench.sections(|name| gradients.view(name), roundings + 3.0)?;
        results.push(Output::new("norm", total, roundings));
        Ok(results)
    })
}

/// Updates and clipping with gradients that contain one zero or non-finite value.
fn extremes() -> Operation {
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
    let (name, label) = ("extremes, optimizers and clip", |value: &f32| format!("a gradient of {value}"));
    Operation::over(name, 4300, values, label, |sampler, &value| {
        let mut results = Vec::new();
        for kind in [Norm::L1, Norm::L2, Norm::Infinity] {
            let mut bench = Bench::new(sampler)?;
            let mut gradients = bench.gradients(sampler, Some(value))?;
            let norm = gradients.clip(0.5, kind)?;
            let roundings = sum(bench.parameters.count()) + EVALUATION;
            results.push(Output::new(format!("{kind:?}"), norm, roundings));
            results.extend(bench.sections(|name| gradients.view(name), roundings + 3.0)?);
            let config = AdamConfig { amsgrad: kind == Norm::L1, ..AdamConfig::new(0.01) };
            let mut adam = Adam::new(&bench.parameters, config)?;
            let mut sgd = Sgd::new(&bench.parameters, SgdConfig { momentum: 0.9, ..SgdConfig::new(0.1) })?;
            for extreme in [Some(value), None] {
                let gradients = bench.gradients(sampler, extreme)?;
                adam.step(&mut bench.parameters, &gradients)?;
                sgd.step(&mut bench.parameters, &gradients)?;
            }
            let roundings = 4.0 * (EVALUATION + 8.0);
            results.extend(bench.sections(|name| bench.parameters.view(name), roundings)?);
        }
        Ok(results)
    })
}

/// Parameters with freely chosen gradients: if every row of an embedding is read once, the gradient of its weight is the
/// gradient of its output, without rounding.
struct Bench {
    layers: Vec<Layer<Embedding>>,
    parameters: Parameters,
}

impl Bench {
    fn new(sampler: &Sampler) -> Result<Self> {
        let mut model = Model::new(0);
        let mut layers = Vec::new();
        for (place, [rows, columns]) in SECTIONS.into_iter().enumerate() {
            layers.push(model.add(&format!("section{place}"), Embedding::new(rows, columns))?);
        }
        let parameters = sampler.parameters(&model, |_| CENTRED)?;
        Ok(Self { layers, parameters })
    }

    /// Random gradients; if `extreme` is set, it replaces each section's second (or only) element.
    fn gradients(&self, sampler: &Sampler, extreme: Option<f32>) -> Result<Gradients> {
        let mut gradients = self.parameters.zero_gradients()?;
        for (layer, [rows, columns]) in self.layers.iter().zip(SECTIONS) {
            let all: Vec<u32> = (0..rows as u32).collect();
            let (_, trace) =
                layer.forward(&self.parameters, &Indices::from_slice(sampler.device(), &[rows], &all)?)?;
            let mut values = sampler.values(rows * columns, CENTRED);
            if let Some(extreme) = extreme {
                let place = 1.min(values.len() - 1);
                values[place] = extreme;
            }
            let d_y = Tensor::from_slice(sampler.device(), &[rows, columns], &values)?;
            trace.backward(&d_y, &mut gradients)?;
        }
        Ok(gradients)
    }

    /// The parameters after each of several steps with new gradients.
    fn steps(
        &mut self,
        sampler: &Sampler,
        mut step: impl FnMut(&mut Parameters, &Gradients) -> Result<()>,
    ) -> Result<Vec<Output>> {
        let mut results = Vec::new();
        for count in 1..=STEPS {
            let gradients = self.gradients(sampler, None)?;
            step(&mut self.parameters, &gradients)?;
            // Each step rounds the parameter and its change, which contains at most a quotient and a root.
            let roundings = count as f64 * (EVALUATION + 8.0);
            let after = self.sections(|name| self.parameters.view(name), roundings)?;
            results.extend(
                after
                    .into_iter()
                    .map(|output| Output { name: format!("{} after step {count}", output.name), ..output }),
            );
        }
        Ok(results)
    }

    /// All sections of parameters or gradients.
    fn sections<'v>(
        &self,
        view: impl Fn(&str) -> Result<crate::View<'v>>,
        roundings: f64,
    ) -> Result<Vec<Output>> {
        let all = self.parameters.names().map(|name| {
            let tensor: Tensor = download(view(name)?)?;
            // Values are at most 1; a section of one element may be small by chance.
            Ok(Output::new(name, tensor, roundings).relative_to(1.0))
        });
        all.collect()
    }
}
