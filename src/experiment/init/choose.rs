//! A backbone that this machine has room for, and a size or tiles that it takes through all images in minutes.

use super::options::InitOptions;
use super::survey::Survey;
use crate::config::{DeviceChoice, TileSettings};
use crate::data::transform::Tiles;
use crate::error::{Error, Result};
use crate::experiment::device;
use crate::hub::{Hub, RepoId, RetryLimits};
use crate::nn::workers::Workers;
use crate::report::Console;
use crate::train::forecast::product_rate;
use std::time::Duration;

/// Frozen features of all images should take no longer, in seconds.
const BUDGET: f64 = 300.0;
/// Share of a matrix product's speed that a backbone reaches, decoding included.
const EFFICIENCY: f64 = 0.5;
/// Images so many times as wide as the input lose small flaws when they are squashed into it.
const SHRUNK: u32 = 2;
/// Pixels of a tile for one of the image, the more exact ones first.
const SCALES: [f64; 3] = [1.0, 0.5, 0.25];
/// The free memory has room for the weights so many times: images and activations need the rest.
const ROOM: f64 = 4.0;
/// How long the hub may take to answer before this counts as offline.
const PATIENCE: Duration = Duration::from_secs(3);

/// A backbone that is proposed.
struct Proposal {
    name: &'static str,
    why: &'static str,
    blocks: f64,
    width: f64,
    patch: u32,
    /// Sides of the input, the larger ones first. Multiples of the patch.
    sides: &'static [u32],
    /// Side of a tile.
    tile: u32,
    /// Whether it has to be fetched.
    of_hub: bool,
}

const PROPOSALS: [Proposal; 3] = [
    Proposal {
        name: "timm/vit_base_patch14_reg4_dinov2.lvd142m",
        why: "DINOv2, pretrained on photographs without labels: the best frozen features at this price",
        blocks: 12.0,
        width: 768.0,
        patch: 14,
        sides: &[448, 336, 224],
        tile: 224,
        of_hub: true,
    },
    Proposal {
        name: "timm/vit_small_patch14_reg4_dinov2.lvd142m",
        why: "DINOv2, pretrained on photographs without labels, in a size that this machine runs in minutes",
        blocks: 12.0,
        width: 384.0,
        patch: 14,
        sides: &[448, 336, 224],
        tile: 224,
        of_hub: true,
    },
    Proposal {
        name: "builtin:vit-flaw",
        why: "inside the program, pretrained on formula-generated pictures with small flaws; a backbone of the hub knows more",
        blocks: 6.0,
        width: 192.0,
        patch: 8,
        // The largest is that of the quick start.
        sides: &[248, 192, 128, 96, 64],
        tile: 112,
        of_hub: false,
    },
];

impl Proposal {
    /// Whether there is room for it; where nobody knows how much there is, yes.
    fn fits(&self, free: Option<u64>) -> bool {
        let weights = 4.0 * 12.0 * self.blocks * self.width * self.width;
        free.is_none_or(|free| ROOM * weights <= free as f64)
    }

    /// Seconds that so many images take through the blocks at `rate` operations a second.
    fn seconds(&self, side: u32, images: usize, rate: f64) -> f64 {
        let tokens = f64::from((side / self.patch).pow(2)) + 5.0;
        let products = 24.0 * tokens * self.width * self.width;
        let attention = 4.0 * tokens * tokens * self.width;
        images as f64 * self.blocks * (products + attention) / (rate * EFFICIENCY)
    }

    /// Tiles in place of a squash to `side`: the most exact in the budget, if they show more than the squash.
    fn tiles(&self, (width, height): (u32, u32), side: u32, images: usize, rate: f64) -> Option<ChosenTiles> {
        let shorter = width.min(height);
        let exact = SCALES.into_iter().filter(|scale| scale * f64::from(shorter) > f64::from(side));
        let cut = exact.map(|scale| {
            let settings =
                TileSettings { side: None, scale: Some(scale), overlap: None, staggered: false, second_look: 0 };
            let count =
                Tiles::resolve(&settings, (self.tile as usize).into()).map_or(0, |tiles| tiles.count((width, height)));
            ChosenTiles { scale, count, squashed_to: side }
        });
        let fits = |tiles: &ChosenTiles| self.seconds(self.tile, images * tiles.count, rate) <= BUDGET;
        if shorter < SHRUNK * side { None } else { cut.filter(|tiles| tiles.count > 0).find(fits) }
    }

    /// The largest side in the budget that does not enlarge the images; the smallest where they are smaller than all.
    fn side(&self, of_images: u32, images: usize, rate: f64) -> Option<u32> {
        let smallest = self.sides.last()?;
        let fits = |side: &&u32| self.seconds(**side, images, rate) <= BUDGET;
        self.sides.iter().filter(|side| **side <= of_images.max(*smallest)).find(fits).copied()
    }
}

/// Tiles that were chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ChosenTiles {
    /// `preprocess.tiles.scale`
    pub scale: f64,
    /// How many an image of the usual size has.
    pub count: usize,
    /// What the image would be squashed to.
    pub squashed_to: u32,
}

/// What was chosen.
pub(super) struct ChosenBackbone {
    pub backbone: String,
    /// The reason, for the file; none when the user chose.
    pub why: Option<&'static str>,
    pub image_size: Option<usize>,
    /// For parts with small flaws, unless the user chose the size.
    pub tiles: Option<ChosenTiles>,
    /// Seconds that the features are expected to take.
    pub seconds: Option<f64>,
}

impl ChosenBackbone {
    pub(super) fn make(survey: &Survey, options: &InitOptions, console: &Console) -> Result<Self> {
        let images = survey.dataset.samples.len();
        let side = survey.side.unwrap_or(224);
        let device = device::open(DeviceChoice::Auto)?;
        let rate = product_rate(&Workers::new(0, &device)?, &device)?;
        let chosen = if let Some(name) = &options.backbone {
            PROPOSALS.iter().find(|candidate| candidate.name == name)
        } else {
            let online = online();
            if !online {
                console.info("the hub does not answer or is switched off: a built-in backbone is taken");
            }
            Some(propose(online, side, images, (rate, device::free_bytes(&device))))
        };
        let size = chosen.and_then(|candidate| candidate.side(side, images, rate).or(candidate.sides.last().copied()));
        // Where one class is good, the others differ from it in one small place, as a rule.
        let longer = (f64::from(side) * survey.elongation).round() as u32;
        let tiles = chosen
            .zip(size)
            .filter(|_| options.image_size.is_none() && survey.good.is_some())
            .and_then(|(candidate, size)| candidate.tiles((longer, side), size, images, rate));
        let size = if tiles.is_some() { chosen.map(|candidate| candidate.tile) } else { size };
        let image_size = options.image_size.or(size.map(|size| size as usize));
        if let (Some(size), Some(patch)) = (options.image_size, chosen.map(|candidate| candidate.patch as usize))
            && !size.is_multiple_of(patch)
        {
            let near = size.next_multiple_of(patch);
            let message = format!("--image-size {size} is not a multiple of the patch size {patch} of the backbone");
            return Err(Error::usage_hint(message, format!("for example --image-size {near}")));
        }
        Ok(Self {
            backbone: match (&options.backbone, chosen) {
                (Some(name), _) => name.clone(),
                (None, Some(candidate)) => candidate.name.to_owned(),
                (None, None) => PROPOSALS[2].name.to_owned(),
            },
            why: chosen.filter(|_| options.backbone.is_none()).map(|candidate| candidate.why),
            seconds: chosen.zip(image_size).map(|(candidate, size)| {
                candidate.seconds(size as u32, images * tiles.map_or(1, |tiles| tiles.count), rate)
            }),
            image_size,
            tiles,
        })
    }
}

/// Whether the hub has what is proposed of it.
fn online() -> bool {
    let offers = || {
        let hub = Hub::from_process()?;
        let limits = RetryLimits { etag_timeout: PATIENCE, ..hub.limits() };
        let id = RepoId::of_backbone(PROPOSALS[1].name)?;
        Ok::<_, Error>(id.is_some_and(|id| hub.with_limits(limits).offers(&id)))
    };
    offers().unwrap_or(false)
}

/// The first candidate that can be had, has room and takes its smallest input through all images in time; else the built-in
/// one. `machine`: operations a second, and free bytes.
fn propose(online: bool, side: u32, images: usize, machine: (f64, Option<u64>)) -> &'static Proposal {
    let usable = |candidate: &&Proposal| (online || !candidate.of_hub) && candidate.fits(machine.1);
    let mut usable = PROPOSALS.iter().filter(usable);
    usable.find(|candidate| candidate.side(side, images, machine.0).is_some()).unwrap_or(&PROPOSALS[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_images_or_a_slower_machine_bring_a_smaller_model() {
        let name = |online, images, rate| propose(online, 1000, images, (rate, None)).name;
        assert_eq!(name(true, 300, 1e13), PROPOSALS[0].name);
        assert_eq!(name(true, 1000, 1e11), PROPOSALS[1].name);
        assert_eq!(name(true, 100_000, 1e11), PROPOSALS[2].name);
        assert_eq!(name(false, 300, 1e13), PROPOSALS[2].name);
        let with_free = |free: u64| propose(true, 1000, 300, (1e13, Some(free << 20))).name;
        let names = PROPOSALS.map(|candidate| candidate.name);
        assert_eq!([2000, 1000, 200, 1].map(with_free), [names[0], names[1], names[2], names[2]]);
    }

    #[test]
    fn images_are_not_enlarged_where_that_can_be_avoided() {
        let flaw = &PROPOSALS[2];
        assert_eq!(flaw.side(250, 360, 1e11), Some(248));
        assert_eq!(flaw.side(200, 360, 1e11), Some(192));
        assert_eq!(flaw.side(28, 360, 1e11), Some(64));
        assert_eq!(flaw.side(1000, 1_000_000, 1e9), None);
        assert!(PROPOSALS.iter().all(|candidate| candidate.sides.iter().all(|side| side % candidate.patch == 0)));
        let (all, none) = (flaw.seconds(248, 360, 1e11), flaw.seconds(248, 0, 1e11));
        assert!(all > 10.0 && all < 120.0 && none == 0.0, "{all}");
    }

    #[test]
    fn large_images_are_cut_where_time_allows() {
        let flaw = &PROPOSALS[2];
        let scale = |size, images, rate| flaw.tiles(size, 248, images, rate).map(|tiles| (tiles.scale, tiles.count));
        assert_eq!(scale((750, 500), 60, 1e11), Some((1.0, 40)));
        assert_eq!(scale((3000, 2000), 100, 1e12), Some((1.0, 651)));
        // Half the resolution is a quarter of the tiles.
        assert_eq!(scale((3000, 2000), 400, 1e12).unwrap().0, 0.5);
        assert_eq!(scale((3000, 2000), 100_000, 1e11), None);
        assert_eq!(scale((480, 400), 60, 1e12), None);
    }
}
