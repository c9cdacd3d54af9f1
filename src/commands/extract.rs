//! `vitadapt extract`: features to a file, with a table of the images beside it.

use super::tsne::SplitArg;
use super::{ConfigArgs, one_of};
use crate::backbone::{Readout, Segment};
use crate::config::FeatureChoice;
use crate::data::Dataset;
use crate::error::{DataError, Error, Result};
use crate::experiment::saved::{SavedRun, refuse_patches};
use crate::experiment::session::Session;
use crate::experiment::source::FeatureSource;
use crate::features::FeatureFormat;
use crate::report::{Console, key_value_table};
use crate::system::files::read_regular;
use crate::system::shown::Shown;
use crate::system::tables::write_csv;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Arguments of `extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Features of a run's model instead of a config's backbone
    #[arg(long, value_name = "DIR", conflicts_with_all = super::CONFIG)]
    run: Option<PathBuf>,
    /// The file to write: .safetensors or .npy; a .csv of paths, labels and splits is written beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which tokens; default: probe.features of the config, or what the run's head sees
    #[arg(long, value_parser = one_of::<FeatureChoice>(&["pool", "cls", "avg", "both"]))]
    features: Option<FeatureChoice>,
    /// Read them from that many last blocks, one after another
    #[arg(long, value_name = "N", requires = "features", value_parser = clap::value_parser!(u16).range(1..))]
    blocks: Option<u16>,
    /// The images
    #[arg(long, value_enum, default_value = "all")]
    split: SplitArg,
}

/// Extracts.
///
/// # Errors
/// Every failure of the modules it composes; a file is complete or absent.
pub fn run(args: &ExtractArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    // Before hours of work, not after.
    FeatureFormat::of(&args.out)?;
    let table = args.out.with_extension("csv");
    check_table(&args.out, &table)?;
    let source = if let Some(run) = &args.run {
        let run = SavedRun::open(run, args.config.device(), Segment::Embed, &[], console)?;
        refuse_patches(&run.record)?;
        let readout = readout(args, &run.session, run.readout())?;
        FeatureSource::of_run(run, readout)?
    } else {
        let settings = args.config.load()?;
        let default = Readout { features: settings.probe.features, blocks: settings.probe.blocks };
        FeatureSource::of_config(settings, |session| readout(args, session, default), console)?
    };
    let dataset = &source.images.dataset;
    let samples: Vec<usize> = args.split.splits().iter().flat_map(|&split| dataset.indices(split)).collect();
    if samples.is_empty() {
        return Err(DataError::invalid("there are no images in this split", "choose another --split").into());
    }
    let (width, usage) = source.write(&args.out, &samples, console)?;
    write_table(&table, dataset, &samples)?;
    let result = json!({
        "features": args.out,
        "table": table,
        "n": samples.len(),
        "width": width,
        "readout": source.readout,
        "cache": usage,
        "seconds": clock.elapsed().as_secs_f64(),
    });
    console.output(&result, || {
        key_value_table(&[
            ("features", format!("{} ({} x {width})", args.out.shown(), samples.len())),
            ("table", table.shown()),
            ("computed", format!("{}, {} from the cache", usage.misses, usage.hits)),
            ("time", format!("{:.1} s", clock.elapsed().as_secs_f64())),
        ])
    })
}

/// What the arguments ask for, else `default`.
fn readout(args: &ExtractArgs, session: &Session, default: Readout) -> Result<Readout> {
    let features = args.features.unwrap_or(default.features);
    let blocks = match (args.features, args.blocks) {
        (None, _) => default.blocks,
        (Some(_), blocks) => blocks.map_or(1, usize::from),
    };
    Readout::new("extract", features, blocks, &session.backbone.spec)
}

/// The columns of the table.
const COLUMNS: [&str; 3] = ["path", "label", "split"];

/// Refuses to replace a table that was not written with a file of features, such as the manifest of the images.
fn check_table(out: &Path, table: &Path) -> Result<()> {
    let is_ours = || {
        let text = read_regular(table).unwrap_or_default();
        out.exists() && text.starts_with(format!("{}\n", COLUMNS.join(",")).as_bytes())
    };
    if !table.exists() || is_ours() {
        return Ok(());
    }
    Err(Error::usage_hint(
        format!("{} exists, and a table of that name would be written beside {}", table.shown(), out.shown()),
        "choose another --out, or move that file",
    ))
}

/// One row an image, in the order of the features.
fn write_table(path: &Path, dataset: &Dataset, samples: &[usize]) -> Result<()> {
    write_csv(path, |table| {
        table.write_record(COLUMNS)?;
        samples
            .iter()
            .map(|&sample| &dataset.samples[sample])
            .try_for_each(|image| table.write_record([&image.name, &dataset.classes[image.label], image.split.name()]))
    })
}
