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
}

/// What a case computes from its draws, on the draws' device.
type Run = Box<dyn Fn(&Sampler) -> Result<Vec<Output>>>;

/// One computation to be compared between devices.
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
    /// How many roundings reach it, for the tolerance.
    pub(super) roundings: f64,
    /// What the roundings are relative to, where the equation cancels; else 0, for the largest result.
    pub(super) scale: f64,
}

impl Output {
    pub(super) fn new(name: impl Into<String>, tensor: Tensor, roundings: f64) -> Self {
        Self { name: name.into(), tensor, roundings, scale: 0.0 }
    }

    /// With roundings relative to `scale` if that is larger than the largest result.
    pub(super) fn relative_to(self, scale: f64) -> Self {
        Self { scale, ..self }
    }
}

/// All operations, in the order in which they build on each other.
///
/// # Errors
/// As the reference, on which cases near a kink are sorted out.
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

/// A tensor of its own from a section of parameters or gradients.
fn download(sampler: &Sampler, view: View<'_>) -> Result<Tensor> {
    Tensor::from_slice_f64(sampler.device(), view.shape().dimensions(), &view.download_f64()?)
}
