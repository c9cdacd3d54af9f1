//! Whether the places of most evidence are where the flaws are: a run's maps held against masks.

use super::finder::Finder;
use super::saved::SavedRun;
use crate::config::ResizeMode;
use crate::data::masks::{Mask, Masks};
use crate::data::transform::{Pipeline, View};
use crate::data::{Dataset, Sample, Split};
use crate::error::{BadFile, DataError, Error, Result};
use crate::features::{EvidenceGrid, TiledImages};
use crate::metrics::{MaskedMap, PlaceTally, Places};
use crate::model::Scored;
use crate::report::{Console, RunRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Exact maps of a run's whole images, to be held against masks.
pub struct MaskedMaps<'a> {
    masks: Masks,
    /// Whether masks were asked for: else what is wrong with them is a warning.
    asked: bool,
    run: &'a SavedRun,
    finder: Finder,
    pipeline: Pipeline,
}

impl<'a> MaskedMaps<'a> {
    /// Those of a run for the images of a split: with the masks of a folder or, where these can be used, those that a manifest
    /// names, else those beside the images, which are the test images of the run itself or those below `data`. None where
    /// there are none, and with a warning where one is missing among others.
    ///
    /// # Errors
    /// A usage error when a folder was given, but the run's scores are no sums over places, its inputs show no whole images,
    /// or no image has a mask; a data error when one lacks its mask.
    pub fn of(
        run: &'a SavedRun,
        (dataset, split): (&Dataset, Split),
        folder: Option<&Path>,
        data: Option<&Path>,
        console: &Console,
    ) -> Result<Option<Self>> {
        if let Some(folder) = folder {
            let maps = Self::new(run, Masks::Folder(folder.to_path_buf()), true)?;
            return if maps.check(dataset, split)? { Ok(Some(maps)) } else { Err(no_masks()) };
        }
        // Folders of masks are those of test images: of others the names may be the same.
        let beside = (data.is_some() || split == Split::Test)
            .then(|| Masks::beside(data.unwrap_or_else(|| run.session.settings.data.folder())));
        let scored = dataset.indices(split);
        let named = Masks::named(scored.iter().map(|&index| &dataset.samples[index]));
        let maps = named.or(beside.flatten()).and_then(|masks| Self::new(run, masks, false).ok());
        Ok(maps.filter(|maps| {
            maps.check(dataset, split).unwrap_or_else(|error| {
                console.warn(unheld(&error));
                false
            })
        }))
    }

    /// Whether any of the images have masks, before anything is computed.
    ///
    /// # Errors
    /// A data error when one lacks its mask.
    fn check(&self, dataset: &Dataset, split: Split) -> Result<bool> {
        let samples = || dataset.indices(split).into_iter().map(|index| &dataset.samples[index]);
        let lacks = |sample: &&Sample| self.masks.has_some_like(sample) && self.masks.of(sample).is_none();
        let files: Vec<BadFile> = samples()
            .filter(lacks)
            .map(|sample| BadFile { path: sample.path.clone(), reason: "has no mask".into() })
            .collect();
        if !files.is_empty() {
            return Err(DataError::BadFiles { files }.into());
        }
        Ok(samples().any(|sample| self.masks.has_some_like(sample)))
    }

    fn new(run: &'a SavedRun, masks: Masks, asked: bool) -> Result<Self> {
        let RunRecord { preprocess, .. } = &run.record;
        let refused = |why: &str| {
            Error::usage_hint(
                format!("masks are held against the evidence at each place, and {why}"),
                "score a run with a linear head on preprocess.tiles, or on squashed images with model.pool = \"max\" or another \
                 pooling of patches",
            )
        };
        let finder = Finder::of(&run.model)?;
        if !finder.adds_up() {
            return Err(refused("the head of this run adds nothing up"));
        }
        let maps = Self { masks, asked, run, finder, pipeline: run.pipeline() };
        if preprocess.tiles.is_some() {
            return Ok(maps);
        }
        if preprocess.geometry.resize != ResizeMode::Squash {
            return Err(refused("letterboxed inputs have borders and cropped ones do not show the whole image"));
        }
        if maps.finder.head.is_some() && !maps.finder.extractor.adds_up(run.readout()) {
            return Err(refused("the features of this run are not a sum over patches"));
        }
        Ok(maps)
    }

    /// The map of a file for a class, and the file's width and height.
    fn map(&self, path: &Path, class: usize) -> Result<(EvidenceGrid, (u32, u32))> {
        let no_map = || DataError::bad_file(path, "has no map");
        if let Some(tiles) = self.run.record.preprocess.tiles {
            let bag = self.pipeline.bag(&tiles, path).map_err(|error| DataError::bad_file(path, error))?;
            let tiled = TiledImages { extractor: &self.finder.extractor, pipeline: &self.pipeline, tiles };
            let looked = self.finder.look_at_tiles(&tiled, &bag)?;
            let found = self.finder.find_in_tiles((&tiled, &bag), looked.as_ref(), class)?.ok_or_else(no_map)?;
            return Ok((found.grid, bag.image.dimensions()));
        }
        let seen = self.pipeline.see_once(path, View::PLAIN);
        let (seen_image, size) = seen.map_err(|error| DataError::bad_file(path, error))?;
        let mut pixels = self.pipeline.preprocess().normalization.standardize(&seen_image);
        self.pipeline.finish(&mut pixels, &[View::PLAIN]);
        let looked = self.finder.look(&pixels)?;
        let (mut found, _) = self.finder.find(&pixels, looked.as_ref(), &[class])?;
        Ok((found.pop().flatten().ok_or_else(no_map)?.grid, size))
    }

    /// Holds the maps of scored images against their masks: those for the likeliest class of flaws, which are the classes
    /// that have masks.
    ///
    /// # Errors
    /// Data errors of masks that cannot be read or are of another size than their image, where masks were asked for; else a
    /// warning says so, and there are none.
    pub fn places(&self, name: &str, dataset: &Dataset, scored: &Scored, console: &Console) -> Result<Option<Places>> {
        match self.measured(name, dataset, scored, console) {
            Err(error) if !self.asked => {
                console.warn(unheld(&error));
                Ok(None)
            }
            measured => measured.map(Some),
        }
    }

    fn measured(&self, name: &str, dataset: &Dataset, scored: &Scored, console: &Console) -> Result<Places> {
        let samples = || scored.indices.iter().map(|&index| &dataset.samples[index]);
        let flaws: BTreeSet<usize> =
            samples().filter(|sample| self.masks.has_some_like(sample)).map(|sample| sample.label).collect();
        let progress = console.progress(scored.indices.len() as u64, "maps and masks");
        let classes = dataset.classes.len().max(1);
        let mut tally = PlaceTally::default();
        for (sample, logits) in samples().zip(scored.logits.chunks_exact(classes)) {
            let likeliest = flaws.iter().copied().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
            let found = logits.iter().all(|&logit| logit <= logits[likeliest]);
            let (grid, size) = self.map(&sample.path, likeliest)?;
            tally.add(&masked((&grid, found), size, sample, &self.masks)?);
            progress.inc(1);
        }
        progress.finish();
        Ok(tally.places(name))
    }
}

fn unheld(error: &Error) -> String {
    format!("maps are not held against masks: {error}")
}

fn no_masks() -> Error {
    Error::usage_hint(
        "there are no masks of these images",
        "the mask of bent/000.png is bent/000_mask.png in the folder of masks; a manifest names masks in its column mask",
    )
}

/// A map beside the mask of its image, which was found to be flawed or not.
fn masked((grid, found): (&EvidenceGrid, bool), size: (u32, u32), sample: &Sample, masks: &Masks) -> Result<MaskedMap> {
    let regions = match masks.of(sample) {
        None if masks.has_some_like(sample) => return Err(DataError::bad_file(&sample.path, "has no mask").into()),
        None => Vec::new(),
        Some(path) => {
            let mask = Mask::read(&path).map_err(|error| DataError::bad_file(&path, error))?;
            if mask.size != size {
                let (of, is) = (size, mask.size);
                let reason = format!("has {} x {} pixels, its image {} x {}", is.0, is.1, of.0, of.1);
                return Err(DataError::bad_file(&path, reason).into());
            }
            mask.regions
        }
    };
    let (columns, rows) = (grid.columns, grid.rows());
    let place_of = |at: u32, places: usize, length: u32| (u64::from(at) * places as u64 / u64::from(length)) as usize;
    let lengths = |places: usize, length: u32| {
        let mut lengths = vec![0u32; places];
        (0..length).for_each(|at| lengths[place_of(at, places, length)] += 1);
        lengths
    };
    let (across, down) = (lengths(columns, size.0), lengths(rows, size.1));
    let mut sound: Vec<u32> = down.iter().flat_map(|&down| across.iter().map(move |&across| across * down)).collect();
    let edges = grid.strongest().map(|place| place.in_image(grid, size));
    let mut holds = false;
    let mut counted = Vec::new();
    for region in &regions {
        let mut by_place = BTreeMap::new();
        let mut inside = 0;
        for &(x, y) in region {
            let place = place_of(y, rows, size.1) * columns + place_of(x, columns, size.0);
            *by_place.entry(place).or_insert(0u32) += 1;
            sound[place] -= 1;
            let is_inside =
                |[left, upper, right, lower]: [u32; 4]| (left..right).contains(&x) && (upper..lower).contains(&y);
            inside += usize::from(edges.is_some_and(is_inside));
        }
        holds |= 2 * inside >= region.len();
        counted.push(by_place.into_iter().collect());
    }
    Ok(MaskedMap { evidence: grid.values.clone(), sound, regions: counted, box_holds: edges.map(|_| holds), found })
}
