//! The score of each strategy against its wall time.

use super::labels::{self, Area};
use super::lines;
use super::prelude::*;

/// What is drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tradeoff {
    /// Above the picture.
    pub title: String,
    /// Below the title.
    pub subtitle: String,
    /// What is drawn upwards, in words.
    pub measure: &'static str,
    /// The strategies.
    pub points: Vec<TradeoffPoint>,
}

/// One strategy of a [`Tradeoff`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TradeoffPoint {
    /// Its name.
    pub name: String,
    /// Wall time of a run; above 0.
    pub seconds: f64,
    /// As a fraction.
    pub score: f64,
    /// The 95 % interval of the score.
    pub interval: Option<[f64; 2]>,
    /// Whether it is the one to take; it has a ring.
    pub recommended: bool,
}

const SIZE: (i32, i32) = (1160, 800);
/// Where the points are.
const PANEL: Area = Area { left: 130, top: 168, right: SIZE.0 - 50, bottom: SIZE.1 - 110 };
/// Free room inside the panel, for labels of points at its edges.
const PADDING: i32 = 60;
const RADIUS: i32 = 9;
const CAP: i32 = 8;
/// Length of a mark on an axis, outwards as in the other pictures.
const MARK: i32 = 5;
/// Between marks on the time axis, so that their names do not meet.
const MARK_DISTANCE: i32 = 104;
/// Units of time, their seconds, and the round numbers of each up to the next.
const UNITS: [(&str, f64, &[f64]); 4] = [
    ("s", 1.0, &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0]),
    ("min", 60.0, &[1.0, 2.0, 5.0, 10.0, 20.0, 30.0]),
    ("h", 3600.0, &[1.0, 2.0, 5.0, 10.0]),
    ("d", 86_400.0, &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0]),
];

impl Tradeoff {
    /// Per cent that the panel shows.
    fn shares(&self) -> Range<f64> {
        let shown = |point: &TradeoffPoint| {
            let [low, high] = point.interval.unwrap_or([point.score; 2]);
            [100.0 * low.min(point.score), 100.0 * high.max(point.score)]
        };
        let (low, high) = style::extremes(self.points.iter().flat_map(shown));
        // Never so narrow that noise looks like a trend.
        let margin = (0.05 * (high - low)).max(2.5 - 0.5 * (high - low)).max(0.5);
        low - margin..high + margin
    }

    /// Decadic logarithms of the seconds that the panel shows.
    fn times(&self) -> Range<f64> {
        let (low, high) = style::extremes(self.points.iter().map(|point| point.seconds.log10()));
        // At least a factor of three, so that there are marks to read it by.
        let margin = (0.04 * (high - low)).max(0.25 - 0.5 * (high - low));
        low - margin..high + margin
    }
}

/// Places moved to the right as far as it takes for their intervals not to lie on each other.
fn apart(places: &[i32]) -> Vec<i32> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&index| places[index]);
    let mut moved = places.to_vec();
    for pair in order.windows(2) {
        moved[pair[1]] = moved[pair[1]].max(moved[pair[0]] + 2 * CAP + 8);
    }
    moved
}

/// From values to pixels.
struct PixelScale {
    times: Range<f64>,
    shares: Range<f64>,
}

impl PixelScale {
    fn x(&self, seconds: f64) -> i32 {
        let share = (seconds.log10() - self.times.start) / (self.times.end - self.times.start);
        PANEL.left + PADDING + (share * f64::from(PANEL.right - PANEL.left - 2 * PADDING)).round() as i32
    }

    fn y(&self, percent: f64) -> i32 {
        let share = (percent - self.shares.start) / (self.shares.end - self.shares.start);
        PANEL.bottom - (share * f64::from(PANEL.bottom - PANEL.top)).round() as i32
    }

    /// Round times that lie in the panel with room for their names: pixels and names.
    fn marks(&self) -> Vec<(i32, String)> {
        let mut marks: Vec<(i32, String)> = Vec::new();
        for (unit, seconds, numbers) in UNITS {
            for number in numbers {
                let x = self.x(number * seconds);
                let free = marks.last().is_none_or(|(last, _)| x >= last + MARK_DISTANCE);
                if free && (PANEL.left..=PANEL.right).contains(&x) {
                    marks.push((x, format!("{number} {unit}")));
                }
            }
        }
        marks
    }

    /// Round percentages, about six of them.
    fn percents(&self) -> Vec<f64> {
        let wanted = (self.shares.end - self.shares.start) / 6.0;
        let step = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0].into_iter().find(|step| *step >= wanted).unwrap_or(25.0);
        let (first, last) = ((self.shares.start / step).ceil() as i32, (self.shares.end / step).floor() as i32);
        (first..=last).map(|i| f64::from(i) * step).filter(|percent| (0.0..=100.0).contains(percent)).collect()
    }
}

impl Picture for Tradeoff {
    fn size(&self) -> (u32, u32) {
        (SIZE.0 as u32, SIZE.1 as u32)
    }

    fn problem(&self) -> Option<String> {
        let bad = |point: &&TradeoffPoint| {
            let seconds = point.seconds.is_finite() && point.seconds > 0.0;
            let shares = point.interval.unwrap_or_default();
            !seconds || !shares.into_iter().chain([point.score]).all(f64::is_finite)
        };
        match self.points.iter().find(bad) {
            _ if self.points.is_empty() => Some("no strategy has finished".into()),
            Some(point) => Some(format!("the time or the score of {} is not a number", point.name)),
            None => None,
        }
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let axes = PixelScale { times: self.times(), shares: self.shares() };
        self.draw_titles(area)?;
        draw_axes(area, &axes, self.measure)?;
        lines::draw_dashes(area, (PANEL.left, PANEL.right), self.best(&axes), 2)?;
        let across = apart(&self.points.iter().map(|point| axes.x(point.seconds)).collect::<Vec<_>>());
        let places: Vec<(i32, i32)> =
            across.into_iter().zip(&self.points).map(|(x, point)| (x, axes.y(100.0 * point.score))).collect();
        self.draw_names(area, &axes, &places)?;
        // The recommended one last, so that none lies on it.
        for recommended in [false, true] {
            let chosen = || self.points.iter().zip(&places).filter(|(point, _)| point.recommended == recommended);
            chosen().try_for_each(|(point, &(x, _))| draw_interval(area, &axes, x, point))?;
            chosen().try_for_each(|(_, &place)| draw_mark(area, place, recommended))?;
        }
        Ok(())
    }
}

impl Tradeoff {
    fn draw_titles<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        for (line, size, color, y) in [(&self.title, TITLE, INK, 44), (&self.subtitle, TICK, GREY, 88)] {
            let line = style::fit(&printable(line), size, SIZE.0 - 80);
            area.draw(&Text::new(line, (SIZE.0 / 2, y), style::centred(size, color)))?;
        }
        let y = 132;
        let entries = [
            format!("{} with its 95 % interval", self.measure),
            "recommended".into(),
            format!("highest {}", self.measure),
        ];
        let widths = entries.each_ref().map(|entry| style::width(entry, TICK) + 110);
        let mut x = (SIZE.0 - widths.iter().sum::<i32>()) / 2;
        for (i, (entry, width)) in entries.into_iter().zip(widths).enumerate() {
            match i {
                0 => draw_mark(area, (x + 30, y), false)?,
                1 => draw_mark(area, (x + 30, y), true)?,
                _ => lines::draw_dashes(area, (x, x + 60), y, 2)?,
            }
            area.draw(&Text::new(entry, (x + 76, y), style::left(TICK, INK)))?;
            x += width;
        }
        Ok(())
    }

    /// Where the highest accuracy lies, with which cheaper strategies' intervals are compared.
    fn best(&self, axes: &PixelScale) -> i32 {
        axes.y(100.0 * style::extremes(self.points.iter().map(|point| point.score)).1)
    }

    fn draw_names<B: DrawingBackend>(&self, area: &Canvas<B>, axes: &PixelScale, places: &[(i32, i32)]) -> Drawn<B> {
        const FAR: i32 = 30;
        let height = LABEL as i32 + 6;
        let names: Vec<String> =
            self.points.iter().map(|point| style::fit(&printable(&point.name), LABEL, 300)).collect();
        let widths: Vec<i32> = names.iter().map(|name| style::width(name, LABEL) + 8).collect();
        let marks = places.iter().map(|&place| Area::around(place, 2 * RADIUS + 12, 2 * RADIUS + 12));
        let bars = self.points.iter().zip(places).filter_map(|(point, &(x, _))| {
            let [low, high] = point.interval?;
            let (top, bottom) = (axes.y(100.0 * high), axes.y(100.0 * low));
            Some(Area { left: x - CAP, top, right: x + CAP, bottom })
        });
        let best = self.best(axes);
        let line = Area { left: PANEL.left, top: best - 2, right: PANEL.right, bottom: best + 2 };
        let taken = marks.chain(bars).chain([line]).collect();
        let found = labels::place(places, &widths, height, PANEL, taken);
        for (((point, name), label), &(x, y)) in self.points.iter().zip(names).zip(found).zip(places) {
            let nearest = (x.clamp(label.left, label.right), y.clamp(label.top, label.bottom));
            if (nearest.0 - x).abs().max((nearest.1 - y).abs()) > FAR {
                area.draw(&PathElement::new([(x, y), nearest], GREY.stroke_width(1)))?;
            }
            let corners = [(label.left, label.top), (label.right, label.bottom)];
            area.draw(&Rectangle::new(corners, ShapeStyle::from(PAPER).filled()))?;
            let color = if point.recommended { VERMILION } else { INK };
            area.draw(&Text::new(name, label.centre(), style::centred(LABEL, color)))?;
        }
        Ok(())
    }
}

fn draw_axes<B: DrawingBackend>(area: &Canvas<B>, axes: &PixelScale, measure: &str) -> Drawn<B> {
    let line = |from: (i32, i32), to: (i32, i32), color: RGBColor| PathElement::new([from, to], color.stroke_width(2));
    for percent in axes.percents() {
        let y = axes.y(percent);
        area.draw(&line((PANEL.left, y), (PANEL.right, y), FAINT))?;
        area.draw(&line((PANEL.left - MARK, y), (PANEL.left, y), GREY))?;
        let text = style::right(TICK, INK);
        area.draw(&Text::new(format!("{percent}"), (PANEL.left - 14, y), text))?;
    }
    for (x, name) in axes.marks() {
        area.draw(&line((x, PANEL.bottom), (x, PANEL.bottom + MARK), GREY))?;
        area.draw(&Text::new(name, (x, PANEL.bottom + 18), style::text(TICK, INK, HPos::Center, VPos::Top)))?;
    }
    area.draw(&line((PANEL.left, PANEL.top), (PANEL.left, PANEL.bottom), GREY))?;
    area.draw(&line((PANEL.left, PANEL.bottom), (PANEL.right, PANEL.bottom), GREY))?;
    let (x, y) = PANEL.centre();
    let below = style::centred(LABEL, INK);
    area.draw(&Text::new("wall time of a run, logarithmic", (x, SIZE.1 - 34), below))?;
    area.draw(&Text::new(format!("test {measure}, %"), (36, y), style::upward(&style::centred(LABEL, INK))))
}

fn draw_interval<B: DrawingBackend>(area: &Canvas<B>, axes: &PixelScale, x: i32, point: &TradeoffPoint) -> Drawn<B> {
    let Some([low, high]) = point.interval else { return Ok(()) };
    let (top, bottom) = (axes.y(100.0 * high), axes.y(100.0 * low));
    let color = if point.recommended { VERMILION } else { BLUE };
    let lines = [[(x, top), (x, bottom)], [(x - CAP, top), (x + CAP, top)], [(x - CAP, bottom), (x + CAP, bottom)]];
    lines.into_iter().try_for_each(|line| area.draw(&PathElement::new(line, color.stroke_width(3))))
}

/// A disc; with a ring around it for the recommended one.
fn draw_mark<B: DrawingBackend>(area: &Canvas<B>, place: (i32, i32), recommended: bool) -> Drawn<B> {
    let color = if recommended { VERMILION } else { BLUE };
    if recommended {
        area.draw(&style::disc(place, RADIUS + 6, PAPER))?;
        area.draw(&Circle::new(place, RADIUS + 6, color.stroke_width(3)))?;
    }
    area.draw(&style::disc(place, RADIUS, color))
}
