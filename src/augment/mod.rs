//! Random changes of training images: `[augment]`, its presets and its operations.
//!
//! An operation is one file: a struct that is its table in the configuration (keys, ranges, defaults, documentation),
//! what it does to an image, and the flaw in images that it imitates, if any. Its line in `operations!` makes a
//! key of it. This module lies below `config`, which reads the structs, and below `data`, which runs the operations.

mod blur;
mod color_jitter;
mod corruption;
mod crop;
mod erasing;
mod illumination;
mod jpeg;
mod noise;
mod occlusion;
mod paint;
mod patch;
mod preset;
mod scratches;
mod stains;
mod stripes;
mod turns;

pub use crate::pixels::Window;
pub use blur::Blur;
pub use color_jitter::ColorJitter;
pub use corruption::Corruption;
pub use crop::RandomResizedCrop;
pub use erasing::Erasing;
pub use illumination::Illumination;
pub use jpeg::Jpeg;
pub use noise::Noise;
pub use occlusion::Occlusion;
pub use preset::AugmentPreset;
pub use scratches::Scratches;
pub use stains::Stains;
pub use stripes::Stripes;
pub use turns::{HorizontalFlip, Rotate90, VerticalFlip};

use crate::forms;
use crate::rng::Stream;
use image::RgbImage;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

/// A random change of an 8-bit image.
pub type ImageChange = dyn Fn(RgbImage, &mut Stream) -> RgbImage + Send + Sync;

/// What an operation works on.
pub enum Effect {
    /// The choice of a window, in place of the plain resize.
    Window(RandomResizedCrop),
    /// The resized image.
    Image(Box<ImageChange>),
    /// The standardised pixels.
    Pixels(Erasing),
}

/// The settings of an operation, and what it does with them. What `true` means is said by the defaults in its schema.
pub trait Augmentation: Copy + Serialize + DeserializeOwned + JsonSchema {
    /// The keys that a number in place of the table sets; none = a number is not taken.
    const NUMBER: &'static [&'static str] = &["p"];

    /// For an operation that imitates a flaw in images: the flaw on every image, at a strength from 0 (which changes
    /// nothing) to 1 (worse than any image that would be used).
    const FLAW: Option<fn(f64) -> Self> = None;

    /// Whether it changes anything at all.
    fn acts(&self) -> bool;

    /// The same on every image, for a person to look at; none when there is nothing to see.
    fn certain(self) -> Option<Self>;

    /// The operation itself.
    fn step(self) -> Effect;
}

/// An [`Augmentation`] on the resized image, applied with a probability.
pub trait Augment: Copy + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// As [`Augmentation::NUMBER`].
    const NUMBER: &'static [&'static str] = &["p"];
    /// As [`Augmentation::FLAW`].
    const FLAW: Option<fn(f64) -> Self> = None;
    /// Whether a person who looks at its effect has something to judge.
    const PREVIEWED: bool = true;

    /// How often it is applied, from 0 to 1, and how strongly: at a strength of 0 it changes nothing.
    fn dials(&mut self) -> (&mut f64, f64);

    /// The changed image, of the same size.
    fn apply(&self, image: RgbImage, rng: &mut Stream) -> RgbImage;
}

impl<T: Augment> Augmentation for T {
    const NUMBER: &'static [&'static str] = T::NUMBER;
    const FLAW: Option<fn(f64) -> Self> = T::FLAW;

    fn acts(&self) -> bool {
        let mut settings = *self;
        let (p, strength) = settings.dials();
        *p > 0.0 && strength > 0.0
    }

    fn certain(mut self) -> Option<Self> {
        *self.dials().0 = 1.0;
        T::PREVIEWED.then_some(self)
    }

    fn step(mut self) -> Effect {
        let p = *self.dials().0;
        Effect::Image(Box::new(move |image, rng| if rng.chance(p) { self.apply(image, rng) } else { image }))
    }
}

/// Declares `[augment]`: each operation with its key, its type and the number that keys its random stream, in the order
/// of their application. The numbers are part of the reproducibility contract: never reuse one.
macro_rules! operations {
    ($($(#[$doc:meta])* $key:ident: $operation:ty = $number:literal,)*) => {
        /// `[augment]`: what is on, with its probabilities and strengths. The preset is already folded in.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct AugmentSettings {
            /// The values to start from.
            #[schemars(extend("default" = "none"))]
            pub preset: AugmentPreset,
            $(
                $(#[$doc])*
                #[serde(default, deserialize_with = "acting", serialize_with = "forms::write_off_or")]
                #[schemars(transform = written::<$operation>)]
                pub $key: Option<$operation>,
            )*
        }

        impl AugmentSettings {
            /// Every operation off.
            pub const NONE: Self = Self { preset: AugmentPreset::None, $($key: None),* };

            /// The operations that are on, each with the number that keys its stream, in the order of their application.
            pub fn steps(&self) -> Vec<(u64, Effect)> {
                [$(self.$key.map(|on| ($number, on.step()))),*].into_iter().flatten().collect()
            }

            /// Each operation that is on, alone and certain to act, by its key, without those that show nothing.
            pub fn alone(&self) -> Vec<(&'static str, Self)> {
                [$(self.$key.and_then(Augmentation::certain).map(|on| {
                    (stringify!($key), Self { $key: Some(on), ..Self::NONE })
                })),*].into_iter().flatten().collect()
            }
        }

        impl Corruption {
            /// All of them.
            pub fn all() -> Vec<Self> {
                [$(<$operation as Augmentation>::FLAW.map(|_| Self::new(stringify!($key), |strength| AugmentSettings {
                    $key: <$operation as Augmentation>::FLAW.map(|flaw| flaw(strength)),
                    ..AugmentSettings::NONE
                }))),*].into_iter().flatten().collect()
            }
        }

        #[cfg(test)]
        const NUMBERS: &[u64] = &[$($number),*];
    };
}

// In the order of image formation: how the part lies before the camera, its surface, what is in front of it, light,
// colour, optics, sensor, file. Erasing, which hides pixels from the model, comes last.
operations! {
    /// Random resized crop: true, false or a table.
    crop: RandomResizedCrop = 1,
    /// Left-right flip: its probability; true = 0.5.
    hflip: HorizontalFlip = 2,
    /// Up-down flip: its probability; true = 0.5.
    vflip: VerticalFlip = 3,
    /// Rotation by a random multiple of 90 degrees, of 180 where the input is not square: its probability; true = 0.5.
    rotate90: Rotate90 = 4,
    /// Soft spots and drops: true, false, their probability, or a table.
    stains: Stains = 7,
    /// Thin bent lines: true, false, their probability, or a table.
    scratches: Scratches = 9,
    /// A solid or mottled rectangle in front of the object: true, false, its probability, or a table.
    occlusion: Occlusion = 14,
    /// Light that falls off across the image, and a gamma: true, false, its probability, or a table.
    illumination: Illumination = 10,
    /// Colour jitter: true, false, one strength for brightness, contrast and saturation, or a table.
    color: ColorJitter = 5,
    /// Gaussian or motion blur: true, false, its probability, or a table.
    blur: Blur = 12,
    /// One band or many at equal distances: true, false, their probability, or a table.
    stripes: Stripes = 8,
    /// Noise of a sensor: true, false, its probability, or a table.
    noise: Noise = 11,
    /// JPEG compression: true, false, its probability, or a table.
    jpeg: Jpeg = 13,
    /// Random erasing: true, false, its probability, or a table.
    erasing: Erasing = 6,
}

/// An operation as it is read: `false`, or settings that change nothing, are none.
fn acting<'de, T: Augmentation, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(forms::off_or(deserializer)?.filter(T::acts))
}

/// The forms an operation may be written in, as a schema: on or off, a number, its table.
fn written<T: Augmentation>(schema: &mut Schema) {
    /// What `true` means for an operation that is nothing but its probability.
    const EVEN: f64 = 0.5;
    // The preset decides what is on.
    schema.remove("default");
    if <T as JsonSchema>::json_schema(&mut schemars::SchemaGenerator::default()).get("type") == Some(&json!("number")) {
        schema.insert(forms::ON.into(), EVEN.into());
        return forms::switch(schema);
    }
    let number = json!({
        "type": "number", "description": "The number that matters most; 0 = off.", "minimum": 0.0, "maximum": 1.0
    });
    let numbers: Vec<_> = if T::NUMBER.is_empty() { Vec::new() } else { vec![number] };
    schema.insert(forms::NUMBER.into(), json!(T::NUMBER));
    forms::wrap(schema, |table| [vec![forms::on_or_off()], numbers, vec![table]].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_operations_draw_from_one_stream() {
        let mut numbers = NUMBERS.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), NUMBERS.len());
    }
}
