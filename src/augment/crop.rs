//! Random resized crop (Szegedy et al. 2014), with the draws and the fallback of torchvision's `RandomResizedCrop`.

use super::patch::sides;
use super::{Augmentation, Effect, Window};
use crate::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `augment.crop`: random resized crop (Szegedy et al. 2014; torchvision's `RandomResizedCrop`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomResizedCrop {
    // A crop that keeps most of the image: a defect at the border usually survives it.
    /// Smallest and largest area as fractions of the image.
    #[schemars(inner(range(min = 1e-4, max = 1.0)), extend("default" = [0.7, 1.0]))]
    pub scale: [f64; 2],
    /// Smallest and largest width / height, in terms of the input's own.
    #[schemars(inner(range(min = 0.01, max = 100.0)), extend("default" = [0.75, 1.333]))]
    pub ratio: [f64; 2],
}

impl Augmentation for RandomResizedCrop {
    const NUMBER: &'static [&'static str] = &[];

    fn acts(&self) -> bool {
        true
    }

    fn certain(self) -> Option<Self> {
        Some(self)
    }

    fn step(self) -> Effect {
        Effect::Window(self)
    }
}

impl RandomResizedCrop {
    /// A window of an image of the given width and height, for an input whose width / height is `shape`.
    ///
    /// Area uniform in `scale`, logarithm of width / height uniform in `ratio` times `shape`; a window that does not fit is
    /// drawn again.
    pub fn draw(&self, (width, height): (u32, u32), shape: f64, rng: &mut Stream) -> Window {
        let Self { scale, ratio } = *self;
        let ratio = ratio.map(|ratio| ratio * shape);
        let area = f64::from(width) * f64::from(height);
        let fits = |[w, h]: [u32; 2]| (1..=width).contains(&w) && (1..=height).contains(&h);
        if let Some([w, h]) = sides(area, scale, ratio, fits, rng) {
            let y = rng.below(u64::from(height - h) + 1) as u32;
            let x = rng.below(u64::from(width - w) + 1) as u32;
            return Window { x, y, width: w, height: h };
        }
        largest_allowed(ratio, width, height)
    }
}

/// The largest centred window whose aspect ratio is allowed.
fn largest_allowed([narrowest, widest]: [f64; 2], width: u32, height: u32) -> Window {
    let aspect = f64::from(width) / f64::from(height);
    let (w, h) = if aspect < narrowest {
        (width, (f64::from(width) / narrowest).round() as u32)
    } else if aspect > widest {
        ((f64::from(height) * widest).round() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width.max(1)), h.clamp(1, height.max(1)));
    Window { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use proptest::prelude::*;

    fn crop(scale: [f64; 2], ratio: [f64; 2]) -> RandomResizedCrop {
        RandomResizedCrop { scale, ratio }
    }

    proptest! {
        #[test]
        fn stays_inside(width in 1u32..3000, height in 1u32..3000, seed: u64, low in 0.01f64..1.0) {
            let mut rng = Stream::new(seed, Purpose::Augment, &[]);
            let window = crop([low, 1.0], [0.75, 4.0 / 3.0]).draw((width, height), 1.0, &mut rng);
            prop_assert!(window.width >= 1 && window.height >= 1);
            prop_assert!(window.x + window.width <= width && window.y + window.height <= height, "{window:?}");
        }
    }

    #[test]
    fn area_and_ratio_follow_the_settings() {
        let crop = crop([0.25, 0.5], [0.5, 2.0]);
        let mut rng = Stream::new(1, Purpose::Augment, &[]);
        let mut tall = 0;
        for _ in 0..2000 {
            let window = crop.draw((1000, 1000), 1.0, &mut rng);
            let area = f64::from(window.width * window.height) / 1e6;
            let ratio = f64::from(window.width) / f64::from(window.height);
            assert!((0.248..=0.502).contains(&area), "{area}");
            assert!((0.497..=2.01).contains(&ratio), "{ratio}");
            tall += i32::from(ratio < 1.0);
        }
        assert!((900..1100).contains(&tall), "the logarithm of the ratio is uniform: {tall} of 2000 are tall");
    }

    #[test]
    fn fallback_is_the_largest_allowed_window() {
        // No window of nearly all the area fits a strip with these ratios.
        let mut rng = Stream::new(1, Purpose::Augment, &[]);
        let window = crop([0.99, 1.0], [0.75, 4.0 / 3.0]).draw((1000, 90), 1.0, &mut rng);
        assert_eq!(window, Window { x: 440, y: 0, width: 120, height: 90 });
        let window = crop([0.99, 1.0], [0.75, 4.0 / 3.0]).draw((90, 1000), 1.0, &mut rng);
        assert_eq!(window, Window { x: 0, y: 440, width: 90, height: 120 });
        // An input of that shape is what the ratios are about.
        let window = crop([1.0, 1.0], [0.75, 4.0 / 3.0]).draw((1000, 100), 8.0, &mut rng);
        assert_eq!(window, Window { x: 0, y: 0, width: 1000, height: 100 });
    }
}
