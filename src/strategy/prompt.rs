//! Prompts learn while both towers stay as pretrained (`CoOp`, Zhou et al. 2022; VPT, Jia et al. 2022).

use super::{Place, Strategy};
use crate::config::PromptModality;

/// `strategy.kind = "prompt"`
pub struct Prompt {
    /// What the prompts stand before.
    pub modality: PromptModality,
}

impl Strategy for Prompt {
    fn learns(&self, place: Place) -> bool {
        match place {
            Place::Context | Place::Prompt(_) => true,
            // The directions of the classes follow from the context.
            Place::Head => self.modality != PromptModality::Text,
            _ => false,
        }
    }
}
