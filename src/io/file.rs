//! Writing files so that a failure leaves the old content in place.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Replaces the content of `path`: writes a file beside it, flushes that to the disk, and renames it. A full disk
/// or a crash leaves the old file as it was.
///
/// # Errors
/// [`Error::Io`].
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let beside = beside(path)?;
    let written = write_and_sync(&beside, content).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // The half-written file is of no use; that it could not be removed either would say nothing new.
        fs::remove_file(&beside).ok();
        Error::io(path, error)
    })
}

fn write_and_sync(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A name in the same folder, different for each process.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        Error::io(path, std::io::Error::new(std::io::ErrorKind::InvalidInput, "is not the name of a file"))
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.partial", std::process::id()));
    Ok(path.with_file_name(hidden))
}
