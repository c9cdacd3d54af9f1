//! Where in an image its class was found, as a picture and a box.

use super::finder::{Finder, Found};
use super::saved::SavedRun;
use crate::data::transform::{Bag, Geometry};
use crate::error::{Error, Result};
use crate::features::{EvidenceGrid, Looked, LookedBag, Region, TiledImages};
use crate::pixels::reduced;
use crate::report::html::{MapKind, frame};
use crate::system::shown::Shown;
use image::RgbImage;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Characters of an image's name that its map takes over: file systems end a name at 255 bytes.
const LONGEST_STEM: usize = 60;

/// Where a class was found in an image.
#[derive(Debug, Clone, Serialize)]
pub struct Located {
    /// The picture: the image as the model sees it, in grey under colours.
    pub map: PathBuf,
    /// What the colours are.
    pub map_kind: MapKind,
    /// The strongest place: left, upper, right and lower edge in pixels of the image. None with a hint, and where nothing
    /// speaks for the class.
    #[serde(rename = "box")]
    pub place: Option<[u32; 4]>,
    /// What the patches of that place that speak for the class add to its logit; of distances, how far beyond the image's usual ones
    /// they are together.
    pub evidence: Option<f64>,
}

/// An image as the model sees it.
pub struct SeenImage<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its width and height.
    pub size: (u32, u32),
    /// The resized image, or all of an image that is cut into tiles, made smaller.
    pub shown: &'a RgbImage,
}

/// The longer side of the picture of an image that is cut into tiles, in pixels.
const LARGEST_PICTURE: u32 = 1600;

/// Draws maps into a folder.
pub struct Maps {
    /// Finds what they show.
    pub finder: Finder,
    folder: PathBuf,
    geometry: Geometry,
    /// Pictures so far, which number their names.
    drawn: AtomicUsize,
}

impl Maps {
    /// Maps of a run's answers, in `folder`, which is made if need be.
    ///
    /// # Errors
    /// When the folder cannot be made, or holds pictures; when images are cut into tiles and the head is not linear.
    pub fn new(run: &SavedRun, folder: &Path) -> Result<Self> {
        let finder = Finder::of(&run.model)?;
        if !finder.adds_up() && run.record.preprocess.tiles.is_some() {
            return Err(Error::usage_hint(
                "--maps shows what each tile adds to a score, and where images are compared with texts or with others nothing \
                 is added",
                "leave --maps out, or fit a run with probe.method = \"logistic\" or \"svm\"",
            ));
        }
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let mut files = fs::read_dir(folder).map_err(Error::io("read", folder))?.filter_map(std::result::Result::ok);
        if files.any(|file| file.path().extension().is_some_and(|ending| ending == "png")) {
            let message = format!("--maps {} holds pictures, and nothing is overwritten", folder.shown());
            return Err(Error::usage_hint(message, "name another folder, or empty that one"));
        }
        Ok(Self {
            finder,
            folder: folder.to_path_buf(),
            geometry: run.record.preprocess.geometry,
            drawn: AtomicUsize::new(0),
        })
    }

    /// Maps of some images with standardised `pixels`, which were `looked` at by [`Finder::look`], each for one class; none
    /// where its values are not finite.
    ///
    /// # Errors
    /// When a picture cannot be written or the device fails.
    pub fn draw(
        &self,
        images: &[SeenImage<'_>],
        (pixels, looked): (&[f32], Option<&Looked>),
        classes: &[usize],
    ) -> Result<Vec<Option<Located>>> {
        let (found, _) = self.finder.find(pixels, looked, classes)?;
        let draw = |(image, found): (&SeenImage<'_>, _)| {
            let in_image = |place: &Region, grid: &_| self.geometry.box_in_image(image.size, place.edges(grid));
            self.picture(image, found, in_image)
        };
        images.iter().zip(found).map(draw).collect()
    }

    /// The map of an image that is cut into tiles, which was `looked` at by [`Finder::look_at_tiles`], for one class.
    ///
    /// # Errors
    /// As [`Maps::draw`].
    pub fn draw_tiles(
        &self,
        path: &Path,
        (tiled, bag): (&TiledImages<'_>, &Bag),
        looked: Option<&LookedBag<'_>>,
        class: usize,
    ) -> Result<Option<Located>> {
        let found = self.finder.find_in_tiles((tiled, bag), looked, class)?;
        let (size, shown) = (bag.image.dimensions(), reduced(&bag.image, LARGEST_PICTURE));
        self.picture(&SeenImage { path, size, shown: &shown }, found, |place, grid| place.in_image(grid, size))
    }

    /// Saves what was found in an image with its strongest place; `in_image` tells the edges of a place in pixels of the image.
    fn picture(
        &self,
        image: &SeenImage<'_>,
        found: Option<Found>,
        in_image: impl Fn(&Region, &EvidenceGrid) -> [u32; 4],
    ) -> Result<Option<Located>> {
        let Some(found) = found else { return Ok(None) };
        let Some(mut map) = found.heat(image.shown) else { return Ok(None) };
        let Found { kind: map_kind, grid, place, .. } = found;
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let stem = image
            .path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().chars().take(LONGEST_STEM).collect());
        let path = self.folder.join(format!("{number:05}-{stem}.png"));
        if let Some(place) = &place {
            let [left, upper, right, lower] = place.edges(&grid);
            let (width, height) = (f64::from(map.width()), f64::from(map.height()));
            frame(&mut map, [left * width, upper * height, right * width, lower * height]);
        }
        map.save(&path).map_err(|error| Error::io("write", &path)(std::io::Error::other(error.to_string())))?;
        Ok(Some(Located {
            map: path,
            map_kind,
            place: place.as_ref().map(|place| in_image(place, &grid)),
            evidence: place.map(|place| place.evidence),
        }))
    }
}
