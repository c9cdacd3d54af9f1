//! One kind of flaw at a chosen strength, to measure how robust a model is against it.

use super::AugmentSettings;

/// A kind of flaw in images: the operation of `[augment]` that imitates it, applied to every image.
#[derive(Clone, Copy)]
pub struct Corruption {
    name: &'static str,
    at: fn(f64) -> AugmentSettings,
}

impl Corruption {
    pub(super) fn new(name: &'static str, at: fn(f64) -> AugmentSettings) -> Self {
        Self { name, at }
    }

    /// The key in `[augment]`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The corruption of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|corruption| corruption.name == name)
    }

    /// Settings that apply this flaw to every image, and nothing else. A strength of 0 changes nothing, 1 is worse
    /// than any image that would be used; values outside are clamped.
    pub fn settings(self, strength: f64) -> AugmentSettings {
        let strength = strength.clamp(0.0, 1.0);
        if strength == 0.0 { AugmentSettings::NONE } else { (self.at)(strength) }
    }
}

impl std::fmt::Debug for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Corruption {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

#[cfg(test)]
#[path = "corruption_tests.rs"]
mod tests;
