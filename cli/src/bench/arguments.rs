//! The options of `refrain bench` and what each may be.

use std::path::PathBuf;

use clap::Args;
use refrain::RecurrentStrategy;
use refrain::nn::Cell;

use super::measure::Effort;
use super::shape::{DeviceClass, Grid, Shape, Work};
use crate::destination::expect_different;
use crate::failure::Result;
use crate::values::{cell, count, whole};

/// Options of `refrain bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// What to time: auto, cpu, reference, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: String,

    #[command(flatten)]
    sizes: Sizes,

    /// Take sizes that are not given from the standard grid (tanh, gru and lstm; hidden 64 to 1024; batch 1 to 256; 64
    /// and 512 steps; 1 and 2 layers), and not from the few that suit the device
    #[arg(long, conflicts_with = "ops")]
    grid: bool,
    /// infer: forward alone; backward: forward and backward; train: those with a linear head, cross-entropy, clipping
    /// and Adam [default: all three]
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', conflicts_with = "ops")]
    work: Option<Vec<Work>>,
    /// Time single operations at these sizes: matrix products, recurrent steps, cross-entropy, Adam
    #[arg(long, conflicts_with_all = ["layers", "inputs"])]
    pub(crate) ops: bool,

    /// Take recurrent layers one way over time wherever they can go it, and not the way that the device would choose
    #[arg(long, value_enum, value_name = "WAY", conflicts_with = "ops")]
    pub(crate) recurrent: Option<Recurrent>,

    /// Runs of each, at least
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<usize>)]
    runs: usize,
    /// Seconds of runs of each, at least, unless 100 runs (or `--runs`, where that is more) are over before
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Print one line of JSON for each shape and work, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Time every kernel too, after each shape: prints a table, and writes a trace for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE", conflicts_with = "ops")]
    pub(crate) profile: Option<PathBuf>,
    /// RandomKey the milliseconds by the one size that has several values, on logarithmic axes, as SVG: a line for each cell and
    /// work, and beside it in grey what would be proportional
    #[arg(long, value_name = "FILE", conflicts_with = "ops")]
    pub(crate) plot: Option<PathBuf>,
}

/// How the time loop of recurrent layers runs on a GPU.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
pub(crate) enum Recurrent {
    /// One dispatch for each time step
    PerStep,
    /// Many steps in one dispatch, for small layers
    Sequence,
    /// Many steps in one dispatch whose workgroups keep the weights and wait for each other
    Persistent,
}

impl Recurrent {
    /// The library's name for it.
    pub(crate) fn strategy(self) -> RecurrentStrategy {
        match self {
            Self::PerStep => RecurrentStrategy::PerStep,
            Self::Sequence => RecurrentStrategy::Sequence,
            Self::Persistent => RecurrentStrategy::Persistent,
        }
    }
}

/// What a strategy is called on the command line and in what is printed.
pub(crate) fn strategy_name(strategy: RecurrentStrategy) -> &'static str {
    match strategy {
        RecurrentStrategy::Auto => "auto",
        RecurrentStrategy::PerStep => "per_step",
        RecurrentStrategy::Sequence => "sequence",
        RecurrentStrategy::Persistent => "persistent",
    }
}

/// Sizes to time or to tune for, each a list: all combinations of them are.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sizes, each one or more separated by commas")]
pub(crate) struct Sizes {
    /// Recurrent cell: lstm, gru, or a vanilla cell by its activation: tanh, relu, sigmoid, elu, ...
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = cell)]
    cell: Option<Vec<Cell>>,
    /// Units in each recurrent layer
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    hidden: Option<Vec<usize>>,
    /// Sequences side by side
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    batch: Option<Vec<usize>>,
    /// Time steps
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    sequence: Option<Vec<usize>>,
    /// Recurrent layers, one above the other
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    layers: Option<Vec<usize>>,
    /// Features of the input [default: as many as there are hidden units]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    inputs: Option<Vec<usize>>,
    /// Classes that the head of a training step tells apart
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "64", value_parser = whole::<usize>)]
    classes: Vec<usize>,
}

impl Sizes {
    /// Refuses what makes no sense, before any work.
    ///
    /// # Errors
    /// [`refrain::Error::Config`] naming the option, what it may be and what it is.
    pub(crate) fn validate(&self) -> Result<()> {
        const LARGEST: usize = 1 << 24;
        let Self { hidden, batch, sequence, layers, inputs, classes, .. } = self;
        let all = |option: &str, sizes: &Option<Vec<usize>>, largest: usize| {
            sizes.iter().flatten().try_for_each(|&size| count(option, size, 1, largest))
        };
        all("--hidden", hidden, LARGEST)?;
        all("--batch", batch, LARGEST)?;
        all("--sequence", sequence, LARGEST)?;
        all("--layers", layers, 1024)?;
        all("--inputs", inputs, LARGEST)?;
        classes.iter().try_for_each(|&size| count("--classes", size, 1, LARGEST))
    }

    /// All combinations of the sizes that were given, and of those of `base` where none were.
    pub(crate) fn shapes(&self, base: Grid) -> Vec<Shape> {
        let Self { cell, hidden, batch, sequence, layers, inputs, classes } = self.clone();
        Grid {
            cells: cell.unwrap_or(base.cells),
            hidden: hidden.unwrap_or(base.hidden),
            batch: batch.unwrap_or(base.batch),
            sequence: sequence.unwrap_or(base.sequence),
            layers: layers.unwrap_or(base.layers),
            inputs,
            classes,
        }
        .shapes()
    }
}

impl Arguments {
    /// Refuses what makes no sense, before any work.
    ///
    /// # Errors
    /// [`refrain::Error::Config`] naming the option, what it may be and what it is.
    pub(crate) fn validate(&self) -> Result<()> {
        self.sizes.validate()?;
        let files = [("--profile", &self.profile), ("--plot", &self.plot)];
        let files: Vec<_> =
            files.iter().filter_map(|(option, path)| path.as_deref().map(|path| (*option, path))).collect();
        expect_different(&files)?;
        self.effort().validate()
    }

    /// All combinations of the sizes that were given, and of those that suit a device of this tier where none were.
    pub(crate) fn shapes(&self, strategy: DeviceClass) -> Vec<Shape> {
        let base = if self.grid { Grid::standard() } else { Grid::of(strategy) };
        self.sizes.shapes(base)
    }

    /// The kinds of work asked for.
    pub(crate) fn work(&self) -> Vec<Work> {
        self.work.clone().unwrap_or_else(|| Work::ALL.to_vec())
    }

    /// How long each is timed.
    pub(crate) fn effort(&self) -> Effort {
        Effort { runs: self.runs, seconds: self.seconds }
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

    fn parse(words: &str) -> Arguments {
        Alone::try_parse_from(words.split(' ')).expect("options that clap accepts").arguments
    }

    #[test]
    fn the_standard_grid_is_all_of_its_sizes() {
        let shapes = parse("bench --grid").shapes(DeviceClass::Software);
        assert_eq!(shapes.len(), 3 * 5 * 4 * 2 * 2);
        assert!(shapes.iter().all(|shape| shape.inputs == shape.hidden && shape.classes == 64));
        let narrowed = parse("bench --grid --hidden 96 --cell lstm --layers 1").shapes(DeviceClass::Software);
        assert_eq!(narrowed.len(), 4 * 2);
    }

    #[test]
    fn lists_are_combined() {
        let arguments =
            parse("bench --cell tanh,gru --hidden 3,4 --batch 5 --sequence 6 --layers 1,2 --inputs 7");
        let shapes = arguments.shapes(DeviceClass::Hardware);
        assert_eq!(shapes.len(), 8);
        assert!(shapes.iter().all(|shape| (shape.batch, shape.sequence, shape.inputs) == (5, 6, 7)));
        assert_eq!(parse("bench --work train,infer").work(), [Work::Train, Work::Infer]);
        assert_eq!(parse("bench").work(), Work::ALL);
    }

    #[test]
    fn absurd_values_are_refused_by_the_name_of_their_option() {
        for (option, value) in [
            ("--hidden", "64,0"),
            ("--batch", "0"),
            ("--sequence", "16777217"),
            ("--layers", "1025"),
            ("--inputs", "0"),
            ("--classes", "0"),
            ("--runs", "0"),
            ("--seconds", "-1"),
            ("--seconds", "NaN"),
        ] {
            let refused = parse(&format!("bench {option}={value}")).validate().expect_err(option).to_string();
            assert!(refused.starts_with(option), "{option} {value}: {refused}");
        }
        parse("bench").validate().expect("defaults");
    }
}
