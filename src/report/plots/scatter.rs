//! Points of labelled images in a plane, such as t-SNE makes it: the data, and the picture.

use super::palette::{self, Outline};
use super::prelude::*;
use crate::linalg::tally;
use crate::system::shown::{Shown, counted};
use plotters::style::BLACK;
use std::path::PathBuf;

/// Labelled points: a colour and a shape for each class, with its count in the legend, and a ring around each misclassified
/// point. The axes have no unit, so only distances count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scatter {
    /// Above the picture.
    pub title: String,
    /// Below the title: how the points were made.
    pub subtitle: String,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The images.
    pub points: Vec<ScatterPoint>,
}

/// One image of a [`Scatter`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScatterPoint {
    /// To the right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// The true class, as an index.
    pub class: usize,
    /// The split that the image belongs to.
    pub split: String,
    /// The image file.
    pub path: PathBuf,
    /// The class a classifier gave it, as an index.
    pub predicted: Option<usize>,
}

impl ScatterPoint {
    /// Whether a classifier took it for another class.
    pub fn misclassified(&self) -> bool {
        self.predicted.is_some_and(|predicted| predicted != self.class)
    }
}

impl Scatter {
    /// The points moved and scaled alike in both directions into the square from -1 to 1; in its middle if all are
    /// equal.
    pub(in crate::report) fn places(&self) -> Vec<(f64, f64)> {
        // Halves, because the whole extent may overflow.
        let middle = |value: fn(&ScatterPoint) -> f64| {
            let (low, high) = style::extremes(self.points.iter().map(|point| value(point) / 2.0));
            (low + high, high - low)
        };
        let ((x, half_width), (y, half_height)) = (middle(|point| point.x), middle(|point| point.y));
        let half = half_width.max(half_height);
        let place = |value: f64, middle: f64| if half > 0.0 { ((value - middle) / half).clamp(-1.0, 1.0) } else { 0.0 };
        self.points.iter().map(|point| (place(point.x, x), place(point.y, y))).collect()
    }

    /// How many points each class has.
    pub(in crate::report) fn counts(&self) -> Vec<usize> {
        tally(self.points.iter().map(|point| point.class), self.classes.len())
    }

    /// Misclassified points and points with a prediction; none if there is no prediction.
    pub(in crate::report) fn mistakes(&self) -> Option<(usize, usize)> {
        let predicted = self.points.iter().filter(|point| point.predicted.is_some()).count();
        (predicted > 0).then(|| (self.points.iter().filter(|point| point.misclassified()).count(), predicted))
    }
}

/// The side of the square that holds the points.
const SIDE: i32 = 1100;
/// Room for half a ringed mark.
const PADDING: i32 = 30;
const MARGIN: i32 = 40;
const GAP: i32 = 14;
const ROW: i32 = 38;
/// The most rows of the legend, two of them kept for what is not a class.
const ROWS: usize = (SIDE / ROW) as usize - 2;
const COLUMNS: usize = 2;
const LONGEST_NAME: i32 = 340;
/// The radius of a mark in the legend.
const SAMPLE: f64 = 9.0;

/// Where everything goes, in pixels.
struct Layout<'a> {
    scatter: &'a Scatter,
    /// The shown classes: name and count.
    entries: Vec<(String, String)>,
    /// Below them: what is not a class, and whether it is about ringed points.
    notes: Vec<(String, bool)>,
    column: i32,
    size: (i32, i32),
    top: i32,
}

impl<'a> Layout<'a> {
    fn new(scatter: &'a Scatter) -> Self {
        let shown = scatter.classes.len().min(ROWS * COLUMNS);
        let entry =
            |(name, count): (&String, usize)| (style::fit(&printable(name), TICK, LONGEST_NAME), count.to_string());
        let entries: Vec<_> = scatter.classes.iter().zip(scatter.counts()).take(shown).map(entry).collect();
        let mut notes = Vec::new();
        if shown < scatter.classes.len() {
            notes.push((format!("and {}", counted(scatter.classes.len() - shown, "more class")), false));
        }
        let mistakes = scatter.mistakes();
        notes.extend(mistakes.map(|(wrong, predicted)| (format!("misclassified: {wrong} of {predicted}"), true)));
        let widest = |part: fn(&(String, String)) -> &str| {
            entries.iter().map(|entry| style::width(part(entry), TICK)).max().unwrap_or(0)
        };
        let column = 3 * GAP + widest(|entry| &entry.0) + 2 * GAP + widest(|entry| &entry.1);
        let noted = notes.iter().map(|(note, _)| 3 * GAP + style::width(note, TICK)).max().unwrap_or(0);
        let columns = shown.div_ceil(ROWS) as i32;
        let legend = (columns * column + (columns - 1) * 3 * GAP).max(noted);
        let subtitle = if scatter.subtitle.is_empty() { 0 } else { LABEL as i32 + GAP };
        let top = MARGIN + TITLE as i32 + 2 * GAP + subtitle;
        let size = (MARGIN + SIDE + 3 * GAP + legend + MARGIN, top + SIDE + MARGIN);
        Self { scatter, entries, notes, column, size, top }
    }

    fn draw_titles<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let room = self.size.0 - 2 * MARGIN;
        let lines = [(&self.scatter.title, TITLE, INK, 0), (&self.scatter.subtitle, LABEL, GREY, TITLE as i32 + GAP)];
        lines.into_iter().try_for_each(|(line, size, color, down)| {
            let line = style::fit(&printable(line), size, room);
            let place = (self.size.0 / 2, MARGIN + down);
            area.draw(&Text::new(line, place, style::text(size, color, HPos::Center, VPos::Top)))
        })
    }

    fn draw_points<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let frame = [(MARGIN, self.top), (MARGIN + SIDE, self.top + SIDE)];
        area.draw(&Rectangle::new(frame, FAINT.stroke_width(2)))?;
        let points = &self.scatter.points;
        let half = f64::from(SIDE / 2 - PADDING);
        let pixel = |(x, y): (f64, f64)| {
            let (right, down) = ((half * x).round() as i32, (half * -y).round() as i32);
            (MARGIN + SIDE / 2 + right, self.top + SIDE / 2 + down)
        };
        let places: Vec<(i32, i32)> = self.scatter.places().into_iter().map(pixel).collect();
        let (radius, opacity) = (radius(points.len()), opacity(points.len()));
        for i in drawing_order(points.len()) {
            let mark = palette::mark(points[i].class);
            draw_shape(area, mark.shape, places[i], radius, ShapeStyle::from(mark.light.mix(opacity)).filled())?;
        }
        // Rings come last, so that no point hides one.
        let wrong = points.iter().zip(places).filter(|(point, _)| point.misclassified());
        wrong.into_iter().try_for_each(|(_, place)| draw_ring(area, place, radius))
    }

    fn draw_legend<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let left = MARGIN + SIDE + 3 * GAP;
        let name_style = style::left(TICK, INK);
        let count_style = style::right(TICK, GREY);
        let rows = self.entries.len().min(ROWS);
        for (i, (name, count)) in self.entries.iter().enumerate() {
            let x = left + (i / ROWS) as i32 * (self.column + 3 * GAP);
            let y = self.top + (i % ROWS) as i32 * ROW + ROW / 2;
            let mark = palette::mark(i);
            draw_shape(area, mark.shape, (x + GAP, y), SAMPLE, ShapeStyle::from(mark.light).filled())?;
            area.draw(&Text::new(name.as_str(), (x + 3 * GAP, y), name_style.clone()))?;
            area.draw(&Text::new(count.as_str(), (x + self.column, y), count_style.clone()))?;
        }
        for (i, (note, ringed)) in self.notes.iter().enumerate() {
            let y = self.top + (rows + i) as i32 * ROW + ROW / 2 + GAP;
            if *ringed {
                draw_shape(area, Outline::Disc, (left + GAP, y), SAMPLE - 2.0, ShapeStyle::from(GREY).filled())?;
                draw_ring(area, (left + GAP, y), SAMPLE - 2.0)?;
            }
            area.draw(&Text::new(note.as_str(), (left + 3 * GAP, y), name_style.clone()))?;
        }
        Ok(())
    }
}

impl Picture for Scatter {
    fn size(&self) -> (u32, u32) {
        let (width, height) = Layout::new(self).size;
        (width as u32, height as u32)
    }

    fn problem(&self) -> Option<String> {
        let k = self.classes.len();
        let bad = |point: &ScatterPoint| {
            let name = point.path.shown();
            if !(point.x.is_finite() && point.y.is_finite()) {
                Some(format!("the position of {name} is not a number"))
            } else if point.class >= k || point.predicted.is_some_and(|predicted| predicted >= k) {
                Some(format!("{name} has a class beyond the {k} named ones"))
            } else {
                None
            }
        };
        if self.points.is_empty() { Some("there are no points".into()) } else { self.points.iter().find_map(bad) }
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let layout = Layout::new(self);
        layout.draw_titles(area)?;
        layout.draw_points(area)?;
        layout.draw_legend(area)
    }
}

/// A mark of a radius in pixels.
pub(super) fn draw_shape<B: DrawingBackend>(
    area: &Canvas<B>,
    shape: Outline,
    (x, y): (i32, i32),
    radius: f64,
    style: ShapeStyle,
) -> Drawn<B> {
    let corners = shape.corners();
    if corners.is_empty() {
        return area.draw(&Circle::new((x, y), radius.round() as i32, style));
    }
    let corner =
        |&(right, down): &(f64, f64)| (x + (radius * right).round() as i32, y + (radius * down).round() as i32);
    area.draw(&Polygon::new(corners.iter().map(corner).collect::<Vec<_>>(), style))
}

/// The sign of a misclassified point: a dark ring around it, with a bright one that sets it off from its neighbours.
fn draw_ring<B: DrawingBackend>(area: &Canvas<B>, place: (i32, i32), radius: f64) -> Drawn<B> {
    let ring = (1.35 * radius + 1.5).round() as i32;
    let rings: [(RGBColor, i32); 2] = [(PAPER, ring + 2), (BLACK, ring)];
    rings.into_iter().try_for_each(|(color, radius)| area.draw(&Circle::new(place, radius, color.stroke_width(2))))
}

/// The radius of a mark, as pictures are drawn, at twice the size they are read at: 11 pixels for a few points, 4 for
/// 20,000.
pub(in crate::report) fn radius(n: usize) -> f64 {
    (12.0 - 1.9 * (n as f64).log10()).clamp(4.0, 11.0)
}

/// Points shine through each other the more of them there are.
pub(in crate::report) fn opacity(n: usize) -> f64 {
    (1.05 - 0.12 * (n as f64).log10()).clamp(0.5, 0.9)
}

/// All indices, mixed the same way each time: points come class by class, and the last class would hide the others.
pub(in crate::report) fn drawing_order(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    // Fibonacci hashing: multiples of 2^32 over the golden ratio scatter evenly.
    order.sort_by_key(|&i| (i as u32).wrapping_mul(2_654_435_769));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(places: &[(f64, f64)]) -> Scatter {
        let points = places.iter().map(|&(x, y)| ScatterPoint { x, y, ..ScatterPoint::default() }).collect();
        Scatter { classes: vec!["a".into(), "b".into()], points, ..Scatter::default() }
    }

    #[test]
    fn both_directions_have_one_scale() {
        let places = of(&[(10.0, 5.0), (30.0, 5.0), (20.0, 10.0)]).places();
        assert_eq!(places, [(-1.0, -0.25), (1.0, -0.25), (0.0, 0.25)]);
    }

    #[test]
    fn equal_points_lie_in_the_middle() {
        assert_eq!(of(&[(7.0, -3.0); 3]).places(), [(0.0, 0.0); 3]);
    }

    proptest! {
        #[test]
        fn every_place_is_within_the_square(places in prop::collection::vec((prop::num::f64::NORMAL, prop::num::f64::ANY), 1..9)) {
            let places: Vec<_> = places.into_iter().map(|(x, y)| (x, if y.is_finite() { y } else { f64::MAX })).collect();
            for (x, y) in of(&places).places() {
                prop_assert!((-1.0..=1.0).contains(&x) && (-1.0..=1.0).contains(&y), "{x} {y}");
            }
        }

        #[test]
        fn the_order_is_a_permutation(n in 0usize..3000) {
            let mut order = drawing_order(n);
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..n));
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_named() {
        assert_eq!(of(&[(0.0, 0.0)]).problem(), None);
        assert!(of(&[]).problem().unwrap().contains("no points"));
        assert!(of(&[(0.0, f64::NAN)]).problem().unwrap().contains("not a number"));
        let mut unknown = of(&[(0.0, 0.0)]);
        unknown.points[0].path = "a/b.png".into();
        unknown.points[0].predicted = Some(2);
        assert_eq!(unknown.problem().unwrap(), "a/b.png has a class beyond the 2 named ones");
        unknown.points[0] = ScatterPoint { class: 2, ..ScatterPoint::default() };
        assert!(unknown.problem().is_some());
    }

    #[test]
    fn mistakes_are_counted_among_predictions() {
        let mut scatter = of(&[(0.0, 0.0), (1.0, 0.0), (2.0, 1.0)]);
        assert_eq!(scatter.mistakes(), None);
        scatter.points[0].predicted = Some(1);
        scatter.points[1].predicted = Some(0);
        assert_eq!(scatter.mistakes(), Some((1, 2)));
        assert_eq!(scatter.counts(), [3, 0]);
    }
}
