//! The options of `refrain tune` and their valid values.

use clap::Args;

use crate::bench::arguments::Sizes;
use crate::bench::measure::Effort;
use crate::bench::shape::{DeviceClass, Grid, Shape};
use crate::failure::Result;
use crate::values::whole;

/// Options of `refrain tune`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Device to tune: auto, gpu, gpu:N or a part of an adapter's name; see `refrain devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: String,

    #[command(flatten)]
    sizes: Sizes,

    /// Minimum number of alternating runs of the fastest implementation and the heuristics' choice
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<usize>)]
    runs: usize,
    /// Minimum seconds per comparison; 100 runs (or `--runs`, if larger) end it earlier
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    seconds: f64,
    /// Print only JSON, one line for each comparison and one for the result
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure and print, but store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Arguments {
    /// Rejects invalid options before any work.
    pub(crate) fn validate(&self) -> Result<()> {
        self.sizes.validate()?;
        self.effort().validate()
    }

    /// All combinations of the given sizes; sizes that were not given suit this class of devices.
    pub(crate) fn shapes(&self, strategy: DeviceClass) -> Vec<Shape> {
        self.sizes.shapes(Grid::of(strategy))
    }

    /// The length of a comparison.
    pub(crate) fn effort(&self) -> Effort {
        Effort { runs: self.runs, seconds: self.seconds }
    }
}
