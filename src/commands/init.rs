//! `vitadapt init`: a first configuration for images that nothing is known of yet.

use crate::error::Result;
use crate::experiment::init::{InitOptions, init};
use crate::report::{Console, key_value_table};
use crate::system::shown::Shown;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// A folder of class folders, a CSV file with a row for each image, or a tree as `MVTec` AD arranges it
    #[arg(value_name = "PATH")]
    data: PathBuf,
    /// The file to write; default: the name of PATH with the ending .toml, in the current folder
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The backbone, instead of one that fits the time and memory of this machine
    #[arg(long, value_name = "NAME")]
    backbone: Option<String>,
    /// Side of the input in pixels, instead of one that fits the images and the time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(16..=4096))]
    image_size: Option<u16>,
    /// The class of sound parts, instead of the one whose name says so
    #[arg(long, value_name = "CLASS")]
    good: Option<String>,
    /// The column of the labels in a CSV file, instead of the one that its name or content suggests
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Leave out a class, or a folder beside those of the splits; may be repeated
    #[arg(long, value_name = "NAME")]
    ignore: Vec<String>,
}

/// Looks and writes.
///
/// # Errors
/// As [`init`].
pub fn run(args: &InitArgs, console: &Console) -> Result<()> {
    let options = InitOptions {
        out: args.out.clone(),
        backbone: args.backbone.clone(),
        image_size: args.image_size.map(usize::from),
        good: args.good.clone(),
        label_column: args.label_column.clone(),
        ignore: args.ignore.clone(),
    };
    let made = init(&args.data, &options, console)?;
    console.output(&made, || {
        let classes: Vec<String> = made.classes.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let splits = ["train", "val", "test"].map(|split| format!("{split} {}", made.splits[split]));
        let mut rows = vec![
            ("classes", classes.join(", ")),
            ("splits", splits.join(", ")),
            ("backbone", made.backbone.clone()),
            ("config", made.config.shown()),
        ];
        rows.extend(made.manifest.iter().map(|manifest| ("images listed in", manifest.shown())));
        rows.extend(made.groups.map(|groups| ("groups", groups.to_string())));
        rows.extend(made.good.iter().map(|good| ("good class", good.clone())));
        format!("{}\n\nnext:  {}", key_value_table(&rows), made.next)
    })
}
