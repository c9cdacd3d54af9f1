//! The registry of weight families: how each library names, shapes and configures a vision transformer.

use super::hf_vit::HfVit;
use super::spec::VitSpec;
use super::timm::Timm;
use std::collections::BTreeMap;

/// The shapes of a weights file by the library's own tensor names.
pub type Header = BTreeMap<String, Vec<usize>>;

/// Where a canonical parameter lies in a weights file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// One tensor of the same shape.
    One(String),
    /// Tensors to stack along the first dimension, such as separate queries, keys and values.
    Stack(Vec<String>),
}

impl Origin {
    /// The tensors it needs.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Stack(names) => names,
        }
    }
}

/// One library's format. A new family is one file that implements this and one line in [`FAMILIES`].
pub trait Family: Sync {
    /// The name in messages.
    fn name(&self) -> &'static str;

    /// Whether the files are of this family.
    fn recognises(&self, config: &serde_json::Value, header: &Header) -> bool;

    /// The architecture that the files describe.
    ///
    /// # Errors
    /// A sentence saying what is unsupported or contradictory.
    fn spec(&self, config: &serde_json::Value, header: &Header) -> Result<VitSpec, String>;

    /// Where the canonical parameter `name` lies in this file.
    fn origin(&self, name: &str, header: &Header) -> Origin;

    /// Whether a tensor may be present without being used, such as a pooler that no classifier reads.
    fn ignores(&self, name: &str) -> bool;
}

/// All families, in the order in which they are asked.
pub const FAMILIES: &[&dyn Family] = &[&Timm, &HfVit];
