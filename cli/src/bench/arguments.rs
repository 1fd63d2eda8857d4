//! The options of `refrain bench` and their valid values.

use std::path::PathBuf;

use clap::Args;
use refrain::nn::Cell;
use refrain::tuning::RecurrentStrategy;

use super::measure::Effort;
use super::shape::{DeviceClass, Grid, Shape, Work};
use crate::destination::expect_different;
use crate::failure::Result;
use crate::values::{cell, count, whole};

/// Options of `refrain bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Device to time: auto, cpu, reference, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: String,

    #[command(flatten)]
    sizes: Sizes,

    /// Use the standard grid for sizes that are not set (tanh, gru and lstm; hidden 64 to 1024; batch 1 to 256; 64
    /// and 512 steps; 1 and 2 layers) instead of a few that suit the device
    #[arg(long, conflicts_with = "ops")]
    grid: bool,
    /// infer: forward only; backward: forward and backward; train: backward with a linear head, cross-entropy, clipping
    /// and Adam [default: all three]
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', conflicts_with = "ops")]
    work: Option<Vec<Work>>,
    /// Time single operations at these sizes: matrix products, recurrent steps, cross-entropy, Adam
    #[arg(long, conflicts_with_all = ["layers", "inputs"])]
    pub(crate) ops: bool,

    /// Strategy of recurrent layers where they support it, instead of the device's choice
    #[arg(long, value_enum, value_name = "STRATEGY", conflicts_with = "ops")]
    pub(crate) recurrent: Option<Recurrent>,

    /// Minimum number of runs per measurement
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<usize>)]
    runs: usize,
    /// Minimum seconds per measurement; 100 runs (or `--runs`, if larger) end it earlier
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Print only JSON, one line for each shape and work
    #[arg(long)]
    pub(crate) json: bool,
    /// Also time every kernel: prints a table per shape, and writes a trace for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE", conflicts_with = "ops")]
    pub(crate) profile: Option<PathBuf>,
    /// Plot the milliseconds against the one size that has several values, on logarithmic axes, as SVG: one line per cell
    /// and work, with proportional growth in grey
    #[arg(long, value_name = "FILE", conflicts_with = "ops")]
    pub(crate) plot: Option<PathBuf>,
}

/// The strategy of recurrent layers on a GPU.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
pub(crate) enum Recurrent {
    /// One dispatch per time step
    PerStep,
    /// Many steps per dispatch, for small layers
    Sequence,
    /// Many steps per dispatch; workgroups keep the weights and wait for each other
    Persistent,
}

impl Recurrent {
    /// The library's type for it.
    pub(crate) fn strategy(self) -> RecurrentStrategy {
        match self {
            Self::PerStep => RecurrentStrategy::PerStep,
            Self::Sequence => RecurrentStrategy::Sequence,
            Self::Persistent => RecurrentStrategy::Persistent,
        }
    }
}

/// The name of a strategy on the command line and in the output.
pub(crate) fn strategy_name(strategy: RecurrentStrategy) -> &'static str {
    match strategy {
        RecurrentStrategy::Auto => "auto",
        RecurrentStrategy::PerStep => "per_step",
        RecurrentStrategy::Sequence => "sequence",
        RecurrentStrategy::Persistent => "persistent",
    }
}

/// Lists of sizes to time or to tune for; all combinations are used.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sizes (comma-separated lists)")]
pub(crate) struct Sizes {
    /// Recurrent cell: lstm, gru, or a vanilla cell by its activation: tanh, relu, sigmoid, elu, ...
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = cell)]
    cell: Option<Vec<&'static Cell>>,
    /// Hidden units of each recurrent layer
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    hidden: Option<Vec<usize>>,
    /// Batch size
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    batch: Option<Vec<usize>>,
    /// Time steps
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    sequence: Option<Vec<usize>>,
    /// Number of recurrent layers
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    layers: Option<Vec<usize>>,
    /// Input features [default: the number of hidden units]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = whole::<usize>)]
    inputs: Option<Vec<usize>>,
    /// Classes of the head in a training step
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "64", value_parser = whole::<usize>)]
    classes: Vec<usize>,
}

impl Sizes {
    /// Rejects invalid options before any work.
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

    /// All combinations of the given sizes; sizes that were not given are those of `base`.
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
    /// Rejects invalid options before any work.
    pub(crate) fn validate(&self) -> Result<()> {
        self.sizes.validate()?;
        let files = [("--profile", &self.profile), ("--plot", &self.plot)];
        let files: Vec<_> =
            files.iter().filter_map(|(option, path)| path.as_deref().map(|path| (*option, path))).collect();
        expect_different(&files)?;
        self.effort().validate()
    }

    /// All combinations of the given sizes; sizes that were not given suit this class of devices.
    pub(crate) fn shapes(&self, strategy: DeviceClass) -> Vec<Shape> {
        let base = if self.grid { Grid::standard() } else { Grid::of(strategy) };
        self.sizes.shapes(base)
    }

    /// The requested kinds of work.
    pub(crate) fn work(&self) -> Vec<Work> {
        self.work.clone().unwrap_or_else(|| Work::ALL.to_vec())
    }

    /// How long each measurement takes.
    pub(crate) fn effort(&self) -> Effort {
        Effort { runs: self.runs, seconds: self.seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::parsed;

    fn parse(words: &str) -> Arguments {
        parsed(words)
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
