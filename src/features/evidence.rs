//! The places of an image that speak for a class.

use std::ops::Range;

/// Beside the strongest patch those belong to its place that touch it, directly or through others, and have this share of
/// its evidence.
const SHARE: f32 = 0.5;

/// Patches that hang together around the strongest one.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// From the left.
    pub columns: Range<usize>,
    /// From above.
    pub rows: Range<usize>,
    /// What they add to the logit together.
    pub evidence: f64,
}

impl Region {
    /// The strongest place in the values of a square grid in rows from the upper left; none when no patch speaks for the
    /// class, or the values do not form a square grid.
    pub fn strongest(evidence: &[f32]) -> Option<Self> {
        let grid = evidence.len().isqrt();
        let first = (0..evidence.len()).max_by(|&a, &b| evidence[a].total_cmp(&evidence[b]))?;
        let least = SHARE * evidence[first];
        if grid * grid != evidence.len() || !(least > 0.0 && least.is_finite()) {
            return None;
        }
        let (mut found, mut seen) = (vec![first], vec![false; evidence.len()]);
        seen[first] = true;
        let mut next = 0;
        while let Some(&at) = found.get(next) {
            let (row, column) = (at / grid, at % grid);
            let sides = [
                (row > 0).then(|| at - grid),
                (row + 1 < grid).then_some(at + grid),
                (column > 0).then(|| at - 1),
                (column + 1 < grid).then_some(at + 1),
            ];
            for near in sides.into_iter().flatten().filter(|&near| evidence[near] >= least) {
                if !std::mem::replace(&mut seen[near], true) {
                    found.push(near);
                }
            }
            next += 1;
        }
        let span = |of: fn(usize, usize) -> usize| {
            let places = || found.iter().map(|&at| of(at, grid));
            Some(places().min()?..places().max()? + 1)
        };
        Some(Self {
            columns: span(|at, grid| at % grid)?,
            rows: span(|at, grid| at / grid)?,
            evidence: found.iter().map(|&at| f64::from(evidence[at])).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_place_is_what_hangs_together_with_the_strongest_patch() {
        let evidence = [
            0.1, 0.0, 0.0, 0.9, //
            0.0, 0.6, 1.0, 0.0, //
            0.0, 0.0, 0.5, 0.0, //
            0.8, 0.0, 0.0, -2.0,
        ];
        let place = Region::strongest(&evidence).unwrap();
        assert_eq!((place.columns, place.rows), (1..3, 1..3));
        assert!((place.evidence - 2.1).abs() < 1e-6);
        assert_eq!(Region::strongest(&[3.0]).unwrap(), Region { columns: 0..1, rows: 0..1, evidence: 3.0 });
    }

    #[test]
    fn nothing_is_found_where_nothing_speaks_for_the_class() {
        for evidence in [&[][..], &[0.0; 4], &[-1.0; 4], &[1.0; 3], &[f32::NAN, 0.0, 0.0, 0.0]] {
            assert_eq!(Region::strongest(evidence), None, "{evidence:?}");
        }
    }
}
