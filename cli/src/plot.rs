//! Plots the loss curve as SVG.

use plotters::coord::CoordTranslate;
use plotters::prelude::*;

use crate::baseline::Baselines;
use crate::terminal::escaped;

/// The data of the plot.
pub(crate) struct Curve {
    /// The loss of each step, in nats.
    pub(crate) training: Vec<f32>,
    /// Step and bits per character of each validation.
    pub(crate) validation: Vec<(usize, f64)>,
    /// Horizontal lines for comparison.
    pub(crate) baselines: Baselines,
}

/// The size of a picture in pixels.
pub(crate) const SIZE: (u32, u32) = (900, 540);
/// The most points per line, about the width of the plot in pixels.
const POINTS: usize = 800;
const RAW: RGBColor = RGBColor(190, 205, 225);
const SMOOTH: RGBColor = RGBColor(40, 90, 160);
const HELD_OUT: RGBColor = RGBColor(200, 80, 30);
const UNIGRAM: RGBColor = RGBColor(130, 90, 160);
const BIGRAM: RGBColor = RGBColor(40, 130, 90);
const FRAME: RGBColor = RGBColor(180, 180, 180);

/// Plots the training loss (each step, and its moving mean), the validations and the baselines.
pub(crate) fn draw(curve: &Curve, title: &str) -> Result<String, String> {
    let mut svg = String::new();
    render(curve, title, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn render(curve: &Curve, title: &str, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let steps = curve.training.len().max(2) as f64;
    let (low, high) = range(curve);
    let mut chart = ChartBuilder::on(&area)
        .caption(escaped(title), ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..steps, low..high)?;
    chart
        .configure_mesh()
        .x_desc("optimizer step")
        .y_desc("bits per character")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|bits| format!("{bits:.2}"))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()?;
    let raw = bits(&curve.training);
    let smooth = moving_mean(&raw);
    chart.draw_series(LineSeries::new(thinned(&raw), RAW))?;
    let stroke = SMOOTH.stroke_width(2);
    chart
        .draw_series(LineSeries::new(thinned(&smooth), stroke))?
        .label("training, moving mean")
        .legend(key(stroke));
    for (name, value, color) in
        [("unigram", curve.baselines.unigram, UNIGRAM), ("bigram", curve.baselines.bigram, BIGRAM)]
    {
        let style = color.stroke_width(1);
        let label = format!("{name} on the held-out part: {value:.3}");
        chart
            .draw_series(LineSeries::new([(0.0, value), (steps, value)], style))?
            .label(label)
            .legend(key(style));
    }
    let stroke = HELD_OUT.stroke_width(2);
    let validation: Vec<(f64, f64)> =
        curve.validation.iter().map(|&(step, bits)| (step as f64, bits)).collect();
    let last = validation.last().map_or(f64::NAN, |&(_, bits)| bits);
    chart
        .draw_series(LineSeries::new(validation, stroke).point_size(4))?
        .label(format!("held-out part, at the end: {last:.3}"))
        .legend(key(stroke));
    legend(&mut chart, SeriesLabelPosition::UpperRight)?;
    area.present()?;
    Ok(())
}

/// Draws the legend of a chart.
pub(crate) fn legend<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    position: SeriesLabelPosition,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut labels = chart.configure_series_labels();
    labels.position(position).background_style(WHITE.mix(0.85)).border_style(FRAME);
    labels.label_font(("sans-serif", 14)).draw()?;
    Ok(())
}

/// The line sample of a legend entry.
pub(crate) fn key(style: ShapeStyle) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style)
}

fn bits(nats: &[f32]) -> Vec<f64> {
    nats.iter().map(|&loss| f64::from(loss) / std::f64::consts::LN_2).collect()
}

/// The centred mean over a fiftieth of all steps.
fn moving_mean(values: &[f64]) -> Vec<f64> {
    let reach = values.len() / 100;
    let mut sums = vec![0.0];
    for value in values {
        sums.push(sums[sums.len() - 1] + value);
    }
    let mean = |place: usize| {
        let (first, end) = (place.saturating_sub(reach), values.len().min(place + reach + 1));
        (sums[end] - sums[first]) / (end - first) as f64
    };
    (0..values.len()).map(mean).collect()
}

/// Points (step, value), at most [`POINTS`], including the last.
fn thinned(values: &[f64]) -> Vec<(f64, f64)> {
    let every = values.len().div_ceil(POINTS).max(1);
    let kept = |place: &usize| place.is_multiple_of(every) || place + 1 == values.len();
    (0..values.len()).filter(kept).map(|place| ((place + 1) as f64, values[place])).collect()
}

/// The smallest and the largest value of the plot, with a margin.
fn range(curve: &Curve) -> (f64, f64) {
    let Baselines { unigram, bigram } = curve.baselines;
    let validation = curve.validation.iter().map(|&(_, bits)| bits);
    let values = bits(&curve.training).into_iter().chain(validation).chain([unigram, bigram]);
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let margin = ((high - low) * 0.05).max(0.05);
    ((low - margin).max(0.0), high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(steps: usize) -> Curve {
        let training = (0..steps).map(|step| 3.0 / (1.0 + step as f32)).collect();
        let baselines = Baselines { unigram: 4.0, bigram: 3.25 };
        Curve { training, validation: vec![(steps, 2.5)], baselines }
    }

    #[test]
    fn the_picture_names_its_axes_and_lines() {
        let svg = draw(&curve(100), "towns on cpu").expect("a picture");
        assert!(svg.starts_with("<svg"), "{}", &svg[..40]);
        for text in
            ["optimizer step", "bits per character", "towns on cpu", "bigram on the held-out part: 3.250"]
        {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn one_step_and_many_steps_are_drawn_within_bounds() {
        draw(&curve(1), "short").expect("a picture");
        let long = draw(&curve(200_000), "long").expect("a picture");
        assert!(long.len() < 200_000, "{} bytes", long.len());
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let points = thinned(&vec![1.0; 12_345]);
        assert!(points.len() <= POINTS + 1);
        assert_eq!((points[0].0, points[points.len() - 1].0), (1.0, 12_345.0));
    }

    #[test]
    fn the_moving_mean_keeps_a_straight_line_straight() {
        let line: Vec<f64> = (0..1000).map(f64::from).collect();
        assert!((moving_mean(&line)[500] - 500.0).abs() < 1e-9);
    }
}
