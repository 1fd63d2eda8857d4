//! Saves and loads parameters by name in safetensors files.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use super::section::names_of;
use super::tensor_file::TensorFile;
use crate::file::write_atomically;
use crate::nn::Parameters;
use crate::shape::Shape;
use crate::{Error, Result};

/// Saves all parameters by name. PyTorch's `load_file` reads the file.
///
/// # Errors
/// [`Error::Io`]; [`Error::NonFinite`] for parameters that are NaN or infinite; and as
/// [`Tensor::download`](crate::Tensor::download).
pub fn save_weights(path: &Path, parameters: &Parameters) -> Result<()> {
    write_atomically(path, &serialize(path, parameters, None)?)
}

/// Saves the parameters of one layer without the layer's name, such as `weight_ih_l0`: the state dict of a single module,
/// which PyTorch's `nn.LSTM(..).load_state_dict(load_file(path))` loads.
///
/// # Errors
/// [`Error::Config`] if no layer with parameters has this name; [`Error::Io`]; [`Error::NonFinite`] for parameters that are
/// NaN or infinite; and as [`Tensor::download`](crate::Tensor::download).
///
/// ```
/// use refrain::io::{load_layer_weights, save_layer_weights};
/// use refrain::nn::{Cell, Model, Rnn};
/// # let folder = std::env::temp_dir().join(format!("refrain-layer-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("lstm.safetensors");
/// let mut model = Model::new(1);
/// model.add("encoder", Rnn::new(Cell::Lstm, 3, 4))?;
/// let mut parameters = model.initialize(&refrain::Device::cpu())?;
/// save_layer_weights(&path, "encoder", &parameters)?;
/// load_layer_weights(&path, "encoder", &mut parameters)?;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_layer_weights(path: &Path, layer: &str, parameters: &Parameters) -> Result<()> {
    let names = names_of(parameters, layer)?;
    let named = names.into_iter().map(|name| (name, &name[layer.len() + 1..]));
    write_atomically(path, &serialize_as(path, parameters, named, None)?)
}

/// Replaces all parameters by the tensors of a safetensors file with the same names and shapes, such as a PyTorch state
/// dict. On error nothing changes.
///
/// # Errors
/// [`Error::Io`]; [`Error::Checkpoint`] for a file that is not safetensors, is truncated, or whose tensors are not exactly
/// the model's; [`Error::NonFinite`] for a tensor with NaN, infinities or values out of range for the device's floats.
pub fn load_weights(path: &Path, parameters: &mut Parameters) -> Result<()> {
    assign(&TensorFile::open(path)?, parameters)
}

/// Replaces the parameters of one layer by the tensors of a safetensors file whose names lack the layer's name, such as the
/// state dict of a single `nn.LSTM`. On error nothing changes.
///
/// # Errors
/// [`Error::Config`] if no layer with parameters has this name; [`Error::Io`]; [`Error::Checkpoint`] for a file that is not
/// safetensors, is truncated, or whose tensors are not exactly the layer's; [`Error::NonFinite`] for a tensor with NaN,
/// infinities or values out of range for the device's floats.
pub fn load_layer_weights(path: &Path, layer: &str, parameters: &mut Parameters) -> Result<()> {
    let file = TensorFile::open(path)?;
    let names = names_of(parameters, layer)?;
    let named: Vec<(String, String)> =
        names.into_iter().map(|name| (name.to_owned(), name[layer.len() + 1..].to_owned())).collect();
    assign_as(&file, parameters, &named)
}

pub(super) fn serialize(
    path: &Path,
    parameters: &Parameters,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    serialize_as(path, parameters, parameters.names().map(|name| (name, name)), metadata)
}

/// Serializes parameters; `names` pairs each parameter's name with its name in the file.
fn serialize_as<'n>(
    path: &Path,
    parameters: &Parameters,
    names: impl Iterator<Item = (&'n str, &'n str)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    let names: Vec<(&str, &str)> = names.collect();
    let downloaded = parameters.download(names.iter().map(|(name, _)| *name))?;
    let refused = |error: safetensors::SafeTensorError| Error::checkpoint(path, error.to_string());
    let mut views = Vec::with_capacity(names.len());
    for ((name, written), (shape, place)) in names.into_iter().zip(downloaded.places) {
        let values = &downloaded.values[place];
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            let what =
                format!("`{name}`, value {place} ({}), not saved to {}", values[place], path.display());
            return Err(Error::NonFinite { what });
        }
        let bytes = bytemuck::cast_slice(values);
        let view = TensorView::new(Dtype::F32, shape.dimensions().to_vec(), bytes).map_err(refused)?;
        views.push((written, view));
    }
    safetensors::serialize(views, metadata).map_err(refused)
}

/// Fails unless `file` has a tensor `name` of this shape.
pub(super) fn expect_tensor(file: &TensorFile, name: &str, shape: Shape) -> Result<()> {
    let refused = |message: String| Error::checkpoint(file.path(), message);
    let found = &file.info(name).ok_or_else(|| refused(format!("has no tensor `{name}`")))?.shape;
    if found == shape.dimensions() {
        return Ok(());
    }
    Err(refused(format!("`{name}` must have the shape {shape}, but has {found:?}")))
}

/// Fails if `file` has a tensor that is not in `known`.
pub(super) fn expect_no_more<'n>(file: &TensorFile, known: impl IntoIterator<Item = &'n str>) -> Result<()> {
    let known: HashSet<&str> = known.into_iter().collect();
    match file.names().into_iter().find(|name| !known.contains(name.as_str())) {
        Some(extra) => Err(Error::checkpoint(
            file.path(),
            format!("has a tensor `{extra}` that the model does not have"),
        )),
        None => Ok(()),
    }
}

pub(super) fn assign(file: &TensorFile, parameters: &mut Parameters) -> Result<()> {
    let named: Vec<(String, String)> =
        parameters.names().map(|name| (name.to_owned(), name.to_owned())).collect();
    assign_as(file, parameters, &named)
}

/// Assigns tensors to parameters; `named` pairs each parameter's name with its name in the file.
fn assign_as(file: &TensorFile, parameters: &mut Parameters, named: &[(String, String)]) -> Result<()> {
    for (name, written) in named {
        expect_tensor(file, written, *parameters.view(name)?.shape())?;
    }
    expect_no_more(file, named.iter().map(|(_, written)| written.as_str()))?;
    let mut values = Vec::with_capacity(named.len());
    for (name, written) in named {
        let shape = file.info(written).map(|info| info.shape.clone()).unwrap_or_default();
        values.push((name.as_str(), shape, file.floats(written)?));
    }
    let all = values.iter().map(|(name, shape, values)| (*name, shape.as_slice(), values.as_slice()));
    parameters.set_all(all).map_err(|error| match error {
        Error::NonFinite { what } => Error::NonFinite { what: format!("{}: {what}", file.path().display()) },
        error => error,
    })
}
