//! `vitadapt extract`: features to a file, with a table of the images beside it.

use super::tsne::{SPLITS, splits};
use super::{ConfigArgs, one_of};
use crate::backbone::{Readout, Segment};
use crate::config::FeatureChoice;
use crate::error::{DataError, Result};
use crate::experiment::feature_source::FeatureSource;
use crate::experiment::saved::{SavedRun, refuse_patches};
use crate::experiment::session::Session;
use crate::features::{FeatureFormat, table};
use crate::report::{Console, key_value_table};
use crate::system::shown::Shown;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
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
    #[arg(long, value_parser = SPLITS, default_value = "all")]
    split: String,
}

/// Extracts.
///
/// # Errors
/// Every failure of the modules it composes; a file is complete or absent.
pub fn run(args: &ExtractArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    // Before hours of work, not after.
    FeatureFormat::of(&args.out)?;
    let listed = args.out.with_extension("csv");
    table::check(&args.out, &listed)?;
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
    let samples: Vec<usize> = splits(&args.split).into_iter().flat_map(|split| dataset.indices(split)).collect();
    if samples.is_empty() {
        return Err(DataError::invalid("there are no images in this split", "choose another --split").into());
    }
    let (width, usage) = source.write(&args.out, &samples, console)?;
    table::write(&listed, dataset, &samples)?;
    let result = json!({
        "features": args.out,
        "table": listed,
        "n": samples.len(),
        "width": width,
        "readout": source.readout,
        "cache": usage,
        "seconds": clock.elapsed().as_secs_f64(),
    });
    console.output(&result, || {
        key_value_table(&[
            ("features", format!("{} ({} x {width})", args.out.shown(), samples.len())),
            ("table", listed.shown()),
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
