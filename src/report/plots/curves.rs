//! Loss and accuracy over the epochs, side by side.

use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingArea;
use plotters::element::{Circle, PathElement, Text};
use plotters::prelude::DrawingBackend;
use plotters::series::{DashedLineSeries, LineSeries};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::style::{self, BLUE, FAINT, GREY, INK, LABEL, PAPER, TICK, TITLE, VERMILION};
use super::{Drawn, Picture};
use crate::report::printable;
use crate::train::progress::EpochRecord;

const SIZE: (u32, u32) = (1720, 760);
/// Height of title and legend above the panels.
const HEADER: u32 = 130;
/// Beyond this many epochs markers would merge into the line.
const MARKED_EPOCHS: usize = 40;
const LINE: u32 = 4;
const MARKER: i32 = 7;

/// What is drawn; there is at least one epoch.
pub(super) struct Curves<'a> {
    pub(super) title: &'a str,
    pub(super) epochs: &'a [EpochRecord],
    pub(super) best_epoch: Option<usize>,
}

/// One curve: a value an epoch, NaN where there is none.
struct Series {
    color: RGBColor,
    /// Filled markers or hollow ones, so that the curves differ without colour too.
    filled: bool,
    points: Vec<(f64, f64)>,
}

impl Picture for Curves<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let (header, panels) = area.split_vertically(HEADER);
        let title = style::fit(&printable(self.title), TITLE, SIZE.0 as i32 - 80);
        let centre = SIZE.0 as i32 / 2;
        header.draw(&Text::new(title, (centre, 44), style::text(TITLE, INK, HPos::Center, VPos::Center)))?;
        self.draw_legend(&header)?;
        let (left, right) = panels.split_horizontally(SIZE.0 / 2);
        let loss = [self.series(BLUE, true, |e| Some(e.train_loss)), self.series(VERMILION, false, |e| e.val_loss)];
        self.draw_panel(&left, "loss", loss_range(&loss), &loss)?;
        let accuracy = [
            self.series(BLUE, true, |e| Some(100.0 * e.train_accuracy)),
            self.series(VERMILION, false, |e| e.val_accuracy.map(|share| 100.0 * share)),
        ];
        self.draw_panel(&right, "accuracy, %", accuracy_range(&accuracy), &accuracy)
    }
}

impl Curves<'_> {
    fn series(&self, color: RGBColor, filled: bool, value: fn(&EpochRecord) -> Option<f64>) -> Series {
        let point = |e: &EpochRecord| (e.epoch as f64, value(e).filter(|v| v.is_finite()).unwrap_or(f64::NAN));
        Series { color, filled, points: self.epochs.iter().map(point).collect() }
    }

    fn has_validation(&self) -> bool {
        self.epochs.iter().any(|e| e.val_loss.is_some() || e.val_accuracy.is_some())
    }

    /// Samples of the lines with their names, centred in one row.
    fn draw_legend<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        const SAMPLE: i32 = 64;
        const GAP: i32 = 16;
        const BETWEEN: i32 = 56;
        let mut entries = vec![("training".to_owned(), Sample::Curve(BLUE, true))];
        if self.has_validation() {
            entries.push(("validation".to_owned(), Sample::Curve(VERMILION, false)));
        }
        if let Some(best) = self.best_epoch {
            entries.push((format!("best epoch: {best}"), Sample::Best));
        }
        let widths: Vec<i32> = entries.iter().map(|(name, _)| SAMPLE + GAP + style::width(name, LABEL)).collect();
        let total = widths.iter().sum::<i32>() + BETWEEN * (entries.len() as i32 - 1);
        let (mut x, y) = ((SIZE.0 as i32 - total) / 2, 100);
        for ((name, sample), width) in entries.into_iter().zip(widths) {
            sample.draw(area, (x, y), SAMPLE)?;
            let place = (x + SAMPLE + GAP, y);
            area.draw(&Text::new(name, place, style::text(LABEL, INK, HPos::Left, VPos::Center)))?;
            x += width + BETWEEN;
        }
        Ok(())
    }

    fn draw_panel<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        name: &str,
        y: Range<f64>,
        series: &[Series],
    ) -> Drawn<B> {
        let (first, last) = self.first_and_last();
        let ticks = (last - first + 1.0).min(10.0) as usize;
        let decimals = decimals_of(&y);
        let mut chart = ChartBuilder::on(area)
            .margin_left(20)
            .margin_right(40)
            .margin_top(10)
            .margin_bottom(10)
            .x_label_area_size(90)
            .y_label_area_size(112)
            .build_cartesian_2d(first - 0.5..last + 0.5, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(PAPER)
            .bold_line_style(FAINT.stroke_width(2))
            .axis_style(GREY.stroke_width(2))
            .x_labels(ticks)
            .y_labels(8)
            .max_light_lines(1)
            .x_label_formatter(&|epoch| format!("{epoch:.0}"))
            .y_label_formatter(&|value| format!("{value:.decimals$}"))
            .label_style(style::text(TICK, INK, HPos::Center, VPos::Center))
            .axis_desc_style(style::text(LABEL, INK, HPos::Center, VPos::Center))
            .x_desc("epoch")
            .y_desc(name)
            .draw()?;
        self.draw_best(&mut chart)?;
        series.iter().try_for_each(|series| draw_series(&mut chart, series))
    }

    fn first_and_last(&self) -> (f64, f64) {
        let epochs = self.epochs.iter().map(|e| e.epoch as f64);
        epochs.fold((f64::INFINITY, f64::NEG_INFINITY), |(first, last), epoch| (first.min(epoch), last.max(epoch)))
    }

    fn draw_best<B: DrawingBackend>(&self, chart: &mut Chart<'_, B>) -> Drawn<B> {
        if let Some(best) = self.best_epoch {
            let y = chart.y_range();
            let line = [(best as f64, y.start), (best as f64, y.end)];
            chart.draw_series(DashedLineSeries::new(line, 8, 8, GREY.stroke_width(3)))?;
        }
        Ok(())
    }
}

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Lines between neighbouring values, broken at NaN, and a marker for each where there is room; a value without
/// neighbours is always marked.
fn draw_series<B: DrawingBackend>(chart: &mut Chart<'_, B>, series: &Series) -> Drawn<B> {
    let marked = series.points.len() <= MARKED_EPOCHS;
    for segment in series.points.split(|(_, value)| value.is_nan()) {
        chart.draw_series(LineSeries::new(segment.iter().copied(), series.color.stroke_width(LINE)))?;
        if marked || segment.len() == 1 {
            for &point in segment {
                chart.draw_series(marker(point, series.color, series.filled))?;
            }
        }
    }
    Ok(())
}

/// A disc, or a ring with a white middle.
fn marker<C>(at: C, color: RGBColor, filled: bool) -> Vec<Circle<C, i32>>
where
    C: Clone,
{
    let disc = Circle::new(at.clone(), MARKER, ShapeStyle::from(color).filled());
    if filled { vec![disc] } else { vec![disc, Circle::new(at, MARKER - 3, ShapeStyle::from(PAPER).filled())] }
}

/// What stands before a name in the legend.
enum Sample {
    Curve(RGBColor, bool),
    Best,
}

impl Sample {
    /// Draws it from `(x, y)` to the right.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, (x, y): (i32, i32), width: i32) -> Drawn<B> {
        match *self {
            Self::Curve(color, filled) => {
                area.draw(&PathElement::new([(x, y), (x + width, y)], color.stroke_width(LINE)))?;
                marker((x + width / 2, y), color, filled).iter().try_for_each(|shape| area.draw(shape))
            }
            Self::Best => (x..x + width)
                .step_by(16)
                .try_for_each(|dash| area.draw(&PathElement::new([(dash, y), (dash + 8, y)], GREY.stroke_width(3)))),
        }
    }
}

/// The smallest and largest value of all curves; none when there is none.
fn extremes(series: &[Series]) -> Option<(f64, f64)> {
    let values = series.iter().flat_map(|s| &s.points).map(|point| point.1).filter(|value| !value.is_nan());
    values.fold(None, |range, value| {
        range.map_or(Some((value, value)), |(low, high)| Some((value.min(low), value.max(high))))
    })
}

/// From 0, unless that would waste more than half of the axis; never so narrow that noise looks like a trend.
fn loss_range(series: &[Series]) -> Range<f64> {
    let (low, high) = extremes(series).unwrap_or((0.0, 1.0));
    let margin = (0.06 * (high - low)).max(0.04 * high.abs()).max(1e-6);
    if low >= 0.0 && low < 0.5 * high { 0.0..high + margin } else { low - margin..high + margin }
}

/// From the ten per cent below the lowest value to just above 100.
fn accuracy_range(series: &[Series]) -> Range<f64> {
    let (low, _) = extremes(series).unwrap_or((0.0, 100.0));
    let floor = ((low - 2.0) / 10.0).floor() * 10.0;
    floor.clamp(0.0, 90.0)..101.5
}

/// Decimals that tell about six ticks of `range` apart.
fn decimals_of(range: &Range<f64>) -> usize {
    let step = (range.end - range.start) / 6.0;
    (-step.log10().floor()).clamp(0.0, 6.0) as usize
}
