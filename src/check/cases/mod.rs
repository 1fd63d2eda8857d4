//! The case table: every operation over awkward shapes.

mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod extremes;
mod layer_norm;
mod linear;
mod matmul;
mod optimizer;
mod options;
mod permute;
mod recurrent;
mod reduce;
mod softmax;

use super::sampler::Sampler;
use crate::Result;
use crate::nn::{Gradients, Model, ParameterSpec};
use crate::tensor::{Tensor, View};

/// An operation and its cases.
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) cases: Vec<Case>,
}

impl Operation {
    pub(super) fn new(name: impl Into<String>, cases: Vec<Case>) -> Self {
        Self { name: name.into(), cases }
    }

    /// One case for each of `settings`, with the seeds `seed`, `seed` + 1 and so on.
    fn over<S: 'static>(
        name: impl Into<String>,
        seed: u64,
        settings: impl IntoIterator<Item = S>,
        label: impl Fn(&S) -> String,
        run: impl Fn(&Sampler, &S) -> Result<Vec<Output>> + Copy + 'static,
    ) -> Self {
        let case = |(setting, seed): (S, u64)| {
            Case::new(label(&setting), seed, move |sampler| run(sampler, &setting))
        };
        Self::new(name, settings.into_iter().zip(seed..).map(case).collect())
    }
}

/// Computes the outputs of a case from sampled inputs, on the sampler's device.
type Run = Box<dyn Fn(&Sampler) -> Result<Vec<Output>>>;

/// A computation whose results are compared between devices.
pub(super) struct Case {
    pub(super) label: String,
    pub(super) seed: u64,
    pub(super) run: Run,
}

impl Case {
    pub(super) fn new(
        label: impl Into<String>,
        seed: u64,
        run: impl Fn(&Sampler) -> Result<Vec<Output>> + 'static,
    ) -> Self {
        Self { label: label.into(), seed, run: Box::new(run) }
    }
}

/// One result of a case.
pub(super) struct Output {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    /// The number of roundings that affect it, for the tolerance.
    pub(super) roundings: f64,
    /// The magnitude that roundings are relative to if the equation cancels; 0 for the largest result.
    pub(super) scale: f64,
}

impl Output {
    pub(super) fn new(name: impl Into<String>, tensor: Tensor, roundings: f64) -> Self {
        Self { name: name.into(), tensor, roundings, scale: 0.0 }
    }

    /// Makes roundings relative to `scale` if that is larger than the largest result.
    pub(super) fn relative_to(self, scale: f64) -> Self {
        Self { scale, ..self }
    }
}

/// All operations, ordered so that each comes after those that it builds on.
pub(super) fn table() -> Result<Vec<Operation>> {
    let mut table = matmul::operations();
    table.extend(elementwise::operations());
    table.extend(dropout::operations());
    table.extend(reduce::operations());
    table.push(permute::operation());
    table.extend(softmax::operations());
    table.extend(embedding::operations());
    table.extend(cross_entropy::operations());
    table.push(linear::operation());
    table.extend(recurrent::operations()?);
    table.extend(options::operations());
    table.extend(layer_norm::operations());
    table.extend(optimizer::operations());
    table.extend(extremes::operations());
    Ok(table)
}

/// Copies a section of parameters or gradients to a tensor.
fn download(view: View<'_>) -> Result<Tensor> {
    Tensor::from_slice_f64(view.device(), view.shape().dimensions(), &view.download_f64()?)
}

/// The gradients of all parameters of `model`, which `roundings` roundings affect.
fn gradient_outputs(model: &Model, gradients: &Gradients, roundings: f64) -> Result<Vec<Output>> {
    let output = |spec: &ParameterSpec| {
        let gradient = download(gradients.view(&spec.name)?)?;
        Ok(Output::new(format!("gradient of {}", spec.name), gradient, roundings))
    };
    model.specs().iter().map(output).collect()
}
