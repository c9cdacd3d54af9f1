//! `vitadapt zeroshot`: images compared with what is said of the classes, without any training.

use super::{RunArgs, print_completed};
use crate::error::Result;
use crate::experiment::zeroshot::zeroshot;
use crate::report::Console;
use clap::Args;

/// Arguments of `zeroshot`.
#[derive(Debug, Args)]
pub struct ZeroshotArgs {
    #[command(flatten)]
    config: RunArgs,
    /// Score each template alone beside the ensemble of all. Nothing is chosen by it
    #[arg(long)]
    templates: bool,
}

/// Embeds classes and images, scores and saves.
///
/// # Errors
/// As [`zeroshot`].
pub fn run(args: &ZeroshotArgs, console: &Console) -> Result<()> {
    print_completed(&zeroshot(args.config.load()?, args.templates, console)?, console)
}
