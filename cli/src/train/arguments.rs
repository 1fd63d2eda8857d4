//! The options of `refrain train` and their valid values.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use refrain::nn::Cell;

use crate::failure::{Failure, Result};
use crate::values::{cell, count, number, temperature, whole};

/// Options of `refrain train`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// UTF-8 text to train on [default: 5,852 names of Italian towns, included in the program]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Fraction of the text, at its end, that is held out for validation
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1)]
    pub(crate) validation_fraction: f64,
    /// Maximum number of held-out characters that a validation predicts
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = whole::<usize>)]
    pub(crate) validation_characters: usize,
    /// Number of validations, evenly distributed; the last one follows the last step
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<usize>)]
    pub(crate) validations: usize,

    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) optimization: Optimization,

    /// Device: auto, cpu, reference, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: String,
    /// File for the trained model, written after every validation
    #[arg(long, value_name = "FILE", default_value = "refrain.safetensors")]
    pub(crate) checkpoint: PathBuf,
    /// File for the loss curve
    #[arg(long, value_name = "FILE.svg", default_value = "refrain.svg")]
    pub(crate) plot: PathBuf,
    /// Number of samples to print at the end
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<usize>)]
    pub(crate) samples: usize,
    /// Sampling temperature: lower is more conservative, 0 always selects the most likely character
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    pub(crate) temperature: f64,
    /// Print only JSON, one line for each step and each validation
    #[arg(long)]
    pub(crate) json: bool,
}

/// The shape of the network.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Network")]
pub(crate) struct Network {
    /// Hidden units of each recurrent layer
    #[arg(long, value_name = "N", default_value_t = 192, value_parser = whole::<usize>)]
    pub(crate) hidden: usize,
    /// Number of recurrent layers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>)]
    pub(crate) layers: usize,
    /// Features of the character embedding
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<usize>)]
    pub(crate) embedding: usize,
    /// Use one-hot vectors instead of an embedding
    #[arg(long, conflicts_with = "embedding")]
    pub(crate) one_hot: bool,
    /// Recurrent cell: lstm, gru, or a vanilla cell by its activation: tanh, relu, sigmoid, elu, ...
    #[arg(long, value_name = "NAME", default_value = "tanh", value_parser = cell)]
    pub(crate) cell: &'static Cell,
    /// Dropout rate between recurrent layers in training; needs at least two layers
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) dropout: f32,
}

/// How the network is trained.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Optimization")]
pub(crate) struct Optimization {
    /// Optimizer steps [default: 1000; 200 with a sliding window, whose backward pass costs more]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) steps: Option<usize>,
    /// Time steps per optimizer step, through which gradients are back-propagated
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<usize>)]
    pub(crate) sequence: usize,
    /// Truncate gradients within a sequence. N: at every N-th time step; window:N: the gradient of each step N steps
    /// before it; 0: only at the start of the sequence
    #[arg(long, value_name = "N|window:N", default_value = "0", value_parser = truncation)]
    pub(crate) truncation: Truncation,
    /// Batch size [default: 32, or less for a short text]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) batch: Option<usize>,
    /// Optimizer
    #[arg(long, value_enum, default_value_t = Rule::Adam)]
    pub(crate) optimizer: Rule,
    /// Learning rate [default: 0.003 for adam, 0.5 for sgd]
    #[arg(long, value_name = "RATE")]
    pub(crate) learning_rate: Option<f64>,
    /// Schedule of the learning rate
    #[arg(long, value_enum, default_value_t = Schedule::Cosine)]
    pub(crate) schedule: Schedule,
    /// Momentum of sgd [default: 0.9]
    #[arg(long, value_name = "FACTOR")]
    pub(crate) momentum: Option<f64>,
    /// Weight decay [default: 0.1 with adam, decoupled; 0 with sgd, as an L2 penalty]
    #[arg(long, value_name = "FACTOR")]
    pub(crate) weight_decay: Option<f64>,
    /// Maximum norm of all gradients together
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    pub(crate) clip: f32,
    /// Do not clip the gradients
    #[arg(long, conflicts_with = "clip")]
    pub(crate) no_clip: bool,
    /// Random seed of initial weights and samples
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
}

/// The truncation of gradients within a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truncation {
    /// Only at the start of the sequence.
    None,
    /// At every step whose index is a multiple of this number.
    Chunks(usize),
    /// The gradient of each step goes back this number of steps.
    Window(usize),
}

/// An optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rule {
    /// Adam; AdamW with a weight decay.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// The schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Schedule {
    /// Constant.
    Constant,
    /// Decreases to a twentieth along half a cosine.
    Cosine,
}

impl Schedule {
    /// The factor of the learning rate at step `step` (from 0) of `steps`.
    pub(crate) fn factor(self, step: usize, steps: usize) -> f64 {
        const LAST: f64 = 0.05;
        match self {
            Self::Constant => 1.0,
            Self::Cosine => {
                let angle = std::f64::consts::PI * step as f64 / steps as f64;
                LAST + (1.0 - LAST) * 0.5 * (1.0 + angle.cos())
            }
        }
    }
}

impl Optimization {
    /// The given learning rate, or the optimizer's default.
    pub(crate) fn rate(&self) -> f64 {
        self.learning_rate.unwrap_or(match self.optimizer {
            Rule::Adam => 0.003,
            Rule::Sgd => 0.5,
        })
    }

    /// The given weight decay, or the optimizer's default.
    pub(crate) fn decay(&self) -> f64 {
        self.weight_decay.unwrap_or(match self.optimizer {
            Rule::Adam => 0.1,
            Rule::Sgd => 0.0,
        })
    }

    /// The maximum norm of the gradients, if they are clipped.
    pub(crate) fn largest_norm(&self) -> Option<f32> {
        (!self.no_clip).then_some(self.clip)
    }
}

impl Arguments {
    /// Rejects invalid options before any work.
    pub(crate) fn validate(&self) -> Result<()> {
        const LARGEST: usize = 1 << 24;
        let Self { network, optimization, .. } = self;
        count("--steps", optimization.steps(), 1, usize::MAX)?;
        count("--sequence", optimization.sequence, 1, LARGEST)?;
        optimization.truncation.validate(optimization.sequence)?;
        count("--batch", optimization.batch.unwrap_or(1), 1, LARGEST)?;
        count("--hidden", network.hidden, 1, LARGEST)?;
        count("--layers", network.layers, 1, 1024)?;
        let dropout = f64::from(network.dropout);
        number("--dropout", dropout, (0.0..1.0).contains(&dropout), "at least 0 and below 1")?;
        if dropout > 0.0 && network.layers == 1 {
            let message = "applies between layers, but there is 1: use `--layers 2` or more";
            return Err(Failure::option("--dropout", message));
        }
        count("--embedding", network.embedding, 1, LARGEST)?;
        count("--validations", self.validations, 1, usize::MAX)?;
        count("--validation-characters", self.validation_characters, 1, usize::MAX)?;
        count("--samples", self.samples, 0, 1000)?;
        let rate = optimization.rate();
        number("--learning-rate", rate, rate > 0.0 && rate <= 100.0, "above 0 and at most 100")?;
        let clip = f64::from(optimization.clip);
        number("--clip", clip, clip > 0.0 && clip.is_finite(), "above 0; `--no-clip` turns clipping off")?;
        let decay = optimization.decay();
        number("--weight-decay", decay, (0.0..=1.0).contains(&decay), "between 0 and 1")?;
        let fraction = self.validation_fraction;
        let sensible = fraction > 0.0 && fraction <= 0.5;
        number("--validation-fraction", fraction, sensible, "above 0 and at most 0.5")?;
        temperature(self.temperature)?;
        match optimization.momentum {
            Some(_) if optimization.optimizer == Rule::Adam => {
                Err(Failure::option("--momentum", "applies to `--optimizer sgd`; adam has its own moments"))
            }
            Some(momentum) => {
                number("--momentum", momentum, (0.0..1.0).contains(&momentum), "at least 0 and below 1")
            }
            None => Ok(()),
        }
    }
}

impl Optimization {
    /// The number of optimizer steps.
    pub(crate) fn steps(&self) -> usize {
        self.steps.unwrap_or(match self.truncation {
            Truncation::Window(_) => 200,
            Truncation::None | Truncation::Chunks(_) => 1000,
        })
    }
}

impl Truncation {
    /// Rejects a truncation longer than the sequence, which would have no effect.
    fn validate(self, sequence: usize) -> Result<()> {
        let message = match self {
            Self::Chunks(steps) if steps > sequence => {
                format!("must be at most the {sequence} steps of `--sequence`, not {steps}")
            }
            Self::Window(steps) if steps >= sequence => {
                format!("window:{steps} must be below the {sequence} steps of `--sequence`")
            }
            _ => return Ok(()),
        };
        Err(Failure::option("--truncation", message))
    }
}

fn truncation(text: &str) -> std::result::Result<Truncation, String> {
    let steps = |text: &str| text.parse().map_err(|_| "is neither a number nor window:NUMBER".to_owned());
    match text.strip_prefix("window:") {
        Some(before) => Ok(Truncation::Window(steps(before)?)),
        None => Ok(match steps(text)? {
            0 => Truncation::None,
            chunk => Truncation::Chunks(chunk),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::parsed;

    fn parse(options: &[&str]) -> Arguments {
        parsed(&[&["train"], options].concat().join(" "))
    }

    #[test]
    fn absurd_values_are_refused_by_the_name_of_their_option() {
        for (option, value) in [
            ("--steps", "0"),
            ("--sequence", "0"),
            ("--batch", "0"),
            ("--truncation", "33"),
            ("--truncation", "window:32"),
            ("--dropout", "1"),
            ("--dropout", "-0.1"),
            ("--dropout", "nan"),
            ("--hidden", "0"),
            ("--layers", "0"),
            ("--layers", "100000"),
            ("--embedding", "0"),
            ("--validations", "0"),
            ("--learning-rate", "0"),
            ("--learning-rate", "1e9"),
            ("--learning-rate", "nan"),
            ("--clip", "0"),
            ("--clip", "inf"),
            ("--weight-decay", "2"),
            ("--validation-fraction", "0"),
            ("--validation-fraction", "1"),
            ("--temperature", "nan"),
            ("--momentum", "0.9"),
        ] {
            let refused = parse(&[&format!("{option}={value}")]).validate().expect_err(option).to_string();
            assert!(refused.starts_with(option), "{option} {value}: {refused}");
        }
        assert!(parse(&["--optimizer", "sgd", "--momentum", "1"]).validate().is_err());
        assert!(parse(&["--optimizer", "sgd", "--momentum", "0.5"]).validate().is_ok());
    }

    #[test]
    fn a_truncation_is_none_or_by_chunks_or_by_a_window() {
        assert_eq!(parse(&[]).optimization.steps(), 1000);
        assert_eq!(parse(&["--truncation", "window:4"]).optimization.steps(), 200);
        assert_eq!(parse(&["--truncation", "window:4", "--steps", "7"]).optimization.steps(), 7);
        assert_eq!(parse(&[]).optimization.truncation, Truncation::None);
        assert_eq!(truncation("0"), Ok(Truncation::None));
        assert_eq!(truncation("8"), Ok(Truncation::Chunks(8)));
        assert_eq!(truncation("window:16"), Ok(Truncation::Window(16)));
        for text in ["", "window", "window:", "window:x", "chunk:3", "-1"] {
            assert!(truncation(text).is_err(), "{text}");
        }
        assert!(parse(&["--truncation", "window:31"]).validate().is_ok());
    }

    #[test]
    fn the_cosine_falls_from_the_whole_rate_to_a_twentieth() {
        assert_eq!(Schedule::Cosine.factor(0, 10), 1.0);
        assert!((Schedule::Cosine.factor(5, 10) - 0.525).abs() < 1e-12);
        assert!((Schedule::Cosine.factor(10, 10) - 0.05).abs() < 1e-12);
        assert_eq!(Schedule::Constant.factor(9, 10), 1.0);
    }
}
