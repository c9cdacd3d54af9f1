//! The transformers format of encoders that were pretrained by masking: `ViT-MAE`, `MSN` and `I-JEPA`.
//!
//! Reference: transformers' `modeling_vit_mae.py`, `modeling_vit_msn.py` and `modeling_ijepa.py`. The blocks are those of
//! google/vit. Nothing is masked here, and what served pretraining only is not read: the decoder of `ViT-MAE`, the mask
//! tokens. The positions of `ViT-MAE` are sines and cosines that the file holds like learnt ones.

use super::hf::{self, Defaults, prefix_if_used};
use super::hf_vit;
use super::prelude::*;

const PREFIXES: [&str; 2] = ["vit.", "ijepa."];

/// transformers' `ViT-MAE`, `MSN` and `I-JEPA`.
pub const FAMILY: Family = Family {
    name: "transformers ViT-MAE, MSN and I-JEPA",
    recognises: |config| ["vit_mae", "vit_msn", "ijepa"].iter().any(|model| config["model_type"] == **model),
    spec,
    usual_size: |_| None,
    mapping,
    ignores: |name, _| name.starts_with("decoder.") || hf_vit::ignores(name),
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let config = &description.config;
    let eps = if config["model_type"] == "vit_msn" { 1e-6 } else { 1e-12 };
    let input = BackboneDefaults::new(IMAGENET, ResizeMode::Squash, Interpolation::Bilinear, 1.0);
    let defaults = Defaults { patch: 16, activation: Activation::Gelu, eps, input };
    let spec = hf::base(&Config(config), &defaults, &description.preprocessor)?;
    // The classifiers of the library read the class token where there is one.
    let class = config["model_type"] != "ijepa";
    Ok(VitSpec {
        architecture: hf::class_name(config, "ViTMAEModel"),
        prefix: PrefixSpec { class, ..spec.prefix },
        positions: Positions::Table(hf::positions(usize::from(class))),
        pooling: PoolingSpec { pool: if class { Pool::Cls } else { Pool::Avg }, ..spec.pooling },
        outputs: OutputSpec { classes: outputs(header, "classifier.weight"), ..OutputSpec::default() },
        ..spec
    })
}

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    // transformers 5 saves the blocks of MSN's classifier without the prefix that all else has.
    let used = |prefix: &&&str| match name.block {
        None => !prefix_if_used(header, prefix).is_empty(),
        Some(_) => ["encoder.", "layers."].iter().any(|blocks| {
            let blocks = format!("{prefix}{blocks}");
            header.keys().any(|name| name.starts_with(&blocks))
        }),
    };
    hf_vit::mapping(name, header, PREFIXES.iter().find(used).copied().unwrap_or(""))
}
