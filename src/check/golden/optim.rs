//! PyTorch's optimizers and gradient clipping.

use super::case::{GoldenCase, Outcome, Trouble, parse};
use super::layers::expect_kind;
use super::replay::Replay;
use crate::check::tolerance::{EVALUATION, sum};
use crate::device::Device;
use crate::nn::{Embedding, Gradients, Layer, Model, Parameters};
use crate::ops::Norm;
use crate::optim::{Adam, AdamConfig, Sgd, SgdConfig, WeightDecay};
use crate::shape::product;
use crate::tensor::{Indices, Tensor};

/// A parameter with a freely chosen gradient: if every row of an embedding is read once, the gradient of its weight is the
/// gradient of its output, without rounding.
struct Direct {
    layer: Layer<Embedding>,
    tokens: Indices,
    rows: usize,
    columns: usize,
}

impl Direct {
    fn add(model: &mut Model, name: &str, shape: &[usize], device: &Device) -> Outcome<Self> {
        let columns = shape.last().copied().unwrap_or(1);
        let rows = product(name, shape)? / columns;
        let layer = model.add(name, Embedding::new(rows, columns))?;
        let all: Vec<u32> = (0..rows as u32).collect();
        Ok(Self { layer, tokens: Indices::from_slice(device, &[rows], &all)?, rows, columns })
    }

    fn give(&self, parameters: &Parameters, values: &[f32], gradients: &mut Gradients) -> Outcome {
        let (_, trace) = self.layer.forward(parameters, &self.tokens)?;
        let gradient = Tensor::from_slice(parameters.device(), &[self.rows, self.columns], values)?;
        Ok(trace.backward(&gradient, gradients)?)
    }
}

/// `grad{i}` → `clipped{i}` and `total_norm`, the norm before clipping.
pub(super) fn clip(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_kind(replay, "clip_grad_norm")?;
    let norm = match case.required("norm_type")? {
        "inf" | "Infinity" => Norm::Infinity,
        text => match parse::<f64>("norm_type", text)? {
            1.0 => Norm::L1,
            2.0 => Norm::L2,
            other => return Err(Trouble::unsupported(format!("norm_type = {other} is not supported"))),
        },
    };
    let max_norm = case.value::<f64>("max_norm")? as f32;
    let mut model = Model::new(0);
    let mut sections = Vec::new();
    for index in (0..).take_while(|index| *index == 0 || case.has(&format!("grad{index}"))) {
        let shape = case.shape(&format!("grad{index}"))?;
        sections.push(Direct::add(&mut model, &format!("section{index}"), shape, device)?);
    }
    let parameters = replay.initialize(&model)?;
    let mut gradients = parameters.zero_gradients()?;
    for (index, section) in sections.iter().enumerate() {
        let name = format!("grad{index}");
        section.give(&parameters, case.array(&name)?.floats(&name)?, &mut gradients)?;
    }
    let total = gradients.clip(max_norm, norm)?;
    let roundings = sum(parameters.count()) + EVALUATION;
    replay.check("total_norm", &total, roundings)?;
    for index in 0..sections.len() {
        let clipped = gradients.view(&format!("section{index}.weight"))?.download_f64()?;
        let shape = case.shape(&format!("grad{index}"))?;
        replay.check_values(&format!("clipped{index}"), shape, &clipped, roundings + 3.0)?;
    }
    Ok(())
}

/// An optimizer of any kind.
pub(super) enum Optimizer {
    Sgd(Sgd),
    Adam(Adam),
}

impl Optimizer {
    /// The optimizer described by the attributes, with PyTorch's defaults for absent ones.
    pub(super) fn from_case(case: &GoldenCase, parameters: &Parameters) -> Outcome<Self> {
        match case.required("optimizer")? {
            "SGD" => Ok(Self::Sgd(Sgd::new(parameters, sgd_config(case)?)?)),
            "Adam" => Ok(Self::Adam(Adam::new(parameters, adam_config(case, WeightDecay::Penalty, 0.0)?)?)),
            "AdamW" => {
                Ok(Self::Adam(Adam::new(parameters, adam_config(case, WeightDecay::Decoupled, 0.01)?)?))
            }
            other => Err(Trouble::unsupported(format!("the optimizer {other} is not supported"))),
        }
    }

    pub(super) fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients) -> Outcome {
        match self {
            Self::Sgd(sgd) => Ok(sgd.step(parameters, gradients)?),
            Self::Adam(adam) => Ok(adam.step(parameters, gradients)?),
        }
    }
}

fn sgd_config(case: &GoldenCase) -> Outcome<SgdConfig> {
    expect_descent(case)?;
    Ok(SgdConfig {
        learning_rate: case.value("lr")?,
        momentum: case.value_or("momentum", 0.0)?,
        dampening: case.value_or("dampening", 0.0)?,
        weight_decay: case.value_or("weight_decay", 0.0)?,
        nesterov: case.value_or("nesterov", false)?,
    })
}

fn adam_config(case: &GoldenCase, decay: fn(f64) -> WeightDecay, default_decay: f64) -> Outcome<AdamConfig> {
    expect_descent(case)?;
    Ok(AdamConfig {
        learning_rate: case.value("lr")?,
        betas: case.value_or("betas", (0.9, 0.999))?,
        epsilon: case.value_or("eps", 1e-8)?,
        weight_decay: decay(case.value_or::<f64>("weight_decay", default_decay)?),
        amsgrad: case.value_or("amsgrad", false)?,
    })
}

fn expect_descent(case: &GoldenCase) -> Outcome {
    match case.value_or("maximize", false)? {
        false => Ok(()),
        true => Err(Trouble::unsupported("maximize = true is not supported")),
    }
}

/// `param0` and `grads` \[steps, ...\] → `params` \[steps, ...\], the parameter after each step.
pub(super) fn optimizer(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_kind(replay, "optimizer")?;
    let initial = case.array("param0")?;
    let mut model = Model::new(0);
    let parameter = Direct::add(&mut model, "parameter", initial.shape, device)?;
    let mut parameters = replay.initialize(&model)?;
    let shape = [parameter.rows, parameter.columns];
    parameters.set("parameter.weight", &shape, initial.floats("param0")?)?;
    let mut optimizer = Optimizer::from_case(case, &parameters)?;
    let steps = case.value("steps")?;
    let shape: Vec<usize> = [steps].iter().chain(initial.shape).copied().collect();
    case.expect_shape("grads", &shape)?;
    case.expect_shape("params", &shape)?;
    let mut path = Vec::new();
    for values in case.array("grads")?.floats("grads")?.chunks(parameters.count()) {
        let mut gradients = parameters.zero_gradients()?;
        parameter.give(&parameters, values, &mut gradients)?;
        optimizer.step(&mut parameters, &gradients)?;
        path.extend(parameters.view("parameter.weight")?.download_f64()?);
    }
    replay.check_values("params", &shape, &path, steps as f64 * (EVALUATION + 8.0))
}
