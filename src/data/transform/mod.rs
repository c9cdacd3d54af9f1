//! From a decoded image to the pixels a backbone reads.
//!
//! Without augmentation: resize to the size of the input (`resize`), standardise (`normalize`). With augmentation, in this
//! order: random resized crop (in place of the resize), the operations of [`crate::augment`] on images, standardise, those
//! on standardised pixels.
//!
//! Every operation draws from a stream of its own, keyed by seed, epoch, sample and operation: switching one on
//! leaves the draws of the others as they were, and threads change nothing.

pub mod detail;
mod normalize;
mod resize;
mod resized_cache;
mod tiles;

pub use crate::pixels::Interpolation;
pub use normalize::{IMAGENET, Normalization, SYMMETRIC};
pub use resize::Geometry;
pub use tiles::{Bag, Bags, Place, Tiles};

use super::decode::{self, DecodeOptions, Decoded, ImageError};
use super::delivery::Destination;
use super::kinds::{Look, Watch};
use crate::augment::{AugmentSettings, Corruption, Effect, Window};
use crate::config::{PreprocessSettings, ResizeMode};
use crate::error::Result;
use crate::pixels::statistics::ChannelStatistics;
use crate::rng::{Purpose, Stream};
use crate::size::Size;
use image::RgbImage;
use resized_cache::ResizedCache;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// Whether any operation is on, so that views of a sample differ.
pub fn augments(settings: &AugmentSettings) -> bool {
    !settings.steps().is_empty()
}

/// How a backbone preprocesses images, for what the settings leave to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BackboneDefaults {
    /// Mean per channel, for pixels in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, for pixels in 0..1.
    pub std: [f32; 3],
    /// How its own library makes an image fit; the settings choose for themselves.
    pub resize: ResizeMode,
    /// Filter of its resize.
    pub interpolation: Interpolation,
    /// Side of its centre crop as a share of the resized short side.
    pub crop_pct: f64,
}

impl BackboneDefaults {
    /// With this mean and standard deviation.
    pub const fn new(
        (mean, std): ([f32; 3], [f32; 3]),
        resize: ResizeMode,
        interpolation: Interpolation,
        crop_pct: f64,
    ) -> Self {
        Self { mean, std, resize, interpolation, crop_pct }
    }
}

/// The resolved way from a decoded image to pixels. It is saved with a trained model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// How the image gets the size of the input.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// How its pixels are standardised.
    pub normalization: Normalization,
    /// How it is cut into tiles, in place of being resized whole; none for whole images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Tiles>,
}

impl Preprocess {
    /// Fills in what the settings leave to the backbone. `statistics` are those of the training images; they are
    /// needed when [`Normalization::needs_statistics`] says so.
    ///
    /// # Errors
    /// When statistics are needed but absent, or explicit ones were not given; as [`Tiles::resolve`].
    pub fn resolve(
        settings: &PreprocessSettings,
        image_size: Size,
        backbone: &BackboneDefaults,
        statistics: Option<&ChannelStatistics>,
    ) -> Result<Self> {
        Ok(Self {
            geometry: Geometry::resolve(settings, image_size, backbone),
            normalization: Normalization::resolve(settings, backbone, statistics)?,
            tiles: settings.tiles.as_ref().map(|tiles| Tiles::resolve(tiles, image_size)).transpose()?,
        })
    }

    /// The resized image, before standardisation. A letterbox's border has the colour that standardises to about zero.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn resized(&self, image: &RgbImage) -> Result<RgbImage, ImageError> {
        self.geometry.resized(image, self.normalization.neutral_color())
    }
}

/// Which augmented view of a sample is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Pass over the sample, from 0: the epoch, unless a sampler repeats samples within one.
    pub epoch: u64,
    /// Index of the sample in the data set.
    pub sample: u64,
}

impl View {
    /// Without randomness, every view of an image is the same.
    pub const PLAIN: Self = Self { epoch: 0, sample: 0 };
}

/// Random operations on images, each with the number that keys its stream; none for evaluation.
struct AugmentSteps {
    seed: u64,
    purpose: Purpose,
    steps: Vec<(u64, Effect)>,
}

impl AugmentSteps {
    /// The window of an image of the given width and height that a view shows, for an input of that width / height; none = all
    /// of it.
    fn window(&self, size: (u32, u32), shape: f64, view: View) -> Option<Window> {
        self.steps.iter().find_map(|(number, step)| match step {
            Effect::Window(crop) => Some(crop.draw(size, shape, &mut self.stream(view, *number))),
            Effect::Image(_) | Effect::Pixels(_) => None,
        })
    }

    /// Whether there is such an operation.
    fn any(&self, kind: fn(&Effect) -> bool) -> bool {
        self.steps.iter().any(|(_, step)| kind(step))
    }

    fn apply_to_image(&self, mut image: RgbImage, view: View) -> RgbImage {
        for (number, step) in &self.steps {
            if let Effect::Image(operation) = step {
                image = operation(image, &mut self.stream(view, *number));
            }
        }
        image
    }

    fn apply_to_pixels(&self, pixels: &mut [f32], size: Size, view: View) {
        for (number, step) in &self.steps {
            if let Effect::Pixels(operation) = step {
                operation.apply(pixels, size, &mut self.stream(view, *number));
            }
        }
    }

    /// The stream of one operation on one view.
    fn stream(&self, view: View, operation: u64) -> Stream {
        Stream::new(self.seed, self.purpose, &[view.epoch, view.sample, operation])
    }
}

/// Everything between a file and its pixels: decoding, preprocessing and, for training, augmentation.
pub struct Pipeline {
    decode: DecodeOptions,
    preprocess: Preprocess,
    augmentation: AugmentSteps,
    resized: Arc<ResizedCache>,
    watch: Option<Arc<Watch>>,
}

impl Pipeline {
    /// Without augmentation: every view of a sample is the same.
    pub fn evaluation(preprocess: Preprocess, decode: DecodeOptions) -> Self {
        let augmentation = AugmentSteps { seed: 0, purpose: Purpose::Augment, steps: Vec::new() };
        Self { decode, preprocess, augmentation, resized: Arc::default(), watch: None }
    }

    /// The same where each image is looked at when it is decoded.
    #[must_use]
    pub fn watched(self, watch: Option<Arc<Watch>>) -> Self {
        Self { watch, ..self }
    }

    /// With the augmentations of the settings, drawn from `seed`.
    pub fn training(preprocess: Preprocess, decode: DecodeOptions, settings: &AugmentSettings, seed: u64) -> Self {
        Self::evaluation(preprocess, decode).augmented_by(settings, seed)
    }

    /// The same images with the augmentations of the settings, drawn from `seed`. Both pipelines share the resized images that
    /// they keep.
    #[must_use]
    pub fn augmented_by(&self, settings: &AugmentSettings, seed: u64) -> Self {
        self.with(AugmentSteps { seed, purpose: Purpose::Augment, steps: settings.steps() })
    }

    /// The same images with one flaw, drawn from `seed`, not from the seed of training. At another strength a view has the
    /// same flaw, stronger or weaker. Both pipelines share their cached images.
    #[must_use]
    pub fn corrupted(&self, corruption: Corruption, strength: f64, seed: u64) -> Self {
        self.with(AugmentSteps { seed, purpose: Purpose::Corruption, steps: corruption.settings(strength).steps() })
    }

    fn with(&self, augmentation: AugmentSteps) -> Self {
        let resized = Arc::clone(&self.resized);
        let (decode, preprocess) = (self.decode, self.preprocess);
        Self { augmentation, resized, decode, preprocess, watch: None }
    }

    /// How images are preprocessed.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Decodes a file, or takes it resized from memory, and makes one view of it, shape (3, height, width). What needs the
    /// whole batch comes after, in [`Pipeline::finish`].
    ///
    /// # Errors
    /// When the file is not a usable image.
    pub fn load(&self, path: &Path, view: View) -> Result<Vec<f32>, ImageError> {
        Ok(self.preprocess.normalization.standardize(&self.load_resized(path, view)?))
    }

    /// The same before it is standardised.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn load_resized(&self, path: &Path, view: View) -> Result<RgbImage, ImageError> {
        // Where each view has a window of its own, it cannot be kept resized.
        if self.augmentation.any(|step| matches!(step, Effect::Window(_))) {
            return self.resized_view(&self.decoded(path)?.image, view);
        }
        let resized = || self.preprocess.resized(&self.decoded(path)?.image);
        Ok(self.augmentation.apply_to_image(self.resized.get_or_make(path, resized)?, view))
    }

    /// Mean and standard deviation per channel where standardising images is left to their destination: a GPU, which they
    /// reach sooner as bytes, and where nothing else is done to their pixels before.
    pub fn left_to(&self, destination: Destination) -> Option<([f32; 3], [f32; 3])> {
        let changed = self.augmentation.any(|step| matches!(step, Effect::Pixels(_)));
        match self.preprocess.normalization {
            Normalization::PerChannel { mean, std } if destination.gpu && !destination.mixed && !changed => {
                Some((mean, std))
            }
            _ => None,
        }
    }

    /// As [`Pipeline::load`], from the file as it is now, keeping nothing, and looked at more closely: for files that are
    /// read once, or that may change.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn load_once(&self, path: &Path, view: View) -> Result<Vec<f32>, ImageError> {
        self.see_once(path, view).map(|(resized, _)| self.preprocess.normalization.standardize(&resized))
    }

    /// The resized image of [`Pipeline::load_once`] before it is standardised, and the width and height of the image.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn see_once(&self, path: &Path, view: View) -> Result<(RgbImage, (u32, u32)), ImageError> {
        let seen = self.seen(path, decode::decode_described)?;
        Ok((self.resized_view(&seen.image, view)?, seen.image.dimensions()))
    }

    fn decoded(&self, path: &Path) -> Result<Decoded, ImageError> {
        self.seen(path, decode::decode_any)
    }

    /// Decodes a file and looks at it.
    fn seen(
        &self,
        path: &Path,
        decode: fn(&[u8], DecodeOptions) -> Result<Decoded, ImageError>,
    ) -> Result<Decoded, ImageError> {
        let decoded = decode(&decode::read(path)?, self.decode)?;
        if let Some(watch) = &self.watch {
            watch.note(Look::of(&decoded.image, &decoded.storage));
        }
        Ok(decoded)
    }

    /// One view of an image resized, with 8 bits, before it is standardised.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn resized_view(&self, image: &RgbImage, view: View) -> Result<RgbImage, ImageError> {
        let geometry = &self.preprocess.geometry;
        let resized = match self.augmentation.window(image.dimensions(), geometry.shape(), view) {
            Some(window) => geometry.resized_window(image, window)?,
            None => self.preprocess.resized(image)?,
        };
        Ok(self.augmentation.apply_to_image(resized, view))
    }

    /// Completes a batch of [`Pipeline::load`]ed views, concatenated: standardisation over the batch, then erasing.
    pub fn finish(&self, pixels: &mut [f32], views: &[View]) {
        let size = self.preprocess.geometry.image_size;
        self.preprocess.normalization.finish_batch(pixels, size);
        for (image, &view) in pixels.chunks_exact_mut(size.values().max(1)).zip(views) {
            self.augmentation.apply_to_pixels(image, size, view);
        }
    }

    /// One view with everything that happens to it, the operations on standardised pixels too, for a person to see.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn picture(&self, image: &RgbImage, view: View) -> Result<RgbImage, ImageError> {
        let (normalization, size) =
            (self.preprocess.normalization.without_batch(), self.preprocess.geometry.image_size);
        let mut pixels = normalization.standardize(&self.resized_view(image, view)?);
        self.augmentation.apply_to_pixels(&mut pixels, size, view);
        Ok(normalization.undo(&pixels, size))
    }
}

#[cfg(test)]
mod tests;
