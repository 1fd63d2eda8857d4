//! Errors of the program and their messages.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// `Result` with [`Failure`].
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library, or an invalid option.
    Refused(refrain::Error),
    /// Work to be timed has wrong results.
    Wrong {
        /// The work.
        what: String,
        /// Its deviation from the reference.
        deviation: String,
    },
    /// Standard output could not be written.
    Output(io::Error),
    /// Training diverged.
    Diverged {
        /// Which number is wrong, and how.
        symptom: String,
        /// The optimizer step, from 1.
        step: usize,
        /// The requested learning rate.
        rate: f64,
        /// The checkpoint of this run, with the step at which it was saved.
        kept: Option<(PathBuf, usize)>,
    },
}

impl Failure {
    /// The error of an invalid option.
    pub(crate) fn option(name: &str, message: impl Into<String>) -> Self {
        Self::Refused(refrain::Error::Config { what: name.to_owned(), message: message.into() })
    }

    /// Whether standard output was closed by its reader, which is not reported as an error.
    pub(crate) fn reader_is_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<refrain::Error> for Failure {
    fn from(error: refrain::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    /// The message with its causes, except a cause whose text the message already contains.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut message, mut cause) = match self {
            Self::Refused(error) => (error.to_string(), error.source()),
            Self::Wrong { what, deviation } => {
                (format!("{what} is not timed, because it is wrong: {deviation}"), None)
            }
            Self::Output(error) => (format!("standard output: {error}"), error.source()),
            Self::Diverged { symptom, step, rate, kept } => {
                let kept = match kept {
                    Some((path, step)) => format!("{} contains the model of step {step}", path.display()),
                    None => "this run has not written a checkpoint yet".to_owned(),
                };
                let advice = format!("lower --learning-rate (it was {rate}) or --clip the gradients more");
                (format!("{symptom} at step {step}: {advice}; {kept}"), None)
            }
        };
        while let Some(error) = cause {
            let words = error.to_string();
            if !message.contains(&words) {
                message = format!("{message}: {words}");
            }
            cause = error.source();
        }
        formatter.write_str(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_message_has_already_is_not_repeated() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let failure = Failure::from(refrain::Error::Io { path: "a.txt".into(), source });
        assert_eq!(failure.to_string(), "a.txt: no such file");
    }

    #[test]
    fn divergence_is_told_with_step_advice_and_checkpoint() {
        let kept = Some((PathBuf::from("model.safetensors"), 40));
        let failure = Failure::Diverged { symptom: "the loss is NaN".into(), step: 43, rate: 5.0, kept };
        let message = failure.to_string();
        for part in
            ["the loss is NaN at step 43", "it was 5", "model.safetensors contains the model of step 40"]
        {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn only_a_broken_pipe_means_that_the_reader_is_gone() {
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).reader_is_gone());
        assert!(!Failure::from(io::Error::from(io::ErrorKind::StorageFull)).reader_is_gone());
        assert!(!Failure::option("--steps", "must be at least 1").reader_is_gone());
    }
}
