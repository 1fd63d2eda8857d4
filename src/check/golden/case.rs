//! A case file in memory: attributes and tensors, with a record of which ones were read.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorInfo};

use super::Status;
use crate::Error;
use crate::device::Device;
use crate::io::TensorFile;
use crate::tensor::{Indices, Tensor};

/// Why a case could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The crate does not implement what the case requires.
    #[error("{0}")]
    Unsupported(String),
    /// The file is invalid or incomplete.
    #[error("{0}")]
    Malformed(String),
    /// The library rejected the case, or the device failed.
    #[error(transparent)]
    Library(#[from] Error),
}

/// `Result` with [`Trouble`].
pub(super) type Outcome<T = ()> = Result<T, Trouble>;

impl Trouble {
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(message.into())
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed(message.into())
    }

    pub(super) fn status(&self) -> Status {
        match self {
            Self::Unsupported(_) | Self::Library(Error::Unsupported { .. }) => Status::Unsupported,
            Self::Malformed(_) | Self::Library(_) => Status::Error,
        }
    }
}

/// Attributes that describe a case without affecting what it computes: its origin, layouts implied by its family, sizes
/// implied by its tensors, and the float32 errors of other packages.
const DESCRIPTIVE: [&str; 22] = [
    "B",
    "H",
    "I",
    "T",
    "case",
    "f32_relerr",
    "f32_relerr_max",
    "family",
    "gate_order",
    "h0_state",
    "hidden_size",
    "note",
    "numpy_f64_check_relerr",
    "numpy_seed",
    "opset",
    "output",
    "published",
    "sensitivity_to_1e-7_input_noise",
    "source",
    "weight_layout",
    "weights_drawn_from",
    "units",
];

/// A tensor of a case with its values.
#[derive(Clone, Copy)]
pub(super) struct Array<'c> {
    pub(super) shape: &'c [usize],
    values: &'c Values,
}

enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// A tensor of a case, whose values are read on demand.
struct Stored {
    info: TensorInfo,
    values: OnceCell<Values>,
}

pub(super) struct GoldenCase {
    file: TensorFile,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Stored>,
    /// Names of the attributes and tensors that have been read.
    attributes_read: RefCell<BTreeSet<String>>,
    tensors_read: RefCell<BTreeSet<String>>,
}

pub(super) fn file_stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

pub(super) fn folder(path: &Path) -> String {
    let name = path.parent().and_then(Path::file_name);
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

impl GoldenCase {
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        let file = TensorFile::open(path)?;
        let mut tensors = BTreeMap::new();
        for name in file.names() {
            let Some(info) = file.info(&name).cloned() else { continue };
            if !matches!(info.dtype, Dtype::F32 | Dtype::I32 | Dtype::I64) {
                let found = info.dtype;
                return Err(Trouble::malformed(format!("`{name}` must be F32 or I32, but is {found:?}")));
            }
            tensors.insert(name, Stored { info, values: OnceCell::new() });
        }
        Ok(Self {
            metadata: file.attributes().map(|(key, value)| (key.clone(), value.clone())).collect(),
            file,
            tensors,
            attributes_read: RefCell::default(),
            tensors_read: RefCell::default(),
        })
    }

    /// The total number of elements of its tensors.
    pub(super) fn numbers(&self) -> usize {
        // The shapes in the header were checked against the size of the file.
        self.tensors.values().map(|stored| stored.info.shape.iter().product::<usize>()).sum()
    }

    pub(super) fn name(&self) -> String {
        self.metadata.get("case").cloned().unwrap_or_else(|| file_stem(self.file.path()))
    }

    pub(super) fn family(&self) -> String {
        self.metadata.get("family").cloned().unwrap_or_else(|| folder(self.file.path()))
    }

    /// Fails if any attribute or tensor of the file has not been read.
    pub(super) fn expect_all_understood(&self) -> Outcome {
        let read = self.attributes_read.borrow();
        let known = |key: &str| DESCRIPTIVE.contains(&key) || read.contains(key);
        if let Some((key, value)) = self.metadata.iter().find(|(key, _)| !known(key)) {
            return Err(Trouble::unsupported(format!("the attribute {key} = {value} is not supported")));
        }
        let read = self.tensors_read.borrow();
        match self.tensors.keys().find(|name| !read.contains(*name)) {
            Some(name) => Err(Trouble::unsupported(format!("the tensor `{name}` is not supported"))),
            None => Ok(()),
        }
    }

    /// The text of an attribute.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.attributes_read.borrow_mut().insert(key.to_owned());
        self.metadata.get(key).map(String::as_str)
    }

    pub(super) fn required(&self, key: &str) -> Outcome<&str> {
        self.text(key).ok_or_else(|| Trouble::malformed(format!("has no attribute `{key}`")))
    }

    /// Fails unless the attribute is absent, empty or `value`, the only supported value.
    pub(super) fn expect(&self, key: &str, value: &str) -> Outcome {
        match self.text(key) {
            None | Some("") => Ok(()),
            Some(found) if found == value => Ok(()),
            Some(found) => Err(Trouble::unsupported(format!("{key} = {found} is not supported"))),
        }
    }

    /// The value of an attribute, parsed as JSON.
    pub(super) fn value<T: serde::de::DeserializeOwned>(&self, key: &str) -> Outcome<T> {
        parse(key, self.required(key)?)
    }

    /// As [`GoldenCase::value`]; `default` if the attribute is absent.
    pub(super) fn value_or<T: serde::de::DeserializeOwned>(&self, key: &str, default: T) -> Outcome<T> {
        self.text(key).map_or(Ok(default), |text| parse(key, text))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn stored(&self, name: &str) -> Outcome<&Stored> {
        self.tensors_read.borrow_mut().insert(name.to_owned());
        self.tensors.get(name).ok_or_else(|| Trouble::malformed(format!("has no tensor `{name}`")))
    }

    /// The shape of a tensor; does not read its values.
    pub(super) fn shape(&self, name: &str) -> Outcome<&[usize]> {
        Ok(&self.stored(name)?.info.shape)
    }

    /// Fails unless the tensor has this shape; does not read its values.
    pub(super) fn expect_shape(&self, name: &str, expected: &[usize]) -> Outcome {
        let found = self.shape(name)?;
        if found == expected {
            return Ok(());
        }
        Err(Trouble::malformed(format!("`{name}` must have the shape {expected:?}, but has {found:?}")))
    }

    pub(super) fn array(&self, name: &str) -> Outcome<Array<'_>> {
        let stored = self.stored(name)?;
        let values = match stored.values.get() {
            Some(values) => values,
            None => {
                let values = Values::new(stored.info.dtype, &self.file.read(&stored.info)?);
                stored.values.get_or_init(|| values)
            }
        };
        Ok(Array { shape: &stored.info.shape, values })
    }

    /// A float tensor of rank `N`.
    pub(super) fn floats<const N: usize>(&self, name: &str) -> Outcome<([usize; N], &[f32])> {
        let array = self.array(name)?;
        let shape = array.shape.try_into().map_err(|_| {
            Trouble::malformed(format!(
                "`{name}` must have {N} dimensions, but has the shape {:?}",
                array.shape
            ))
        })?;
        Ok((shape, array.floats(name)?))
    }

    /// A float tensor on `device`.
    pub(super) fn tensor(&self, name: &str, device: &Device) -> Outcome<Tensor> {
        let array = self.array(name)?;
        Ok(Tensor::from_slice(device, array.shape, array.floats(name)?)?)
    }

    pub(super) fn integers(&self, name: &str) -> Outcome<(&[usize], &[i64])> {
        let array = self.array(name)?;
        match array.values {
            Values::Integers(values) => Ok((array.shape, values)),
            Values::Floats(_) => {
                Err(Trouble::unsupported(format!("`{name}` holds floats, not class indices")))
            }
        }
    }

    /// Tokens on `device`.
    pub(super) fn tokens(&self, name: &str, device: &Device) -> Outcome<Indices> {
        let (shape, values) = self.integers(name)?;
        Ok(Indices::from_slice(device, shape, &unsigned(name, values)?)?)
    }

    /// The error of the case's package in float32, for one tensor.
    pub(super) fn float32_error(&self, name: &str) -> Outcome<Option<f64>> {
        let Some(text) = self.metadata.get("f32_relerr") else { return Ok(None) };
        let all: BTreeMap<String, f64> = parse("f32_relerr", text)?;
        Ok(all.get(name).copied().filter(|error| error.is_finite()))
    }
}

/// Parses the value of an attribute as JSON.
pub(super) fn parse<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Outcome<T> {
    serde_json::from_str(text)
        .map_err(|error| Trouble::malformed(format!("cannot read {key} = {text} ({error})")))
}

/// Fails for a negative index.
pub(super) fn unsigned(name: &str, values: &[i64]) -> Outcome<Vec<u32>> {
    let convert = |&value: &i64| {
        u32::try_from(value)
            .map_err(|_| Trouble::malformed(format!("`{name}` holds {value}, which is not an index")))
    };
    values.iter().map(convert).collect()
}

impl Values {
    /// Decodes the bytes of a tensor of one of the supported types.
    fn new(dtype: Dtype, bytes: &[u8]) -> Self {
        match dtype {
            Dtype::I32 => {
                let values: Vec<i32> = bytemuck::pod_collect_to_vec(bytes);
                Self::Integers(values.into_iter().map(i64::from).collect())
            }
            Dtype::I64 => Self::Integers(bytemuck::pod_collect_to_vec(bytes)),
            _ => Self::Floats(bytemuck::pod_collect_to_vec(bytes)),
        }
    }
}

impl<'c> Array<'c> {
    pub(super) fn floats(self, name: &str) -> Outcome<&'c [f32]> {
        match self.values {
            Values::Floats(values) => Ok(values),
            Values::Integers(_) => {
                Err(Trouble::malformed(format!("`{name}` must hold floats, but holds integers")))
            }
        }
    }
}
