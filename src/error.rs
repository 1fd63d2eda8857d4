//! The error type of the crate. Every message names the argument, what was expected and what was found.

use std::borrow::Cow;
use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this crate, from a wrong shape to a lost device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No device matches the request; lists the available ones.
    #[error("no device matches `{}`; available: {}", short(wanted), short(&available.join(", ")))]
    NoAdapter {
        /// The requested name.
        wanted: String,
        /// The names of the devices that [`Device::list`](crate::Device::list) found.
        available: Vec<String>,
    },
    /// A hardware GPU was requested, but there is none. Software GPUs are only opened by name or number.
    #[error("no hardware GPU was found; there {}", besides_hardware(software))]
    NoHardware {
        /// The names of the software adapters.
        software: Vec<String>,
    },
    /// The GPU was reset or removed, or its driver failed; its memory is lost.
    #[error(
        "the GPU device was lost: {}; create the device again and load the last checkpoint",
        short(reason)
    )]
    DeviceLost {
        /// The driver's message.
        reason: String,
    },
    /// Memory for `what` could not be allocated.
    #[error("out of memory: {} needs {bytes} bytes; use a smaller model, batch or sequence", short(what))]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// The size in bytes.
        bytes: u64,
    },
    /// A wrong rank, size or number of elements.
    #[error("{}: expected {}, found {}", short(what), short(expected), short(found))]
    Shape {
        /// The argument.
        what: String,
        /// The expected shape.
        expected: String,
        /// The actual shape.
        found: String,
    },
    /// An argument is on another device than the other arguments.
    #[error(
        "{} is on {found}, but must be on {expected}: create it there, or copy the tensor with `to_device`",
        short(what)
    )]
    DeviceMismatch {
        /// The argument.
        what: String,
        /// The device of the other arguments.
        expected: String,
        /// The device of this argument.
        found: String,
    },
    /// Parameters of another model, or gradients, an optimizer or a learned state that belong to other parameters.
    #[error(
        "{} belongs to another model or to another `initialize` of it: a layer needs the parameters of its own model; \
         gradients, optimizers and learned states need the parameters that they were created from",
        short(what)
    )]
    ModelMismatch {
        /// The argument.
        what: String,
    },
    /// A size that exceeds what the device can bind or address, even in pieces.
    #[error("{} needs {needed}, but this device's limit is {limit}", short(what))]
    ExceedsLimit {
        /// What is too large.
        what: String,
        /// Its size.
        needed: u64,
        /// The device's limit, in the same unit.
        limit: u64,
    },
    /// A token or class label that is out of range.
    #[error("{}: index {index} is out of range, it must be below {bound}", short(what))]
    Index {
        /// The argument.
        what: String,
        /// The largest index that is out of range.
        index: u64,
        /// The first index that is out of range.
        bound: u64,
    },
    /// A parameter to set, load or save, or a result, is NaN, infinite or out of range for the device's floats.
    #[error(
        "{} is not finite: if training caused it, return to the last checkpoint, lower the learning rate or clip \
         the gradients",
        short(what)
    )]
    NonFinite {
        /// The quantity, with its value and position if they are known.
        what: String,
    },
    /// An invalid hyperparameter or option.
    #[error("{}: {}", short(what), short(message))]
    Config {
        /// The option.
        what: String,
        /// What is wrong, and which values are valid.
        message: String,
    },
    /// A valid request that this crate does not implement.
    #[error("{}: {}", short(what), short(message))]
    Unsupported {
        /// What was requested.
        what: String,
        /// What is not supported, and the alternatives.
        message: String,
    },
    /// WGSL of a user-defined cell that does not compile, or that uses more than a cell's equations may.
    #[error("{}: its WGSL is rejected: {}", short(what), short(message))]
    Shader {
        /// What the WGSL belongs to.
        what: String,
        /// What is wrong; line numbers refer to the user's text.
        message: String,
    },
    /// A file describes a model with a custom cell, of which it contains the name only, and the program did not pass the cell.
    #[error(
        "the model has a custom cell `{}`, of which a file contains the name only: pass the cell to \
         `Checkpoint::load_with` or `ModelConfig::with_cells`",
        short(name)
    )]
    MissingCell {
        /// The name of the cell.
        name: String,
    },
    /// An invalid checkpoint, case file or tuning file.
    #[error("{}: {}", path.display(), short(message))]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A file operation failed; existing content is unchanged.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Any other error of the GPU driver or `wgpu`: please report it.
    #[error("the GPU reported an error: {}", short(message))]
    Gpu {
        /// The message of the driver or `wgpu`.
        message: String,
    },
    /// An internal error of this crate: please report it. Nothing was computed.
    #[error("internal error of refrain, please report it: {message}")]
    Internal {
        /// What went wrong.
        message: String,
    },
}

/// The list of devices other than hardware GPUs.
fn besides_hardware(software: &[String]) -> String {
    let names: Vec<String> = software.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "is `cpu`: the system has no Vulkan, Metal or DirectX 12 driver for a GPU".to_owned(),
        [name] => format!("are `cpu` and, by a part of its name, the software GPU {name}"),
        names => format!("are `cpu` and, by a part of their names, the software GPUs {}", names.join(", ")),
    }
}

/// The most characters of one part of a message; names, texts and lists passed by the user have any length.
const LONGEST: usize = 2000;
/// How many of those characters are taken from the end.
const END: usize = 500;

/// Shortens `text` for a message: cuts its middle if it is longer than [`LONGEST`].
pub(crate) fn short(text: &str) -> Cow<'_, str> {
    // A character has at least one byte, so a short text need not be counted.
    let count = if text.len() <= LONGEST { 0 } else { text.chars().count() };
    if count <= LONGEST {
        return text.into();
    }
    let begin: String = text.chars().take(LONGEST - END).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{begin} [... {} characters omitted ...] {end}", count - LONGEST).into()
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

    /// Adds `layer` to the error's subject, unless the error has no subject or it already names a layer.
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
            assert!(message.contains("characters omitted"), "{}", &message[..200]);
            assert!(message.chars().count() < 3 * LONGEST + 400, "{} characters", message.chars().count());
        }
        let all = "x".repeat(LONGEST);
        assert_eq!(short(&all), all);
    }
}
