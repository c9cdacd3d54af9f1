//! Low-rank adapters and the head are trained; the backbone stays as pretrained.

use super::Strategy;
use crate::backbone::{Lora, ParamName, Role};

/// `strategy.kind = "lora"`
pub struct Adapted(pub Lora);

impl Strategy for Adapted {
    fn trainable(&self, name: ParamName) -> bool {
        matches!(name.role(), Role::Adapter | Role::Head)
    }

    fn lora(&self) -> Option<&Lora> {
        Some(&self.0)
    }
}
