//! Where measured choices are kept between runs: a file for each adapter, driver and version of this crate.

use std::env;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::Tuning;
use super::file::Origin;
use crate::file::read_file;
use crate::gpu::AdapterSummary;
use crate::{Error, Result};

/// The environment variable that says where stored choices are: `0` for nowhere, or a folder; without it they are in
/// `refrain/tuning` in the platform's folder for caches.
pub const TUNING_VARIABLE: &str = "REFRAIN_TUNING";

/// The most bytes of a file: a thousand times what `refrain tune` writes.
const MOST_BYTES: u64 = 16 << 20;

impl Tuning {
    /// The file for choices measured on `adapter` by this version of the crate, whether it is there or not; `None` where
    /// [`TUNING_VARIABLE`] is `0` or the platform has no folder for caches.
    pub fn stored_path(adapter: &AdapterSummary) -> Option<PathBuf> {
        let platform = || {
            Some(
                etcetera::base_strategy::choose_native_strategy()
                    .ok()?
                    .cache_dir()
                    .join("refrain")
                    .join("tuning"),
            )
        };
        let folder = folder(env::var_os(TUNING_VARIABLE), platform)?;
        Some(folder.join(Origin::of(adapter).file_name()))
    }

    /// The choices stored for `adapter`, its driver and this version of the crate; `None` where none are.
    ///
    /// # Errors
    /// As [`Tuning::load`], for a file that is there.
    pub fn stored(adapter: &AdapterSummary) -> Result<Option<Self>> {
        match Self::stored_path(adapter) {
            Some(path) => Self::load_if_there(&path, adapter),
            None => Ok(None),
        }
    }

    /// The choices that a file of [`save_tuning`](crate::io::save_tuning) holds.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] for a file that is not one of these, or of another version, adapter or driver,
    /// or names what cannot be chosen.
    pub fn load(path: &Path, adapter: &AdapterSummary) -> Result<Self> {
        let text = read_file(path, MOST_BYTES)?;
        Self::parse(&text, &Origin::of(adapter)).map_err(|message| {
            let advice = format!("run `refrain tune` again, remove the file, or set {TUNING_VARIABLE}=0");
            Error::checkpoint(path, format!("{message}; {advice}"))
        })
    }

    fn load_if_there(path: &Path, adapter: &AdapterSummary) -> Result<Option<Self>> {
        match Self::load(path, adapter) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            loaded => loaded.map(Some),
        }
    }
}

/// The folder that the variable's value asks for.
fn folder(asked: Option<OsString>, platform: impl FnOnce() -> Option<PathBuf>) -> Option<PathBuf> {
    match asked {
        Some(asked) if asked == "0" => None,
        Some(asked) if !asked.is_empty() => Some(PathBuf::from(asked)),
        Some(_) | None => platform(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_turns_stored_choices_off_or_names_their_folder() {
        let asked = |value: Option<&str>| folder(value.map(OsString::from), || Some("platform".into()));
        assert_eq!(asked(Some("0")), None);
        assert_eq!(asked(Some("/some/where")), Some("/some/where".into()));
        assert_eq!(asked(Some("")), Some("platform".into()));
        assert_eq!(asked(None), Some("platform".into()));
        assert_eq!(folder(None, || None), None);
    }
}
