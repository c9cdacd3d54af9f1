//! Names beside points that lie close together: each in the nearest free place around its point.

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

impl Area {
    /// A box of this width and height around a place.
    pub(super) fn around((x, y): (i32, i32), width: i32, height: i32) -> Self {
        let (left, top) = (x - width / 2, y - height / 2);
        Self { left, top, right: left + width, bottom: top + height }
    }

    pub(super) fn centre(self) -> (i32, i32) {
        (i32::midpoint(self.left, self.right), i32::midpoint(self.top, self.bottom))
    }

    /// The pixels that both cover.
    fn overlap(self, other: Self) -> i64 {
        let shared = |low: i32, high: i32| i64::from((high - low).max(0));
        shared(self.left.max(other.left), self.right.min(other.right))
            * shared(self.top.max(other.top), self.bottom.min(other.bottom))
    }

    fn size(self) -> i64 {
        i64::from(self.right - self.left) * i64::from(self.bottom - self.top)
    }
}

/// Around a point: right, left, above, below, then between them; as shares of the distance.
const DIRECTIONS: [(i32, i32); 8] = [(1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)];
/// From the edge of a label to its point.
const DISTANCES: [i32; 6] = [18, 40, 64, 90, 120, 160];

/// The places of labels of these widths and one height: within `bounds`, off `taken` and off each other, as near to their
/// points as there is room. Where there is none, where they cover least.
pub(super) fn place(
    points: &[(i32, i32)],
    widths: &[i32],
    height: i32,
    bounds: Area,
    mut taken: Vec<Area>,
) -> Vec<Area> {
    let mut places = Vec::new();
    for (&point, &width) in points.iter().zip(widths) {
        let covered = |area: &Area| {
            let others: i64 = taken.iter().map(|other| area.overlap(*other)).sum();
            others + area.size() - area.overlap(bounds)
        };
        let around =
            DISTANCES.iter().flat_map(|&distance| DIRECTIONS.iter().map(move |direction| (distance, direction)));
        let candidates = around.map(|(distance, &(right, down))| {
            let (x, y) = (point.0 + right * (distance + width / 2), point.1 + down * (distance + height / 2));
            Area::around((x, y), width, height)
        });
        // Of equally good ones the first, which is the nearest.
        let best = candidates.min_by_key(covered).unwrap_or_else(|| Area::around(point, width, height));
        taken.push(best);
        places.push(best);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Area = Area { left: 0, top: 0, right: 1000, bottom: 600 };

    #[test]
    fn a_lone_label_is_to_the_right_and_one_at_the_edge_to_the_left() {
        let places = place(&[(500, 300), (990, 500)], &[100, 100], 30, BOUNDS, Vec::new());
        assert_eq!(places[0], Area { left: 518, top: 285, right: 618, bottom: 315 });
        assert_eq!(places[1].right, 990 - 18);
    }

    proptest! {
        #[test]
        fn labels_of_a_few_points_never_meet(points in prop::collection::vec((300..700i32, 200..400i32), 1..8)) {
            let marks: Vec<Area> = points.iter().map(|&point| Area::around(point, 20, 20)).collect();
            let places = place(&points, &vec![120; points.len()], 28, BOUNDS, marks.clone());
            for (i, area) in places.iter().enumerate() {
                prop_assert!(area.overlap(BOUNDS) == area.size());
                prop_assert!(places[..i].iter().chain(&marks).all(|other| area.overlap(*other) == 0));
            }
        }
    }
}
