//! Named tensors in safetensors files.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::file::write_atomically;
use crate::nn::Parameters;
use crate::shape::Shape;
use crate::{Error, Result};

/// Saves all parameters under their own names: a file that PyTorch's `load_file` reads.
///
/// # Errors
/// [`Error::Io`]; as [`Tensor::download`](crate::Tensor::download).
pub fn save_weights(path: &Path, parameters: &Parameters) -> Result<()> {
    write_atomically(path, &serialize(path, parameters, None)?)
}

/// Replaces all parameters by those of a safetensors file with the same names and shapes, such as a PyTorch
/// state dict. Nothing changes if anything does not fit.
///
/// # Errors
/// [`Error::Io`]; [`Error::Checkpoint`] for a file that is no safetensors, is cut short, or whose tensors are
/// not exactly the model's.
pub fn load_weights(path: &Path, parameters: &mut Parameters) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
    assign(path, &parse(path, &bytes)?, parameters)
}

pub(super) fn serialize(
    path: &Path,
    parameters: &Parameters,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    let mut named = Vec::new();
    for name in parameters.names() {
        let view = parameters.view(name)?;
        named.push((name.to_owned(), view.shape().dimensions().to_vec(), view.download()?));
    }
    let refused = |error: safetensors::SafeTensorError| Error::checkpoint(path, error.to_string());
    let mut views = Vec::with_capacity(named.len());
    for (name, shape, values) in &named {
        let view =
            TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values)).map_err(refused)?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize(views, metadata).map_err(refused)
}

pub(super) fn parse<'b>(path: &Path, bytes: &'b [u8]) -> Result<SafeTensors<'b>> {
    SafeTensors::deserialize(bytes).map_err(|error| {
        Error::checkpoint(path, format!("is not a whole safetensors file ({error}); was it cut short?"))
    })
}

/// Fails unless `file` has exactly the tensors `expected`, by name and shape.
pub(super) fn expect_tensors<'n>(
    path: &Path,
    file: &SafeTensors<'_>,
    expected: impl IntoIterator<Item = (&'n str, Shape)>,
) -> Result<()> {
    let refused = |message: String| Error::checkpoint(path, message);
    let mut known = HashSet::new();
    for (name, shape) in expected {
        let tensor = file.tensor(name).map_err(|_| refused(format!("has no tensor `{name}`")))?;
        if tensor.shape() != shape.dimensions() {
            let found = tensor.shape();
            return Err(refused(format!("`{name}` must have the shape {shape}, but has {found:?}")));
        }
        known.insert(name);
    }
    match file.names().into_iter().find(|name| !known.contains(name)) {
        Some(extra) => Err(refused(format!("has a tensor `{extra}` that the model has not"))),
        None => Ok(()),
    }
}

pub(super) fn assign(path: &Path, file: &SafeTensors<'_>, parameters: &mut Parameters) -> Result<()> {
    let mut expected = Vec::new();
    for name in parameters.names() {
        expected.push((name, *parameters.view(name)?.shape()));
    }
    expect_tensors(path, file, expected.iter().copied())?;
    let mut values = Vec::with_capacity(expected.len());
    for (name, _) in expected {
        let tensor = file.tensor(name).map_err(|error| Error::checkpoint(path, error.to_string()))?;
        values.push((name.to_owned(), floats(path, name, &tensor)?));
    }
    parameters.set_all(values.iter().map(|(name, values)| (name.as_str(), values.as_slice())))
}

/// The values of a floating-point tensor.
fn floats(path: &Path, name: &str, tensor: &TensorView<'_>) -> Result<Vec<f64>> {
    let bytes = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => Ok(bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect()),
        Dtype::F64 => Ok(bytemuck::pod_collect_to_vec(bytes)),
        other => Err(Error::checkpoint(path, format!("`{name}` must be F32 or F64, but is {other:?}"))),
    }
}
