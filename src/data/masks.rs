//! Masks of flaws: pictures beside the images, in which whatever is not black is flawed, in 8 bits.

use super::decode::{DecodeOptions, ImageError, decode_file};
use super::{Sample, split_folders};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Endings of a mask's name behind that of its image, as `MVTec` AD and others have them.
const ENDINGS: [&str; 2] = ["_mask", ""];
/// Formats of masks: those that lose nothing.
const FORMATS: [&str; 4] = ["png", "bmp", "tif", "tiff"];

/// Where the masks of images are.
#[derive(Debug, Clone)]
pub enum Masks {
    /// A folder: of the image `bent/000.png`, `bent/000_mask.png` or `bent/000.png` there.
    Folder(PathBuf),
    /// Where a manifest names them; the classes that have some.
    Named(BTreeSet<usize>),
}

/// The flawed pixels of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Width and height.
    pub size: (u32, u32),
    /// Pixels that hang together, diagonals too, each by column and row.
    pub regions: Vec<Vec<(u32, u32)>>,
}

impl Masks {
    /// Those that lie beside a root's splits, or a manifest; none when there are none.
    pub fn beside(root: &Path) -> Option<Self> {
        let folder = root.join(split_folders::MASKS);
        folder.is_dir().then_some(Self::Folder(folder))
    }

    /// Those that a manifest names for some images; none when it names none.
    pub fn named<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Self> {
        let classes: BTreeSet<usize> =
            samples.filter_map(|sample| sample.mask.as_ref().map(|_| sample.label)).collect();
        (!classes.is_empty()).then_some(Self::Named(classes))
    }

    /// The mask of an image; none of one without flaws.
    pub fn of(&self, sample: &Sample) -> Option<PathBuf> {
        let Self::Folder(folder) = self else { return sample.mask.as_ref().map(|mask| mask.path.clone()) };
        let class = folder.join(sample.path.parent()?.file_name()?);
        let stem = sample.path.file_stem()?.to_string_lossy();
        let names = ENDINGS.iter().flat_map(|end| FORMATS.iter().map(move |format| (end, format)));
        names.map(|(end, format)| class.join(format!("{stem}{end}.{format}"))).find(|path| path.is_file())
    }

    /// Whether images of the kind of this one have masks: those in its folder, or of its class.
    pub fn has_some_like(&self, sample: &Sample) -> bool {
        match self {
            Self::Folder(folder) => {
                let class = sample.path.parent().and_then(Path::file_name);
                class.is_some_and(|class| folder.join(class).is_dir())
            }
            Self::Named(classes) => classes.contains(&sample.label),
        }
    }
}

impl Mask {
    /// Reads a mask.
    ///
    /// # Errors
    /// When the file is not a usable image.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let image = decode_file(path, DecodeOptions::default())?;
        let (width, height) = image.dimensions();
        let mut left: Vec<bool> = image.pixels().map(|pixel| pixel.0 != [0; 3]).collect();
        let mut take = |(x, y): (u32, u32)| {
            let inside = x < width && y < height;
            inside && std::mem::take(&mut left[y as usize * width as usize + x as usize])
        };
        let mut regions = Vec::new();
        for start in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            if !take(start) {
                continue;
            }
            let mut region = vec![start];
            let mut next = 0;
            while let Some(&(x, y)) = region.get(next) {
                let near = |at: u32| at.saturating_sub(1)..=at.saturating_add(1);
                for at in near(y).flat_map(|y| near(x).map(move |x| (x, y))) {
                    if take(at) {
                        region.push(at);
                    }
                }
                next += 1;
            }
            regions.push(region);
        }
        Ok(Self { size: (width, height), regions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::sample;
    use crate::data::{MaskFile, Split};
    use image::{Rgb, RgbImage};

    #[test]
    fn a_mask_is_found_by_the_names_of_folder_and_file_and_falls_into_regions() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("ground_truth/bent");
        std::fs::create_dir_all(&folder).unwrap();
        let mut image = RgbImage::new(9, 7);
        // Two pixels that touch at a corner, and one apart.
        for (x, y) in [(1, 1), (2, 2), (8, 6)] {
            image.put_pixel(x, y, Rgb([255; 3]));
        }
        image.save(folder.join("000_mask.png")).unwrap();
        let masks = Masks::beside(root.path()).unwrap();
        let sample = |path: &str| Sample { path: root.path().join(path), ..sample(path, 0, Split::Test) };
        let mask = Mask::read(&masks.of(&sample("test/bent/000.jpg")).unwrap()).unwrap();
        assert_eq!((mask.size, mask.regions), ((9, 7), vec![vec![(1, 1), (2, 2)], vec![(8, 6)]]));
        assert_eq!(masks.of(&sample("test/bent/001.jpg")), None);
        assert!(masks.has_some_like(&sample("test/bent/001.jpg")) && !masks.has_some_like(&sample("test/good/1.jpg")));
        assert!(Masks::beside(&root.path().join("test")).is_none());

        // As a manifest names them: images of a class of which one has a mask.
        let file = MaskFile { path: folder.join("000_mask.png"), name: "000_mask.png".into() };
        let (plain, masked) = (sample("a/1.jpg"), Sample { label: 1, mask: Some(file.clone()), ..sample("a/2.jpg") });
        assert!(Masks::named([&plain].into_iter()).is_none());
        let named = Masks::named([&plain, &masked].into_iter()).unwrap();
        assert_eq!((named.of(&plain), named.of(&masked)), (None, Some(file.path)));
        assert!(named.has_some_like(&masked) && !named.has_some_like(&plain));
    }
}
