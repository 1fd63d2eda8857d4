//! The one error type of the crate: every message names the argument, what was expected and what was found.

use std::borrow::Cow;
use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, from a wrong shape to a lost device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No device answers the request; lists the ones that are there.
    #[error("no device matches `{}`; available: {}", short(wanted), short(&available.join(", ")))]
    NoAdapter {
        /// The request as it was given.
        wanted: String,
        /// What [`Device::list`](crate::Device::list) found, as text that would be accepted.
        available: Vec<String>,
    },
    /// A hardware GPU was asked for, and there is none. Software ones are opened by name or number only.
    #[error("no hardware GPU was found; there {}", besides_hardware(software))]
    NoHardware {
        /// The names of the software adapters.
        software: Vec<String>,
    },
    /// The GPU was reset, removed, or its driver gave up; everything on it is gone.
    #[error(
        "the GPU device was lost: {}; create the device again and reload the last checkpoint",
        short(reason)
    )]
    DeviceLost {
        /// The driver's words.
        reason: String,
    },
    /// Memory for `what` could not be had.
    #[error("out of memory: {} needs {bytes} bytes; use a smaller model, batch or sequence", short(what))]
    OutOfMemory {
        /// What was being allocated.
        what: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A rank, size or element count that does not fit.
    #[error("{}: expected {}, found {}", short(what), short(expected), short(found))]
    Shape {
        /// The argument.
        what: String,
        /// What would be right.
        expected: String,
        /// What came.
        found: String,
    },
    /// An argument lives on another device than the rest.
    #[error(
        "{} is on {found}, but {expected} is needed: create it there, or move a tensor with `to_device`",
        short(what)
    )]
    DeviceMismatch {
        /// The argument.
        what: String,
        /// The device of the other arguments.
        expected: String,
        /// The device the argument lives on.
        found: String,
    },
    /// Parameters of another model were given, or gradients, an optimizer or a learned state of other parameters.
    #[error(
        "{} belongs to another model or another `initialize` of it: a layer works on parameters of its own model; \
         gradients, optimizers and learned states on those parameters that they were created from",
        short(what)
    )]
    ModelMismatch {
        /// The argument.
        what: String,
    },
    /// A size above what the device can bind or address, even in pieces.
    #[error("{} needs {needed}, but this device's limit is {limit}", short(what))]
    ExceedsLimit {
        /// The thing that is too large.
        what: String,
        /// Its size.
        needed: u64,
        /// The device's limit in the same unit.
        limit: u64,
    },
    /// A token or class label outside its vocabulary.
    #[error("{}: index {index} is out of range, it must be below {bound}", short(what))]
    Index {
        /// The argument.
        what: String,
        /// The largest offending index.
        index: u64,
        /// The first index that is not allowed.
        bound: u64,
    },
    /// A parameter to set, load or save, or a result, is NaN, infinite or too large for the device's floats.
    #[error(
        "{} is not finite: where training led to it, go back to the last checkpoint, lower the learning rate or clip \
         the gradients",
        short(what)
    )]
    NonFinite {
        /// The quantity, with its value and place where they are known.
        what: String,
    },
    /// A hyperparameter or option that makes no sense.
    #[error("{}: {}", short(what), short(message))]
    Config {
        /// The option.
        what: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Something that makes sense, but that this crate does not compute.
    #[error("{}: {}", short(what), short(message))]
    Unsupported {
        /// What asks for it.
        what: String,
        /// What is missing, and what there is instead.
        message: String,
    },
    /// WGSL of a user's own that does not compile, or could ask for more than a cell's equations need.
    #[error("{}: its WGSL is refused: {}", short(what), short(message))]
    Shader {
        /// What the WGSL belongs to.
        what: String,
        /// What is wrong; lines are those of the user's own text.
        message: String,
    },
    /// A checkpoint, a case file or a file of measured choices that cannot be understood.
    #[error("{}: {}", path.display(), short(message))]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The operating system refused a file operation; the previous content of the file is intact.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The GPU driver or `wgpu` reported an error that is none of the above: a defect worth reporting.
    #[error("the GPU reported an error: {}", short(message))]
    Gpu {
        /// Its words.
        message: String,
    },
    /// This crate asked for something that it must not ask for: a defect worth reporting. Nothing was computed.
    #[error("a defect of refrain, please report it: {message}")]
    Internal {
        /// What was asked for.
        message: String,
    },
}

/// What there is where a hardware GPU was asked for.
fn besides_hardware(software: &[String]) -> String {
    let names: Vec<String> = software.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "is `cpu`: the system has no Vulkan, Metal or DirectX 12 driver that shows a GPU".to_owned(),
        [name] => format!("are `cpu` and, by a part of its name, the software GPU {name}"),
        names => format!("are `cpu` and, by a part of their names, the software GPUs {}", names.join(", ")),
    }
}

/// The most characters of one part of a message; a name, a text or a list that the user gave may be of any length.
const LONGEST: usize = 2000;
/// How many of them are from the end.
const END: usize = 500;

/// `text` as a message quotes it: cut in the middle where it is longer than [`LONGEST`].
pub(crate) fn short(text: &str) -> Cow<'_, str> {
    // A character has at least one byte.
    let count = if text.len() <= LONGEST { 0 } else { text.chars().count() };
    if count <= LONGEST {
        return text.into();
    }
    let begin: String = text.chars().take(LONGEST - END).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{begin} [... {} characters left out ...] {end}", count - LONGEST).into()
}

impl Error {
    pub(crate) fn shape(
        what: impl Into<String>,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Shape { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(crate) fn config(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { what: what.into(), message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into() }
    }

    /// Fails with [`Error::Internal`] unless `condition` holds.
    pub(crate) fn expect(condition: bool, message: impl FnOnce() -> String) -> Result<()> {
        if condition { Ok(()) } else { Err(Self::internal(message())) }
    }

    /// The same error, whose subject is said to be of `layer`; one that names a layer already, or has no subject, stays.
    pub(crate) fn in_layer(mut self, layer: &str) -> Self {
        if let Self::Shape { what, .. }
        | Self::OutOfMemory { what, .. }
        | Self::DeviceMismatch { what, .. }
        | Self::ModelMismatch { what }
        | Self::ExceedsLimit { what, .. }
        | Self::Index { what, .. }
        | Self::NonFinite { what }
        | Self::Config { what, .. }
        | Self::Unsupported { what, .. } = &mut self
            && !what.starts_with("layer `")
        {
            *what = format!("layer `{layer}`: {what}");
        }
        self
    }

    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn checkpoint(path: &std::path::Path, message: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.to_owned(), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_whatever_they_quote() {
        let long = "ü".repeat(9_000_000);
        let path = PathBuf::from("model.safetensors");
        for error in [
            Error::NoAdapter { wanted: long.clone(), available: vec![long.clone(); 2] },
            Error::DeviceLost { reason: long.clone() },
            Error::OutOfMemory { what: long.clone(), bytes: 1 },
            Error::shape(long.clone(), &long, &long),
            Error::DeviceMismatch { what: long.clone(), expected: "cpu".into(), found: "gpu".into() },
            Error::ModelMismatch { what: long.clone() },
            Error::ExceedsLimit { what: long.clone(), needed: 2, limit: 1 },
            Error::Index { what: long.clone(), index: 2, bound: 1 },
            Error::NonFinite { what: long.clone() },
            Error::config(long.clone(), long.clone()),
            Error::Unsupported { what: long.clone(), message: long.clone() },
            Error::Shader { what: long.clone(), message: long.clone() },
            Error::checkpoint(&path, long.clone()),
            Error::Gpu { message: long.clone() },
        ] {
            let message = error.to_string();
            assert!(message.contains("characters left out"), "{}", &message[..200]);
            assert!(message.chars().count() < 3 * LONGEST + 400, "{} characters", message.chars().count());
        }
        let all = "x".repeat(LONGEST);
        assert_eq!(short(&all), all);
    }
}
