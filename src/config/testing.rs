//! Settings for the tests of other modules.

use super::{Settings, load};

/// Those of a folder of images that nothing opens, with overrides.
pub(crate) fn settings(sets: &[&str]) -> Settings {
    let sets: Vec<String> = ["data.root=images"].iter().chain(sets).map(|&set| set.to_owned()).collect();
    load(None, &sets).unwrap()
}
