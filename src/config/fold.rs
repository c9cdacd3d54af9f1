//! `data.fold`: which part of a cross-validation a run is.

use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// One of several folds: its images are the test images of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fold {
    /// Counted from 1.
    pub number: usize,
    /// How many there are; at least 2.
    pub of: usize,
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Fold {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected NUMBER/FOLDS, such as 2/5";
        let (number, of) = text.split_once('/').ok_or(EXPECTED)?;
        // `parse` alone would take a sign.
        let count = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let fold = Self { number: count(number).ok_or(EXPECTED)?, of: count(of).ok_or(EXPECTED)? };
        if fold.of < 2 {
            return Err("expected at least 2 folds");
        }
        if !(1..=fold.of).contains(&fold.number) {
            return Err("expected a number from 1 to the number of folds");
        }
        Ok(fold)
    }
}

crate::forms::as_text!(Fold);
