//! `refrain train`: trains a character model on a text.

pub(crate) mod arguments;
mod learner;
mod report;

use refrain::data::{Window, Windows};
use refrain::io::{Checkpoint, Metadata, write_atomically};
use refrain::{Device, Error};

use self::arguments::{Arguments, Network, Rule};
use self::learner::{Learner, Measured, covering_windows};
use self::report::{Overview, Report};
use crate::baseline::Baselines;
use crate::bench::shape::{Shape, Work};
use crate::destination::{expect_different, expect_svg, expect_writable};
use crate::devices;
use crate::failure::{Failure, Result};
use crate::generate::{Manner, Writer};
use crate::memory::Footprint;
use crate::plot::{Curve, draw};
use crate::text::{Corpus, Unit};

/// The default batch size, if the text is long enough.
const BATCH: usize = 32;
/// The number of steps between two reads of the losses; each read waits for the device.
const LOOK_EVERY: usize = 10;
/// The length of a sample of running text in characters.
const WINDOW: usize = 300;
/// The most characters of a sample of a list.
const LONGEST_LINE: usize = 80;

/// The metadata key of the vocabulary: the characters in the order of their tokens.
pub(crate) const VOCABULARY_KEY: &str = "vocabulary";

/// Trains a model and writes the checkpoint and the plot.
///
/// # Errors
/// Before the first step: invalid options, text or files, an unavailable device, too little memory. During training: a
/// non-finite loss, a file that cannot be written, a lost device.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.validate()?;
    expect_different_files(arguments)?;
    let fraction = arguments.validation_fraction;
    let corpus = Corpus::read(arguments.text.as_deref(), fraction, arguments.validation_characters)?;
    let sequence = arguments.optimization.sequence;
    let room = (corpus.training.len() - 1) / sequence;
    let batch = arguments.optimization.batch.unwrap_or(room.clamp(1, BATCH));
    corpus.expect_window(batch, sequence)?;
    let windows = Windows::new(corpus.training.clone(), batch, sequence)?;
    let device = devices::open(&arguments.device)?;
    let footprint = footprint(arguments, corpus.vocabulary.len(), batch);
    footprint.expect_fits(&device)?;
    expect_files(arguments, &footprint)?;
    let vocabulary = corpus.vocabulary.len();
    let learner = Learner::new(&arguments.network, &arguments.optimization, vocabulary, &device)?;
    let baselines = Baselines::of(&corpus.training, &corpus.held_out, vocabulary);
    let overview = Overview { arguments, corpus: &corpus, device: &device, footprint: &footprint, batch };
    let report = Report::begin(&overview, baselines)?;
    let held_out = covering_windows(&corpus.held_out, batch, sequence);
    let curve = Curve { training: Vec::new(), validation: Vec::new(), baselines };
    let mut training = Training { arguments, corpus: &corpus, learner, report, curve, kept: None };
    training.learn(&windows, &held_out)?;
    training.finish(&device)
}

/// The memory of a run with these options, vocabulary and batch size.
fn footprint(arguments: &Arguments, vocabulary: usize, batch: usize) -> Footprint {
    let Network { hidden, layers, embedding, one_hot, cell, .. } = arguments.network;
    let (table, inputs) = match one_hot {
        true => (0, vocabulary),
        false => (vocabulary as u128 * embedding as u128, embedding),
    };
    let sequence = arguments.optimization.sequence;
    let shape = Shape { cell, inputs, hidden, batch, sequence, layers, classes: vocabulary };
    // Weights, gradients and the optimizer's moments.
    let copies = match arguments.optimization.optimizer {
        Rule::Adam => 4,
        Rule::Sgd => 3,
    };
    shape.footprint_of(Work::Train, table + shape.parameters(Work::Train), copies)
}

/// Fails if two output files have the same path.
fn expect_different_files(arguments: &Arguments) -> Result<()> {
    let mut paths = vec![("--checkpoint", arguments.checkpoint.as_path()), ("--plot", &arguments.plot)];
    paths.extend(arguments.text.as_deref().map(|text| ("--text", text)));
    expect_different(&paths)
}

/// Fails if an output file cannot be written.
fn expect_files(arguments: &Arguments, footprint: &Footprint) -> Result<()> {
    // An upper bound for the description of the model and for the plot.
    const DESCRIPTION: u64 = 1 << 16;
    let checkpoint = footprint.parameters.saturating_mul(4).saturating_add(DESCRIPTION);
    expect_writable("--checkpoint", &arguments.checkpoint, checkpoint)?;
    expect_svg("--plot", &arguments.plot)?;
    expect_writable("--plot", &arguments.plot, 4 * DESCRIPTION)
}

/// The state of a training run.
struct Training<'a> {
    arguments: &'a Arguments,
    corpus: &'a Corpus,
    learner: Learner,
    report: Report,
    curve: Curve,
    /// The step at which the checkpoint was saved.
    kept: Option<usize>,
}

impl Training<'_> {
    /// Runs all steps and validations.
    fn learn(&mut self, windows: &Windows, held_out: &[Window]) -> Result<()> {
        let options = &self.arguments.optimization;
        let look_every = if self.arguments.json { 1 } else { LOOK_EVERY };
        let mut unread = Vec::new();
        for step in 1..=options.steps() {
            let rate = options.rate() * options.schedule.factor(step - 1, options.steps());
            unread.push(self.learner.step(&windows.window(step - 1), rate)?);
            let validates = validates(step, options.steps(), self.arguments.validations);
            if validates || step % look_every == 0 {
                self.read_losses(step + 1 - unread.len(), &mut unread)?;
            }
            if validates {
                self.validate(step, held_out)?;
            }
        }
        Ok(())
    }

    /// Reads the losses of the steps from `first` on. **Waits** for the device.
    fn read_losses(&mut self, first: usize, unread: &mut Vec<Measured>) -> Result<()> {
        for (step, measured) in (first..).zip(unread.drain(..)) {
            let loss = measured.loss.read()?;
            let norm = measured.norm.read()?;
            self.expect_sound("the loss", loss.into(), step)?;
            self.curve.training.push(loss);
            self.report.step(step, loss)?;
            if !norm.is_finite() {
                return Err(self.diverged("the norm of the gradients is not finite".to_owned(), step));
            }
        }
        Ok(())
    }

    /// Evaluates the held-out part and saves the checkpoint.
    fn validate(&mut self, step: usize, held_out: &[Window]) -> Result<()> {
        let bits = self.learner.validate(held_out)?;
        self.expect_sound("the validation loss", bits * std::f64::consts::LN_2, step)?;
        self.curve.validation.push((step, bits));
        self.report.validation(step, bits)?;
        let path = &self.arguments.checkpoint;
        Checkpoint::save(path, &self.learner.model, &self.learner.parameters, &self.metadata(step, bits))?;
        self.kept = Some(step);
        Ok(())
    }

    fn metadata(&self, step: usize, bits: f64) -> Metadata {
        let unit = match self.corpus.unit {
            Unit::Line => "line",
            Unit::Window => "window",
        };
        let entries = [
            (VOCABULARY_KEY, self.corpus.vocabulary.characters()),
            ("text", self.corpus.source.clone()),
            ("unit", unit.to_owned()),
            ("step", step.to_string()),
            ("steps", self.arguments.optimization.steps().to_string()),
            ("validation_bits_per_character", bits.to_string()),
        ];
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Fails for a loss that is not finite or far too large.
    fn expect_sound(&self, what: &str, nats: f64, step: usize) -> Result<()> {
        /// The allowed loss, as a multiple of the loss of uniform guessing.
        const EXPLODED: f64 = 1000.0;
        let guessing = (self.corpus.vocabulary.len().max(2) as f64).ln();
        if !nats.is_finite() {
            Err(self.diverged(format!("{what} is not finite"), step))
        } else if nats > EXPLODED * guessing {
            Err(self
                .diverged(format!("{what} has exploded to {nats:.1e} (guessing has {guessing:.1})"), step))
        } else {
            Ok(())
        }
    }

    fn diverged(&self, symptom: String, step: usize) -> Failure {
        self.report.stop();
        let kept = self.kept.map(|step| (self.arguments.checkpoint.clone(), step));
        Failure::Diverged { symptom, step, rate: self.arguments.optimization.rate(), kept }
    }

    /// Writes the plot and, unless the output is JSON, prints samples.
    fn finish(&mut self, device: &Device) -> Result<()> {
        let title = format!("{} on {device}", self.corpus.source);
        let svg =
            draw(&self.curve, &title).map_err(|message| Error::Config { what: "--plot".into(), message })?;
        write_atomically(&self.arguments.plot, svg.as_bytes())?;
        self.report.finish(self.arguments)?;
        if self.arguments.json {
            return Ok(());
        }
        for index in 0..self.arguments.samples as u64 {
            self.report.sample(&self.sample(index)?, self.corpus.unit)?;
        }
        Ok(())
    }

    fn sample(&self, index: u64) -> Result<String> {
        let (length, stop) = match self.corpus.unit {
            Unit::Line => (LONGEST_LINE, Some('\n')),
            Unit::Window => (WINDOW, None),
        };
        let Arguments { temperature, ref optimization, .. } = *self.arguments;
        let manner = Manner { temperature, length, stop, seed: optimization.seed };
        let Learner { model, parameters, .. } = &self.learner;
        Writer { model, parameters, vocabulary: &self.corpus.vocabulary }.continue_from("", &manner, index)
    }
}

/// Whether one of `validations` validations, evenly distributed over `steps` steps, follows `step`.
fn validates(step: usize, steps: usize, validations: usize) -> bool {
    let before = |step: usize| step as u128 * validations as u128 / steps as u128;
    before(step) > before(step - 1)
}

#[cfg(test)]
mod tests {
    use refrain::nn::{Cell, Embedding, Linear, Model, Rnn};

    use super::*;
    use crate::values::parsed;

    fn footprint_of(options: &str) -> Footprint {
        footprint(&parsed(options), 11, 2)
    }

    #[test]
    fn the_estimate_counts_exactly_the_parameters_that_the_model_has() {
        for cell in [Cell::tanh(), Cell::Lstm, Cell::Gru] {
            let options = format!("train --hidden 7 --embedding 5 --layers 3 --cell {}", cell.name());
            let mut model = Model::new(0);
            model.add("characters", Embedding::new(11, 5)).unwrap();
            model.add("rnn", Rnn::new(cell.clone(), 5, 7).layers(3)).unwrap();
            model.add("head", Linear::new(7, 11)).unwrap();
            let count = model.initialize(&Device::cpu()).unwrap().count();
            let estimate = footprint_of(&options);
            assert_eq!(estimate.parameters, count as u64, "{options}");
            assert!(estimate.bytes > 16 * estimate.parameters, "{options}");
        }
    }

    #[test]
    fn sizes_beyond_all_memory_are_refused_and_do_not_overflow() {
        let huge = footprint_of("train --hidden 16777216 --layers 1024 --sequence 16777216");
        assert!(huge.expect_fits(&Device::cpu()).is_err());
        assert!(footprint_of("train").expect_fits(&Device::cpu()).is_ok());
    }

    #[test]
    fn validations_are_evenly_spread_and_end_with_the_last_step() {
        let at = |steps, validations| -> Vec<usize> {
            (1..=steps).filter(|&step| validates(step, steps, validations)).collect()
        };
        assert_eq!(at(10, 5), [2, 4, 6, 8, 10]);
        assert_eq!(at(7, 2), [4, 7]);
        assert_eq!(at(3, 1), [3]);
        assert_eq!(at(3, 100), [1, 2, 3]);
    }
}
