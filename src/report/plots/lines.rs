//! What pictures of curves share: axes, curves that differ without colour too, a marked place, the legend.

use super::prelude::*;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;

/// Beyond this many values markers would merge into the line.
const MARKED_VALUES: usize = 50;
/// Height of title and legend above the panels.
const HEADER: u32 = 130;
/// Height of the legend by itself.
const KEY: u32 = 60;
const LINE: u32 = 4;
const MARKER: i32 = 7;

/// One curve: a value at each place, NaN where there is none.
pub(super) struct Series {
    kind: SeriesKind,
    points: Vec<(f64, f64)>,
}

/// Which images a curve is about; each kind looks the same in every picture.
#[derive(Clone, Copy)]
pub(super) enum SeriesKind {
    Training,
    Validation,
}

impl SeriesKind {
    fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
        }
    }

    fn color(self) -> RGBColor {
        match self {
            Self::Training => BLUE,
            Self::Validation => VERMILION,
        }
    }

    /// A disc, or a ring with a white middle.
    fn marker<C: Clone>(self, at: C) -> Vec<Circle<C, i32>> {
        let disc = style::disc(at.clone(), MARKER, self.color());
        match self {
            Self::Training => vec![disc],
            Self::Validation => vec![disc, style::disc(at, MARKER - 3, PAPER)],
        }
    }
}

impl Series {
    /// Values that are not finite leave gaps.
    pub(super) fn new(kind: SeriesKind, points: impl Iterator<Item = (f64, f64)>) -> Self {
        let points = points.map(|(x, y)| (x, if y.is_finite() { y } else { f64::NAN })).collect();
        Self { kind, points }
    }

    /// Lines between neighbouring values, broken at NaN, and a marker for each where there is room; a value without
    /// neighbours is always marked.
    fn draw<B: DrawingBackend>(&self, chart: &mut Chart<'_, B>) -> Drawn<B> {
        let marked = self.points.len() <= MARKED_VALUES;
        for segment in self.points.split(|(_, value)| value.is_nan()) {
            chart.draw_series(LineSeries::new(segment.iter().copied(), self.kind.color().stroke_width(LINE)))?;
            if marked || segment.len() == 1 {
                segment.iter().try_for_each(|&point| chart.draw_series(self.kind.marker(point)).map(drop))?;
            }
        }
        Ok(())
    }
}

pub(super) type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What is drawn upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Measure {
    Loss,
    /// In per cent.
    Accuracy,
}

pub(super) struct XAxis<'a> {
    pub(super) range: Range<f64>,
    pub(super) name: &'a str,
    /// Most ticks.
    pub(super) ticks: usize,
    pub(super) label: &'a dyn Fn(&f64) -> String,
}

/// Draws the axes, a dashed line at `marked` and the curves.
pub(super) fn draw_panel<B: DrawingBackend>(
    area: &Canvas<B>,
    x: &XAxis<'_>,
    (y, y_name): (Range<f64>, &str),
    marked: Option<f64>,
    series: &[Series],
) -> Drawn<B> {
    let mut chart = draw_axes(area, x, (y.clone(), y_name))?;
    if let Some(x) = marked {
        let line = [(x, y.start), (x, y.end)];
        chart.draw_series(DashedLineSeries::new(line, 8, 8, GREY.stroke_width(3)))?;
    }
    series.iter().try_for_each(|series| series.draw(&mut chart))
}

/// The same of losses or accuracies, upwards as far as they reach.
pub(super) fn draw_measure<B: DrawingBackend>(
    area: &Canvas<B>,
    measure: Measure,
    x: &XAxis<'_>,
    marked: Option<f64>,
    series: &[Series],
) -> Drawn<B> {
    let upwards = match measure {
        Measure::Loss => (loss_range(series), "loss"),
        Measure::Accuracy => (accuracies_from(extremes(series).map_or(0.0, |(low, _)| low)), "accuracy, %"),
    };
    draw_panel(area, x, upwards, marked, series)
}

/// Draws the axes alone; curves go into the chart.
pub(super) fn draw_axes<'a, B: DrawingBackend>(
    area: &Canvas<B>,
    x: &XAxis<'_>,
    (y, y_name): (Range<f64>, &str),
) -> Drawn<B, Chart<'a, B>> {
    let decimals = decimals_of(&y);
    draw_named_axes(area, "", x, (y, y_name), (8, &|value| format!("{value:.decimals$}")))
}

/// The same with a name above and so many labels upwards. The name above and that to the right may be empty.
pub(super) fn draw_named_axes<'a, B: DrawingBackend>(
    area: &Canvas<B>,
    above: &str,
    x: &XAxis<'_>,
    (y, y_name): (Range<f64>, &str),
    (y_ticks, y_label): (usize, &dyn Fn(&f64) -> String),
) -> Drawn<B, Chart<'a, B>> {
    let mut builder = ChartBuilder::on(area);
    // An empty name would be a text of no height.
    if !above.is_empty() {
        builder.caption(above, style::centred(LABEL, INK));
    }
    let mut chart = builder
        .margin(10)
        .margin_left(20)
        .margin_right(40)
        .x_label_area_size(if x.name.is_empty() { 50 } else { 90 })
        .y_label_area_size(112)
        .build_cartesian_2d(x.range.clone(), y)?;
    let mut mesh = chart.configure_mesh();
    if !x.name.is_empty() {
        mesh.x_desc(x.name);
    }
    mesh.disable_x_mesh()
        .light_line_style(PAPER)
        .bold_line_style(FAINT.stroke_width(2))
        .axis_style(GREY.stroke_width(2))
        .x_labels(x.ticks)
        .y_labels(y_ticks)
        .max_light_lines(1)
        .x_label_formatter(&x.label)
        .y_label_formatter(&y_label)
        .label_style(style::centred(TICK, INK))
        .axis_desc_style(style::centred(LABEL, INK))
        .y_desc(y_name)
        .draw()?;
    Ok(chart)
}

/// Draws the title and, below it, the legend; what is left of the area is for the panels.
pub(super) fn draw_header<B: DrawingBackend>(
    area: &Canvas<B>,
    title: &str,
    kinds: &[SeriesKind],
    marked: Option<String>,
) -> Drawn<B, Canvas<B>> {
    let (header, panels) = area.split_vertically(HEADER);
    style::draw_title(&header, title)?;
    draw_legend(&header, (area.dim_in_pixel().0 as i32 / 2, 100), kinds, marked)?;
    Ok(panels)
}

/// Draws the legend alone on top; what is left of the area is for the panel.
pub(super) fn draw_key<B: DrawingBackend>(
    area: &Canvas<B>,
    kinds: &[SeriesKind],
    marked: Option<String>,
) -> Drawn<B, Canvas<B>> {
    let (key, panel) = area.split_vertically(KEY);
    draw_legend(&key, (area.dim_in_pixel().0 as i32 / 2, KEY as i32 / 2), kinds, marked)?;
    Ok(panel)
}

/// Draws samples of the curves with their names and `marked`, the name of the dashed line, centred in one row.
fn draw_legend<B: DrawingBackend>(
    area: &Canvas<B>,
    (centre, y): (i32, i32),
    kinds: &[SeriesKind],
    marked: Option<String>,
) -> Drawn<B> {
    const SAMPLE: i32 = 64;
    let curves = kinds.iter().map(|&kind| (kind.name().to_owned(), Some(kind)));
    let entries = curves.chain(marked.map(|name| (name, None))).collect();
    draw_row(area, (centre, y), (SAMPLE, 16), entries, |kind, place| draw_sample(area, kind, place, SAMPLE))
}

/// Draws samples of a width with their names behind a gap, centred in one row.
pub(super) fn draw_row<B: DrawingBackend, T>(
    area: &Canvas<B>,
    (centre, y): (i32, i32),
    (sample, gap): (i32, i32),
    entries: Vec<(String, T)>,
    draw_sample: impl Fn(T, (i32, i32)) -> Drawn<B>,
) -> Drawn<B> {
    const BETWEEN: i32 = 56;
    let widths: Vec<i32> = entries.iter().map(|(name, _)| sample + gap + style::width(name, LABEL)).collect();
    let total = widths.iter().sum::<i32>() + BETWEEN * (entries.len() as i32 - 1);
    let mut x = centre - total / 2;
    for ((name, of), width) in entries.into_iter().zip(widths) {
        draw_sample(of, (x, y))?;
        area.draw(&Text::new(name, (x + sample + gap, y), style::left(LABEL, INK)))?;
        x += width + BETWEEN;
    }
    Ok(())
}

/// A piece of a curve, or without a kind of the dashed line, from `(x, y)` to the right.
fn draw_sample<B: DrawingBackend>(
    area: &Canvas<B>,
    kind: Option<SeriesKind>,
    (x, y): (i32, i32),
    width: i32,
) -> Drawn<B> {
    let Some(kind) = kind else { return draw_dashes(area, (x, x + width), y, 3) };
    area.draw(&PathElement::new([(x, y), (x + width, y)], kind.color().stroke_width(LINE)))?;
    kind.marker((x + width / 2, y)).iter().try_for_each(|shape| area.draw(shape))
}

/// A dashed line across, so many pixels thick.
pub(super) fn draw_dashes<B: DrawingBackend>(
    area: &Canvas<B>,
    (left, right): (i32, i32),
    y: i32,
    thickness: u32,
) -> Drawn<B> {
    let style = GREY.stroke_width(thickness);
    let mut dashes = (left..right).step_by(16);
    dashes.try_for_each(|x| area.draw(&PathElement::new([(x, y), ((x + 8).min(right), y)], style)))
}

/// The smallest and largest value of all curves; none when there is none.
pub(super) fn extremes(series: &[Series]) -> Option<(f64, f64)> {
    let values = series.iter().flat_map(|s| &s.points).map(|point| point.1).filter(|value| !value.is_nan());
    Some(style::extremes(values)).filter(|(low, high)| low <= high)
}

/// From 0, unless that would waste more than half of the axis; never so narrow that noise looks like a trend.
fn loss_range(series: &[Series]) -> Range<f64> {
    let (low, high) = extremes(series).unwrap_or((0.0, 1.0));
    let margin = (0.06 * (high - low)).max(0.04 * high.abs()).max(1e-6);
    if low >= 0.0 && low < 0.5 * high { 0.0..high + margin } else { low - margin..high + margin }
}

/// Per cent, from the ten below the lowest value to just above 100.
pub(super) fn accuracies_from(low: f64) -> Range<f64> {
    let floor = ((low - 2.0) / 10.0).floor() * 10.0;
    floor.clamp(0.0, 90.0)..101.5
}

/// Decimals that tell about six ticks of `range` apart.
fn decimals_of(range: &Range<f64>) -> usize {
    let step = (range.end - range.start) / 6.0;
    (-step.log10().floor()).clamp(0.0, 6.0) as usize
}
