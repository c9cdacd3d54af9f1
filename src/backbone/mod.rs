//! Pretrained backbones: recognised by their files, loaded strictly, run in one shared form.
//!
//! source (files) → tensors (bytes) → family (names, options) → spec (architecture) → params (tensors) → vit (layers)
//! → pool (features).

mod attention_places;
mod block;
mod block_run;
mod block_spec;
mod families;
mod family;
mod hf;
mod hf_aimv2;
mod hf_beit;
mod hf_clip;
mod hf_deit;
mod hf_dinov2;
mod hf_dinov3;
mod hf_internvl;
mod hf_masked;
mod hf_mlcd;
mod hf_pixio;
mod hf_radio;
mod hf_siglip;
mod hf_siglip2;
mod hf_tips;
mod hf_vit;
mod load;
mod lora;
mod mapping;
mod name;
mod open_clip;
mod options;
mod params;
mod patch_size;
mod pickle;
mod pool;
mod poolings;
mod positions;
mod prelude;
mod readout;
mod segment;
mod source;
mod spec;
mod tensors;
mod text;
mod text_formats;
mod text_spec;
mod timm;
mod timm_args;
mod timm_beit;
mod timm_eva;
mod timm_naflex;
mod timm_relpos;
mod visual_prompts;
mod vit;

#[cfg(test)]
mod hf_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod name_tests;
#[cfg(test)]
mod open_clip_tests;
#[cfg(test)]
mod pickle_tests;
#[cfg(test)]
mod timm_tests;

pub use attention_places::{relative_bias, rotary_turn};
pub use block_run::SavedValues;
pub use families::FAMILIES;
pub use family::{Description, Family, Header};
pub use load::Backbone;
pub use lora::Lora;
pub use mapping::WeightMapping;
pub use name::{Layer, ParamName, Part, Role};
pub use params::{Param, Params};
pub use patch_size::Sizes;
pub use pool::Pooling;
pub use poolings::{TILE_POOLS, tile_factor};
pub use positions::{AxialRotary, Coordinates, LearntAngles, PositionTable, Positions, Resampling, resample};
pub use readout::{Activations, PatchReadout, Readout};
pub use segment::Segment;
pub use source::Source;
pub use spec::{
    AttentionSpec, MlpKind, MlpSpec, NormSpec, OutputSpec, PatchSpec, Pool, PoolQuery, PoolingSpec, PrefixSpec, Shapes,
    VitSpec,
};
pub use tensors::{Tensors, check_finite};
pub use text::{TextEncoder, TextTower};
pub use text_formats::{Cleaning, TextPreparation};
pub use text_spec::{TextPool, TextSpec};
pub use timm::keeps_gate_apart;
pub use timm_beit::FAMILY as TIMM_BEIT;
pub use timm_eva::FAMILY as TIMM_EVA;
pub use timm_relpos::FAMILY as TIMM_RELPOS;
pub use visual_prompts::VisualPrompts;
pub use vit::{PlainBlock, Rollout, Vit};
