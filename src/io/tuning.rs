//! Writes tuning files.

use std::path::Path;

use crate::file::write_atomically;
use crate::gpu::{AdapterSummary, Tuning};
use crate::{Error, Result};

/// Writes choices that were measured on `adapter`, for [`Tuning::load`]. A file at [`Tuning::stored_path`] is used by every
/// device on that adapter. Creates missing folders; on error an existing file stays unchanged.
///
/// # Errors
/// [`Error::Io`].
pub fn save_tuning(path: &Path, tuning: &Tuning, adapter: &AdapterSummary) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    }
    write_atomically(path, tuning.to_json(adapter).as_bytes())
}
