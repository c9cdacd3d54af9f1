//! Probes: simple classifiers on frozen features, and the choice of their one free number on held-out samples.
//!
//! [`logistic_path`] and [`svm_path`] are solved by one truncated Newton method along an ascending grid of C;
//! [`ProbeSpec::select`] chooses C, or the k of [`Knn`], on a validation set or by folds, and [`Tip::select`] likewise the two
//! numbers of [`Tip`]. Work is cut up by the size of the data
//! alone, so results are the same bits for any number of threads of the caller's rayon pool.

mod design;
mod head;
mod knn;
mod linear;
mod logistic;
mod newton;
mod patchcore;
mod path;
mod rotation;
mod samples;
mod select;
mod standardize;
mod suspects;
mod svm;
mod tip;

pub use head::LinearHead;
pub use knn::{Knn, Votes, vote_logits};
pub use linear::{FitSink, LinearFit};
pub use logistic::logistic_path;
pub use newton::Stopping;
pub use patchcore::{MemoryBank, Projection, Strangeness, coreset, draw, first_point};
pub use path::{Selection, SettingScore, ValidationSamples};
pub use samples::Samples;
pub use select::{FittedProbe, ProbeSpec};
pub use standardize::Standardizer;
pub use suspects::{Suspect, suspects};
pub use svm::svm_path;
pub use tip::{Tip, TipGrid};
