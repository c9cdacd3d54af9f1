//! `vitadapt completions` and `vitadapt man`: what a shell and a reader of manuals are told of the command line, from the
//! definitions that it is read by.

use super::Cli;
use crate::error::{Error, Result};
use crate::report::Console;
use crate::system::shown::Shown;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder to write the pages into, made if need be
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

/// Prints the script.
///
/// # Errors
/// When it cannot be printed.
pub fn completions(args: &CompletionsArgs, console: &Console) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vitadapt", &mut script);
    console.result(String::from_utf8_lossy(&script).trim_end())
}

/// Writes a page for the program and for each of its commands.
///
/// # Errors
/// When a page cannot be written.
pub fn man(args: &ManArgs, console: &Console) -> Result<()> {
    let failed = |error| Error::io("write", &args.out)(error);
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.out).map_err(failed)?;
    console.info(format!("the pages are in {}", args.out.shown()));
    Ok(())
}
