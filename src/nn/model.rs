//! [`Model`]: named layers, the names and shapes of their parameters, and a seed.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::parameters::ModelId;
use super::{CustomCell, Embedding, Layer, Linear, OneHot, ParameterSpec, Parameters, Rnn};
use crate::device::Device;
use crate::{Error, Result};

/// The description of any layer, as checkpoints store it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerConfig {
    /// Embedding.
    Embedding(Embedding),
    /// One-hot encoding.
    OneHot(OneHot),
    /// A stack of recurrent layers.
    Rnn(Rnn),
    /// Linear layer.
    Linear(Linear),
}

impl LayerConfig {
    fn validate(&self, name: &str) -> Result<()> {
        match self {
            Self::Embedding(layer) => layer.validate(name),
            Self::OneHot(layer) => layer.validate(name),
            Self::Rnn(layer) => layer.validate(name),
            Self::Linear(layer) => layer.validate(name),
        }
    }

    fn parameters(&self, name: &str) -> Result<Vec<ParameterSpec>> {
        match self {
            Self::Embedding(layer) => layer.parameters(name),
            Self::OneHot(_) => Ok(Vec::new()),
            Self::Rnn(layer) => layer.parameters(name),
            Self::Linear(layer) => layer.parameters(name),
        }
    }
}

macro_rules! from_descriptions {
    ($($layer:ident),*) => {
        $(impl From<$layer> for LayerConfig {
            fn from(layer: $layer) -> Self {
                Self::$layer(layer)
            }
        })*
    };
}
from_descriptions!(Embedding, OneHot, Rnn, Linear);

/// A model as plain data, from which it can be built again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The seed of the initial values.
    pub seed: u64,
    /// Names and descriptions, in the order in which the layers run.
    pub layers: Vec<(String, LayerConfig)>,
}

impl ModelConfig {
    /// Replaces the custom cells of a description that was read from a file, which contains their names only, by those of
    /// `cells` with these names.
    ///
    /// # Errors
    /// [`Error::MissingCell`] if none of `cells` has the name of a cell of the description; [`Error::Config`] if several
    /// have it, or if the cell's properties are invalid; [`Error::Shader`] if its WGSL does not compile.
    pub fn with_cells(mut self, cells: &[CustomCell]) -> Result<Self> {
        for (_, layer) in &mut self.layers {
            if let LayerConfig::Rnn(stack) = layer {
                stack.resolve(cells)?;
            }
        }
        Ok(self)
    }
}

/// A list of named layers. It holds descriptions only; the values are in [`Parameters`].
///
/// ```
/// use refrain::Device;
/// use refrain::nn::{Cell, Linear, Model, Rnn};
/// let mut model = Model::new(7);
/// model.add("rnn", Rnn::new(Cell::tanh(), 3, 8))?;
/// model.add("head", Linear::new(8, 2))?;
/// let parameters = model.initialize(&Device::cpu())?;
/// assert_eq!(parameters.count(), 3 * 8 + 8 * 8 + 2 * 8 + 8 * 2 + 2);
/// # Ok::<(), refrain::Error>(())
/// ```
///
/// [`Model::initialize`] completes the description: no layer can be added after it, so that everything
/// created from a model fits all of its parameters.
pub struct Model {
    id: ModelId,
    initialized: OnceLock<()>,
    seed: u64,
    layers: Vec<Added>,
    /// The names of the layers.
    names: HashSet<String>,
    specs: Vec<ParameterSpec>,
    /// The number of elements of all parameters.
    scalars: usize,
}

/// A layer and the index of its first parameter.
pub(super) struct Added {
    pub(super) name: Arc<str>,
    pub(super) config: LayerConfig,
    pub(super) first: usize,
}

/// The most elements that all parameters of a model may have, which a shader can index.
const MAX_PARAMETERS: usize = 1 << 30;
/// The most characters of a layer's name.
const MAX_NAME: usize = 256;

impl Model {
    /// Creates a model without layers; `seed` determines the initial values of its parameters.
    pub fn new(seed: u64) -> Self {
        Self {
            id: ModelId::new(),
            initialized: OnceLock::new(),
            seed,
            layers: Vec::new(),
            names: HashSet::new(),
            specs: Vec::new(),
            scalars: 0,
        }
    }

    /// Builds the model that `config` describes.
    ///
    /// # Errors
    /// As [`Model::add`]; [`Error::MissingCell`] for a custom cell of a description that was read from a file, unless
    /// [`ModelConfig::with_cells`] has replaced it.
    pub fn from_config(config: &ModelConfig) -> Result<Self> {
        Self::from_config_with(config, |_| Ok(()))
    }

    /// As [`Model::from_config`]; `accept` may refuse the parameters of each layer before they are stored,
    /// since a short description can request any number of them.
    pub(crate) fn from_config_with(
        config: &ModelConfig,
        accept: impl Fn(&[ParameterSpec]) -> Result<()>,
    ) -> Result<Self> {
        let mut model = Self::new(config.seed);
        for (name, layer) in &config.layers {
            model.add_config(name, layer.clone(), &accept)?;
        }
        Ok(model)
    }

    /// Returns this model as plain data.
    pub fn config(&self) -> ModelConfig {
        let layers = self.layers.iter().map(|added| (added.name.to_string(), added.config.clone()));
        ModelConfig { seed: self.seed, layers: layers.collect() }
    }

    /// Adds a layer at the end. Its parameters are named `name.parameter`.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that is empty, not unique, longer than 256 characters or contains a dot;
    /// for sizes of zero; for options that cannot be combined; and for a model that has been initialized.
    /// [`Error::ExceedsLimit`] for more than 2³⁰ parameter elements in total.
    pub fn add<D: Clone + Into<LayerConfig>>(&mut self, name: &str, description: D) -> Result<Layer<D>> {
        let first = self.specs.len();
        self.add_config(name, description.clone().into(), |_| Ok(()))?;
        Ok(Layer { name: name.into(), description, model: self.id, first })
    }

    fn add_config(
        &mut self,
        name: &str,
        config: LayerConfig,
        accept: impl Fn(&[ParameterSpec]) -> Result<()>,
    ) -> Result<()> {
        if self.initialized.get().is_some() {
            return Err(Error::config(
                format!("layer `{name}`"),
                "cannot be added to a model that has been initialized, whose parameters would lack it: add all layers \
                 before `initialize`",
            ));
        }
        if name.chars().count() > MAX_NAME {
            let message = format!("has {} characters; the limit is {MAX_NAME}", name.chars().count());
            return Err(Error::config("layer name", message));
        }
        if name.is_empty() || name.contains('.') {
            return Err(Error::config(
                "layer name",
                format!("`{name}` must be a non-empty name with no dot"),
            ));
        }
        if self.names.contains(name) {
            return Err(Error::config(
                "layer name",
                format!("`{name}` is already taken: names must be unique"),
            ));
        }
        config.validate(name)?;
        let specs = config.parameters(name)?;
        accept(&specs)?;
        let total = specs.iter().map(|spec| spec.shape.elements()).fold(self.scalars, usize::saturating_add);
        if total > MAX_PARAMETERS {
            return Err(Error::ExceedsLimit {
                what: format!("the model with layer `{name}` (parameters)"),
                needed: total as u64,
                limit: MAX_PARAMETERS as u64,
            });
        }
        self.scalars = total;
        self.names.insert(name.to_owned());
        self.layers.push(Added { name: name.into(), config, first: self.specs.len() });
        self.specs.extend(specs);
        Ok(())
    }

    /// Creates the parameters with their initial values on `device`. The values depend only on the seed, not
    /// on the device. Each call returns a distinct set, which cannot be mixed with the gradients, optimizers
    /// and learned states of another. After the first call no layer can be added.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::ExceedsLimit`].
    pub fn initialize(&self, device: &Device) -> Result<Parameters> {
        let parameters = Parameters::initialize(self.id, &self.specs, self.seed, device)?;
        self.initialized.get_or_init(|| ());
        Ok(parameters)
    }

    /// All parameters, in the order in which their layers were added.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    pub(crate) fn id(&self) -> ModelId {
        self.id
    }

    pub(super) fn layers(&self) -> &[Added] {
        &self.layers
    }
}
