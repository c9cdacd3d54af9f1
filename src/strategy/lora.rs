//! Low-rank adapters and the head learn; the backbone stays as pretrained.

use super::{Place, Strategy};
use crate::backbone::Lora;

/// `strategy.kind = "lora"`
pub struct Adapted(pub Lora);

impl Strategy for Adapted {
    fn learns(&self, place: Place) -> bool {
        matches!(place, Place::Adapter(_) | Place::Head)
    }

    fn lora(&self) -> Option<&Lora> {
        Some(&self.0)
    }
}
