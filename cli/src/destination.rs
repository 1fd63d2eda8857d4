//! Checks output files before a long run.

use std::fs;
use std::path::{Path, PathBuf};

use refrain::io::expect_replaceable;

use crate::failure::{Failure, Result};

/// Fails unless `path` can be replaced by a file of `bytes` bytes; tests it by writing such a file beside it.
///
/// # Errors
/// [`Error::Config`](refrain::Error::Config) with the option: for a folder that does not exist or is not writable, a full
/// disk, and a `path` that is not a regular file.
pub(crate) fn expect_writable(option: &str, path: &Path, bytes: u64) -> Result<()> {
    expect_replaceable(path, bytes).map_err(|error| Failure::option(option, error.to_string()))
}

/// Fails if the path has the extension of another image format than SVG.
pub(crate) fn expect_svg(option: &str, path: &Path) -> Result<()> {
    match path.extension() {
        Some(extension) if !extension.eq_ignore_ascii_case("svg") => {
            let message = format!("plots are SVG; name it `{}`", path.with_extension("svg").display());
            Err(Failure::option(option, message))
        }
        _ => Ok(()),
    }
}

/// Fails if two of the paths name the same file.
pub(crate) fn expect_different(paths: &[(&str, &Path)]) -> Result<()> {
    for (place, (option, path)) in paths.iter().enumerate() {
        if let Some((other, _)) = paths[..place].iter().find(|(_, other)| resolve(other) == resolve(path)) {
            let message = format!("`{}` is also {other}; one would overwrite the other", path.display());
            return Err(Failure::option(option, message));
        }
    }
    Ok(())
}

/// The path without links and dots, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let beside = || Some(fs::canonicalize(folder).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(beside).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_not_named_after_another_format() {
        let refused = expect_svg("--plot", Path::new("curve.png")).expect_err("a PNG").to_string();
        assert!(refused.contains("--plot") && refused.contains("curve.svg"), "{refused}");
        for name in ["curve.svg", "curve.SVG", "curve"] {
            expect_svg("--plot", Path::new(name)).expect("an SVG");
        }
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("refrain-destination-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        expect_writable("--plot", &folder.join("curve.svg"), 1000).expect("a writable folder");
        assert_eq!(fs::read_dir(&folder).expect("the folder is there").count(), 0);
        assert!(expect_writable("--plot", &folder.join("missing/curve.svg"), 1).is_err());
        assert!(expect_writable("--plot", &folder, 1).is_err());
        fs::remove_dir(&folder).expect("the folder is empty");
    }
}
