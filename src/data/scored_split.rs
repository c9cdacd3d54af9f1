//! Which split of another source is scored.

use super::Split;
use crate::error::{DataError, Error, Result};
use crate::system::shown::{Shown, quoted};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// The splits that a source names, and the one that is scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScoredSplit {
    /// The splits that hold images.
    pub found: BTreeSet<Split>,
    /// The one of them that is scored.
    pub scored: Split,
}

impl ScoredSplit {
    /// The `wanted` split of those `found` in a source, or its test split. None for a source that names no splits.
    ///
    /// # Errors
    /// A usage error when a split is wanted of a source that names none, a data error when the source lacks it.
    pub(super) fn of(source: &Path, found: BTreeSet<Split>, wanted: Option<Split>) -> Result<Option<Self>> {
        let scored = wanted.unwrap_or(Split::Test);
        if found.contains(&scored) {
            return Ok(Some(Self { found, scored }));
        }
        let source = source.shown();
        match (found.first(), wanted) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Error::usage_hint(
                format!("{source} names no splits, so it has no {scored} images"),
                "leave --split out to score all of its images",
            )),
            (Some(first), _) => Err(DataError::invalid(
                format!("{source} names {}, but has no {scored} images", quoted(&names(&found))),
                format!("--split {first} scores the {first} images"),
            )
            .into()),
        }
    }

    /// What was scored of `source`, and how to score the rest.
    pub fn sentence(&self, source: &Path) -> String {
        let (scored, source) = (self.scored, source.shown());
        let others: BTreeSet<Split> = self.found.iter().copied().filter(|&split| split != scored).collect();
        if others.is_empty() {
            return format!("scored: the {scored} images of {source}");
        }
        let flags: Vec<String> = others.iter().map(|other| format!("--split {other}")).collect();
        format!(
            "scored: the {scored} images of {source} alone, which names {} too: {} scores those",
            quoted(&names(&others)),
            flags.join(" or ")
        )
    }
}

fn names(splits: &BTreeSet<Split>) -> Vec<&'static str> {
    splits.iter().map(|split| split.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_is_left_out() {
        let of = |found: &[Split], wanted| ScoredSplit::of(Path::new("x"), found.iter().copied().collect(), wanted);
        let sentence = |found: &[Split], wanted| of(found, wanted).unwrap().unwrap().sentence(Path::new("x"));
        assert_eq!(
            sentence(&Split::ALL, None),
            "scored: the test images of x alone, which names \"train\" and \"val\" too: --split train or --split val \
             scores those"
        );
        assert!(sentence(&Split::ALL, Some(Split::Val)).starts_with("scored: the val images of x alone"));
        assert_eq!(sentence(&[Split::Test], None), "scored: the test images of x");
        assert_eq!(of(&[], None).unwrap(), None);
        assert!(of(&[], Some(Split::Val)).unwrap_err().to_string().contains("names no splits"));
        let error = of(&[Split::Train], None).unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("--split train scores the train images"));
    }
}
