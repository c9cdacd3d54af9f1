//! A weight family: how a library names, shapes and configures a vision transformer.

use super::mapping::WeightMapping;
use super::name::ParamName;
use super::spec::VitSpec;
use crate::size::Size;
use serde_json::Value;
use std::collections::BTreeMap;

/// The shapes of a weights file by the library's own tensor names.
pub type Header = BTreeMap<String, Vec<usize>>;

/// The files beside the weights.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// `config.json`, or `open_clip_config.json`.
    pub config: Value,
    /// The image processor's settings as transformers saves them; null when there are none.
    pub preprocessor: Value,
}

/// One library's format. A new family is one file with one of these, and one line in [`super::FAMILIES`].
pub struct Family {
    /// The name in messages.
    pub name: &'static str,
    /// Whether a `config.json` is of this family.
    pub recognises: fn(&Value) -> bool,
    /// The architecture that the files describe, or a sentence saying what is unsupported or contradictory.
    pub spec: fn(&Description, &Header) -> Result<VitSpec, String>,
    /// Size of the images that the weights are usually given, where that is not what their positions were made for.
    pub usual_size: fn(&Description) -> Option<Size>,
    /// Where a canonical parameter lies in such a file.
    pub mapping: fn(ParamName, &Header) -> WeightMapping,
    /// Whether a tensor may be present without being used, such as a text tower or a pooler that no classifier reads.
    pub ignores: fn(&str, &Header) -> bool,
}

/// Outputs of a linear layer: the first dimension of its weight in the file, 0 when it is absent.
pub(super) fn outputs(header: &Header, weight: &str) -> usize {
    header.get(weight).and_then(|shape| shape.first().copied()).unwrap_or(0)
}
