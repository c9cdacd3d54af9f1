//! What kind of images a set holds: bit depth, colour, size. It is written down of the training images, and the images that
//! a model is asked about later are held against it: a model answers for any picture, and as surely as ever.

use super::decode::Storage;
use crate::pixels::color_spread;
use crate::system::shown::{agree, are, part_of};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bits of a channel beyond which an image is deep.
const USUAL_BITS: u8 = 8;
/// Mean difference between the largest and the smallest channel from which a picture shows colour, in levels. The noise of
/// a JPEG's colours lies below.
const LEAST_COLOR: f64 = 4.0;
/// Factor by which a longer side may leave the range of those known.
const SIDE_FACTOR: f64 = 2.0;
/// Likewise width / height.
const ASPECT_FACTOR: f64 = 1.5;
/// Images that show together that none of them uses its full depth.
const FEW: u64 = 5;

/// One image as its file stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Bits of a channel.
    pub bits: u8,
    /// Largest value of an image of 16 bits.
    pub peak: Option<u16>,
    /// Whether it shows colour, whatever its file could hold.
    pub colored: bool,
    /// Width and height in pixels.
    pub size: (u32, u32),
}

impl Look {
    /// The look of a decoded image.
    pub fn of(image: &RgbImage, storage: &Storage) -> Self {
        let pixels = u64::from(image.width()) * u64::from(image.height());
        Self {
            bits: storage.bits,
            peak: storage.peak,
            colored: color_spread(image) as f64 > LEAST_COLOR * pixels as f64,
            size: image.dimensions(),
        }
    }
}

/// What is known of the images of a set; it says nothing of an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageKinds {
    /// Images.
    pub images: u64,
    /// Those of more than 8 bits a channel.
    pub deep: u64,
    /// The largest value among images of 16 bits.
    pub peak: Option<u16>,
    /// Those that show colour.
    pub colored: u64,
    /// The shortest and the longest of their longer sides, in pixels.
    pub longer_side: (u32, u32),
    /// The least and the largest width / height.
    pub aspect: (f64, f64),
}

impl FromIterator<Look> for ImageKinds {
    fn from_iter<I: IntoIterator<Item = Look>>(looks: I) -> Self {
        looks.into_iter().fold(Self::default(), |mut kinds, look| {
            kinds.add(look);
            kinds
        })
    }
}

impl ImageKinds {
    fn add(&mut self, look: Look) {
        let (side, aspect) = (longer_side(look), aspect(look));
        if self.images == 0 {
            (self.longer_side, self.aspect) = ((side, side), (aspect, aspect));
        }
        self.images += 1;
        self.deep += u64::from(look.bits > USUAL_BITS);
        self.colored += u64::from(look.colored);
        self.peak = self.peak.max(look.peak);
        self.longer_side = (self.longer_side.0.min(side), self.longer_side.1.max(side));
        self.aspect = (self.aspect.0.min(aspect), self.aspect.1.max(aspect));
    }

    /// The depth that images of 16 bits seem to have, when none of them uses the 16: 10, 12 or 14.
    pub fn depth(&self) -> Option<u8> {
        let peak = self.peak.filter(|&peak| peak > 0)?;
        [10, 12, 14].into_iter().find(|&bits| u32::from(peak) < 1 << bits)
    }

    /// In what an image differs in kind from all of these.
    fn differences(&self, look: Look) -> impl Iterator<Item = Difference> {
        let (side, aspect) = (f64::from(longer_side(look)), aspect(look));
        let (short, long) = (f64::from(self.longer_side.0), f64::from(self.longer_side.1));
        let deep = look.bits > USUAL_BITS;
        let found = [
            (Difference::Deeper, deep && self.deep == 0),
            (Difference::Shallower, !deep && self.deep == self.images),
            (Difference::Colored, look.colored && self.colored == 0),
            (Difference::Grey, !look.colored && self.colored == self.images),
            (Difference::Larger, side > SIDE_FACTOR * long),
            (Difference::Smaller, side * SIDE_FACTOR < short),
            (Difference::Wider, aspect > ASPECT_FACTOR * self.aspect.1),
            (Difference::Taller, aspect * ASPECT_FACTOR < self.aspect.0),
        ];
        found.into_iter().filter(|(_, differs)| *differs).map(|(difference, _)| difference)
    }
}

fn longer_side(look: Look) -> u32 {
    look.size.0.max(look.size.1)
}

fn aspect(look: Look) -> f64 {
    f64::from(look.size.0) / f64::from(look.size.1.max(1))
}

/// A way in which an image is of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    Deeper,
    Shallower,
    Colored,
    Grey,
    Larger,
    Smaller,
    Wider,
    Taller,
}

/// Holds images against those that a model was trained on, from any number of threads.
#[derive(Debug)]
pub struct Watch {
    known: ImageKinds,
    seen: Mutex<SeenKinds>,
}

#[derive(Debug, Default)]
struct SeenKinds {
    all: ImageKinds,
    counts: BTreeMap<Difference, usize>,
}

impl Watch {
    /// Knows the training images.
    pub fn new(known: ImageKinds) -> Self {
        Self { known, seen: Mutex::default() }
    }

    /// Looks at an image.
    pub fn note(&self, look: Look) {
        let mut seen = self.seen();
        seen.all.add(look);
        for difference in self.known.differences(look) {
            *seen.counts.entry(difference).or_default() += 1;
        }
    }

    /// One sentence for each way in which images differ, and what only all together show: that none of them uses its depth,
    /// while training images did.
    pub fn notices(&self) -> Vec<String> {
        let SeenKinds { all, counts } = &*self.seen();
        let mut notices: Vec<String> = counts.iter().map(|(&kind, &count)| self.sentence(kind, count, all)).collect();
        if let Some((depth, peak)) = all.depth().zip(self.known.peak)
            && all.deep >= FEW
            && u32::from(peak) >= 1 << depth
        {
            notices.push(format!(
                "no value of the {} images of 16 bits is above {}, as in {depth}-bit data, while training images reach \
                 {peak}: they look darker to the model than any it has seen",
                all.deep,
                (1u32 << depth) - 1
            ));
        }
        notices
    }

    fn sentence(&self, difference: Difference, count: usize, all: &ImageKinds) -> String {
        let known = &self.known;
        let (are, have) = (are(count), agree(count, "has", "have"));
        let far = |than: &str, how: String| format!("{are} far {than} than the training images ({how})");
        let side = |than, to, this, other| far(than, format!("a side of {to} to {this} pixels, there {other}"));
        let shape = |than, to, this, other| far(than, format!("width / height {to} to {this:.2}, there {other:.2}"));
        let what = match difference {
            Difference::Deeper => {
                let depth = all.depth().map_or(String::new(), |depth| {
                    format!(" (no value above {}, as in {depth}-bit data)", (1u32 << depth) - 1)
                });
                format!("{have} 16 bits a channel{depth}, the training images 8")
            }
            Difference::Shallower => format!("{have} 8 bits a channel, the training images 16"),
            Difference::Colored => format!("{} colour, the training images none", agree(count, "shows", "show")),
            Difference::Grey => format!("{are} grey, the training images in colour"),
            Difference::Larger => side("larger", "up", all.longer_side.1, known.longer_side.1),
            Difference::Smaller => side("smaller", "down", all.longer_side.0, known.longer_side.0),
            Difference::Wider => shape("wider", "up", all.aspect.1, known.aspect.1),
            Difference::Taller => shape("taller", "down", all.aspect.0, known.aspect.0),
        };
        let images = part_of(count, all.images as usize, "image");
        format!("{images} {what}: the model has not learnt to judge such images")
    }

    fn seen(&self) -> MutexGuard<'_, SeenKinds> {
        // A thread that panicked has at worst not counted its image.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: Look = Look { bits: 8, peak: None, colored: false, size: (300, 200) };

    fn watched(training: &[Look], later: &[Look]) -> Vec<String> {
        let watch = Watch::new(training.iter().copied().collect());
        later.iter().for_each(|&look| watch.note(look));
        watch.notices()
    }

    #[test]
    fn images_of_the_same_kind_are_nothing_new() {
        let sizes = [(300, 200), (450, 300), (200, 160)].map(|size| Look { size, ..GREY });
        assert_eq!(watched(&[GREY, Look { size: (600, 400), ..GREY }], &sizes), Vec::<String>::new());
        let mixed = [GREY, Look { colored: true, bits: 16, ..GREY }];
        assert_eq!(watched(&mixed, &mixed), Vec::<String>::new());
    }

    #[test]
    fn each_other_kind_has_its_sentence() {
        let deep = Look { bits: 16, peak: Some(4000), ..GREY };
        let cases = [
            (deep, "the only image has 16 bits a channel (no value above 4095, as in 12-bit data)"),
            (Look { colored: true, ..GREY }, "the only image shows colour"),
            (
                Look { size: (3000, 2000), ..GREY },
                "far larger than the training images (a side of up to 3000 pixels, there 300)",
            ),
            (Look { size: (90, 60), ..GREY }, "the only image is far smaller"),
            (Look { size: (300, 100), ..GREY }, "far wider"),
            (Look { size: (200, 300), ..GREY }, "far taller"),
        ];
        for (look, words) in cases {
            let found = watched(&[GREY], &[look]);
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
        assert!(watched(&[deep], &[GREY])[0].contains("8 bits a channel, the training images 16"));
        assert!(watched(&[Look { colored: true, ..GREY }], &[GREY])[0].contains("is grey"));
        assert!(watched(&[GREY], &[deep, deep, GREY])[0].starts_with("2 of 3 images have 16 bits"), "once, of all");
    }

    #[test]
    fn twelve_bits_among_sixteen_show_together() {
        let deep = |peak| Look { bits: 16, peak: Some(peak), ..GREY };
        assert_eq!(watched(&[deep(65_000)], &[deep(1000); 4]), Vec::<String>::new(), "a few may be dark");
        let found = watched(&[deep(65_000)], &[deep(2000), deep(4095), deep(900), deep(100), deep(3000)]);
        assert!(found[0].contains("above 4095, as in 12-bit data, while training images reach 65000"), "{found:?}");
        assert_eq!(watched(&[deep(4000)], &[deep(3000); 9]), Vec::<String>::new());
        assert_eq!(
            [0, 1023, 1024, 4095, 4096, 16_384].map(|peak| ImageKinds::from_iter([deep(peak)]).depth()),
            [None, Some(10), Some(12), Some(12), Some(14), None]
        );
    }

    #[test]
    fn colour_is_what_the_picture_shows() {
        let storage = Storage { format: "JPEG", channels: "colour", bits: 8, peak: None };
        let look = |pixel| Look::of(&RgbImage::from_pixel(9, 9, image::Rgb(pixel)), &storage).colored;
        assert_eq!([look([90, 92, 89]), look([90, 120, 90])], [false, true]);
    }
}
