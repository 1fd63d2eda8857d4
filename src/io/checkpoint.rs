//! A model and its weights in one safetensors file, with the model's configuration in the metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tensor_file::TensorFile;
use super::weights::{assign, expect_no_more, expect_tensor, serialize};
use crate::device::Device;
use crate::file::write_atomically;
use crate::nn::{CustomCell, Model, ModelConfig, ParameterSpec, Parameters};
use crate::{Error, Result};

/// The metadata key of the model's description.
const KEY: &str = "refrain";
/// The format version; incremented when older versions of this crate cannot read newer files.
const VERSION: u32 = 1;

/// Values that a program stores with the model, such as its vocabulary or the training progress.
pub type Metadata = BTreeMap<String, String>;

/// The model's description in a checkpoint, as JSON.
#[derive(Serialize, Deserialize)]
struct Description {
    version: u32,
    model: ModelConfig,
    metadata: Metadata,
}

/// A model and its parameters, loaded from a file.
///
/// The file is a safetensors file. Its tensors are the parameters in 32-bit floats, under the names and in the
/// shapes of PyTorch, prefixed by the name of the layer (`rnn.weight_hh_l0`). Its metadata has one entry,
/// `refrain`, a JSON object:
///
/// | member | content |
/// |---|---|
/// | `version` | the version of this format, 1 |
/// | `model` | the model's seed, and the name, sizes and options of each layer in order; of a custom cell its name |
/// | `metadata` | the [`Metadata`] of the program, such as a vocabulary or the number of training steps |
///
/// The file contains no optimizer state (moments, step count), no random state and no recurrent state: training
/// that continues from a checkpoint starts with a new optimizer. A program without this crate reads the tensors
/// with any safetensors library.
pub struct Checkpoint {
    /// The layers.
    pub model: Model,
    /// The weights.
    pub parameters: Parameters,
    /// The metadata stored by the program that saved the file.
    pub metadata: Metadata,
}

impl Checkpoint {
    /// Saves `model` with `parameters`. If saving fails, an existing file stays unchanged. **Waits** for the GPU.
    ///
    /// # Errors
    /// [`Error::Io`], for example for a full disk; [`Error::ModelMismatch`]; [`Error::NonFinite`] for parameters that
    /// are NaN or infinite, so that they do not overwrite the last usable checkpoint.
    pub fn save(path: &Path, model: &Model, parameters: &Parameters, metadata: &Metadata) -> Result<()> {
        parameters.layout().expect_model("parameters", model.id())?;
        let description = Description { version: VERSION, model: model.config(), metadata: metadata.clone() };
        let text = serde_json::to_string(&description)
            .map_err(|error| Error::checkpoint(path, format!("cannot be serialized: {error}")))?;
        let metadata = HashMap::from([(KEY.to_owned(), text)]);
        write_atomically(path, &serialize(path, parameters, Some(metadata))?)
    }

    /// Loads a file written by [`Checkpoint::save`] to `device`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFinite`] for a parameter with NaN or infinities; [`Error::Checkpoint`] for a file that
    /// is not safetensors, is truncated, was not written by this crate or was written by a newer version, or whose
    /// tensors do not match its own description; [`Error::MissingCell`] for a model with a custom cell, which needs
    /// [`Checkpoint::load_with`].
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        Self::load_with(path, device, &[])
    }

    /// As [`Checkpoint::load`], for a model with custom cells: a file contains the name of a cell only, and the cell of
    /// `cells` with this name is used. `cells` may have others.
    ///
    /// ```no_run
    /// # use refrain::{Device, io::Checkpoint, nn::{CustomCell, UnitEquations}};
    /// # fn load(equations: impl UnitEquations) -> refrain::Result<()> {
    /// let cell = CustomCell::new(equations);
    /// let checkpoint = Checkpoint::load_with("model.safetensors".as_ref(), &Device::auto()?, &[cell])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; as [`ModelConfig::with_cells`].
    pub fn load_with(path: &Path, device: &Device, cells: &[CustomCell]) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let description = describe(&file)?;
        let model = description.model.with_cells(cells)?;
        // Checked per layer before memory is allocated: a description of a few bytes can specify any sizes.
        let expect = |spec: &ParameterSpec| expect_tensor(&file, &spec.name, spec.shape);
        let model =
            Model::from_config_with(&model, |specs| specs.iter().try_for_each(expect)).map_err(|error| {
                match error {
                    misfit @ Error::Checkpoint { .. } => misfit,
                    error => Error::checkpoint(path, format!("does not describe a valid model: {error}")),
                }
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
        refused("contains tensors but no refrain model; load it with `load_weights`".to_owned())
    })?;
    // The version is parsed separately, because a newer description may not parse.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let broken = |error: serde_json::Error| refused(format!("has an invalid model description: {error}"));
    let Version { version } = serde_json::from_str(text).map_err(broken)?;
    if version > VERSION {
        return Err(refused(format!(
            "was written by a newer version (format {version}; this version reads format {VERSION})"
        )));
    }
    serde_json::from_str(text).map_err(broken)
}
