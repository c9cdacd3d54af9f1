//! Where in an image its class was found, as a picture and a box: the class's own evidence at each patch where the
//! features are a sum over patches and the head is linear, else attention roll-out, which is a hint.

use super::saved::SavedRun;
use super::strange::Strange;
use crate::data::transform::{Bag, Geometry};
use crate::error::{Error, Result};
use crate::features::{EvidenceGrid, Extractor, Looked, LookedBag, Region, TiledImages};
use crate::forms::shown_as_written;
use crate::model::PatchHead;
use crate::report::html::{frame, heat_map};
use crate::system::shown::Shown;
use candle_core::Tensor;
use image::{RgbImage, imageops};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MapKind {
    /// What each patch adds to the class's logit, over the mean of all classes. Summed over all patches, with the bias, it
    /// is that logit.
    Evidence,
    /// How far each patch is from the nearest one of sound parts.
    Distance,
    /// Attention roll-out, which follows attention alone.
    Hint,
}

shown_as_written!(MapKind);

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

/// An image of which the longer side is at most so many pixels.
pub fn reduced(image: &RgbImage, longest: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    if width.max(height) <= longest {
        return image.clone();
    }
    let scale = f64::from(longest) / f64::from(width.max(height));
    let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    imageops::thumbnail(image, side(width), side(height))
}

/// Draws maps into a folder.
pub struct Maps {
    folder: PathBuf,
    extractor: Extractor,
    head: Option<Tensor>,
    patches: Option<Arc<PatchHead>>,
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
        let head = run.model.linear_head();
        if head.is_none() && run.model.patch_head().is_none() && run.record.preprocess.tiles.is_some() {
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
            folder: folder.to_path_buf(),
            extractor: run.model.extractor(run.model.read())?,
            head,
            patches: run.model.patch_head(),
            geometry: run.record.preprocess.geometry,
            drawn: AtomicUsize::new(0),
        })
    }

    /// What exact maps of images with standardised `pixels` are made of; none where maps are hints.
    ///
    /// # Errors
    /// When the device fails.
    pub fn look(&self, run: &SavedRun, pixels: &[f32]) -> Result<Option<Looked>> {
        let exact = self.head.is_some() && run.record.preprocess.tiles.is_none();
        Ok(if exact { self.extractor.look(run.readout(), pixels)? } else { None })
    }

    /// Maps of some images with standardised `pixels`, which were `looked` at by [`Maps::look`], each for one class; none
    /// where its values are not finite.
    ///
    /// # Errors
    /// When a picture cannot be written or the device fails.
    pub fn draw(
        &self,
        run: &SavedRun,
        images: &[SeenImage<'_>],
        (pixels, looked): (&[f32], Option<&Looked>),
        classes: &[usize],
    ) -> Result<Vec<Option<Located>>> {
        let in_image = |grid: &EvidenceGrid, image: &SeenImage<'_>, place: &Region| {
            self.geometry.box_in_image(image.size, place.edges(grid))
        };
        if let Some(head) = &self.patches {
            let found = Strange::of_pixels(head, &self.extractor, pixels, images.len())?;
            let drawn = images.iter().zip(found).map(|(image, found)| {
                let Some(found) = found else { return Ok(None) };
                let shown = (found.heat(image.shown), found.place());
                self.picture(image, MapKind::Distance, &found.grid, shown, |place| in_image(&found.grid, image, place))
            });
            return drawn.collect();
        }
        let (kind, values) = if let (Some(head), Some(looked)) = (&self.head, looked) {
            (MapKind::Evidence, self.extractor.evidence(run.readout(), head, looked, classes)?)
        } else {
            let looks = self.extractor.rollout(run.readout(), pixels)?;
            (MapKind::Hint, looks.into_iter().map(|look| look.shares).collect())
        };
        let drawn = images.iter().zip(values).map(|(image, values)| {
            let Some(grid) = self.extractor.placed(values) else { return Ok(None) };
            let place = if kind == MapKind::Evidence { grid.strongest() } else { None };
            let shown = heat_map(image.shown, &grid.positive());
            self.picture(image, kind, &grid, (shown, place), |place| in_image(&grid, image, place))
        });
        drawn.collect()
    }

    /// The map of an image that is cut into tiles, for one class.
    ///
    /// # Errors
    /// As [`Maps::draw`].
    pub fn draw_bag(&self, path: &Path, looked: &LookedBag<'_>, class: usize) -> Result<Option<Located>> {
        let Some(head) = &self.head else { return Ok(None) };
        let (grid, image) = (looked.evidence(head, class)?, looked.image());
        let shown = reduced(image, LARGEST_PICTURE);
        let seen = SeenImage { path, size: image.dimensions(), shown: &shown };
        let drawn = (heat_map(&shown, &grid.positive()), grid.strongest());
        self.picture(&seen, MapKind::Evidence, &grid, drawn, |place| place.in_image(&grid, seen.size))
    }

    /// The map of an image that is cut into tiles, of how far its patches are from those of sound parts.
    ///
    /// # Errors
    /// As [`Maps::draw`].
    pub fn draw_strange(&self, tiled: &TiledImages<'_>, path: &Path, bag: &Bag) -> Result<Option<Located>> {
        let Some(head) = &self.patches else { return Ok(None) };
        let Some(found) = Strange::of_bag(head, tiled, bag)? else { return Ok(None) };
        let shown = reduced(&bag.image, LARGEST_PICTURE);
        let seen = SeenImage { path, size: bag.image.dimensions(), shown: &shown };
        let drawn = (found.heat(&shown), found.place());
        self.picture(&seen, MapKind::Distance, &found.grid, drawn, |place| place.in_image(&found.grid, seen.size))
    }

    /// Saves one with its strongest place; `in_image` tells the edges of a place in pixels of the image.
    fn picture(
        &self,
        image: &SeenImage<'_>,
        kind: MapKind,
        grid: &EvidenceGrid,
        (map, place): (Option<RgbImage>, Option<Region>),
        in_image: impl Fn(&Region) -> [u32; 4],
    ) -> Result<Option<Located>> {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let stem = image
            .path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().chars().take(LONGEST_STEM).collect());
        let path = self.folder.join(format!("{number:05}-{stem}.png"));
        let Some(mut map) = map else { return Ok(None) };
        if let Some(place) = &place {
            let [left, upper, right, lower] = place.edges(grid);
            let (width, height) = (f64::from(map.width()), f64::from(map.height()));
            frame(&mut map, [left * width, upper * height, right * width, lower * height]);
        }
        map.save(&path).map_err(|error| Error::io("write", &path)(std::io::Error::other(error.to_string())))?;
        Ok(Some(Located {
            map: path,
            map_kind: kind,
            place: place.as_ref().map(in_image),
            evidence: place.map(|place| place.evidence),
        }))
    }
}
