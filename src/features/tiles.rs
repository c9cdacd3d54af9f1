//! Features and evidence of images that are cut into tiles: as many as there are, in memory that does not grow with them.

use super::evidence::EvidenceGrid;
use super::extractor::{Extractor, on_host, single};
use crate::augment::Window;
use crate::backbone::{Activations, Readout};
use crate::data::Dataset;
use crate::data::transform::{Bag, Pipeline, Place, Preprocess, Tiles};
use crate::error::{BadFile, DataError, Result};
use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use std::borrow::Cow;

/// Tiles that are in memory as pixels at a time.
pub const TILES_AT_ONCE: usize = 64;
/// Tokens of an image that are kept for its map, so that its tiles need not run again.
const KEPT_BYTES: usize = 256 << 20;
/// The least side of a place in a map, in pixels of the image.
const LEAST_PLACE: f64 = 4.0;

/// Image files that are cut into tiles, on their way through frozen layers.
pub struct TiledImages<'a> {
    /// The frozen layers.
    pub extractor: &'a Extractor,
    /// From file to pixels.
    pub pipeline: &'a Pipeline,
    /// How they are cut.
    pub tiles: Tiles,
}

impl TiledImages<'_> {
    /// The features of some samples, row-major (n, width).
    ///
    /// # Errors
    /// As [`TiledImages::rows_by`].
    pub fn rows(&self, dataset: &Dataset, samples: &[usize]) -> Result<Vec<f32>> {
        self.rows_by(dataset, samples, |bag| Ok(self.pooled(bag)?))
    }

    /// What `row` makes of each of some samples, one after another.
    ///
    /// # Errors
    /// A data error of a file that cannot be used; when the device fails.
    pub fn rows_by(
        &self,
        dataset: &Dataset,
        samples: &[usize],
        row: impl Fn(&Bag) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        let load = |&sample: &usize| {
            let path = &dataset.samples[sample].path;
            self.pipeline
                .bag(&self.tiles, path)
                .map_err(|error| BadFile { path: path.clone(), reason: error.to_string() })
        };
        let bags = self.extractor.workers.map_on_cpu(samples.iter().collect(), load);
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        for bag in bags {
            match bag {
                Ok(bag) if bad.is_empty() => rows.extend(row(&bag)?),
                Ok(_) => {}
                Err(error) => bad.push(error),
            }
        }
        if bad.is_empty() { Ok(rows) } else { Err(DataError::BadFiles { files: bad }.into()) }
    }

    /// The features of one image from those of its tiles.
    ///
    /// # Errors
    /// When the device fails.
    pub fn pooled(&self, bag: &Bag) -> candle_core::Result<Vec<f32>> {
        let bag = self.closer(bag)?;
        pooled(self.extractor, &self.of_tiles(&bag, self.extractor.wanted)?)
    }

    /// The tiles among which the largest distance is, where the most unusual places are looked at once more: those that have
    /// these places, and shifted ones around them. Otherwise the tiles as they are.
    fn closer<'b>(&self, bag: &'b Bag) -> candle_core::Result<Cow<'b, Bag>> {
        if self.tiles.second_look == 0 {
            return Ok(Cow::Borrowed(bag));
        }
        let vit = &self.extractor.vit;
        // The most unusual patch of each tile.
        let mut found = self.each(bag, &all(bag), |tiles, pixels| {
            let distances = vit.contributions(Readout::POOL, &vit.summands(Readout::POOL, &pixels)?)?.squeeze(2)?; // (n, N)
            let distances = distances.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
            let unusual = |(&tile, row): (&usize, &Vec<f32>)| {
                let most = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
                (tile, row[most], patch_in(bag.windows[tile], most, row.len()))
            };
            Ok(tiles.iter().zip(&distances).map(unusual).collect())
        })?;
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        let middle = |&(.., [left, upper, width, height]): &(usize, f32, [f64; 4])| Place {
            x: left + width / 2.0,
            y: upper + height / 2.0,
            side: width,
        };
        let places = found.iter().map(middle);
        let mut windows = self.tiles.closer(places, bag.image.dimensions());
        windows.extend(found.first().map(|&(tile, ..)| bag.windows[tile]));
        Ok(Cow::Owned(Bag { image: bag.image.clone(), windows }))
    }

    /// Applies `work` to what is taken out of some tiles of an image, one tile's values after another's, with the number of
    /// the first of them: a few tiles at a time, results in their order.
    ///
    /// # Errors
    /// When the device fails; those of `work`.
    pub fn in_parts<R: Send>(
        &self,
        bag: &Bag,
        work: impl Fn(usize, &[f32]) -> Result<R> + Sync,
    ) -> candle_core::Result<Vec<R>> {
        self.each(bag, &all(bag), |tiles, pixels| {
            let found = self.extractor.vit.extract(self.extractor.wanted, &pixels, crate::nn::Mode::Eval)?;
            let values = on_host(&found)?.to_vec1::<f32>()?;
            Ok(vec![work(tiles[0], &values).map_err(candle_core::Error::wrap)?])
        })
    }

    /// A picture of values of all patches of all tiles: at each place that of the patch there, the largest where tiles
    /// overlap; nothing is below 0.
    pub fn largest(&self, bag: &Bag, values: &[f32]) -> EvidenceGrid {
        let each = (values.len() / bag.windows.len().max(1)).max(1);
        let mut map = Map::new(bag, self.tiles, self.pipeline.preprocess(), each);
        values.chunks_exact(each).enumerate().for_each(|(tile, values)| map.raise(tile, values));
        map.grid
    }

    /// What is taken out of each tile of an image, (T, w) on the host.
    fn of_tiles(&self, bag: &Bag, wanted: Activations) -> candle_core::Result<Tensor> {
        let rows = self.each(bag, &all(bag), |tiles, pixels| {
            let found = self.extractor.vit.extract(wanted, &pixels, crate::nn::Mode::Eval)?;
            Ok(vec![on_host(&found)?.reshape((tiles.len(), ()))?])
        })?;
        Tensor::cat(&rows, 0)
    }

    /// One image behind the frozen layers, with what its evidence is made of.
    ///
    /// # Errors
    /// When the device fails.
    pub fn look<'a>(&'a self, readout: Readout, bag: &'a Bag) -> candle_core::Result<LookedBag<'a>> {
        let vit = &self.extractor.vit;
        let bag = self.closer(bag)?;
        if !vit.adds_up(readout) {
            let features = self.of_tiles(&bag, Activations::Features(readout))?;
            return Ok(LookedBag { images: self, readout, bag, features, summands: Vec::new() });
        }
        let looks = self.each(&bag, &all(&bag), |tiles, pixels| {
            let ends = vit.summands(readout, &pixels)?;
            let features = on_host(&vit.summed(readout, &ends)?)?.reshape((tiles.len(), ()))?;
            let bytes: usize = ends.iter().map(|end| end.elem_count() * end.dtype().size_in_bytes()).sum();
            let kept = (KEPT_BYTES / (bytes / tiles.len()).max(1)).min(bag.windows.len());
            let kept = tiles.iter().filter(|&&tile| tile < kept).count();
            Ok(vec![(features, single(&ends, kept)?)])
        })?;
        let (features, summands): (Vec<_>, Vec<_>) = looks.into_iter().unzip();
        let features = Tensor::cat(&features, 0)?;
        Ok(LookedBag { images: self, readout, bag, features, summands: summands.concat() })
    }

    /// Applies `work` to some tiles of an image and their pixels (n, 3, S, S), a few at a time; results in their order.
    pub(super) fn each<R: Send>(
        &self,
        bag: &Bag,
        tiles: &[usize],
        work: impl Fn(&[usize], Tensor) -> candle_core::Result<Vec<R>> + Sync,
    ) -> candle_core::Result<Vec<R>> {
        let preprocess = self.pipeline.preprocess();
        let [channels, height, width] = preprocess.geometry.image_size.shape();
        let workers = &self.extractor.workers;
        let mut results = Vec::with_capacity(tiles.len());
        for some in tiles.chunks(TILES_AT_ONCE) {
            let found = workers.map(workers.scoring_shards(some.len()), |shard| {
                let tiles = &some[shard];
                let pixels = preprocess.tiles_of(bag, tiles).map_err(candle_core::Error::wrap)?;
                work(tiles, Tensor::from_vec(pixels, (tiles.len(), channels, height, width), &self.extractor.device)?)
            })?;
            results.extend(found.into_iter().flatten());
        }
        Ok(results)
    }
}

/// An image behind the frozen layers: the features of its tiles, and of as many as are kept the tokens that these are sums
/// over.
pub struct LookedBag<'a> {
    images: &'a TiledImages<'a>,
    readout: Readout,
    bag: Cow<'a, Bag>,
    /// (T, w), on the host.
    features: Tensor,
    /// For the first tiles, the tokens (1, N, d) after each block that is read.
    summands: Vec<Vec<Tensor>>,
}

impl LookedBag<'_> {
    /// The image.
    pub fn image(&self) -> &RgbImage {
        &self.bag.image
    }

    /// The features of the image.
    ///
    /// # Errors
    /// When the device fails.
    pub fn pooled(&self) -> candle_core::Result<Vec<f32>> {
        pooled(self.images.extractor, &self.features)
    }

    /// What each place of the image adds to the logit of a class over the mean of all classes, by a linear head with the
    /// `weights` (C, w). Summed over the places, with the bias, it is that logit. Where the features of a tile are no sum
    /// over its patches, its evidence is spread over all of the tile. Tiles whose tokens are not kept run again.
    ///
    /// # Errors
    /// When the device fails.
    pub fn evidence(&self, weights: &Tensor, class: usize) -> candle_core::Result<EvidenceGrid> {
        let Self { images, bag, features, .. } = self;
        let vit = &images.extractor.vit;
        let weights = weights.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let weights = weights.broadcast_sub(&weights.mean_keepdim(0)?)?.narrow(0, class, 1)?; // (1, w)
        // Value by value, a tile adds its slope times its feature, and the rest: nothing for a mean or a maximum.
        let (tiles, width) = features.dims2()?;
        let tokens = features.unsqueeze(0)?.to_device(&images.extractor.device)?;
        let host = |values: Tensor| values.squeeze(0)?.to_device(&Device::Cpu);
        let slopes = host(vit.tile_pool().slopes(&tokens)?)?; // (T, k w)
        let times = slopes.dim(1)? / width;
        let rest = (host(vit.tile_pool().contributions(&tokens)?)? - (&slopes * features.repeat((1, times))?)?)?;
        let slopes = slopes.broadcast_mul(&weights)?.reshape((tiles, times, width))?.sum(1)?; // (T, w)
        let even: Vec<f32> = rest.broadcast_mul(&weights)?.sum(1)?.to_vec1()?;
        // Of many tiles a maximum takes nothing.
        let taken: Vec<f32> = slopes.abs()?.sum(1)?.to_vec1()?;
        let looked_at: Vec<usize> = (0..taken.len()).filter(|&tile| taken[tile] > 0.0).collect();
        let of_patches: Vec<Vec<f32>> = if vit.adds_up(self.readout) {
            let of_tile = |tile: usize, ends: &[Tensor]| {
                let given = vit.contributions(self.readout, ends)?.squeeze(0)?.to_dtype(DType::F32)?;
                given.to_device(&Device::Cpu)?.broadcast_mul(&slopes.narrow(0, tile, 1)?)?.sum(1)?.to_vec1::<f32>()
            };
            let (kept, others) = looked_at.split_at(looked_at.partition_point(|&tile| tile < self.summands.len()));
            let workers = &images.extractor.workers;
            let mut found = workers.map(kept.to_vec(), |tile| of_tile(tile, &self.summands[tile]))?;
            found.extend(images.each(bag, others, |tiles, pixels| {
                let ends = single(&vit.summands(self.readout, &pixels)?, tiles.len())?;
                tiles.iter().zip(&ends).map(|(&tile, ends)| of_tile(tile, ends)).collect()
            })?);
            found
        } else {
            let whole: Vec<f32> = (&slopes * features)?.sum(1)?.to_vec1()?;
            looked_at.iter().map(|&tile| vec![whole[tile]]).collect()
        };
        let preprocess = images.pipeline.preprocess();
        let mut map = Map::new(bag, images.tiles, preprocess, of_patches.first().map_or(1, Vec::len));
        even.iter().enumerate().for_each(|(tile, &value)| map.add(tile, &[value]));
        looked_at.iter().zip(&of_patches).for_each(|(&tile, patches)| map.add(tile, patches));
        Ok(map.grid)
    }
}

/// The tiles of an image.
fn all(bag: &Bag) -> Vec<usize> {
    (0..bag.windows.len()).collect()
}

/// Features (T, w) of tiles to those (w) of their image.
fn pooled(extractor: &Extractor, features: &Tensor) -> candle_core::Result<Vec<f32>> {
    let pooled = extractor.vit.tile_pool().forward(&features.unsqueeze(0)?.to_device(&extractor.device)?)?;
    on_host(&pooled)?.to_vec1()
}

/// Left, upper edge, width and height, in pixels of the image, of one of so many patches of a tile.
fn patch_in(window: Window, patch: usize, patches: usize) -> [f64; 4] {
    let side = patches.isqrt().max(1);
    let (width, height) = (f64::from(window.width) / side as f64, f64::from(window.height) / side as f64);
    let (left, upper) = ((patch % side) as f64 * width, (patch / side) as f64 * height);
    [f64::from(window.x) + left, f64::from(window.y) + upper, width, height]
}

/// A picture of evidence under way: places of about a patch.
struct Map<'a> {
    bag: &'a Bag,
    grid: EvidenceGrid,
}

impl<'a> Map<'a> {
    /// Nothing yet, for tiles that have so many patches.
    fn new(bag: &'a Bag, tiles: Tiles, preprocess: &Preprocess, patches: usize) -> Self {
        let across = if patches > 1 { patches.isqrt() } else { preprocess.geometry.image_size.width / 16 };
        let place = (f64::from(tiles.side) / across.max(1) as f64).max(LEAST_PLACE);
        let places = |length: u32| (f64::from(length) / place).ceil().max(1.0) as usize;
        Self { bag, grid: EvidenceGrid::empty(places(bag.image.width()), places(bag.image.height())) }
    }

    /// Adds the values of a square grid over a tile.
    fn add(&mut self, tile: usize, values: &[f32]) {
        for (patch, &value) in values.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            self.grid.spread(self.edges(tile, patch, values.len()), value);
        }
    }

    /// Raises to the values of a square grid over a tile the places whose middle lies in them.
    fn raise(&mut self, tile: usize, values: &[f32]) {
        for (patch, &value) in values.iter().enumerate() {
            self.grid.raise(self.edges(tile, patch, values.len()), value);
        }
    }

    /// The left, upper, right and lower edge, in places, of one of so many patches of a tile.
    fn edges(&self, tile: usize, patch: usize, patches: usize) -> [f64; 4] {
        let [left, upper, width, height] = patch_in(self.bag.windows[tile], patch, patches);
        let across = self.grid.columns as f64 / f64::from(self.bag.image.width());
        let down = self.grid.rows() as f64 / f64::from(self.bag.image.height());
        [left * across, upper * down, (left + width) * across, (upper + height) * down]
    }
}

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
