//! Where in an image its class was found, as a picture and a box: the class's own evidence at each patch where the
//! features are a sum over patches and the head is linear, else attention roll-out, which is a hint.

use super::saved::SavedRun;
use crate::backbone::Activations;
use crate::data::transform::Geometry;
use crate::error::{Error, Result};
use crate::features::{Extractor, Region};
use crate::report::html::{frame, heat_map};
use candle_core::Tensor;
use image::RgbImage;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MapKind {
    /// What each patch adds to the class's logit, over the mean of all classes. Summed over all patches, with the bias, it
    /// is that logit.
    Evidence,
    /// Attention roll-out, which follows attention alone.
    Hint,
}

impl MapKind {
    /// As it is written in a row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::Hint => "hint",
        }
    }
}

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
    /// What the patches of that place add to the class's logit together.
    pub evidence: Option<f64>,
}

/// An image as the model sees it.
pub struct SeenImage<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its width and height.
    pub size: (u32, u32),
    /// The square.
    pub square: &'a RgbImage,
}

/// Draws maps into a folder.
pub struct Maps {
    folder: PathBuf,
    extractor: Extractor,
    head: Option<Tensor>,
    geometry: Geometry,
    /// Pictures so far, which number their names.
    drawn: AtomicUsize,
}

impl Maps {
    /// Maps of a run's answers, in `folder`, which is made if need be.
    ///
    /// # Errors
    /// When the folder cannot be made, or holds pictures.
    pub fn new(run: &SavedRun, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let mut files = fs::read_dir(folder).map_err(Error::io("read", folder))?.filter_map(std::result::Result::ok);
        if files.any(|file| file.path().extension().is_some_and(|ending| ending == "png")) {
            return Err(Error::usage_hint(
                format!("--maps {} holds pictures, and nothing is overwritten", folder.display()),
                "name another folder, or empty that one",
            ));
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            extractor: run.model.extractor(Activations::Features(run.readout()))?,
            head: run.model.linear_head(),
            geometry: run.record.preprocess.geometry,
            drawn: AtomicUsize::new(0),
        })
    }

    /// Maps of some images with standardised `pixels`, each for one class; none where its values are not finite.
    ///
    /// # Errors
    /// When a picture cannot be written or the device fails.
    pub fn draw(
        &self,
        run: &SavedRun,
        images: &[SeenImage<'_>],
        pixels: &[f32],
        classes: &[usize],
    ) -> Result<Vec<Option<Located>>> {
        let evidence = match &self.head {
            Some(head) => self.extractor.evidence(run.readout(), head, pixels, classes)?,
            None => None,
        };
        let (kind, values) = if let Some(evidence) = evidence {
            (MapKind::Evidence, evidence)
        } else {
            let looks = self.extractor.rollout(run.readout(), pixels)?;
            (MapKind::Hint, looks.into_iter().map(|look| look.shares).collect())
        };
        let first = self.drawn.fetch_add(images.len(), Ordering::Relaxed);
        let drawn = images.iter().zip(values).enumerate();
        let drawn = drawn.map(|(i, (image, values))| self.picture(first + i, image, kind, &values));
        drawn.collect()
    }

    fn picture(&self, number: usize, image: &SeenImage<'_>, kind: MapKind, values: &[f32]) -> Result<Option<Located>> {
        let shown: Vec<f32> = values.iter().map(|value| value.max(0.0)).collect();
        let stem = image.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let path = self.folder.join(format!("{number:05}-{stem}.png"));
        let Some(mut map) = heat_map(image.square, &shown) else { return Ok(None) };
        let place = if kind == MapKind::Evidence { Region::strongest(values) } else { None };
        let grid = values.len().isqrt().max(1) as f64;
        let side = self.geometry.image_size as f64;
        let edges = place.as_ref().map(|place| {
            [place.columns.start, place.rows.start, place.columns.end, place.rows.end].map(|at| at as f64 / grid * side)
        });
        if let Some(edges) = edges {
            frame(&mut map, edges);
        }
        map.save(&path).map_err(|error| Error::io("write", &path)(std::io::Error::other(error.to_string())))?;
        Ok(Some(Located {
            map: path,
            map_kind: kind,
            place: edges.map(|edges| self.geometry.box_in_image(image.size, edges)),
            evidence: place.map(|place| place.evidence),
        }))
    }
}
