//! A model with its weights in one file: safetensors, with the model's configuration in the metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tensor_file::TensorFile;
use super::weights::{assign, expect_no_more, expect_tensor, serialize};
use crate::device::Device;
use crate::file::write_atomically;
use crate::nn::{Model, ModelConfig, ParameterSpec, Parameters};
use crate::{Error, Result};

/// The metadata key under which a checkpoint keeps its description.
const KEY: &str = "refrain";
/// Raised when an older version could not understand a newer file.
const VERSION: u32 = 1;

/// What a program stores beside the model: its vocabulary, its progress.
pub type Metadata = BTreeMap<String, String>;

/// What a checkpoint says of its model, as JSON.
#[derive(Serialize, Deserialize)]
struct Description {
    version: u32,
    model: ModelConfig,
    metadata: Metadata,
}

/// A model read from a file.
pub struct Checkpoint {
    /// Its layers.
    pub model: Model,
    /// Its weights.
    pub parameters: Parameters,
    /// What the program that wrote it stored beside.
    pub metadata: Metadata,
}

impl Checkpoint {
    /// Saves `model` with `parameters`; the old file survives any failure. **Waits** for the GPU.
    ///
    /// # Errors
    /// [`Error::Io`], for example for a full disk; [`Error::ModelMismatch`]; [`Error::NonFinite`] for parameters that have
    /// become NaN or infinite, which would replace the last good checkpoint by one that cannot be used.
    pub fn save(path: &Path, model: &Model, parameters: &Parameters, metadata: &Metadata) -> Result<()> {
        parameters.layout().expect_model("parameters", model.id())?;
        let description = Description { version: VERSION, model: model.config(), metadata: metadata.clone() };
        let text = serde_json::to_string(&description)
            .map_err(|error| Error::checkpoint(path, format!("cannot be described: {error}")))?;
        let metadata = HashMap::from([(KEY.to_owned(), text)]);
        write_atomically(path, &serialize(path, parameters, Some(metadata))?)
    }

    /// Reads what [`Checkpoint::save`] wrote, onto `device`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFinite`] for a parameter with NaN or infinities; [`Error::Checkpoint`] for a file that is no safetensors, is cut short, was not written by
    /// this crate or by a newer version, or whose tensors do not fit its own description.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let description = describe(&file)?;
        // Layer by layer, before any memory is asked for: a description is a few bytes, whatever sizes it names.
        let expect = |spec: &ParameterSpec| expect_tensor(&file, &spec.name, spec.shape);
        let model = Model::from_config_with(&description.model, |specs| specs.iter().try_for_each(expect))
            .map_err(|error| match error {
                misfit @ Error::Checkpoint { .. } => misfit,
                error => Error::checkpoint(path, format!("describes no valid model: {error}")),
            })?;
        expect_no_more(&file, model.specs().iter().map(|spec| spec.name.as_str()))?;
        let mut parameters = model.initialize(device)?;
        assign(&file, &mut parameters)?;
        Ok(Self { model, parameters, metadata: description.metadata })
    }
}

fn describe(file: &TensorFile) -> Result<Description> {
    let refused = |message: String| Error::checkpoint(file.path(), message);
    let text = file.attribute(KEY).ok_or_else(|| {
        refused("holds tensors but no model of refrain; load it with `load_weights`".to_owned())
    })?;
    // The version is read on its own first: a newer description may not parse.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let broken = |error: serde_json::Error| refused(format!("has a broken description: {error}"));
    let Version { version } = serde_json::from_str(text).map_err(broken)?;
    if version > VERSION {
        return Err(refused(format!("was written by a newer version (format {version}, known {VERSION})")));
    }
    serde_json::from_str(text).map_err(broken)
}
