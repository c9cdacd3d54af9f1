//! The places of an image that speak for a class.

use crate::size::Size;
use std::ops::Range;

/// Patches belong to the strongest place where what speaks for the class there and at the eight neighbours has this share of the
/// most there is, if they touch: a flaw that two patches share speaks from both, and a maximum takes one value from one
/// patch and the next from its neighbour.
const SHARE: f32 = 0.5;

/// Patches that hang together around the strongest ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// From the left.
    pub columns: Range<usize>,
    /// From above.
    pub rows: Range<usize>,
    /// What those add to the logit that speak for the class.
    pub evidence: f64,
}

impl Region {
    /// Its left, upper, right and lower edge as shares of the picture under the grid.
    pub fn edges(&self, grid: &EvidenceGrid) -> [f64; 4] {
        let [left, right] = [self.columns.start, self.columns.end].map(|at| at as f64 / grid.columns.max(1) as f64);
        let [upper, lower] = [self.rows.start, self.rows.end].map(|at| at as f64 / grid.rows().max(1) as f64);
        [left, upper, right, lower]
    }

    /// The same in pixels of an image of that width and height, all of which lies under the grid.
    pub fn in_image(&self, grid: &EvidenceGrid, (width, height): (u32, u32)) -> [u32; 4] {
        let [left, upper, right, lower] = self.edges(grid);
        let across = |at: f64| (at * f64::from(width)).round() as u32;
        let down = |at: f64| (at * f64::from(height)).round() as u32;
        [across(left), down(upper), across(right), down(lower)]
    }
}

/// The evidence for a class at each place of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceGrid {
    /// Places from left to right.
    pub columns: usize,
    /// Row by row from the upper left.
    pub values: Vec<f32>,
}

impl EvidenceGrid {
    /// The values of a grid in rows from the upper left; none when they do not form one.
    pub fn of(grid: Size, values: Vec<f32>) -> Option<Self> {
        (!values.is_empty() && grid.area() == values.len()).then_some(Self { columns: grid.width, values })
    }

    /// Nothing everywhere.
    pub fn empty(columns: usize, rows: usize) -> Self {
        Self { columns, values: vec![0.0; columns * rows] }
    }

    /// Places from above to below.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    /// The same without what speaks against the class.
    #[must_use]
    pub fn positive(&self) -> Self {
        Self { columns: self.columns, values: self.values.iter().map(|value| value.max(0.0)).collect() }
    }

    /// Spreads a value over a rectangle, of which the left, upper, right and lower edge are given in places: each place
    /// gets a share by its area.
    pub fn spread(&mut self, [left, upper, right, lower]: [f64; 4], value: f32) {
        let area = (right - left) * (lower - upper);
        let rows = self.rows();
        let reach = |from: f64, to: f64, count: usize| {
            (from.max(0.0) as usize).min(count.saturating_sub(1))..(to.ceil().max(0.0) as usize).min(count)
        };
        let within = |at: usize, from: f64, to: f64| (to.min(at as f64 + 1.0) - from.max(at as f64)).max(0.0);
        for row in reach(upper, lower, rows) {
            for column in reach(left, right, self.columns) {
                let share = within(column, left, right) * within(row, upper, lower) / area;
                self.values[row * self.columns + column] += (f64::from(value) * share) as f32;
            }
        }
    }

    /// Raises the places whose middle lies in a rectangle to a value, if it is larger; edges as of [`EvidenceGrid::spread`].
    pub fn raise(&mut self, [left, upper, right, lower]: [f64; 4], value: f32) {
        let within = |from: f64, to: f64, count: usize| {
            let first_after = |edge: f64| ((edge - 0.5).ceil().max(0.0) as usize).min(count);
            first_after(from)..first_after(to)
        };
        for row in within(upper, lower, self.rows()) {
            for column in within(left, right, self.columns) {
                let place = &mut self.values[row * self.columns + column];
                *place = place.max(value);
            }
        }
    }

    /// What speaks for the class at each place and its neighbours together.
    fn with_neighbors(&self) -> Vec<f32> {
        let (columns, rows, values) = (self.columns, self.rows(), self.positive().values);
        let near = |at: usize, count: usize| at.saturating_sub(1)..(at + 2).min(count);
        let sum = |row: usize, column: usize| {
            near(row, rows).map(|y| values[y * columns..][near(column, columns)].iter().sum::<f32>()).sum()
        };
        (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(y, x)| sum(y, x)).collect()
    }

    /// The strongest place; none when no patch speaks for the class.
    pub fn strongest(&self) -> Option<Region> {
        let (evidence, width) = (&self.with_neighbors(), self.columns);
        let first = (0..evidence.len()).max_by(|&a, &b| evidence[a].total_cmp(&evidence[b]))?;
        let least = SHARE * evidence[first];
        if !(least > 0.0 && least.is_finite()) {
            return None;
        }
        let (mut found, mut seen) = (vec![first], vec![false; evidence.len()]);
        seen[first] = true;
        let mut next = 0;
        while let Some(&at) = found.get(next) {
            let column = at % width;
            let sides = [
                (at >= width).then(|| at - width),
                (at + width < evidence.len()).then_some(at + width),
                (column > 0).then(|| at - 1),
                (column + 1 < width).then_some(at + 1),
            ];
            for near in sides.into_iter().flatten().filter(|&near| evidence[near] >= least) {
                if !std::mem::replace(&mut seen[near], true) {
                    found.push(near);
                }
            }
            next += 1;
        }
        let span = |of: fn(usize, usize) -> usize| {
            let places = || found.iter().map(|&at| of(at, width));
            Some(places().min()?..places().max()? + 1)
        };
        Some(Region {
            columns: span(|at, width| at % width)?,
            rows: span(|at, width| at / width)?,
            evidence: found.iter().map(|&at| f64::from(self.values[at].max(0.0))).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(values: &[f32]) -> Option<EvidenceGrid> {
        EvidenceGrid::of(values.len().isqrt().into(), values.to_vec())
    }

    #[test]
    fn the_strongest_place_is_around_what_speaks_together() {
        let mut evidence = [0.0; 64];
        let strongest = |values: &[f32]| square(values)?.strongest();
        // One patch: with its neighbours.
        evidence[3 * 8 + 2] = 1.0;
        let place = strongest(&evidence).unwrap();
        assert_eq!((place.columns, place.rows, place.evidence), (1..4, 2..5, 1.0));
        // A stronger patch alone is less than three that share a flaw, whichever of them has most.
        (evidence[3 * 8 + 2], evidence[7 * 8 + 7]) = (0.6, 0.9);
        (evidence[3 * 8 + 3], evidence[4 * 8 + 2], evidence[8]) = (0.5, 0.4, -2.0);
        let place = strongest(&evidence).unwrap();
        assert_eq!((place.columns, place.rows), (1..4, 2..5));
        assert!((place.evidence - 1.5).abs() < 1e-6);
        assert_eq!(strongest(&[3.0]).unwrap(), Region { columns: 0..1, rows: 0..1, evidence: 3.0 });
    }

    #[test]
    fn nothing_is_found_where_nothing_speaks_for_the_class() {
        for evidence in [&[][..], &[0.0; 4], &[-1.0; 4], &[1.0; 3], &[f32::NAN, 0.0, 0.0, 0.0]] {
            assert_eq!(square(evidence).and_then(|grid| grid.strongest()), None, "{evidence:?}");
        }
    }

    #[test]
    fn a_value_is_spread_by_area_and_none_of_it_is_lost() {
        let mut grid = EvidenceGrid::empty(4, 2);
        grid.spread([0.5, 0.0, 2.5, 1.5], 6.0);
        assert_eq!(grid.values, [1.0, 2.0, 1.0, 0.0, 0.5, 1.0, 0.5, 0.0]);
        grid.spread([3.25, 1.75, 4.0, 2.0], 2.0);
        assert_eq!((grid.values[7], grid.rows()), (2.0, 2));
        let place = grid.strongest().unwrap();
        assert_eq!((place.columns, place.rows, place.evidence), (0..4, 0..2, 8.0));
    }

    #[test]
    fn the_places_whose_middle_is_covered_are_raised() {
        let mut grid = EvidenceGrid::empty(4, 2);
        grid.raise([0.5, 0.0, 2.5, 1.5], 6.0);
        assert_eq!(grid.values, [6.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        grid.raise([1.0, 0.0, 9.0, 9.0], 2.0);
        assert_eq!(grid.values, [6.0, 6.0, 2.0, 2.0, 0.0, 2.0, 2.0, 2.0]);
    }
}
