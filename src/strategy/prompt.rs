//! Prompts are trained while both towers stay as pretrained (`CoOp`, Zhou et al. 2022; VPT, Jia et al. 2022).

use super::Strategy;
use crate::backbone::{ParamName, Role};
use crate::config::PromptModality;

/// `strategy.kind = "prompt"`
pub struct Prompt {
    /// What the prompts stand before.
    pub modality: PromptModality,
}

impl Strategy for Prompt {
    fn trainable(&self, name: ParamName) -> bool {
        match name.role() {
            Role::Context | Role::Prompt => true,
            // The directions of the classes follow from the context.
            Role::Head => self.modality != PromptModality::Text,
            _ => false,
        }
    }
}
