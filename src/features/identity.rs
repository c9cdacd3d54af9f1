//! Everything that a row of features depends on: equal identities and equal images give bit-identical rows.

use crate::backbone::{Activations, Backbone, Pool};
use crate::cache::{Key, Namespace};
use crate::config::{AugmentSettings, TilePool};
use crate::data::transform::Preprocess;
use crate::error::{Error, Result};
use crate::system::files::read_regular;
use candle_core::{DType, Device};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Raised when the meaning of a row changes within a version.
const FORMAT: u32 = 3;

/// Everything but the image that can change a row's numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Identity<'a> {
    format: u32,
    version: &'static str,
    weights: &'a str,
    /// What stands beside the weights decides too: an activation, the epsilon of a norm.
    architecture: String,
    /// The seed of a pooling that is drawn, not pretrained.
    drawn_from: Option<u64>,
    /// By this name it is part of the address of what is kept.
    stage: Activations,
    preprocess: &'a Preprocess,
    bit_depth: u8,
    processor: Processor,
    augmentation: Option<AugmentIdentity<'a>>,
}

/// The augmentation before the frozen layers.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AugmentIdentity<'a> {
    /// The operations.
    pub settings: &'a AugmentSettings,
    /// The seed they draw from.
    pub seed: u64,
}

/// What computes the rows: instruction sets round differently.
#[derive(Debug, Clone, Copy, Serialize)]
enum Processor {
    Cpu {
        architecture: &'static str,
        wide: bool,
        fused: bool,
    },
    Gpu,
    /// In half precision.
    HalfGpu(&'static str),
}

impl Processor {
    fn of(device: &Device, products: Option<DType>) -> Self {
        if !device.is_cpu() {
            return products.map_or(Self::Gpu, |products| Self::HalfGpu(products.as_str()));
        }
        #[cfg(target_arch = "x86_64")]
        let (wide, fused) = (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("fma"));
        #[cfg(not(target_arch = "x86_64"))]
        let (wide, fused) = (false, true);
        Self::Cpu { architecture: std::env::consts::ARCH, wide, fused }
    }
}

impl<'a> Identity<'a> {
    /// Rows of activations of a backbone in a run with that seed, without augmentation, on a device with products in half
    /// precision, if any.
    pub fn new(
        backbone: &'a Backbone,
        activations: Activations,
        preprocess: &'a Preprocess,
        (bit_depth, seed): (u8, u64),
        (device, products): (&Device, Option<DType>),
    ) -> Self {
        let mut spec = backbone.spec.clone();
        if let (Some(_), Some(table)) = (spec.image_size.side(), spec.positions.table_mut()) {
            // It says nothing of a square, whose rows are kept under addresses without it.
            table.of_square = false;
        }
        let pooling = spec.pooling;
        let drawn = (pooling.pool == Pool::Gated || pooling.tiles == TilePool::Attention)
            && matches!(activations, Activations::Features(_));
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            weights: &backbone.sha256,
            architecture: format!("{spec:?}"),
            drawn_from: drawn.then_some(seed),
            stage: activations,
            preprocess,
            bit_depth,
            processor: Processor::of(device, products),
            augmentation: None,
        }
    }

    /// The same with augmentation.
    #[must_use]
    pub fn augmented(self, augmentation: AugmentIdentity<'a>) -> Self {
        Self { augmentation: Some(augmentation), ..self }
    }

    /// The same for other weights than the pretrained ones.
    #[must_use]
    pub fn of_weights(self, weights: &'a str) -> Self {
        Self { weights, ..self }
    }

    /// The part of the address that all images share.
    pub fn namespace(&self) -> Namespace {
        Namespace::new(&json!(self).to_string())
    }

    /// The part that names one row: the image itself without augmentation, else its view, which draws from a stream of
    /// the sample's position.
    pub fn row_key(&self, image: &Key, view: u64, sample: u64) -> Key {
        if self.augmentation.is_none() {
            return *image;
        }
        let mut sum = Sha256::new_with_prefix(image);
        sum.update(view.to_le_bytes());
        sum.update(sample.to_le_bytes());
        sum.finalize().into()
    }
}

/// The content address of an image file.
///
/// # Errors
/// When it cannot be read.
pub fn image_key(path: &Path) -> Result<Key> {
    read_regular(path).map(|bytes| Sha256::digest(bytes).into()).map_err(Error::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::Readout;
    use crate::config::PoolChoice;
    use crate::data::transform::{Geometry, Interpolation, Normalization};

    #[test]
    fn an_address_depends_on_what_stands_beside_the_weights_and_on_a_seed_that_draws() {
        let geometry = Geometry::squash(32, Interpolation::Bicubic);
        let normalization = Normalization::PerChannel { mean: [0.5; 3], std: [0.25; 3] };
        let preprocess = Preprocess { geometry, normalization, tiles: None };
        let namespace = |backbone: &Backbone, seed: u64| {
            let features = Activations::Features(Readout::POOL);
            Identity::new(backbone, features, &preprocess, (8, seed), (&Device::Cpu, None)).namespace()
        };
        let load = |pool| Backbone::load("builtin:vit-mini", Some(32)).unwrap().with_pool(pool, None, 1).unwrap();
        let mut backbone = load(PoolChoice::Backbone);
        let plain = namespace(&backbone, 1);
        assert_eq!(namespace(&backbone, 2), plain);
        let written = format!("{:?}", backbone.spec);
        assert!(
            written.contains("image_size: 32, patch: ") && written.contains("rounded: true })"),
            "as ever: {written}"
        );
        backbone.spec.norms.eps *= 2.0;
        assert_ne!(namespace(&backbone, 1), plain);
        let gated = load(PoolChoice::Attention);
        assert_ne!(namespace(&gated, 1), namespace(&gated, 2));
    }
}
