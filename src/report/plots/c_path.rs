//! Accuracy against the value that a probe was chosen by: C of a linear model, k of the nearest neighbours.

use super::lines::{self, Measure, Series, SeriesKind, XAxis};
use super::prelude::*;
use crate::metrics::SelectionMetric;
use crate::system::shown::significant;

const SIZE: (u32, u32) = (1160, 760);
/// Without a title.
const PANEL: (u32, u32) = (900, 700);
const MOST_TICKS: f64 = 12.0;
const KINDS: [SeriesKind; 2] = [SeriesKind::Training, SeriesKind::Validation];

/// How a probe's setting was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectionPlot {
    /// Above the picture.
    pub title: String,
    /// The name of the setting: "C" or "k".
    pub x_label: String,
    /// The setting, training accuracy and validation accuracy, both as fractions; one that is not finite is left out.
    pub points: Vec<(f64, f64, f64)>,
    /// The setting that was taken.
    pub chosen: f64,
    /// What it was chosen by.
    pub metric: SelectionMetric,
}

impl SelectionPlot {
    /// The setting at a place on the axis, which is logarithmic, for people. Where one tick needs an exponent, all have one.
    fn label(&self, place: f64) -> String {
        let range = self.range();
        let (setting, plain) = (10f64.powf(place), range.start >= -3.2 && range.end < 5.0);
        if plain { short(setting) } else { format!("{:e}", format!("{setting:.2e}").parse().unwrap_or(setting)) }
    }

    fn series(&self, kind: SeriesKind, accuracy: fn(&(f64, f64, f64)) -> f64) -> Series {
        let mut points: Vec<(f64, f64)> =
            self.points.iter().map(|point| (point.0.log10(), 100.0 * accuracy(point))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series::new(kind, points.into_iter())
    }

    /// All settings with a margin; never empty.
    fn range(&self) -> Range<f64> {
        let places = self.points.iter().map(|point| point.0.log10()).chain([self.chosen.log10()]);
        let (low, high) = style::extremes(places);
        let margin = (0.04 * (high - low)).max(1e-3 * high.abs()).max(0.1);
        low - margin..high + margin
    }

    /// One tick a power of ten, as long as there is room.
    fn ticks(&self) -> usize {
        let range = self.range();
        let span = range.end - range.start;
        if span >= 2.0 { (span.floor() + 1.0).min(MOST_TICKS) as usize } else { 8 }
    }
}

impl Picture for SelectionPlot {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        if self.points.is_empty() {
            return Some(format!("no {} was tried", self.x_label));
        }
        let bad = |x: f64| !x.is_finite() || x <= 0.0;
        let mut settings = self.points.iter().map(|point| point.0).chain([self.chosen]);
        settings.find(|&x| bad(x)).map(|x| format!("{x} cannot be drawn on the axis of {}", self.x_label))
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let panel = lines::draw_header(area, &self.title, &KINDS, Some(self.chosen_in_words()))?;
        self.draw_panel(&panel)
    }
}

/// A [`SelectionPlot`] as SVG text.
pub(in crate::report) fn selection_svg(selection: &SelectionPlot) -> Result<String, String> {
    selection.problem().map_or(Ok(()), Err)?;
    let marked = Some(selection.chosen_in_words());
    panel_svg(PANEL, |area| selection.draw_panel(&lines::draw_key(area, &KINDS, marked)?))
}

impl SelectionPlot {
    fn chosen_in_words(&self) -> String {
        format!("chosen: {} = {}", self.x_label, short(self.chosen))
    }

    /// The name of the axis; with what decided, where that is not the accuracy that is drawn.
    fn x_name(&self) -> String {
        match self.metric {
            SelectionMetric::Accuracy => self.x_label.clone(),
            metric => format!("{}, chosen by {}", self.x_label, metric.in_words()),
        }
    }

    fn draw_panel<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let training = self.series(SeriesKind::Training, |point| point.1);
        let series = [training, self.series(SeriesKind::Validation, |point| point.2)];
        let axis = XAxis {
            range: self.range(),
            name: &self.x_name(),
            ticks: self.ticks(),
            label: &|&place| self.label(place),
        };
        lines::draw_measure(area, Measure::Accuracy, &axis, Some(self.chosen.log10()), &series)
    }
}

fn short(value: f64) -> String {
    significant(value, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(settings: &[f64]) -> SelectionPlot {
        let points = settings.iter().map(|&x| (x, 0.9, 0.8)).collect();
        let (metric, chosen) = (SelectionMetric::Accuracy, settings[0]);
        SelectionPlot { title: String::new(), x_label: "C".into(), points, chosen, metric }
    }

    #[test]
    fn settings_without_a_place_are_named() {
        assert_eq!(selection(&[1.0, 10.0]).problem(), None);
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let problem = selection(&[1.0, wrong]).problem().unwrap();
            assert!(problem.contains(&wrong.to_string()), "{problem}");
        }
        let nothing = SelectionPlot { points: Vec::new(), ..selection(&[1.0]) };
        assert_eq!(nothing.problem().unwrap(), "no C was tried");
    }

    #[test]
    fn the_axis_holds_every_setting() {
        for settings in [&[1.0][..], &[1e-6, 1e5], &[0.5, 0.7], &[1e300], &[5.0, 1.0, 3.0]] {
            let selection = selection(settings);
            let range = selection.range();
            assert!(settings.iter().all(|&x| range.contains(&x.log10())), "{settings:?}");
            assert!((2..=12).contains(&selection.ticks()));
        }
    }

    #[test]
    fn a_choice_by_another_metric_is_not_drawn_as_one_by_accuracy() {
        let found = selection(&[10.0]);
        assert_eq!(found.x_name(), "C");
        let balanced = SelectionPlot { metric: SelectionMetric::BalancedAccuracy, ..found };
        assert_eq!(balanced.x_name(), "C, chosen by balanced accuracy");
    }

    #[test]
    fn all_ticks_are_written_alike() {
        let labels = |settings: &[f64], places: [f64; 3]| places.map(|place| selection(settings).label(place));
        assert_eq!(labels(&[1e-6, 1e5], [-6.0, 0.0, 4.0]), ["1e-6", "1e0", "1e4"]);
        assert_eq!(labels(&[0.01, 100.0], [-2.0, 0.0, 2.0]), ["0.01", "1", "100"]);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [1.0, 0.316_227_766, 1e-6, 1e5, 99_999.0, 0.001, 3.0, 0.0, 2.154_434e-5].map(short);
        assert_eq!(shown, ["1", "0.316", "1e-6", "1e5", "1e5", "0.001", "3", "0", "2.15e-5"]);
    }
}
