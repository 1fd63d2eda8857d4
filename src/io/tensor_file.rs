//! A safetensors file whose tensors are read one at a time. The header is checked against the file size first, so that work
//! and memory are proportional to what is read.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::sniff::{HEAD, SAFETENSORS, sniff};
use crate::file::open_file;
use crate::{Error, Result};

/// The size of the header's length field.
const LENGTH_BYTES: u64 = 8;
/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// An open safetensors file.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: RefCell<File>,
    header: Metadata,
    /// The offset of the values.
    start: u64,
}

impl TensorFile {
    /// Opens the file and reads its header.
    ///
    /// # Errors
    /// [`Error::Io`], also if `path` is not a regular file; [`Error::Checkpoint`] for a file that is not safetensors, or
    /// whose size does not match its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (mut file, size) = open_file(path)?;
        let mut head = Vec::new();
        let read_head = (&file).take(HEAD as u64).read_to_end(&mut head);
        read_head.and_then(|_| file.rewind()).map_err(|error| Error::io(path, error))?;
        let broken = |reason: String| not_safetensors(path, &head, &reason);
        let mut length = [0; LENGTH_BYTES as usize];
        if size < LENGTH_BYTES {
            return Err(broken(format!("it has {size} bytes")));
        }
        file.read_exact(&mut length).map_err(|error| Error::io(path, error))?;
        let length = u64::from_le_bytes(length);
        let rest = size - LENGTH_BYTES;
        if length > rest.min(LONGEST_HEADER) {
            return Err(broken(format!("a header of {length} bytes does not fit in its {size} bytes")));
        }
        let header: Metadata = serde_json::from_reader(BufReader::new((&file).take(length)))
            .map_err(|error| broken(format!("its header: {error}")))?;
        let (expected, found) = (header.data_len() as u64, rest - length);
        if expected != found {
            return Err(broken(format!(
                "its header describes {expected} bytes of values, but it has {found}"
            )));
        }
        Ok(Self { path: path.to_owned(), file: RefCell::new(file), header, start: LENGTH_BYTES + length })
    }

    /// The path, for error messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of the metadata key `key`.
    pub(crate) fn attribute(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// All metadata.
    #[cfg(feature = "check")]
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&String, &String)> {
        self.header.metadata().iter().flatten()
    }

    /// The names of all tensors, in the order of their values in the file.
    pub(crate) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The type and shape of a tensor.
    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// Reads the bytes of a tensor.
    pub(crate) fn read(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let (from, to) = info.data_offsets;
        let read = || {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(to - from)?;
            bytes.resize(to - from, 0);
            let mut file = self.file.borrow_mut();
            file.seek(SeekFrom::Start(self.start + from as u64))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| Error::io(&self.path, error))
    }

    /// Reads the values of a floating-point tensor.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor or it has another type; [`Error::Io`].
    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let refused = |message: String| Error::checkpoint(&self.path, message);
        let info = self.info(name).ok_or_else(|| refused(format!("has no tensor `{name}`")))?;
        match info.dtype {
            Dtype::F32 => {
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(&self.read(info)?);
                Ok(values.into_iter().map(f64::from).collect())
            }
            Dtype::F64 => Ok(bytemuck::pod_collect_to_vec(&self.read(info)?)),
            other => Err(refused(format!("`{name}` must be F32 or F64, but is {other:?}"))),
        }
    }
}

/// The error for an invalid file that starts with `head`: names the actual kind of the file, or what is missing.
fn not_safetensors(path: &Path, head: &[u8], reason: &str) -> Error {
    let message = match sniff(head) {
        Some(kind) if kind != SAFETENSORS => {
            let advice = kind.advice.map(|advice| format!(": {advice}")).unwrap_or_default();
            format!("is {}, not a safetensors file{advice}", kind.name)
        }
        _ => format!("is not a complete safetensors file ({reason}); it may be truncated"),
    };
    Error::checkpoint(path, message)
}
