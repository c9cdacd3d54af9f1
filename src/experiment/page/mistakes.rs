//! The pictures of a page: images that were classified wrongly and flaws that were found, where the model found its answer
//! or looked, and what they are like.

use super::PageInputs;
use crate::backbone::Activations;
use crate::data::Sample;
use crate::data::decode;
use crate::data::transform::{Tiles, View};
use crate::error::{DataError, Result};
use crate::experiment::finder::{Finder, Found};
use crate::experiment::reference;
use crate::features::{ReferenceSet, TiledImages};
use crate::linalg::Matrix;
use crate::pixels::{reduced, thumbnail};
use crate::report::Console;
use crate::report::html::{MapKind, Mistake, Mistakes, Neighbor};
use crate::report::predictions::{Predicted, Predictions};
use crate::system::shown::agree;
use image::RgbImage;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The longer side of a picture, in pixels: sharp at the size it has on a page.
const SIDE: u32 = 224;
/// The longer side of a neighbour's picture.
const SMALL: u32 = 96;
/// Neighbours of a mistake.
const NEIGHBORS: usize = 3;

/// An image as the model sees it.
struct ModelView {
    path: PathBuf,
    /// The resized image, or all of an image that is cut into tiles, made smaller.
    shown: RgbImage,
    /// Those of the resized image.
    pixels: Vec<f32>,
}

/// What is known of an image beside its answer.
#[derive(Default)]
struct Looked {
    heat: Option<RgbImage>,
    /// Names of the nearest training images.
    neighbors: Vec<String>,
    /// What the heat is.
    map: Option<MapKind>,
}

impl PageInputs<'_> {
    /// The surest wrong answers on a split, at most so many; none when it is not known what was answered.
    pub(super) fn mistakes(&self, split: &str, most: usize, console: &Console) -> Option<Mistakes> {
        let predictions = Predictions::of_run(self.folder, split).ok()?;
        let wrong = predictions.mistakes();
        let mut shown = wrong[..most.min(wrong.len())].to_vec();
        let mistakes = shown.len();
        let finds = self.finds(&predictions);
        shown.extend(finds.iter().take(most));
        let shown = shown.as_slice();
        let samples: HashMap<&str, &Sample> =
            self.dataset.samples.iter().map(|sample| (sample.name.as_str(), sample)).collect();
        let pictures = self.pictures(&samples, shown.iter().map(|row| row.path.as_str()).collect());
        let lost = pictures[..mistakes].iter().filter(|picture| picture.is_none()).count();
        if lost > 0 {
            console.warn(format!(
                "{lost} of the images that were classified wrongly cannot be read: the page names {} without a picture",
                agree(lost, "it", "them")
            ));
        }
        let predicted: Vec<usize> = shown.iter().map(|row| row.predicted).collect();
        let (mut looked, without_heat) = match self.look(&pictures, &predicted, console) {
            Ok(looked) => (looked, None),
            Err(error) => {
                (HashMap::<usize, Looked>::new(), Some(format!("Where the model looked cannot be shown: {error}")))
            }
        };
        let map = looked.values().find_map(|looked| looked.map);
        let small = self.small_pictures(&samples, looked.values());
        let class = |label: usize| predictions.classes.get(label).cloned().unwrap_or_default();
        let neighbor = |name: String| Neighbor {
            class: samples.get(name.as_str()).map_or_else(String::new, |sample| class(sample.label)),
            image: small.get(&name).cloned(),
            path: name.into(),
        };
        let mistake = |(number, (row, picture)): (usize, (&&Predicted, &Option<ModelView>))| {
            let Looked { heat, neighbors, .. } = looked.remove(&number).unwrap_or_default();
            Mistake {
                path: row.path.clone().into(),
                class: class(row.label),
                predicted: class(row.predicted),
                confidence: row.confidence,
                image: picture.as_ref().and_then(|picture| thumbnail(&picture.shown, SIDE)),
                heat: heat.and_then(|heat| thumbnail(&heat, SIDE)),
                neighbors: neighbors.into_iter().map(neighbor).collect(),
            }
        };
        let mut cards: Vec<Mistake> = shown.iter().zip(&pictures).enumerate().map(mistake).collect();
        // Found flaws are shown for the place where they were found.
        let told = map.is_some_and(|map| map != MapKind::Hint);
        let finds = if told { cards.split_off(mistakes) } else { Vec::new() };
        cards.truncate(mistakes);
        Some(Mistakes {
            split: split.to_owned(),
            wrong: wrong.len(),
            total: predictions.rows.len(),
            shown: cards,
            finds,
            map,
            without_heat,
        })
    }

    /// The flaws that were found, the surest first; none without a good class, or where no place can be told.
    fn finds<'p>(&self, predictions: &'p Predictions) -> Vec<&'p Predicted> {
        let good = &self.session.settings.inspection.good;
        if good.is_empty() || self.head.is_none() && self.patches.is_none() {
            return Vec::new();
        }
        let flaws: Vec<bool> = predictions.classes.iter().map(|class| !good.contains(class)).collect();
        predictions.finds(&flaws)
    }

    /// Pictures of the neighbours by name, each once.
    fn small_pictures<'l>(
        &self,
        samples: &HashMap<&str, &Sample>,
        looked: impl Iterator<Item = &'l Looked>,
    ) -> HashMap<String, Vec<u8>> {
        let names: BTreeSet<&str> = looked.flat_map(|looked| &looked.neighbors).map(String::as_str).collect();
        let pictures = self.pictures(samples, names.iter().copied().collect());
        let small =
            |(name, picture): (&str, Option<ModelView>)| Some((name.to_owned(), thumbnail(&picture?.shown, SMALL)?));
        names.into_iter().zip(pictures).filter_map(small).collect()
    }

    /// Reads images again, by name; none of those that cannot be read.
    fn pictures(&self, samples: &HashMap<&str, &Sample>, names: Vec<&str>) -> Vec<Option<ModelView>> {
        let see = |name: &str| {
            let path = samples.get(name)?.path.clone();
            let image = decode::decode_file(&path, self.session.decode()).ok()?;
            let preprocess = self.pipeline.preprocess();
            if preprocess.tiles.is_some() {
                return Some(ModelView { path, shown: reduced(&image, SIDE), pixels: Vec::new() });
            }
            let shown = self.pipeline.resized_view(&image, View::PLAIN).ok()?;
            let pixels = preprocess.normalization.standardize(&shown);
            Some(ModelView { path, shown, pixels })
        };
        self.session.workers.map_on_cpu(names, see)
    }

    /// Where the model found the class that it predicted, or looked, and what it finds similar: by number, of the images
    /// that could be read.
    fn look(
        &self,
        pictures: &[Option<ModelView>],
        predicted: &[usize],
        console: &Console,
    ) -> Result<HashMap<usize, Looked>> {
        let found: Vec<(usize, &ModelView)> =
            pictures.iter().enumerate().filter_map(|(number, picture)| Some((number, picture.as_ref()?))).collect();
        let classes: Vec<usize> = found.iter().filter_map(|(number, _)| predicted.get(*number).copied()).collect();
        let wanted = self.record.probe.as_ref().and_then(|probe| probe.patches);
        let wanted = wanted.map_or(Activations::Features(self.readout), Activations::Patches);
        let extractor = self.session.extractor(self.params, wanted)?;
        let (head, patches) = (self.head.clone(), self.patches.clone());
        let finder = Finder { extractor, readout: self.readout, head, patches };
        let (places, features) = if let Some(tiles) = self.pipeline.preprocess().tiles {
            self.find_in_tiles(&finder, tiles, found.iter().map(|(_, picture)| &*picture.path).zip(classes))?
        } else {
            let mut inputs: Vec<f32> = found.iter().flat_map(|(_, picture)| &picture.pixels).copied().collect();
            self.pipeline.finish(&mut inputs, &vec![View::PLAIN; found.len()]);
            let looked = finder.look(&inputs)?;
            let (places, features) = finder.find(&inputs, looked.as_ref(), &classes)?;
            (places, looked.map_or(features, |looked| looked.features))
        };
        let neighbors = self.neighbors_or_none(Matrix::new(&features, finder.extractor.width()), found.len(), console);
        let looked = found.iter().zip(places).zip(neighbors).map(|(((number, picture), place), neighbors)| {
            let drawn = place.and_then(|place| Some((place.heat(&picture.shown)?, place.kind)));
            let (heat, map) = drawn.unzip();
            (*number, Looked { heat, neighbors, map })
        });
        Ok(looked.collect())
    }

    /// The places in images that are cut into tiles, one after another, each read again at its own resolution, and the
    /// features of the images; patches have none.
    fn find_in_tiles<'p>(
        &self,
        finder: &Finder,
        tiles: Tiles,
        images: impl Iterator<Item = (&'p Path, usize)>,
    ) -> Result<(Vec<Option<Found>>, Vec<f32>)> {
        let tiled = TiledImages { extractor: &finder.extractor, pipeline: self.pipeline, tiles };
        let (mut places, mut features) = (Vec::new(), Vec::new());
        for (path, class) in images {
            let bag = self.pipeline.bag(&tiles, path).map_err(|error| DataError::bad_file(path, error))?;
            let looked = finder.look_at_tiles(&tiled, &bag)?;
            match &looked {
                Some(looked) => features.extend(looked.pooled()?),
                None if finder.patches.is_none() => features.extend(tiled.pooled(&bag)?),
                None => {}
            }
            places.push(finder.find_in_tiles((&tiled, &bag), looked.as_ref(), class)?);
        }
        Ok((places, features))
    }

    /// As [`PageInputs::neighbors`]; no names of images for which they cannot be found, with a warning.
    fn neighbors_or_none(&self, features: Matrix<'_>, images: usize, console: &Console) -> Vec<Vec<String>> {
        let mut neighbors = self.neighbors(features).unwrap_or_else(|error| {
            console.warn(format!("the page has no training images beside the mistakes: {error}"));
            Vec::new()
        });
        neighbors.resize(images, Vec::new());
        neighbors
    }

    /// The names of the training images nearest to each of some images; none when the run remembers none.
    fn neighbors(&self, features: Matrix<'_>) -> Result<Vec<Vec<String>>> {
        let Some(record) = self.record.reference.as_ref().filter(|_| features.rows() > 0) else {
            return Ok(Vec::new());
        };
        let references = ReferenceSet::read(&self.folder.join(reference::FILE), &record.sha256, features.cols())?;
        let found = self.session.workers.install(|| references.neighbors(features, NEIGHBORS))?;
        Ok(found.iter().map(|images| images.iter().map(|&image| references.name(image).to_owned()).collect()).collect())
    }
}
