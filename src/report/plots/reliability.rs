//! The reliability diagram: how often answers of a confidence are right, before and after temperature scaling.

use super::lines::{self, Chart, XAxis};
use super::prelude::*;
use crate::metrics::{ECE_BINS, Reliability, ReliabilityBin};

const SIZE: (u32, u32) = (1720, 1180);
const HEADER: u32 = 130;
/// Height of the counts below the accuracies.
const COUNTS: u32 = 300;
/// Half the width of the ends of an interval, in per cent of confidence.
const CAP: f64 = 0.8;
/// Space between bars, likewise.
const INSET: f64 = 0.4;

/// How often answers of a confidence are right, before and after division by the temperature.
pub struct ReliabilityPlot<'a> {
    /// Above the picture.
    pub title: &'a str,
    /// Divides the logits.
    pub temperature: f64,
    /// By confidence.
    pub reliability: &'a Reliability,
}

impl Picture for ReliabilityPlot<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        let Reliability { before, after } = self.reliability;
        (before.is_empty() || after.is_empty()).then(|| "no probability is finite".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let (header, panels) = area.split_vertically(HEADER);
        style::draw_title(&header, self.title)?;
        let said = "bars: share that is right, with its 95 % interval; ring: mean confidence; dashed: the two agree; hatched: no images";
        header.draw(&Text::new(said, (SIZE.0 as i32 / 2, 100), style::centred(TICK, GREY)))?;
        let (left, right) = panels.split_horizontally(SIZE.0 / 2);
        draw_side(&left, "as the model gives it", &self.reliability.before)?;
        draw_side(&right, &format!("at temperature {:.2}", self.temperature), &self.reliability.after)
    }
}

/// One side of a [`ReliabilityPlot`] as SVG text.
pub(in crate::report) fn reliability_svg(name: &str, bins: &[ReliabilityBin]) -> Result<String, String> {
    panel_svg((SIZE.0 / 2, SIZE.1 - HEADER), |area| draw_side(area, name, bins))
}

fn draw_side<B: DrawingBackend>(area: &Canvas<B>, name: &str, bins: &[ReliabilityBin]) -> Drawn<B> {
    let (above, below) = area.split_vertically(SIZE.1 - HEADER - COUNTS);
    draw_accuracies(&above, name, bins)?;
    draw_counts(&below, bins)
}

fn draw_accuracies<B: DrawingBackend>(area: &Canvas<B>, name: &str, bins: &[ReliabilityBin]) -> Drawn<B> {
    let mut chart = panel(area, (name, ""), (101.5, 6, "accuracy, %"))?;
    chart.draw_series(empty(bins).flat_map(|bin| hatched(bin, 100.0, 24)))?;
    chart.draw_series(bins.iter().map(|bin| bar(bin, 100.0 * bin.accuracy, BLUE)))?;
    chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (100.0, 100.0)], 8, 8, GREY.stroke_width(3)))?;
    for bin in bins {
        let middle = 50.0 * (bin.above + bin.up_to);
        let [low, high] = bin.accuracy_ci95.map(|bound| 100.0 * bound);
        let line = |from, to| PathElement::new([from, to], INK.stroke_width(3));
        chart.draw_series([
            line((middle, low), (middle, high)),
            line((middle - CAP, low), (middle + CAP, low)),
            line((middle - CAP, high), (middle + CAP, high)),
        ])?;
        let at = (100.0 * bin.confidence, 100.0 * bin.confidence);
        chart.draw_series([style::disc(at, 9, VERMILION), style::disc(at, 5, PAPER)])?;
    }
    Ok(())
}

fn draw_counts<B: DrawingBackend>(area: &Canvas<B>, bins: &[ReliabilityBin]) -> Drawn<B> {
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(1) as f64;
    let mut chart = panel(area, ("", "confidence, %"), (1.08 * most, 3, "images"))?;
    chart.draw_series(empty(bins).flat_map(|bin| hatched(bin, 1.08 * most, 8)))?;
    chart.draw_series(bins.iter().map(|bin| bar(bin, bin.count as f64, GREY))).map(|_| ())
}

/// Axes from 0: confidence to the right, in per cent, `top` upwards with at most so many labels, all of them whole numbers.
/// The name above and that of the confidences may be empty.
fn panel<'a, B: DrawingBackend>(
    area: &Canvas<B>,
    (above, below): (&str, &str),
    (top, labels, upwards): (f64, usize, &str),
) -> Drawn<B, Chart<'a, B>> {
    let whole = |value: &f64| if value.fract() == 0.0 { format!("{value:.0}") } else { String::new() };
    let axis = XAxis { range: 0.0..100.0, name: below, ticks: 6, label: &whole };
    lines::draw_named_axes(area, above, &axis, (0.0..top, upwards), (labels, &whole))
}

/// The places of the bins without images.
fn empty(bins: &[ReliabilityBin]) -> impl Iterator<Item = usize> {
    let taken = |bin: usize| bins.iter().any(|found| (found.above * ECE_BINS as f64).round() as usize == bin);
    (0..ECE_BINS).filter(move |&bin| !taken(bin))
}

/// Faint lines across an empty bin: a bar of no height would say that nothing was right there.
fn hatched(bin: usize, top: f64, lines: usize) -> impl Iterator<Item = PathElement<(f64, f64)>> {
    let [left, right] = [bin, bin + 1].map(|edge| 100.0 * edge as f64 / ECE_BINS as f64);
    let rise = top / lines as f64;
    let line = move |i: usize| {
        let low = i as f64 * rise;
        PathElement::new([(left + INSET, low), (right - INSET, low + rise)], FAINT.stroke_width(2))
    };
    (0..lines).map(line)
}

/// A bar over the confidences of a bin.
fn bar(bin: &ReliabilityBin, height: f64, color: RGBColor) -> Rectangle<(f64, f64)> {
    let corners = [(100.0 * bin.above + INSET, 0.0), (100.0 * bin.up_to - INSET, height)];
    Rectangle::new(corners, color.mix(0.75).filled())
}
