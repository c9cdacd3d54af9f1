//! `vitadapt probe`: frozen features, a simple classifier on them, its one free number chosen on held-out images.

use super::{RunArgs, print_completed};
use crate::error::Result;
use crate::experiment::probe::probe;
use crate::report::Console;
use clap::Args;

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    #[command(flatten)]
    config: RunArgs,
}

/// Fits, scores and saves.
///
/// # Errors
/// As [`probe`].
pub fn run(args: &ProbeArgs, console: &Console) -> Result<()> {
    print_completed(&probe(args.config.load()?, console)?, console)
}
