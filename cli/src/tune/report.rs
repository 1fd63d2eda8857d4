//! The output of `refrain tune`: a table, or lines of JSON.

use refrain::tuning::{MatmulVariant, ProductShape, RecurrentShape, TUNING_VARIABLE, Tuning};
use serde::Serialize;

use super::contest::{MARGIN, Outcome};
use crate::bench::operations::form_name;
use crate::bench::report::{Place, header};
use crate::failure::Result;
use crate::format::{json, print};
use crate::terminal::stdout;

/// Printed instead of the best alternative if none is nearly as fast as the heuristics' choice.
pub(crate) const NONE: &str = "none near";

/// One comparison: the heuristics' choice and the best alternative.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line<'a> {
    operation: String,
    shape: String,
    device: &'a str,
    driver: &'a str,
    heuristic: String,
    heuristic_milliseconds: f64,
    best: String,
    best_milliseconds: f64,
    ratio: f64,
    /// Whether the alternative is clearly faster and therefore chosen.
    chosen: bool,
}

impl<'a> Line<'a> {
    pub(crate) fn new(
        place: &'a Place,
        [operation, shape, heuristic, best]: [String; 4],
        outcome: &Outcome,
    ) -> Self {
        Self {
            operation,
            shape,
            device: &place.device,
            driver: &place.driver,
            heuristic,
            heuristic_milliseconds: outcome.seconds[0] * 1e3,
            best,
            best_milliseconds: outcome.seconds[1] * 1e3,
            ratio: outcome.ratio(),
            chosen: outcome.is_faster,
        }
    }

    fn row(&self) -> String {
        let Self { operation, shape, heuristic, best, ratio, .. } = self;
        let (one, two) = (self.heuristic_milliseconds, self.best_milliseconds);
        let chosen = if self.chosen { "yes" } else { "no" };
        format!(
            "{operation:16} {shape:40} {heuristic:20} {one:>10.4} {best:20} {two:>10.4} {ratio:>6.2} {chosen:>6}"
        )
    }
}

/// The result of the whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// The number of comparisons that an alternative has won.
    pub(crate) chosen: usize,
    /// The number of comparisons, without training steps.
    pub(crate) compared: usize,
    /// The file with the choices; `None` if nothing was stored.
    pub(crate) stored: Option<String>,
    /// The number of choices in that file, including those of earlier runs.
    pub(crate) choices: Option<usize>,
}

/// Prints lines as they are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    json: bool,
}

impl Report {
    /// Prints the lines above the table.
    pub(crate) fn begin(place: &Place, json: bool) -> Result<Self> {
        if !json {
            let mut out = stdout();
            write!(out, "{}", header(place))?;
            let percent = 100.0 * (1.0 - 1.0 / MARGIN);
            writeln!(
                out,
                "chosen      takes at least {percent:.0} % less time than the heuristics' choice in alternating runs\n"
            )?;
            let heads = ["operation", "shape", "heuristic", "ms", "best other", "ms", "ratio", "chosen"];
            let [operation, shape, heuristic, one, best, two, ratio, chosen] = heads;
            writeln!(
                out,
                "{operation:16} {shape:40} {heuristic:20} {one:>10} {best:20} {two:>10} {ratio:>6} {chosen:>6}"
            )?;
        }
        Ok(Self { json })
    }

    /// Prints one line.
    pub(crate) fn line(&self, line: &Line<'_>) -> Result<()> {
        print(line, self.json, Line::row)
    }

    /// Prints the result.
    pub(crate) fn end(&self, summary: &Summary) -> Result<()> {
        let mut out = stdout();
        if self.json {
            return Ok(writeln!(out, "{}", json(summary)?)?);
        }
        let Summary { chosen, compared, stored, choices } = summary;
        writeln!(
            out,
            "\n{chosen} of {compared} operations have a clearly faster implementation than the heuristics' choice"
        )?;
        match (stored, choices) {
            (Some(path), Some(choices)) => {
                writeln!(out, "stored      measured choices: {choices}, in {path}")?;
                if !Tuning::is_asked_for() {
                    writeln!(out, "set {TUNING_VARIABLE}=on to use them: devices ignore them otherwise")?;
                }
            }
            _ => writeln!(out, "stored      nothing")?,
        }
        Ok(())
    }
}

/// Describes a product.
pub(crate) fn product(shape: &ProductShape) -> [String; 2] {
    let ProductShape { form, m, n, k, block } = *shape;
    let blocks = block.map_or_else(String::new, |block| format!(" in blocks of {block}"));
    [format!("product {}", form_name(form)), format!("{m}x{n}x{k}{blocks}")]
}

/// Describes a variant of a product.
pub(crate) fn variant(shape: &ProductShape, variant: MatmulVariant) -> String {
    let tile = format!("{:?}", variant.tile).to_lowercase();
    match (variant.parts, shape.block) {
        (1, None) => tile,
        (1, Some(_)) => format!("{tile}, in turn"),
        (parts, _) => format!("{tile}, {parts} parts"),
    }
}

/// Describes a recurrent layer.
pub(crate) fn layer(shape: &RecurrentShape, steps: usize) -> String {
    let RecurrentShape { gates, hidden_size, rows } = shape;
    format!("gates {gates}, hidden size {hidden_size}, rows {rows} ({steps} steps)")
}
