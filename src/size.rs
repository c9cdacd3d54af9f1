//! Height and width, of pixels or of patches.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Height and width. A square is written as one number, any other size as `[height, width]`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Size {
    /// From above to below.
    pub height: usize,
    /// From left to right.
    pub width: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Side(usize),
    Sides([usize; 2]),
}

impl Size {
    /// The side, if both are one.
    pub fn side(self) -> Option<usize> {
        (self.height == self.width).then_some(self.width)
    }

    /// Height and width.
    pub fn sides(self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// The longer side.
    pub fn longer(self) -> usize {
        self.height.max(self.width)
    }

    /// Pixels or patches.
    pub fn area(self) -> usize {
        self.height * self.width
    }

    /// Shape of the pixels of an image.
    pub fn shape(self) -> [usize; 3] {
        [3, self.height, self.width]
    }

    /// Values of these pixels.
    pub fn values(self) -> usize {
        3 * self.area()
    }

    /// Both sides, changed alike.
    #[must_use]
    pub fn map(self, change: impl Fn(usize) -> usize) -> Self {
        self.sides().map(change).into()
    }

    /// Row and column of all places, row by row.
    pub fn places(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.height).flat_map(move |y| (0..self.width).map(move |x| (y, x)))
    }
}

impl From<usize> for Size {
    fn from(side: usize) -> Self {
        [side, side].into()
    }
}

impl From<[usize; 2]> for Size {
    fn from([height, width]: [usize; 2]) -> Self {
        Self { height, width }
    }
}

impl From<Written> for Size {
    fn from(written: Written) -> Self {
        match written {
            Written::Side(side) => side.into(),
            Written::Sides(sides) => sides.into(),
        }
    }
}

impl From<Size> for Written {
    fn from(size: Size) -> Self {
        size.side().map_or(Self::Sides(size.sides()), Self::Side)
    }
}

/// As it is written.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side() {
            Some(side) => side.fmt(f),
            None => write!(f, "{:?}", self.sides()),
        }
    }
}

/// The same: addresses of what is kept are made of it.
impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_is_one_number() {
        for (size, written) in [(Size::from(224), "224"), (Size::from([112, 224]), "[112,224]")] {
            assert_eq!(serde_json::to_string(&size).unwrap(), written);
            assert_eq!(serde_json::from_str::<Size>(written).unwrap(), size);
        }
        assert_eq!(serde_json::from_str::<Size>("[64, 64]").unwrap(), 64.into());
        assert!(serde_json::from_str::<Size>("[1, 2, 3]").is_err() && serde_json::from_str::<Size>("-1").is_err());
        assert_eq!(Size::from([2, 3]).to_string(), "[2, 3]");
    }
}
