//! Mixed training images: mixup (Zhang et al. 2018) and `CutMix` (Yun et al. 2019), by timm's rules.
//!
//! One share is drawn for a batch, and image i is mixed with image n - 1 - i. A batch is mixed whole, before it is cut
//! into micro-batches and shards, and what is drawn depends on (seed, step) alone: so neither these nor an interruption
//! change anything.

use crate::config::TrainSettings;
use crate::data::loader::Batch;
use crate::rng::{Purpose, Stream};
use crate::size::Size;
use std::ops::Range;

/// Mixes the batches of a run.
#[derive(Debug, Clone, Copy)]
pub struct Mixer {
    /// Parameter of mixup's beta distribution; 0 = off.
    pub mixup: f64,
    /// Likewise of `CutMix`.
    pub cutmix: f64,
    /// Number of classes.
    pub classes: usize,
    /// Size of the images.
    pub size: Size,
    /// The run's seed.
    pub seed: u64,
}

/// How two images become one.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixture {
    /// A weighted mean.
    Blend {
        /// The share of the image itself; the rest is its partner's.
        share: f64,
    },
    /// The partner's pixels in a rectangle.
    Paste {
        /// The share of the image itself: what lies outside the rectangle.
        share: f64,
        /// The rectangle's rows.
        rows: Range<usize>,
        /// The rectangle's columns.
        columns: Range<usize>,
    },
}

impl Mixer {
    /// The mixer of the settings; none when nothing is mixed.
    pub fn new(settings: &TrainSettings, classes: usize, size: Size, seed: u64) -> Option<Self> {
        let mixer = Self { mixup: settings.mixup, cutmix: settings.cutmix, classes, size, seed };
        settings.mixes().then_some(mixer)
    }

    /// Mixes the images of the batch of a step with each other, pixels and labels.
    pub fn mix(&self, batch: &mut Batch, step: usize) {
        self.draw(step).apply(batch, self.classes, self.size);
    }

    /// What is done in a step. Where both kinds are on, each is as likely.
    fn draw(&self, step: usize) -> Mixture {
        let mut stream = Stream::new(self.seed, Purpose::Mix, &[step as u64]);
        let pastes = self.cutmix > 0.0 && (self.mixup <= 0.0 || stream.chance(0.5));
        if pastes {
            let share = stream.symmetric_beta(self.cutmix);
            let centre = self.size.sides().map(|length| stream.below(length as u64) as usize);
            Mixture::paste(share, centre, self.size)
        } else {
            Mixture::Blend { share: stream.symmetric_beta(self.mixup) }
        }
    }
}

impl Mixture {
    /// A rectangle around a centre (row, column) with about 1 - `share` of the area of an image, and of its shape. What the border
    /// cuts off goes back to the share.
    pub fn paste(share: f64, [row, column]: [usize; 2], size: Size) -> Self {
        let around = |centre: usize, side: usize| {
            let length = (side as f64 * (1.0 - share).sqrt()) as usize;
            centre.saturating_sub(length / 2)..(centre + length.div_ceil(2)).min(side)
        };
        let (rows, columns) = (around(row, size.height), around(column, size.width));
        let share = 1.0 - (rows.len() * columns.len()) as f64 / size.area() as f64;
        Self::Paste { share, rows, columns }
    }

    /// Which part of a mixed image is the image itself.
    pub fn share(&self) -> f64 {
        match *self {
            Self::Blend { share } | Self::Paste { share, .. } => share,
        }
    }

    /// Mixes the images of a batch (n, 3, height, width) and their labels with each other.
    pub fn apply(&self, batch: &mut Batch, classes: usize, size: Size) {
        self.apply_to_images(&mut batch.inputs, batch.labels.len(), size);
        self.apply_to_labels(batch, classes);
    }

    /// Mixes `n` images (n, 3, height, width) with each other.
    fn apply_to_images(&self, pixels: &mut [f32], n: usize, size: Size) {
        let image = size.values();
        let (front, back) = pixels.split_at_mut(n.div_ceil(2) * image);
        // The middle one of an odd number is its own partner, and stays.
        for (one, other) in front.chunks_exact_mut(image).zip(back.chunks_exact_mut(image).rev()) {
            match self {
                Self::Blend { share } => blend(one, other, *share as f32),
                Self::Paste { rows, columns, .. } => swap_rectangles(one, other, (rows, columns), size),
            }
        }
    }

    /// Mixes the labels likewise; each image then counts as the class that it shows most of.
    fn apply_to_labels(&self, batch: &mut Batch, classes: usize) {
        let share = self.share();
        let labels = &batch.labels;
        let mut soft = vec![0f32; labels.len() * classes];
        for ((row, &own), &partner) in soft.chunks_exact_mut(classes).zip(labels).zip(labels.iter().rev()) {
            row[own] += share as f32;
            row[partner] += (1.0 - share) as f32;
        }
        if share < 0.5 {
            batch.labels.reverse();
        }
        batch.soft_labels = soft;
    }
}

fn blend(one: &mut [f32], other: &mut [f32], share: f32) {
    for (a, b) in one.iter_mut().zip(other) {
        (*a, *b) = (share * *a + (1.0 - share) * *b, share * *b + (1.0 - share) * *a);
    }
}

fn swap_rectangles(one: &mut [f32], other: &mut [f32], (rows, columns): (&Range<usize>, &Range<usize>), size: Size) {
    for channel in 0..3 {
        for row in rows.clone() {
            let line = (channel * size.height + row) * size.width;
            let range = line + columns.start..line + columns.end;
            one[range.clone()].swap_with_slice(&mut other[range]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIDE: usize = 6;

    fn batch(labels: &[usize]) -> Batch {
        let image = |i: usize| (0..3 * SIDE * SIDE).map(move |pixel| (i * 1000 + pixel) as f32);
        Batch {
            inputs: (0..labels.len()).flat_map(image).collect(),
            labels: labels.to_vec(),
            indices: (0..labels.len()).collect(),
            ..Batch::default()
        }
    }

    fn mixer(mixup: f64, cutmix: f64) -> Mixer {
        Mixer { mixup, cutmix, classes: 3, size: SIDE.into(), seed: 4 }
    }

    #[test]
    fn both_kinds_take_turns_and_a_step_is_its_own_key() {
        let mixer = mixer(0.2, 1.0);
        let mixtures: Vec<Mixture> = (0..200).map(|step| mixer.draw(step)).collect();
        let pastes = mixtures.iter().filter(|mixture| matches!(mixture, Mixture::Paste { .. })).count();
        assert!((70..130).contains(&pastes), "{pastes}");
        assert_eq!(mixer.draw(17), mixtures[17]);
        assert!((0..50).all(|step| matches!(self::mixer(0.2, 0.0).draw(step), Mixture::Blend { .. })));
        assert!((0..50).all(|step| matches!(self::mixer(0.0, 1.0).draw(step), Mixture::Paste { .. })));
    }

    #[test]
    fn an_image_counts_as_what_it_shows_most_of() {
        for (share, expected) in [(0.7, [0, 1, 2]), (0.3, [2, 1, 0])] {
            let mut mixed = batch(&[0, 1, 2]);
            Mixture::Blend { share }.apply_to_labels(&mut mixed, 3);
            assert_eq!(mixed.labels, expected);
        }
    }

    proptest! {
        #[test]
        fn labels_are_distributions_and_pixels_keep_their_sum(
            labels in prop::collection::vec(0usize..3, 1..8),
            step in 0usize..1000,
            cutmix: bool,
        ) {
            let mut mixed = batch(&labels);
            let mixer = if cutmix { mixer(0.0, 1.0) } else { mixer(0.4, 0.0) };
            mixer.mix(&mut mixed, step);
            for row in mixed.soft_labels.chunks(3) {
                prop_assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row.iter().all(|p| *p >= 0.0));
            }
            let sum = |pixels: &[f32]| pixels.iter().map(|&x| f64::from(x)).sum::<f64>();
            prop_assert!((sum(&mixed.inputs) / sum(&batch(&labels).inputs) - 1.0).abs() < 1e-5);
        }

        #[test]
        fn rectangles_stay_inside_and_shares_are_what_is_left(
            share in 0.0f64..=1.0, row in 0usize..37, column in 0usize..37,
        ) {
            let Mixture::Paste { share: corrected, rows, columns } = Mixture::paste(share, [row, column], 37.into()) else {
                unreachable!()
            };
            prop_assert!(rows.end <= 37 && columns.end <= 37 && rows.start <= rows.end);
            prop_assert!((0.0..=1.0).contains(&corrected));
            // The border only ever makes the rectangle smaller; its side is rounded down.
            prop_assert!(corrected >= share - 1e-12);
        }
    }
}
