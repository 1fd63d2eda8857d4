//! The location of stored choices: one file per adapter, driver and version of this crate.

use std::env;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::Tuning;
use super::file::StoredAdapter;
use crate::file::read_file;
use crate::gpu::adapters::AdapterSummary;
use crate::{Error, Result};

/// The environment variable that makes devices use stored choices: `on` or `1` for those in `refrain/tuning` in the
/// platform's cache folder, or the path of another folder. If it is not set, devices use no stored choices, and `refrain
/// tune` stores them in the former folder; with `off` or `0` nothing is stored either.
pub const TUNING_VARIABLE: &str = "REFRAIN_TUNING";

/// The largest file that is read, in bytes: a thousand times what `refrain tune` writes.
const MOST_BYTES: u64 = 16 << 20;

/// The parsed value of the variable.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Off,
    Platform,
    Folder(PathBuf),
}

impl Wish {
    fn of(value: Option<OsString>) -> Self {
        let Some(value) = value else { return Self::Nothing };
        match value.to_str().map(str::trim) {
            Some("") => Self::Nothing,
            Some("0" | "off") => Self::Off,
            Some("1" | "on") => Self::Platform,
            _ => Self::Folder(value.into()),
        }
    }

    fn here() -> Self {
        Self::of(env::var_os(TUNING_VARIABLE))
    }
}

impl Tuning {
    /// Whether [`TUNING_VARIABLE`] makes devices use stored choices.
    pub fn is_asked_for() -> bool {
        matches!(Wish::here(), Wish::Platform | Wish::Folder(_))
    }

    /// The path of the file for choices measured on `adapter` by this version of the crate; it need not exist. `None` if
    /// [`TUNING_VARIABLE`] is `0` or the platform has no cache folder.
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
        let folder = folder(Wish::here(), platform)?;
        Some(folder.join(StoredAdapter::of(adapter).file_name()))
    }

    /// Loads the choices stored for `adapter`, its driver and this version of the crate; `None` if there are none.
    ///
    /// # Errors
    /// As [`Tuning::load`], if the file exists.
    pub fn stored(adapter: &AdapterSummary) -> Result<Option<Self>> {
        let Some(path) = Self::stored_path(adapter) else { return Ok(None) };
        match Self::load(&path, adapter) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    /// Loads the choices from a file written by [`save_tuning`](crate::io::save_tuning).
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] for a file that is not a tuning file, belongs to another version, adapter or
    /// driver, or contains choices that are not allowed.
    pub fn load(path: &Path, adapter: &AdapterSummary) -> Result<Self> {
        let text = read_file(path, MOST_BYTES)?;
        Self::parse(&text, &StoredAdapter::of(adapter)).map_err(|message| {
            let advice = format!("run `refrain tune` again, remove the file, or set {TUNING_VARIABLE}=0");
            Error::checkpoint(path, format!("{message}; {advice}"))
        })
    }
}

/// The folder of stored choices.
fn folder(wish: Wish, platform: impl FnOnce() -> Option<PathBuf>) -> Option<PathBuf> {
    match wish {
        Wish::Off => None,
        Wish::Folder(path) => Some(path),
        Wish::Nothing | Wish::Platform => platform(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_choices_are_obeyed_only_where_the_variable_asks_for_them() {
        let wish = |value: &str| Wish::of(Some(value.into()));
        assert_eq!([Wish::of(None), wish(""), wish(" ")], [Wish::Nothing, Wish::Nothing, Wish::Nothing]);
        assert_eq!([wish("0"), wish("off")], [Wish::Off, Wish::Off]);
        assert_eq!([wish("1"), wish("on")], [Wish::Platform, Wish::Platform]);
        assert_eq!(wish("/some/where"), Wish::Folder("/some/where".into()));
        assert_eq!(wish("./on"), Wish::Folder("./on".into()));
    }

    #[test]
    fn choices_have_a_folder_unless_they_are_off() {
        let folder = |wish| folder(wish, || Some("platform".into()));
        assert_eq!(folder(Wish::Off), None);
        assert_eq!(folder(Wish::Nothing), Some("platform".into()));
        assert_eq!(folder(Wish::Platform), Some("platform".into()));
        assert_eq!(folder(Wish::Folder("/some/where".into())), Some("/some/where".into()));
        assert_eq!(super::folder(Wish::Platform, || None), None);
    }
}
