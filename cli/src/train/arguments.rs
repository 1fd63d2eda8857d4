//! The options of `refrain train` and what each may be.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use refrain::nn::Cell;

use crate::failure::{Failure, Result};
use crate::values::{cell, count, number, temperature, whole};

/// Options of `refrain train`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// UTF-8 text to learn from [default: 5,852 names of Italian towns, which ship with the program]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Part of the text, at its end, that is held out for validation
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1)]
    pub(crate) validation_fraction: f64,
    /// The most characters of the held-out part that a validation predicts
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = whole::<usize>)]
    pub(crate) validation_characters: usize,
    /// Validations, evenly spread; the last one comes after the last step
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<usize>)]
    pub(crate) validations: usize,

    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) optimization: Optimization,

    /// Where to compute: auto, cpu, reference, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: String,
    /// File for the trained model, written at every validation
    #[arg(long, value_name = "FILE", default_value = "refrain.safetensors")]
    pub(crate) checkpoint: PathBuf,
    /// File for the loss curve
    #[arg(long, value_name = "FILE.svg", default_value = "refrain.svg")]
    pub(crate) plot: PathBuf,
    /// Samples to print at the end
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<usize>)]
    pub(crate) samples: usize,
    /// Temperature of the samples: below 1 safer, above 1 wilder, 0 always the likeliest character
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    pub(crate) temperature: f64,
    /// Print one line of JSON for each step and each validation, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// The shape of the network.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Network")]
pub(crate) struct Network {
    /// Units in each recurrent layer
    #[arg(long, value_name = "N", default_value_t = 192, value_parser = whole::<usize>)]
    pub(crate) hidden: usize,
    /// Recurrent layers, one above the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>)]
    pub(crate) layers: usize,
    /// Features of a character's learned vector
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<usize>)]
    pub(crate) embedding: usize,
    /// One-hot vectors in place of learned ones
    #[arg(long, conflicts_with = "embedding")]
    pub(crate) one_hot: bool,
    /// Recurrent cell: lstm, gru, or a vanilla cell by its activation: tanh, relu, sigmoid, elu, ...
    #[arg(long, value_name = "NAME", default_value = "tanh", value_parser = cell)]
    pub(crate) cell: Cell,
    /// Part of the units between two recurrent layers that each training step drops; takes two layers or more
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) dropout: f32,
}

/// How the network is trained.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Optimization")]
pub(crate) struct Optimization {
    /// Optimizer steps [default: 1000; 200 with a window that slides, through which each goes back again and again]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) steps: Option<usize>,
    /// Time steps of the window that a step reads, and through which it back-propagates
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<usize>)]
    pub(crate) sequence: usize,
    /// Cut the gradient inside a window too. N: at every N-th time step; window:N: each step's own gradient N steps
    /// before it; 0: only where the window begins
    #[arg(long, value_name = "N|window:N", default_value = "0", value_parser = truncation)]
    pub(crate) truncation: Truncation,
    /// Sequences side by side [default: 32, or as many as a short text has room for]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) batch: Option<usize>,
    /// Update rule
    #[arg(long, value_enum, default_value_t = Rule::Adam)]
    pub(crate) optimizer: Rule,
    /// Step size [default: 0.003 for adam, 0.5 for sgd]
    #[arg(long, value_name = "RATE")]
    pub(crate) learning_rate: Option<f64>,
    /// How the step size changes over the steps
    #[arg(long, value_enum, default_value_t = Schedule::Cosine)]
    pub(crate) schedule: Schedule,
    /// Momentum of sgd [default: 0.9]
    #[arg(long, value_name = "FACTOR")]
    pub(crate) momentum: Option<f64>,
    /// Pull of the weights towards zero [default: 0.1 with adam, where it is decoupled; 0 with sgd, an L2 penalty]
    #[arg(long, value_name = "FACTOR")]
    pub(crate) weight_decay: Option<f64>,
    /// Largest norm of all gradients together
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    pub(crate) clip: f32,
    /// Do not clip the gradients
    #[arg(long, conflicts_with = "clip")]
    pub(crate) no_clip: bool,
    /// What first weights and samples are drawn from
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
}

/// Where gradients end inside a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truncation {
    /// Where the window begins.
    None,
    /// At every step of this number.
    Chunks(usize),
    /// The gradient of each step this number of steps before it.
    Window(usize),
}

/// An update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rule {
    /// Adam; with a weight decay, AdamW.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// The step size over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Schedule {
    /// The same all along.
    Constant,
    /// Down to a twentieth along half a cosine.
    Cosine,
}

impl Schedule {
    /// The factor of the step size at step `step` (from 0) of `steps`.
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
    /// The step size asked for, or the usual one of the rule.
    pub(crate) fn rate(&self) -> f64 {
        self.learning_rate.unwrap_or(match self.optimizer {
            Rule::Adam => 0.003,
            Rule::Sgd => 0.5,
        })
    }

    /// The weight decay asked for, or the usual one of the rule.
    pub(crate) fn decay(&self) -> f64 {
        self.weight_decay.unwrap_or(match self.optimizer {
            Rule::Adam => 0.1,
            Rule::Sgd => 0.0,
        })
    }

    /// The largest norm of the gradients, where there is one.
    pub(crate) fn largest_norm(&self) -> Option<f32> {
        (!self.no_clip).then_some(self.clip)
    }
}

impl Arguments {
    /// Refuses what makes no sense, before any work.
    ///
    /// # Errors
    /// [`refrain::Error::Config`] naming the option, what it may be and what it is.
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
            let message = "drops between layers, and there is 1: take `--layers 2` or more";
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
                Err(Failure::option("--momentum", "belongs to `--optimizer sgd`; adam has its own moments"))
            }
            Some(momentum) => {
                number("--momentum", momentum, (0.0..1.0).contains(&momentum), "at least 0 and below 1")
            }
            None => Ok(()),
        }
    }
}

impl Optimization {
    /// Optimizer steps.
    pub(crate) fn steps(&self) -> usize {
        self.steps.unwrap_or(match self.truncation {
            Truncation::Window(_) => 200,
            Truncation::None | Truncation::Chunks(_) => 1000,
        })
    }
}

impl Truncation {
    /// Refuses a truncation that a window is too short for: it would change nothing.
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(options: &[&str]) -> Arguments {
        let words = std::iter::once("train").chain(options.iter().copied());
        Alone::try_parse_from(words).expect("options that clap accepts").arguments
    }

    #[test]
    fn the_defaults_make_sense() {
        parse(&[]).validate().expect("defaults");
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
    fn dropout_takes_layers_to_drop_between() {
        let refused = parse(&["--dropout", "0.2"]).validate().expect_err("one layer").to_string();
        assert!(refused.contains("--layers 2"), "{refused}");
        assert!(parse(&["--dropout", "0.2", "--layers", "2"]).validate().is_ok());
    }

    #[test]
    fn the_cosine_falls_from_the_whole_rate_to_a_twentieth() {
        assert_eq!(Schedule::Cosine.factor(0, 10), 1.0);
        assert!((Schedule::Cosine.factor(5, 10) - 0.525).abs() < 1e-12);
        assert!((Schedule::Cosine.factor(10, 10) - 0.05).abs() < 1e-12);
        assert_eq!(Schedule::Constant.factor(9, 10), 1.0);
    }
}
