//! The output of `refrain train`: lines and a progress bar, or JSON.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use refrain::Device;
use refrain::nn::Cell;
use serde::Serialize;

use super::arguments::{Arguments, Rule, Schedule, Truncation};
use crate::baseline::Baselines;
use crate::devices;
use crate::failure::Result;
use crate::format::{bytes, grouped, json};
use crate::memory::Footprint;
use crate::terminal::{stderr, stdout};
use crate::text::{Corpus, Unit};

/// The properties of a run before its first step.
pub(super) struct Overview<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) corpus: &'a Corpus,
    pub(super) device: &'a Device,
    pub(super) footprint: &'a Footprint,
    pub(super) batch: usize,
}

/// The output of one training run.
pub(super) struct Report {
    audience: Audience,
    baselines: Baselines,
    /// Bits per character of the last validation.
    latest: Option<f64>,
}

enum Audience {
    People { bar: ProgressBar, started: Instant, tokens_per_step: usize },
    Programs,
}

/// A line of JSON for a step.
#[derive(Serialize)]
struct StepLine {
    step: usize,
    loss: f32,
}

/// A line of JSON for a validation.
#[derive(Serialize)]
struct ValidationLine {
    step: usize,
    validation_bits_per_character: f64,
    unigram: f64,
    bigram: f64,
}

impl Report {
    /// Prints a description of the run.
    pub(super) fn begin(overview: &Overview<'_>, baselines: Baselines) -> Result<Self> {
        let Corpus { source, changes, .. } = overview.corpus;
        if !changes.is_empty() {
            writeln!(stderr(), "{source}: {changes}")?;
        }
        if overview.arguments.json {
            return Ok(Self { audience: Audience::Programs, baselines, latest: None });
        }
        describe(overview)?;
        let optimization = &overview.arguments.optimization;
        let bar = ProgressBar::new(optimization.steps() as u64);
        let template = "{bar:30} {pos}/{len} steps, {msg}, {eta} left";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message("... bits");
        let tokens_per_step = overview.batch * optimization.sequence;
        let audience = Audience::People { bar, started: Instant::now(), tokens_per_step };
        Ok(Self { audience, baselines, latest: None })
    }

    /// Reports a step with a loss of `loss` nats.
    pub(super) fn step(&self, step: usize, loss: f32) -> Result<()> {
        match &self.audience {
            Audience::Programs => line(&StepLine { step, loss }),
            Audience::People { bar, started, tokens_per_step } => {
                let rate = (step * tokens_per_step) as f64 / started.elapsed().as_secs_f64().max(1e-9);
                let bits = f64::from(loss) / std::f64::consts::LN_2;
                bar.set_message(format!("{bits:.3} bits per character, {} tokens/s", grouped(rate as u64)));
                bar.set_position(step as u64);
                Ok(())
            }
        }
    }

    /// Reports a validation.
    pub(super) fn validation(&mut self, step: usize, bits: f64) -> Result<()> {
        self.latest = Some(bits);
        let Baselines { unigram, bigram } = self.baselines;
        match &self.audience {
            Audience::Programs => {
                line(&ValidationLine { step, validation_bits_per_character: bits, unigram, bigram })
            }
            Audience::People { bar, .. } => {
                let text = format!(
                    "step {step}: {bits:.3} bits per character held out (unigram {unigram:.3}, bigram {bigram:.3})"
                );
                Ok(bar.suspend(|| writeln!(stdout(), "{text}"))?)
            }
        }
    }

    /// Removes the progress bar.
    pub(super) fn stop(&self) {
        if let Audience::People { bar, .. } = &self.audience {
            bar.finish_and_clear();
        }
    }

    /// Prints the result and the paths of the files.
    pub(super) fn finish(&self, arguments: &Arguments) -> Result<()> {
        self.stop();
        let Audience::People { started, tokens_per_step, .. } = &self.audience else { return Ok(()) };
        let elapsed = started.elapsed();
        let tokens = arguments.optimization.steps() * tokens_per_step;
        let mut out = stdout();
        writeln!(out, "time        {}", pace(elapsed, tokens))?;
        if let Some(bits) = self.latest {
            writeln!(out, "result      {}", verdict(bits, self.baselines))?;
        }
        writeln!(out, "checkpoint  {}", arguments.checkpoint.display())?;
        writeln!(out, "loss curve  {}", arguments.plot.display())?;
        if arguments.samples > 0 {
            writeln!(out, "samples at temperature {}:", arguments.temperature)?;
        }
        Ok(())
    }

    /// Prints one sample; samples of running text are set apart.
    pub(super) fn sample(&self, text: &str, unit: Unit) -> Result<()> {
        for row in text.trim_end_matches('\n').split('\n') {
            writeln!(stdout(), "  {row}")?;
        }
        if unit == Unit::Window {
            writeln!(stdout())?;
        }
        Ok(())
    }
}

fn line(content: &impl Serialize) -> Result<()> {
    Ok(writeln!(stdout(), "{}", json(content)?)?)
}

fn describe(overview: &Overview<'_>) -> Result<()> {
    let Overview { arguments, corpus, device, footprint, batch } = overview;
    let mut out = stdout();
    writeln!(out, "device      {}", devices::describe(device))?;
    writeln!(
        out,
        "text        {}: {} characters for training, {} for validation, {} distinct",
        corpus.source,
        grouped(corpus.training.len() as u64),
        grouped(corpus.held_out.len() as u64 - 1),
        corpus.vocabulary.len(),
    )?;
    writeln!(
        out,
        "model       {}: {} parameters, {}; {} in training",
        network(arguments, corpus.vocabulary.len()),
        grouped(footprint.parameters),
        bytes(footprint.parameters.saturating_mul(4)),
        bytes(footprint.bytes),
    )?;
    writeln!(out, "training    {}", training(arguments, *batch))?;
    Ok(())
}

fn network(arguments: &Arguments, vocabulary: usize) -> String {
    let network = &arguments.network;
    let input = match network.one_hot {
        true => format!("one-hot {vocabulary}"),
        false => format!("embedding {vocabulary} x {}", network.embedding),
    };
    let stack = match network.layers {
        1 => String::new(),
        layers => format!("{layers} x "),
    };
    let (hidden, cell) = (network.hidden, network.cell.name());
    let recurrent = match network.cell {
        Cell::Vanilla(_) => format!("rnn {hidden} ({cell})"),
        _ => format!("{cell} {hidden}"),
    };
    let dropout = match network.dropout {
        0.0 => String::new(),
        rate => format!(", dropout {rate} between layers"),
    };
    format!("{input}, {stack}{recurrent}{dropout}, linear {vocabulary}")
}

fn training(arguments: &Arguments, batch: usize) -> String {
    let options = &arguments.optimization;
    let rule = match options.optimizer {
        Rule::Adam => "adam",
        Rule::Sgd => "sgd",
    };
    let schedule = match options.schedule {
        Schedule::Constant => "constant",
        Schedule::Cosine => "cosine",
    };
    let clip = match options.largest_norm() {
        Some(norm) => format!("gradients clipped to {norm}"),
        None => "gradients not clipped".to_owned(),
    };
    let truncation = match options.truncation {
        Truncation::None => String::new(),
        Truncation::Chunks(steps) => format!(" truncated at every {steps}"),
        Truncation::Window(steps) => format!(" truncated {steps} before each"),
    };
    let (steps, sequence, rate, seed) = (options.steps(), options.sequence, options.rate(), options.seed);
    format!(
        "{steps} steps of {batch} x {sequence} characters{truncation}, {rule} {rate} ({schedule}), {clip}, seed {seed}"
    )
}

fn pace(elapsed: Duration, tokens: usize) -> String {
    let seconds = elapsed.as_secs_f64();
    format!(
        "{seconds:.1} s, {} tokens/s, validation included",
        grouped((tokens as f64 / seconds.max(1e-9)) as u64)
    )
}

fn verdict(bits: f64, baselines: Baselines) -> String {
    let Baselines { unigram, bigram } = baselines;
    let place = if bits < bigram {
        "better than both baselines"
    } else if bits < unigram {
        "better than unigram, not yet than bigram: train longer, or use a larger model"
    } else {
        "worse than both baselines: train longer, or lower the learning rate"
    };
    format!(
        "{bits:.3} bits per character, {place} (unigram {unigram:.3}, bigram {bigram:.3}, Witten-Bell smoothing)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_the_baselines() {
        let baselines = Baselines { unigram: 4.0, bigram: 3.0 };
        assert!(verdict(2.5, baselines).contains("better than both"));
        assert!(verdict(3.5, baselines).contains("not yet than bigram"));
        assert!(verdict(5.0, baselines).contains("lower the learning rate"));
    }
}
