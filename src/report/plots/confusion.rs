//! The confusion matrix: counts as numbers, the share of the true class as colour.

use super::prelude::*;
use crate::metrics::confusions;

/// The side of a matrix whose cells are neither at their largest nor at their smallest.
const SIDE: i32 = 1200;
const LARGEST_CELL: i32 = 180;
/// A cell that still holds a number; only matrices beyond [`LARGEST_SIDE`] have smaller ones.
const READABLE_CELL: i32 = 36;
const LARGEST_SIDE: i32 = 2400;
/// Class names are not drawn beside cells lower than this: the classes are numbered then, and the commonest confusions
/// named below.
const LABELLED_CELL: i32 = 16;
/// Most confusions named, and the columns they are listed in.
const NAMED: usize = 24;
const COLUMNS: usize = 2;
/// Height of one of them.
const LINE: i32 = 40;
/// Least distance between two numbers at an axis.
const TICK_DISTANCE: i32 = 120;
/// Share from which colour is mixed where cells are too small for numbers, so that one image still shows.
const VISIBLE: f64 = 0.25;
/// The percentage has room below the count from here on.
const TWO_LINE_CELL: i32 = 100;
const LONGEST_NAME: i32 = 360;
const MARGIN: i32 = 40;
const GAP: i32 = 14;
const BAR: i32 = 32;
/// Shades of the colour bar; more would not be told apart.
const BAR_STEPS: i32 = 100;
/// The full colour of a cell: the blue of the palette, darkened.
const FULL: RGBColor = RGBColor(0, 78, 137);

/// A confusion matrix: counts as numbers, the share of the row as colour.
pub struct ConfusionPlot<'a> {
    /// Above the picture.
    pub title: &'a str,
    /// The names of the k classes.
    pub classes: &'a [String],
    /// (k, k); rows are true classes, columns predicted ones.
    pub counts: &'a [Vec<u64>],
}

/// The matrix and where everything goes, in pixels.
struct Layout<'a> {
    title: String,
    counts: &'a [Vec<u64>],
    names: Vec<String>,
    /// The commonest confusions, where names have no room beside the cells.
    listed: Vec<String>,
    cell: i32,
    name_size: f64,
    count_size: f64,
    /// Width of the longest name, or number, of a class.
    widest: i32,
    /// Whether the names below the columns are too wide to lie flat.
    upright: bool,
    /// Height of the list below the matrix.
    list: i32,
    /// The upper left corner of the matrix.
    origin: (i32, i32),
    size: (i32, i32),
}

impl<'a> Layout<'a> {
    fn new(&ConfusionPlot { title, classes, counts }: &ConfusionPlot<'a>) -> Self {
        let k = classes.len() as i32;
        let cell = (SIDE / k).max(READABLE_CELL.min(LARGEST_SIDE / k)).clamp(1, LARGEST_CELL);
        let side = cell * k;
        let name_size = (0.8 * f64::from(cell)).min(LABEL);
        let names: Vec<String> = if cell < LABELLED_CELL {
            Vec::new()
        } else {
            classes.iter().map(|class| style::fit(&printable(class), name_size, LONGEST_NAME)).collect()
        };
        let listed = if names.is_empty() { commonest(classes, counts) } else { Vec::new() };
        let numbers = if names.is_empty() { style::width(&k.to_string(), TICK) } else { 0 };
        let widest = names.iter().map(|name| style::width(name, name_size)).max().unwrap_or(numbers);
        let upright = !names.is_empty() && widest > cell - GAP;
        let below = if upright { widest } else { name_size.max(if names.is_empty() { TICK } else { 0.0 }) as i32 };
        let left = MARGIN + LABEL as i32 + 2 * GAP + widest;
        let top = MARGIN + TITLE as i32 + 2 * GAP;
        let right = 3 * GAP + BAR + 3 * GAP + style::width("100 %", TICK) + LABEL as i32 + MARGIN;
        let list = if listed.is_empty() { 0 } else { LINE * (2 + listed.len().div_ceil(COLUMNS) as i32) };
        let bottom = 3 * GAP + below + LABEL as i32 + MARGIN + list;
        let title = printable(title);
        let room = (left + side + right).max((style::width(&title, TITLE) + 2 * MARGIN).min(LARGEST_SIDE));
        Self {
            title: style::fit(&title, TITLE, room - 2 * MARGIN),
            count_size: count_size(counts, cell),
            counts,
            names,
            listed,
            list,
            cell,
            name_size,
            widest,
            upright,
            // A title wider than the matrix pushes it to the middle.
            origin: (left + (room - left - side - right) / 2, top),
            size: (room, top + side + bottom),
        }
    }

    fn side(&self) -> i32 {
        self.cell * self.counts.len() as i32
    }

    fn draw_cells<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let (x, y) = self.origin;
        if self.cell < READABLE_CELL {
            // Empty cells are one area: of many classes nearly all are empty.
            let corners = [(x, y), (x + self.side(), y + self.side())];
            area.draw(&Rectangle::new(corners, ShapeStyle::from(shade(0.0)).filled()))?;
        }
        for (row, counts) in self.counts.iter().enumerate() {
            let total: u64 = counts.iter().sum();
            for (column, &count) in counts.iter().enumerate() {
                if count == 0 && self.cell < READABLE_CELL {
                    continue;
                }
                let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
                let x = self.origin.0 + column as i32 * self.cell;
                let y = self.origin.1 + row as i32 * self.cell;
                self.draw_cell(area, (x, y), count, share)?;
            }
        }
        Ok(())
    }

    fn draw_cell<B: DrawingBackend>(&self, area: &Canvas<B>, (x, y): (i32, i32), count: u64, share: f64) -> Drawn<B> {
        // A thin line of paper between cells, where they are large enough to spare it.
        let inset = i32::from(self.cell >= READABLE_CELL);
        let corners = [(x + inset, y + inset), (x + self.cell - inset, y + self.cell - inset)];
        let small = self.cell < LABELLED_CELL;
        let shown = if small { VISIBLE + (1.0 - VISIBLE) * share } else { share };
        area.draw(&Rectangle::new(corners, ShapeStyle::from(shade(shown)).filled()))?;
        if self.cell < READABLE_CELL || (count == 0 && self.cell < TWO_LINE_CELL) {
            return Ok(());
        }
        let color = if share > 0.6 {
            PAPER
        } else if count == 0 {
            GREY
        } else {
            INK
        };
        let (centre, middle) = (x + self.cell / 2, y + self.cell / 2);
        let number = style::centred(self.count_size, color);
        let two_lines = count > 0 && self.cell >= TWO_LINE_CELL;
        let raised = if two_lines { self.cell / 8 } else { 0 };
        area.draw(&Text::new(count.to_string(), (centre, middle - raised), number))?;
        if two_lines {
            let percentage = style::centred(TICK, color);
            let place = (centre, middle + self.cell / 5);
            area.draw(&Text::new(format!("{:.0} %", 100.0 * share), place, percentage))?;
        }
        Ok(())
    }

    fn draw_names<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let (left, bottom) = (self.origin.0 - GAP, self.origin.1 + self.side() + GAP);
        let beside = style::right(self.name_size, INK);
        let below = if self.upright {
            style::upward(&style::right(self.name_size, INK))
        } else {
            style::text(self.name_size, INK, HPos::Center, VPos::Top)
        };
        if self.names.is_empty() {
            return self.draw_numbers(area);
        }
        for (i, name) in self.names.iter().enumerate() {
            let middle = i as i32 * self.cell + self.cell / 2;
            area.draw(&Text::new(name.as_str(), (left, self.origin.1 + middle), beside.clone()))?;
            area.draw(&Text::new(name.as_str(), (self.origin.0 + middle, bottom), below.clone()))?;
        }
        Ok(())
    }

    /// The classes by number, at round distances, and below the matrix the commonest confusions by name.
    fn draw_numbers<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let classes = self.counts.len() as i32;
        let apart = |&step: &i32| step * self.cell >= TICK_DISTANCE;
        let step = [10, 20, 25, 50, 100, 200, 250, 500].into_iter().find(apart).unwrap_or(1000);
        let numbers = std::iter::once(1).chain((1..).map(|i| i * step).take_while(|&number| number <= classes));
        for number in numbers {
            let middle = (number - 1) * self.cell + self.cell / 2;
            let (x, y) = self.origin;
            let beside = style::right(TICK, INK);
            area.draw(&Text::new(number.to_string(), (x - GAP, y + middle), beside))?;
            let below = style::text(TICK, INK, HPos::Center, VPos::Top);
            area.draw(&Text::new(number.to_string(), (x + middle, y + self.side() + GAP), below))?;
        }
        let line = |text: &str, (x, y): (i32, i32)| {
            area.draw(&Text::new(text.to_owned(), (x, y), style::text(TICK, INK, HPos::Left, VPos::Top)))
        };
        let top = self.size.1 - MARGIN - self.list + LINE / 2;
        if !self.listed.is_empty() {
            let (named, all) = (self.listed.len(), confusions(self.counts).len());
            let what =
                format!("classes are numbered in their order; {named} of {all} confusions, the commonest first:");
            line(&what, (MARGIN, top))?;
        }
        let rows = self.listed.len().div_ceil(COLUMNS).max(1);
        let width = (self.size.0 - 2 * MARGIN) / COLUMNS as i32;
        for (i, text) in self.listed.iter().enumerate() {
            let place = (MARGIN + (i / rows) as i32 * width, top + LINE * (1 + (i % rows) as i32));
            line(&style::fit(text, TICK, width - GAP), place)?;
        }
        Ok(())
    }

    fn draw_titles<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let (centre, middle) = (self.origin.0 + self.side() / 2, self.origin.1 + self.side() / 2);
        let title = style::text(TITLE, INK, HPos::Center, VPos::Top);
        area.draw(&Text::new(self.title.as_str(), (self.size.0 / 2, MARGIN), title))?;
        let columns = style::text(LABEL, INK, HPos::Center, VPos::Bottom);
        area.draw(&Text::new("predicted class", (centre, self.size.1 - MARGIN - self.list), columns))?;
        let rows = style::upward(&style::centred(LABEL, INK));
        let x = self.origin.0 - self.widest - 3 * GAP - LABEL as i32 / 2;
        area.draw(&Text::new("true class", (x, middle), rows))
    }

    /// The colours of 0 to 100 %, top to bottom from full to empty.
    fn draw_bar<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let (x, y) = (self.origin.0 + self.side() + 3 * GAP, self.origin.1);
        let side = self.side();
        for step in 0..BAR_STEPS {
            let share = 1.0 - f64::from(step) / f64::from(BAR_STEPS - 1);
            let corners = [(x, y + side * step / BAR_STEPS), (x + BAR, y + side * (step + 1) / BAR_STEPS)];
            area.draw(&Rectangle::new(corners, ShapeStyle::from(shade(share)).filled()))?;
        }
        area.draw(&Rectangle::new([(x, y), (x + BAR, y + side)], GREY.stroke_width(1)))?;
        let label = style::left(TICK, INK);
        for quarter in 0..=4 {
            let place = (x + BAR + GAP, y + side - side * quarter / 4);
            area.draw(&Text::new(format!("{} %", 25 * quarter), place, label.clone()))?;
        }
        let name = style::fit("share of the true class", TICK, side);
        let place = (x + BAR + 3 * GAP + style::width("100 %", TICK) + LABEL as i32 / 2, y + side / 2);
        area.draw(&Text::new(name, place, style::upward(&style::centred(TICK, INK))))
    }
}

impl Picture for ConfusionPlot<'_> {
    fn size(&self) -> (u32, u32) {
        let (width, height) = Layout::new(self).size;
        (width as u32, height as u32)
    }

    fn problem(&self) -> Option<String> {
        let k = self.classes.len();
        let fits = k > 0 && self.counts.len() == k && self.counts.iter().all(|row| row.len() == k);
        (!fits).then(|| format!("the matrix does not fit {k} classes"))
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let layout = Layout::new(self);
        layout.draw_cells(area)?;
        layout.draw_names(area)?;
        layout.draw_titles(area)?;
        layout.draw_bar(area)
    }
}

/// The commonest confusions in words, with the numbers of their classes.
fn commonest(classes: &[String], counts: &[Vec<u64>]) -> Vec<String> {
    let named = |class: usize| format!("{} {}", class + 1, printable(&classes[class]));
    confusions(counts)
        .into_iter()
        .take(NAMED)
        .map(|(n, truth, other)| format!("{n} x  {} taken for {}", named(truth), named(other)))
        .collect()
}

/// The height at which the longest count fits into a cell.
fn count_size(counts: &[Vec<u64>], cell: i32) -> f64 {
    let largest = counts.iter().flatten().max().copied().unwrap_or(0).to_string();
    let wanted = (0.5 * f64::from(cell)).min(TITLE);
    let room = 0.84 * f64::from(cell);
    wanted * (room / f64::from(style::width(&largest, wanted).max(1))).min(1.0)
}

/// From paper to the full colour.
fn shade(share: f64) -> RGBColor {
    let mix = |from: u8, to: u8| (f64::from(from) + share * (f64::from(to) - f64::from(from))).round() as u8;
    RGBColor(mix(245, FULL.0), mix(247, FULL.1), mix(250, FULL.2))
}
