//! `vitadapt extract`: features to a file, with a table of the images beside it.

use super::ConfigArgs;
use super::tsne::{SplitArg, keys};
use crate::backbone::{Params, Readout, Stage};
use crate::cache::{CacheUse, Key};
use crate::config::FeatureChoice;
use crate::data::Dataset;
use crate::data::transform::Pipeline;
use crate::error::{DataError, Error, Result};
use crate::experiment::inspect::inspect;
use crate::experiment::saved::SavedRun;
use crate::experiment::session::Session;
use crate::features::{FeatureFormat, FeatureWriter};
use crate::report::{Console, key_value_table};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Images whose features are in memory at a time when the cache cannot hold them.
const CHUNK: usize = 1024;

/// Arguments of `extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Features of a run's model instead of a config's backbone
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "set"])]
    run: Option<PathBuf>,
    /// The file to write: .safetensors or .npy; a .csv of paths, labels and splits is written beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which tokens; default: probe.features of the config, or what the run's head sees
    #[arg(long, value_enum)]
    features: Option<FeaturesArg>,
    /// Read them from that many last blocks, one after another
    #[arg(long, value_name = "N", requires = "features", value_parser = clap::value_parser!(u16).range(1..))]
    blocks: Option<u16>,
    /// The images
    #[arg(long, value_enum, default_value = "all")]
    split: SplitArg,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long, requires = "run")]
    device: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FeaturesArg {
    Pool,
    Cls,
    Avg,
    Both,
}

impl From<FeaturesArg> for FeatureChoice {
    fn from(argument: FeaturesArg) -> Self {
        match argument {
            FeaturesArg::Pool => Self::Pool,
            FeaturesArg::Cls => Self::Cls,
            FeaturesArg::Avg => Self::Avg,
            FeaturesArg::Both => Self::Both,
        }
    }
}

/// Everything rows are made from.
struct Subject {
    session: Session,
    params: Params,
    weights: String,
    readout: Readout,
    dataset: Arc<Dataset>,
    keys: Arc<Vec<Key>>,
    pipeline: Arc<Pipeline>,
}

/// Extracts.
///
/// # Errors
/// Every failure of the modules it composes; a file is complete or absent.
pub fn run(args: &ExtractArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    // Before hours of work, not after.
    FeatureFormat::of(&args.out)?;
    let subject = match &args.run {
        Some(run) => of_run(run, args, console)?,
        None => of_config(args, console)?,
    };
    let splits = args.split.splits();
    let samples: Vec<usize> = splits.iter().flat_map(|&split| subject.dataset.indices(split)).collect();
    if samples.is_empty() {
        return Err(DataError::invalid("there are no images in this split", "choose another --split").into());
    }
    let (width, usage) = write_features(&args.out, &subject, &samples, console)?;
    let table = args.out.with_extension("csv");
    write_table(&table, &subject.dataset, &samples)?;
    let result = json!({
        "features": args.out,
        "table": table,
        "n": samples.len(),
        "width": width,
        "readout": subject.readout,
        "cache": usage,
        "seconds": clock.elapsed().as_secs_f64(),
    });
    console.output(&result, || {
        key_value_table(&[
            ("features", format!("{} ({} x {width})", args.out.display(), samples.len())),
            ("table", table.display().to_string()),
            ("computed", format!("{}, {} from the cache", usage.misses, usage.hits)),
            ("time", format!("{:.1} s", clock.elapsed().as_secs_f64())),
        ])
    })
}

fn of_config(args: &ExtractArgs, console: &Console) -> Result<Subject> {
    let settings = args.config.load()?;
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    let session = Session::open(settings, console)?;
    let probe = &session.settings.probe;
    let readout = readout(args, &session, Readout { features: probe.features, blocks: probe.blocks })?;
    let mut inspected = inspect(&session, dataset, console)?;
    let keys = Arc::new(std::mem::take(&mut inspected.keys));
    let pipeline = Arc::new(inspected.evaluation_pipeline(&session));
    let (params, weights) = (session.backbone.params.clone(), session.backbone.sha256.clone());
    Ok(Subject { session, params, weights, readout, dataset: Arc::new(inspected.dataset), keys, pipeline })
}

fn of_run(folder: &Path, args: &ExtractArgs, console: &Console) -> Result<Subject> {
    let run = SavedRun::open(folder, args.device.as_deref(), Stage::Pixels, &[], console)?;
    let dataset = Arc::new(run.dataset()?);
    let keys = Arc::new(keys(&dataset, &run.session.workers)?);
    let pipeline = Arc::new(run.pipeline());
    let readout = readout(args, &run.session, SavedRun::readout(folder)?)?;
    let params = run.model.params.detached();
    Ok(Subject { session: run.session, params, weights: run.weights, readout, dataset, keys, pipeline })
}

/// What the arguments ask for, else `default`.
fn readout(args: &ExtractArgs, session: &Session, default: Readout) -> Result<Readout> {
    let features = args.features.map_or(default.features, FeatureChoice::from);
    let blocks = match (args.features, args.blocks) {
        (None, _) => default.blocks,
        (Some(_), blocks) => blocks.map_or(1, usize::from),
    };
    Readout::new("extract", features, blocks, &session.backbone.spec)
}

fn write_features(path: &Path, subject: &Subject, samples: &[usize], console: &Console) -> Result<(usize, CacheUse)> {
    let session = &subject.session;
    let stage = Stage::Features(subject.readout);
    let extractor = session.extractor(&subject.params, stage)?;
    let preprocess = *subject.pipeline.preprocess();
    let identity = session.identity(stage, &preprocess).of_weights(&subject.weights);
    let images = session.images(&subject.dataset, &subject.keys, &subject.pipeline);
    let metadata = json!({"weights_sha256": subject.weights, "architecture": session.backbone.spec.architecture});
    let mut writer = FeatureWriter::create(path, samples.len(), extractor.width(), &metadata)?;
    let progress = console.progress(samples.len() as u64, "features");
    let mut usage = CacheUse::default();
    for chunk in samples.chunks(CHUNK) {
        let rows = images.rows(chunk, 0, &extractor, &identity, &session.cache(), &mut |images| {
            progress.inc(images as u64);
            Ok(())
        })?;
        rows.warnings.iter().for_each(|warning| console.warn(warning));
        (0..rows.len()).try_for_each(|i| writer.append(rows.row(i)))?;
        usage += rows.usage;
    }
    progress.finish();
    writer.finish()?;
    Ok((extractor.width(), usage))
}

/// One row an image, in the order of the features.
fn write_table(path: &Path, dataset: &Dataset, samples: &[usize]) -> Result<()> {
    let failed = Error::csv(path);
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(["path", "label", "split"]).map_err(failed)?;
    for &sample in samples {
        let image = &dataset.samples[sample];
        writer.write_record([&image.name, &dataset.classes[image.label], image.split.name()]).map_err(failed)?;
    }
    writer.flush().map_err(Error::io("write", path))
}
