//! The options of `refrain tune` and what each may be.

use clap::Args;

use crate::bench::arguments::Sizes;
use crate::bench::measure::Effort;
use crate::bench::shape::{DeviceClass, Grid, Shape};
use crate::failure::Result;
use crate::values::whole;

/// Options of `refrain tune`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// What to measure: auto, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: String,

    #[command(flatten)]
    sizes: Sizes,

    /// Runs of the best way and of the heuristic's, in turns, at least
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<usize>)]
    runs: usize,
    /// Seconds of runs of each comparison, at least, unless 100 runs (or `--runs`, where that is more) are over before
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    seconds: f64,
    /// Print one line of JSON for each comparison and one for the outcome, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure and print, and store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Arguments {
    /// Refuses what makes no sense, before any work.
    ///
    /// # Errors
    /// [`refrain::Error::Config`] naming the option, what it may be and what it is.
    pub(crate) fn validate(&self) -> Result<()> {
        self.sizes.validate()?;
        self.effort().validate()
    }

    /// All combinations of the sizes that were given, and of those that suit a device of this tier where none were.
    pub(crate) fn shapes(&self, strategy: DeviceClass) -> Vec<Shape> {
        self.sizes.shapes(Grid::of(strategy))
    }

    /// How long a comparison takes.
    pub(crate) fn effort(&self) -> Effort {
        Effort { runs: self.runs, seconds: self.seconds }
    }
}
