//! From a decoded image to the pixels a backbone reads.
//!
//! Without augmentation: resize to a square (`resize`), standardise (`normalize`). With augmentation, in this
//! order: random resized crop (in place of the resize), flips and rotation, then in the order of image formation (the object's
//! surface, what is in front of it, light, colour, optics, sensor, file), standardise, erasing.
//!
//! Every operation draws from a stream of its own, keyed by seed, epoch, sample and operation: switching one on
//! leaves the draws of the others as they were, and threads change nothing.

mod blur;
mod color_jitter;
mod corruption;
mod erasing;
mod hflip;
mod illumination;
mod jpeg;
mod noise;
mod normalize;
mod occlusion;
mod paint;
mod patch;
mod random_resized_crop;
mod resize;
mod rotate90;
mod scratches;
mod squares;
mod stains;
mod stripes;
mod vflip;

pub(super) use color_jitter::luma;
pub use corruption::Corruption;
pub(super) use normalize::Histograms;
pub use normalize::{ChannelStatistics, IMAGENET, Normalization, SYMMETRIC};
pub use resize::{Geometry, Interpolation, Window};

use super::decode::{self, DecodeOptions, ImageError};
use crate::config::{AugmentSettings, PreprocessSettings};
use crate::error::Result;
use crate::rng::{Purpose, Stream};
use image::RgbImage;
use random_resized_crop::RandomResizedCrop;
use serde::{Deserialize, Serialize};
use squares::SquareCache;
use std::path::Path;
use std::sync::Arc;

/// An augmentation of an 8-bit image, whose size it may change only by swapping its sides.
trait Augment: Send + Sync {
    /// The changed image.
    fn apply(&self, image: RgbImage, rng: &mut Stream) -> RgbImage;
}

/// An augmentation of standardised pixels, shape (3, side, side).
trait PixelAugment: Send + Sync {
    /// Changes the pixels in place.
    fn apply(&self, pixels: &mut [f32], side: usize, rng: &mut Stream);
}

/// An operation with the number that keys its stream. The numbers are part of the reproducibility contract: never
/// reuse one.
type Keyed<T> = (u64, Box<T>);

const CROP_ID: u64 = 1;

/// The image operations that are on, in the order of their application.
fn image_operations(settings: &AugmentSettings) -> Vec<Keyed<dyn Augment>> {
    let mut on: Vec<Keyed<dyn Augment>> = Vec::new();
    let p = |p: f64| (p > 0.0).then_some(p);
    on.extend(p(settings.hflip).map(|p| keyed(2, hflip::HorizontalFlip { p })));
    on.extend(p(settings.vflip).map(|p| keyed(3, vflip::VerticalFlip { p })));
    on.extend(p(settings.rotate90).map(|p| keyed(4, rotate90::Rotate90 { p })));
    on.extend(settings.stains.map(|stains| keyed(7, stains::Stains(stains))));
    on.extend(settings.scratches.map(|scratches| keyed(9, scratches::Scratches(scratches))));
    on.extend(settings.occlusion.map(|occlusion| keyed(14, occlusion::Occlusion(occlusion))));
    on.extend(settings.illumination.map(|illumination| keyed(10, illumination::Illumination(illumination))));
    on.extend(settings.color.map(|color| keyed(5, color_jitter::ColorJitter(color))));
    on.extend(settings.blur.map(|blur| keyed(12, blur::Blur(blur))));
    on.extend(settings.stripes.map(|stripes| keyed(8, stripes::Stripes(stripes))));
    on.extend(settings.noise.map(|noise| keyed(11, noise::Noise(noise))));
    on.extend(settings.jpeg.map(|jpeg| keyed(13, jpeg::Jpeg(jpeg))));
    on
}

fn keyed(number: u64, operation: impl Augment + 'static) -> Keyed<dyn Augment> {
    (number, Box::new(operation))
}

/// The operations on standardised pixels that are on, in the order of their application.
fn pixel_operations(settings: &AugmentSettings) -> Vec<Keyed<dyn PixelAugment>> {
    let mut operations: Vec<Keyed<dyn PixelAugment>> = Vec::new();
    if let Some(erasing) = settings.erasing {
        operations.push((6, Box::new(erasing::Erasing(erasing))));
    }
    operations
}

/// Whether any operation is on, so that views of a sample differ.
pub fn augments(settings: &AugmentSettings) -> bool {
    settings.crop.is_some() || !image_operations(settings).is_empty() || !pixel_operations(settings).is_empty()
}

/// How a backbone preprocesses images, for what the settings leave to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BackboneDefaults {
    /// Mean per channel, for pixels in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, for pixels in 0..1.
    pub std: [f32; 3],
    /// Filter of its resize.
    pub interpolation: Interpolation,
    /// Side of its centre crop as a share of the resized short side.
    pub crop_pct: f64,
}

/// The resolved way from a decoded image to pixels. It is saved with a trained model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// How the image becomes a square.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// How its pixels are standardised.
    pub normalization: Normalization,
}

impl Preprocess {
    /// Fills in what the settings leave to the backbone. `statistics` are those of the training images; they are
    /// needed when [`Normalization::needs_statistics`] says so.
    ///
    /// # Errors
    /// When statistics are needed but absent, or explicit ones were not given.
    pub fn resolve(
        settings: &PreprocessSettings,
        image_size: usize,
        backbone: &BackboneDefaults,
        statistics: Option<&ChannelStatistics>,
    ) -> Result<Self> {
        Ok(Self {
            geometry: Geometry::resolve(settings, image_size, backbone),
            normalization: Normalization::resolve(settings, backbone, statistics)?,
        })
    }

    /// The square image, before standardisation. A letterbox's border has the colour that standardises to about zero.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn square(&self, image: &RgbImage) -> Result<RgbImage, ImageError> {
        self.geometry.square(image, self.normalization.neutral_color())
    }

    /// Pixels for the backbone, shape (3, side, side). [`Normalization::Batch`] leaves them in 0..1 until their batch
    /// is complete.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn to_pixels(&self, image: &RgbImage) -> Result<Vec<f32>, ImageError> {
        Ok(self.normalization.standardize(&self.square(image)?))
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

/// Random operations on images.
struct Augmentation {
    seed: u64,
    purpose: Purpose,
    crop: Option<RandomResizedCrop>,
    image: Vec<Keyed<dyn Augment>>,
    pixels: Vec<Keyed<dyn PixelAugment>>,
}

impl Augmentation {
    fn new(settings: &AugmentSettings, seed: u64, purpose: Purpose) -> Self {
        Self {
            seed,
            purpose,
            crop: settings.crop.map(RandomResizedCrop),
            image: image_operations(settings),
            pixels: pixel_operations(settings),
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
    augmentation: Option<Augmentation>,
    squares: Arc<SquareCache>,
}

impl Pipeline {
    /// Without augmentation: every view of a sample is the same.
    pub fn evaluation(preprocess: Preprocess, decode: DecodeOptions) -> Self {
        Self { decode, preprocess, augmentation: None, squares: Arc::default() }
    }

    /// With the augmentations of the settings, drawn from `seed`.
    pub fn training(preprocess: Preprocess, decode: DecodeOptions, settings: &AugmentSettings, seed: u64) -> Self {
        Self::evaluation(preprocess, decode).augmented_by(settings, seed)
    }

    /// The same images with the augmentations of the settings, drawn from `seed`. Both pipelines share the squares that
    /// they keep.
    #[must_use]
    pub fn augmented_by(&self, settings: &AugmentSettings, seed: u64) -> Self {
        self.with(Augmentation::new(settings, seed, Purpose::Augment))
    }

    /// The same images with one flaw, drawn from `seed`, not from the seed of training. At another strength a view has the
    /// same flaw, stronger or weaker. Both pipelines share their cached squares.
    #[must_use]
    pub fn corrupted(&self, corruption: Corruption, strength: f64, seed: u64) -> Self {
        self.with(Augmentation::new(&corruption.settings(strength), seed, Purpose::Corruption))
    }

    fn with(&self, augmentation: Augmentation) -> Self {
        let squares = Arc::clone(&self.squares);
        Self { augmentation: Some(augmentation), squares, decode: self.decode, preprocess: self.preprocess }
    }

    /// How images are preprocessed.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Decodes a file, or takes its square from memory, and makes one view of it, shape (3, side, side). What needs the
    /// whole batch comes after, in [`Pipeline::finish`].
    ///
    /// # Errors
    /// When the file is not a usable image.
    pub fn load(&self, path: &Path, view: View) -> Result<Vec<f32>, ImageError> {
        if self.crops() {
            return self.view(&decode::decode_file(path, self.decode)?, view);
        }
        let square = || self.preprocess.square(&decode::decode_file(path, self.decode)?);
        let square = self.squares.get_or_make(path, square)?;
        Ok(self.preprocess.normalization.standardize(&self.augmented(square, view)))
    }

    /// The same from the file as it is now, keeping nothing, and looked at more closely: for files that are read once, or
    /// that may change.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn load_once(&self, path: &Path, view: View) -> Result<Vec<f32>, ImageError> {
        self.view(&decode::decode_described(&decode::read(path)?, self.decode)?.0, view)
    }

    fn view(&self, image: &RgbImage, view: View) -> Result<Vec<f32>, ImageError> {
        Ok(self.preprocess.normalization.standardize(&self.square_view(image, view)?))
    }

    /// One view of an image as an 8-bit square, before it is standardised.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn square_view(&self, image: &RgbImage, view: View) -> Result<RgbImage, ImageError> {
        let square = match &self.augmentation {
            Some(augmentation @ Augmentation { crop: Some(crop), .. }) => {
                let window = crop.draw(image.dimensions(), &mut augmentation.stream(view, CROP_ID));
                self.preprocess.geometry.square_of(image, window)?
            }
            _ => self.preprocess.square(image)?,
        };
        Ok(self.augmented(square, view))
    }

    /// Whether each view has a window of its own, so that its square cannot be kept.
    fn crops(&self) -> bool {
        self.augmentation.as_ref().is_some_and(|augmentation| augmentation.crop.is_some())
    }

    /// The image operations on a square.
    fn augmented(&self, square: RgbImage, view: View) -> RgbImage {
        let Some(augmentation) = &self.augmentation else { return square };
        let apply =
            |image, (id, operation): &Keyed<dyn Augment>| operation.apply(image, &mut augmentation.stream(view, *id));
        augmentation.image.iter().fold(square, apply)
    }

    /// Completes a batch of [`Pipeline::load`]ed views, concatenated: standardisation over the batch, then erasing.
    pub fn finish(&self, pixels: &mut [f32], views: &[View]) {
        self.preprocess.normalization.finish_batch(pixels, self.preprocess.geometry.image_size);
        let side = self.preprocess.geometry.image_size;
        for (image, &view) in pixels.chunks_exact_mut((3 * side * side).max(1)).zip(views) {
            self.augment_pixels(image, view);
        }
    }

    /// The operations on one image's standardised pixels.
    fn augment_pixels(&self, pixels: &mut [f32], view: View) {
        let Some(augmentation) = &self.augmentation else { return };
        for (id, operation) in &augmentation.pixels {
            let rng = &mut augmentation.stream(view, *id);
            operation.apply(pixels, self.preprocess.geometry.image_size, rng);
        }
    }

    /// One view with everything that happens to it, the operations on standardised pixels too, for a person to see.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn picture(&self, image: &RgbImage, view: View) -> Result<RgbImage, ImageError> {
        let normalization = self.preprocess.normalization.without_batch();
        let mut pixels = normalization.standardize(&self.square_view(image, view)?);
        self.augment_pixels(&mut pixels, view);
        Ok(normalization.undo(&pixels, self.preprocess.geometry.image_size))
    }
}

#[cfg(test)]
mod tests;
