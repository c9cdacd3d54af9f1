//! `vitadapt finetune`: data, model, training loop, scores, report.

use super::{RunArgs, print_completed};
use crate::error::Result;
use crate::experiment::finetune::{find_lr, finetune};
use crate::report::Console;
use clap::Args;

/// Arguments of `finetune`.
#[derive(Debug, Args)]
pub struct FinetuneArgs {
    #[command(flatten)]
    config: RunArgs,
    /// Continue the run of this config where it stopped
    #[arg(long)]
    resume: bool,
    /// Do not train: raise the learning rate step by step, and draw where the loss falls and where it breaks away
    #[arg(long, conflicts_with = "resume")]
    find_lr: bool,
}

/// Trains and scores.
///
/// # Errors
/// As [`finetune`].
pub fn run(args: &FinetuneArgs, console: &Console) -> Result<()> {
    let settings = args.config.load()?;
    let completed = if args.find_lr { find_lr(settings, console)? } else { finetune(settings, args.resume, console)? };
    print_completed(&completed, console)
}
