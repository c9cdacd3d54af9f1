//! What the columns of a manifest are called.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `data.columns`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ColumnNames {
    /// The file of the image. Default: path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub path: Option<String>,
    /// Its class. Default: label.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub label: Option<String>,
    /// Its split, where it is not drawn. Default: split.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub split: Option<String>,
    /// What it shares with images of the same split (part, patient, roll). Default: group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub group: Option<String>,
    /// A mask of its flaws, a picture that is not black where they are. Default: mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub mask: Option<String>,
}
