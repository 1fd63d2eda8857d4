//! `refrain tune`: measures the implementations that a GPU can use for training steps of some shapes, and stores those
//! that are clearly faster than the heuristics' choices.

pub(crate) mod arguments;
mod contest;
mod report;

use std::collections::BTreeMap;

use refrain::io::save_tuning;
use refrain::nn::Cell;
use refrain::ops::ProductTrial;
use refrain::tuning::{
    Journal, MatmulVariant, ProductShape, RecurrentShape, RecurrentStrategy, TUNING_VARIABLE, Tuning,
    TuningSource,
};
use refrain::{AdapterSummary, Device, GpuOptions};

use self::arguments::Arguments;
use self::contest::contest;
use self::report::{Line, Report, Summary};
use crate::bench::arguments::strategy_name;
use crate::bench::check::{expect_close, expect_right, kinds};
use crate::bench::measure::Effort;
use crate::bench::operations::{Pass, steps};
use crate::bench::report::Place;
use crate::bench::shape::{Shape, Work};
use crate::bench::unless_too_large;
use crate::bench::work::Setting;
use crate::devices;
use crate::failure::{Failure, Result};
use crate::terminal::stderr;

/// The number of training steps whose losses are compared before choices are stored.
const LOSSES: usize = 3;
/// The minimum number of runs when a training step that seemed slower with the choices is measured again.
const LOOK_AGAIN: usize = 10;

/// Measures, prints and stores choices.
///
/// # Errors
/// Invalid options; the CPU; a device that does not exist; work with wrong results; choices that make a training step
/// clearly slower, which are not stored; a file that cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.validate()?;
    let bench = Bench::open(&arguments.device, arguments.effort())?;
    let destination = match arguments.dry_run {
        true => None,
        false => Some(Tuning::stored_path(bench.adapter()?).ok_or_else(|| {
            let message = format!(
                "choices cannot be stored with {TUNING_VARIABLE}=0 or on a platform without a cache folder: set \
                 {TUNING_VARIABLE} to a folder, or use --dry-run"
            );
            Failure::option("tune", message)
        })?),
    };
    let asked = bench.asked(&arguments.shapes(bench.place.strategy))?;
    let report = Report::begin(&bench.place, arguments.json)?;
    let mut measured = Measured::default();
    for choice in asked.products.products() {
        bench.product(&report, choice, &mut measured)?;
    }
    for (&shape, layer) in &asked.layers {
        bench.layer(&report, shape, layer, &mut measured)?;
    }
    if !measured.chosen.is_empty() {
        for &shape in &asked.shapes {
            bench.training_step(&report, shape, &measured.chosen)?;
        }
    }
    let mut summary =
        Summary { chosen: measured.chosen.len(), compared: measured.compared(), stored: None, choices: None };
    if let Some(path) = destination {
        let tuning = measured.merged(stored(bench.adapter()?)?)?;
        save_tuning(&path, &tuning, bench.adapter()?)?;
        summary.choices = Some(tuning.len());
        summary.stored = Some(path.display().to_string());
    }
    report.end(&summary)
}

/// The choices stored so far; none, with a warning, if the file cannot be used.
fn stored(adapter: &AdapterSummary) -> Result<Tuning> {
    match Tuning::stored(adapter) {
        Ok(stored) => Ok(stored.unwrap_or_default()),
        Err(error) => {
            writeln!(stderr(), "replaced: {error}")?;
            Ok(Tuning::new())
        }
    }
}

/// The devices on which work is compared: one adapter, opened with different options.
struct Bench {
    name: String,
    place: Place,
    effort: Effort,
    /// Heuristics only.
    plain: Device,
    /// With each strategy of [`Bench::STRATEGIES`]; these devices record their choices.
    strategies: Vec<(RecurrentStrategy, Device)>,
}

/// The operations of training steps at the requested shapes.
struct Asked {
    /// The shapes that fit the device.
    shapes: Vec<Shape>,
    /// The products, with the heuristics' choices.
    products: Tuning,
    layers: BTreeMap<RecurrentShape, Layer>,
}

/// A recurrent layer of the requested shapes.
struct Layer {
    cell: &'static Cell,
    /// The heuristics' choice.
    heuristic: RecurrentStrategy,
    /// The largest number of steps that it runs over.
    steps: usize,
}

/// The measured choices.
#[derive(Default)]
struct Measured {
    chosen: Tuning,
    products: Vec<ProductShape>,
    layers: Vec<RecurrentShape>,
}

impl Measured {
    fn compared(&self) -> usize {
        self.products.len() + self.layers.len()
    }

    /// `stored`, updated with the new measurements.
    fn merged(&self, mut stored: Tuning) -> Result<Tuning> {
        self.products.iter().for_each(|&shape| stored.forget_product(shape));
        self.layers.iter().for_each(|&shape| stored.forget_recurrent(shape));
        for (shape, variant) in self.chosen.products() {
            stored.set_product(shape, variant)?;
        }
        for (shape, strategy) in self.chosen.recurrent_layers() {
            stored.set_recurrent(shape, strategy)?;
        }
        Ok(stored)
    }
}

impl Bench {
    const STRATEGIES: [RecurrentStrategy; 3] =
        [RecurrentStrategy::PerStep, RecurrentStrategy::Sequence, RecurrentStrategy::Persistent];

    fn open(name: &str, effort: Effort) -> Result<Self> {
        let name = devices::wish(name);
        if matches!(name.to_lowercase().as_str(), "cpu" | "reference") {
            let message = format!(
                "{name} has one implementation of each operation, so there is nothing to tune: name a GPU by gpu, \
                 gpu:N or a part of its name"
            );
            return Err(Failure::option("--device", message));
        }
        let open = |recurrent, journal| {
            let tuning = TuningSource::Off;
            Device::gpu_with(&name, &GpuOptions { recurrent, journal, tuning, ..GpuOptions::default() })
        };
        let plain = open(RecurrentStrategy::Auto, Journal::Off)?;
        let strategies =
            Self::STRATEGIES.into_iter().map(|strategy| Ok((strategy, open(strategy, Journal::Choices)?)));
        let strategies = strategies.collect::<Result<_>>()?;
        // These devices use no stored choices.
        let place = Place { tuning: None, ..Place::of(&plain) };
        Ok(Self { place, strategies, plain, effort, name })
    }

    /// Whether the device, by its own choice, uses persistent kernels.
    fn lets_workgroups_wait(&self) -> bool {
        self.plain.persistent_report().is_some_and(|report| report.trusted)
    }

    fn adapter(&self) -> Result<&AdapterSummary> {
        self.plain.adapter().ok_or_else(|| Failure::option("--device", "is not a GPU"))
    }

    /// Runs a training step of each shape on a device that records its choices.
    fn asked(&self, shapes: &[Shape]) -> Result<Asked> {
        for kind in kinds(&shapes.iter().map(|&shape| (shape, Work::Train)).collect::<Vec<_>>()) {
            expect_right(&self.plain, kind)?;
        }
        let mut asked = Asked { shapes: Vec::new(), products: Tuning::new(), layers: BTreeMap::new() };
        for &shape in shapes {
            let what = format!("{} {shape}", Work::Train);
            let Some(noted) = unless_too_large(&what, self.noted(shape))? else { continue };
            asked.shapes.push(shape);
            for (product, variant) in noted.products() {
                asked.products.set_product(product, variant)?;
            }
            for (layer, heuristic) in noted.recurrent_layers() {
                let new = Layer { cell: shape.cell, heuristic, steps: 0 };
                let layer = asked.layers.entry(layer).or_insert(new);
                layer.steps = layer.steps.max(shape.sequence);
            }
        }
        if asked.shapes.is_empty() {
            let message = format!("none of these shapes fits {}: use smaller sizes", self.plain);
            return Err(Failure::option("tune", message));
        }
        Ok(asked)
    }

    /// The choices that a training step of this shape makes.
    fn noted(&self, shape: Shape) -> Result<Tuning> {
        shape.footprint(Work::Train).expect_fits(&self.plain)?;
        let options =
            GpuOptions { tuning: TuningSource::Off, journal: Journal::Choices, ..GpuOptions::default() };
        let device = Device::gpu_with(&self.name, &options)?;
        Setting::new(&device, shape, Work::Train)?.run()?;
        Ok(device.choices()?)
    }

    /// Compares all variants of a product.
    fn product(
        &self,
        report: &Report,
        (shape, heuristic): (ProductShape, MatmulVariant),
        measured: &mut Measured,
    ) -> Result<()> {
        let others = shape.variants().into_iter().filter(|&variant| variant != heuristic);
        let ways: Vec<_> = [heuristic].into_iter().chain(others).collect();
        let mut trial = ProductTrial::new(&self.plain, shape)?;
        let [operation, sizes] = report::product(&shape);
        let expected = trial.product(heuristic)?.download_f64()?;
        for &way in &ways[1..] {
            let found = trial.product(way)?.download_f64()?;
            expect_close(&format!("{operation} {sizes}"), &report::variant(&shape, way), &found, &expected)?;
        }
        let outcome = contest(&self.effort, ways.len(), |way, repeats| {
            for _ in 0..repeats {
                trial.run(ways[way])?;
            }
            Ok(self.plain.synchronize()?)
        })?;
        drop(trial);
        self.plain.release_unused()?;
        let best = ways[outcome.challenger];
        measured.products.push(shape);
        if outcome.is_faster {
            measured.chosen.set_product(shape, best)?;
        }
        let [heuristic, mut best] = [heuristic, best].map(|way| report::variant(&shape, way));
        if outcome.challenger == 0 {
            best = report::NONE.to_owned();
        }
        report.line(&Line::new(&self.place, [operation, sizes, heuristic, best], &outcome))
    }

    /// Compares the strategies of a layer, forward and backward.
    fn layer(
        &self,
        report: &Report,
        shape: RecurrentShape,
        layer: &Layer,
        measured: &mut Measured,
    ) -> Result<()> {
        let RecurrentShape { hidden_size, rows, .. } = shape;
        let &Layer { cell, heuristic, steps: sequence } = layer;
        // One input feature, so that the cost of the projection is negligible.
        let sizes =
            Shape { cell, inputs: 1, hidden: hidden_size, batch: rows, sequence, layers: 1, classes: 1 };
        let mut ways = Vec::with_capacity(self.strategies.len());
        let mut actions = Vec::with_capacity(self.strategies.len());
        for (strategy, device) in &self.strategies {
            // Persistent kernels are compared only if the device would choose them itself.
            if *strategy == RecurrentStrategy::Persistent && !self.lets_workgroups_wait() {
                continue;
            }
            let mut action = steps(device, sizes, Pass::Both)?;
            action()?;
            // A layer that does not support this strategy used another one.
            if device.choices()?.recurrent(shape) == Some(*strategy) {
                let place = if *strategy == heuristic { 0 } else { ways.len() };
                ways.insert(place, *strategy);
                actions.insert(place, (device, action));
            }
        }
        // The heuristics' choice is the baseline of the comparison.
        if ways.first() != Some(&heuristic) {
            let (what, way) = (report::layer(&shape, sequence), strategy_name(heuristic));
            writeln!(
                stderr(),
                "not compared: a layer of {what} no longer runs {way}, as the heuristics chose"
            )?;
            return Ok(());
        }
        let outcome = contest(&self.effort, actions.len(), |way, repeats| {
            let (device, action) = &mut actions[way];
            for _ in 0..repeats {
                action()?;
            }
            Ok(device.synchronize()?)
        })?;
        drop(actions);
        self.strategies.iter().try_for_each(|(_, device)| device.release_unused())?;
        let best = ways[outcome.challenger];
        measured.layers.push(shape);
        if outcome.is_faster {
            measured.chosen.set_recurrent(shape, best)?;
        }
        let best =
            if outcome.challenger == 0 { report::NONE.to_owned() } else { strategy_name(best).to_owned() };
        let operation = format!("{} steps", cell.name());
        let words = [operation, report::layer(&shape, sequence), strategy_name(heuristic).to_owned(), best];
        report.line(&Line::new(&self.place, words, &outcome))
    }

    /// Compares whole training steps without and with the choices.
    fn training_step(&self, report: &Report, shape: Shape, chosen: &Tuning) -> Result<()> {
        let options = GpuOptions { tuning: TuningSource::Given(chosen.clone()), ..GpuOptions::default() };
        let tuned = Device::gpu_with(&self.name, &options)?;
        let what = format!("{} {shape}", Work::Train);
        let losses = |device: &Device| Setting::new(device, shape, Work::Train)?.tensors(LOSSES);
        for ((name, found), (_, expected)) in losses(&tuned)?.iter().zip(&losses(&self.plain)?) {
            expect_close(&what, name, found, expected)?;
        }
        let mut settings =
            [Setting::new(&self.plain, shape, Work::Train)?, Setting::new(&tuned, shape, Work::Train)?];
        let mut compare = |effort: &Effort| {
            contest(effort, 2, |way, repeats| (0..repeats).try_for_each(|_| settings[way].run().map(|_| ())))
        };
        let mut outcome = compare(&self.effort)?;
        if outcome.is_slower {
            // Measured again before all choices are discarded.
            outcome = compare(&Effort { runs: self.effort.runs.max(LOOK_AGAIN), ..self.effort })?;
        }
        drop(settings);
        self.plain.release_unused()?;
        let words = ["train".to_owned(), short(shape), "heuristics".to_owned(), "all choices".to_owned()];
        report.line(&Line::new(&self.place, words, &outcome))?;
        if outcome.is_slower {
            let message = format!(
                "not stored: a training step ({shape}) is slower with the choices than without, although \
                 each choice is faster alone; measure again while nothing else runs, or name fewer shapes"
            );
            return Err(Failure::option("tune", message));
        }
        Ok(())
    }
}

/// A shape, short enough for a table column.
fn short(shape: Shape) -> String {
    let Shape { cell, inputs, hidden, batch, sequence, layers, .. } = shape;
    format!("{layers} x {} {inputs} to {hidden}, {sequence}x{batch}", cell.name())
}
