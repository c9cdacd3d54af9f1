//! The resolved settings of `[report]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[report]`: the page that a run leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportSettings {
    /// Write report.html into the folder of the run.
    #[schemars(extend("default" = true))]
    pub html: bool,
    /// How many of the surest wrong answers it shows with their pictures, at the most.
    #[schemars(range(max = 100), extend("default" = 12))]
    pub mistakes: usize,
}
