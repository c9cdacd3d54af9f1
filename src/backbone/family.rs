//! A weight family: how a library names, shapes and configures a vision transformer.

use super::mapping::WeightMapping;
use super::name::ParamName;
use super::spec::VitSpec;
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

/// One library's format. A new family is one file that implements this and one line in [`super::FAMILIES`].
pub trait Family: Sync {
    /// The name in messages.
    fn name(&self) -> &'static str;

    /// Whether a `config.json` is of this family.
    fn recognises(&self, config: &Value) -> bool;

    /// The architecture that the files describe.
    ///
    /// # Errors
    /// A sentence saying what is unsupported or contradictory.
    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String>;

    /// Side of the images that the weights are usually given, where that is not what their positions were made for.
    fn usual_size(&self, _description: &Description) -> Option<usize> {
        None
    }

    /// Where the canonical parameter `name` lies in this file.
    fn mapping(&self, name: ParamName, header: &Header) -> WeightMapping;

    /// Whether a tensor may be present without being used, such as a text tower or a pooler that no classifier reads.
    fn ignores(&self, name: &str, header: &Header) -> bool;
}

/// Outputs of a linear layer: the first dimension of its weight in the file, 0 when it is absent.
pub(super) fn outputs(header: &Header, weight: &str) -> usize {
    header.get(weight).and_then(|shape| shape.first().copied()).unwrap_or(0)
}
