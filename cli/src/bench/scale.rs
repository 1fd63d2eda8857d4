//! Plots time against one size and fits the exponent of its growth.

use std::path::{Path, PathBuf};

use plotters::prelude::*;
use refrain::Error;
use refrain::io::write_atomically;

use super::shape::{Shape, Work};
use crate::destination::{expect_svg, expect_writable};
use crate::failure::{Failure, Result};
use crate::plot::{SIZE, key, legend};
use crate::terminal::{escaped, stdout};

/// A plot has some tens of kilobytes.
const PICTURE_BYTES: u64 = 1 << 17;
const COLORS: [RGBColor; 6] = [
    RGBColor(40, 90, 160),
    RGBColor(200, 80, 30),
    RGBColor(40, 130, 90),
    RGBColor(130, 90, 160),
    RGBColor(150, 120, 20),
    RGBColor(90, 90, 90),
];
const PROPORTIONAL: RGBColor = RGBColor(170, 170, 170);

/// A size that can be the x axis of the plot.
#[derive(Clone, Copy, Debug)]
struct Axis {
    option: &'static str,
    label: &'static str,
    of: fn(&Shape) -> usize,
}

const AXES: [Axis; 6] = [
    Axis { option: "--sequence", label: "time steps", of: |shape| shape.sequence },
    Axis { option: "--batch", label: "batch", of: |shape| shape.batch },
    Axis { option: "--layers", label: "layers", of: |shape| shape.layers },
    Axis { option: "--hidden", label: "hidden units", of: |shape| shape.hidden },
    Axis { option: "--inputs", label: "inputs", of: |shape| shape.inputs },
    Axis { option: "--classes", label: "classes", of: |shape| shape.classes },
];

/// Milliseconds by size for one cell and kind of work.
#[derive(Clone, Debug)]
struct Line {
    name: String,
    points: Vec<(usize, f64)>,
}

/// The plot, while its points are measured.
#[derive(Debug)]
pub(crate) struct Scale {
    path: PathBuf,
    axis: Axis,
    title: String,
    lines: Vec<Line>,
}

/// Returns the size that has several values.
fn axis(shapes: &[Shape]) -> Result<Axis> {
    let values = |axis: &Axis| {
        let mut values: Vec<usize> = shapes.iter().map(axis.of).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    // Inputs that equal the hidden units are not a size of their own.
    let follow = shapes.iter().all(|shape| shape.inputs == shape.hidden);
    let several: Vec<Axis> =
        AXES.into_iter().filter(|axis| values(axis) > 1 && !(follow && axis.option == "--inputs")).collect();
    match several.as_slice() {
        [only] => Ok(*only),
        [] => Err(Failure::option(
            "--plot",
            "plots time against one size: give several values of one, such as --sequence 32,64,128",
        )),
        [one, other, ..] => {
            let message = format!(
                "plots time against one size, but {} and {} have several values",
                one.option, other.option
            );
            Err(Failure::option("--plot", message))
        }
    }
}

impl Scale {
    /// Prepares a plot of these shapes on `device`, to be written to `path`.
    ///
    /// # Errors
    /// Shapes in which not exactly one size has several values; a file that cannot be written.
    pub(crate) fn begin(path: &Path, shapes: &[Shape], device: &str) -> Result<Self> {
        let axis = axis(shapes)?;
        expect_svg("--plot", path)?;
        expect_writable("--plot", path, PICTURE_BYTES)?;
        let fixed = shapes.first().map_or_else(String::new, |shape| {
            let others = AXES.iter().filter(|other| other.option != axis.option);
            let others = others.filter(|other| !(axis.option == "--hidden" && other.option == "--inputs"));
            others
                .map(|other| format!("{} {}", other.label, (other.of)(shape)))
                .collect::<Vec<_>>()
                .join(", ")
        });
        let title = format!("{device}: {fixed}");
        Ok(Self { path: path.to_owned(), axis, title, lines: Vec::new() })
    }

    /// Adds one measurement.
    pub(crate) fn add(&mut self, shape: &Shape, work: Work, milliseconds: f64) {
        let name = format!("{} {work}", shape.cell.name());
        let point = ((self.axis.of)(shape), milliseconds);
        match self.lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => self.lines.push(Line { name, points: vec![point] }),
        }
    }

    /// Writes the plot, and prints the exponents unless the output is JSON.
    pub(crate) fn finish(mut self, json: bool) -> Result<()> {
        for line in &mut self.lines {
            line.points.sort_unstable_by_key(|&(size, _)| size);
        }
        self.lines.retain(|line| line.points.len() > 1);
        if self.lines.is_empty() {
            let message = format!("has nothing to plot: fewer than two values of {} fit", self.axis.option);
            return Err(Failure::option("--plot", message));
        }
        let mut svg = String::new();
        self.render(&mut svg)
            .map_err(|error| Error::Config { what: "--plot".into(), message: error.to_string() })?;
        write_atomically(&self.path, svg.as_bytes())?;
        if json {
            return Ok(());
        }
        let mut out = stdout();
        writeln!(out, "\ntime ~ {} ^ exponent (1 is proportional)", self.axis.label)?;
        writeln!(out, "{:24} {:>8} {:>14}", "", "all", "last doubling")?;
        for line in &self.lines {
            writeln!(out, "{:24} {:>8.2} {:>14.2}", line.name, line.exponent(), line.last_exponent())?;
        }
        Ok(writeln!(out, "{}", self.path.display())?)
    }

    fn render(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let [(left, right), (low, high)] = self.ranges();
        let mut chart = ChartBuilder::on(&area)
            .caption(escaped(&self.title), ("sans-serif", 16))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(
                (left..right).log_scale().with_key_points(self.sizes()),
                (low..high).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc(self.axis.label)
            .y_desc("milliseconds")
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| readable(*value))
            .light_line_style(WHITE)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let points: Vec<(f64, f64)> = line.points.iter().map(|&(size, ms)| (size as f64, ms)).collect();
            // Proportional growth up to the largest size.
            let (last, at_last) = points[points.len() - 1];
            let first = points[0].0.max(last * low / at_last);
            let through = [(first, at_last * first / last), (last, at_last)];
            chart.draw_series(LineSeries::new(through, PROPORTIONAL))?;
            let stroke = color.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, stroke).point_size(4))?
                .label(format!("{}: exponent {:.2}", line.name, line.exponent()))
                .legend(key(stroke));
        }
        legend(&mut chart, SeriesLabelPosition::UpperLeft)?;
        area.present()?;
        Ok(())
    }

    /// All measured sizes, for the axis labels.
    fn sizes(&self) -> Vec<f64> {
        let mut sizes: Vec<usize> =
            self.lines.iter().flat_map(|line| &line.points).map(|&(size, _)| size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes.into_iter().map(|size| size as f64).collect()
    }

    /// The ranges of sizes and milliseconds, with a margin.
    fn ranges(&self) -> [(f64, f64); 2] {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) =
                values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
            (low / 1.25, high * 1.25)
        };
        [range(&mut all().map(|&(size, _)| size as f64)), range(&mut all().map(|&(_, ms)| ms))]
    }
}

impl Line {
    /// The p of time ~ sizeᵖ, fitted to the logarithms by least squares.
    fn exponent(&self) -> f64 {
        let logarithms: Vec<(f64, f64)> =
            self.points.iter().map(|&(size, ms)| ((size as f64).ln(), ms.ln())).collect();
        let count = logarithms.len() as f64;
        let [mean_x, mean_y] = [
            logarithms.iter().map(|(x, _)| x).sum::<f64>() / count,
            logarithms.iter().map(|(_, y)| y).sum::<f64>() / count,
        ];
        let shared: f64 = logarithms.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let own: f64 = logarithms.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        shared / own
    }

    /// The same for the two largest sizes.
    fn last_exponent(&self) -> f64 {
        let last = self.points[self.points.len() - 2..].to_vec();
        Self { name: String::new(), points: last }.exponent()
    }
}

/// A time as an axis label, with few digits.
fn readable(milliseconds: f64) -> String {
    if milliseconds >= 1.0 { format!("{milliseconds:.0}") } else { format!("{milliseconds:.2}") }
}

#[cfg(test)]
mod tests {
    use refrain::nn::Cell;

    use super::*;

    const SHAPE: Shape =
        Shape { cell: &Cell::Lstm, inputs: 8, hidden: 8, batch: 2, sequence: 16, layers: 1, classes: 4 };

    fn steps(all: &[usize]) -> Vec<Shape> {
        all.iter().map(|&sequence| Shape { sequence, ..SHAPE }).collect()
    }

    #[test]
    fn the_exponent_is_that_of_the_law() {
        let line = |law: fn(f64) -> f64| Line {
            name: String::new(),
            points: [16, 32, 64, 128].map(|size| (size, law(size as f64))).to_vec(),
        };
        assert!((line(|size| 0.5 * size).exponent() - 1.0).abs() < 1e-12);
        assert!((line(|size| 3.0 * size.powf(1.5)).exponent() - 1.5).abs() < 1e-12);
        // A part that does not grow weighs less and less.
        let offset = line(|size| 100.0 + size);
        assert!(offset.exponent() < offset.last_exponent() && offset.last_exponent() < 1.0);
    }

    #[test]
    fn one_size_and_no_more_may_vary() {
        assert_eq!(axis(&steps(&[16, 32])).expect("one size").option, "--sequence");
        let wide = [SHAPE, Shape { hidden: 16, inputs: 16, ..SHAPE }];
        assert_eq!(axis(&wide).expect("inputs follow").option, "--hidden");
        let refused = axis(&steps(&[16])).expect_err("nothing varies").to_string();
        assert!(refused.contains("--plot") && refused.contains("--sequence 32,64,128"), "{refused}");
        let both = [SHAPE, Shape { batch: 4, sequence: 32, ..SHAPE }];
        let refused = axis(&both).expect_err("two vary").to_string();
        assert!(refused.contains("--sequence and --batch"), "{refused}");
    }

    #[test]
    fn the_picture_names_its_axes_lines_and_sizes() {
        let mut scale =
            Scale { path: PathBuf::new(), axis: AXES[0], title: "card: batch 2".into(), lines: Vec::new() };
        for shape in steps(&[64, 16, 32]) {
            scale.add(&shape, Work::Train, shape.sequence as f64);
            scale.add(&shape, Work::Infer, 0.25);
        }
        let mut svg = String::new();
        scale.lines.iter_mut().for_each(|line| line.points.sort_unstable_by_key(|&(size, _)| size));
        scale.render(&mut svg).expect("a picture");
        for text in [
            ">\n32\n<",
            "time steps",
            "milliseconds",
            "card: batch 2",
            "lstm train: exponent 1.00",
            "lstm infer: exponent 0.00",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }
}
