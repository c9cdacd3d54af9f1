//! Pretrained backbones: recognised by their files, loaded strictly, run in one shared form.
//!
//! source (bytes) → family (names, options) → spec (architecture) → params (tensors) → vit (layers).

mod family;
mod hf_vit;
mod load;
mod params;
mod positions;
mod source;
mod spec;
mod stage;
mod timm;
mod vit;

pub use family::{FAMILIES, Family, Header, Origin};
pub use load::Backbone;
pub use params::{Param, Params};
pub use positions::resample;
pub use spec::{Pool, Shapes, VitSpec};
pub use stage::{Readout, Stage};
pub use vit::Vit;
