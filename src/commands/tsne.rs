//! `vitadapt tsne`: a map of features in two dimensions, as pictures, table and page.

use super::ConfigArgs;
use crate::backbone::{Readout, Stage};
use crate::cache::Key;
use crate::config::TsneMethod;
use crate::data::decode::{DecodeOptions, decode_file};
use crate::data::loader::Batch;
use crate::data::transform::Pipeline;
use crate::data::{Dataset, Split};
use crate::error::{DataError, Error, Result};
use crate::experiment::features::FeatureSet;
use crate::experiment::inspect::inspect;
use crate::experiment::saved::SavedRun;
use crate::experiment::session::Session;
use crate::features::image_key;
use crate::linalg::Matrix;
use crate::metrics::Scores;
use crate::model::Model;
use crate::nn::workers::Workers;
use crate::report::{Console, Reading, html, key_value_table, plots, printable, write_json};
use crate::system::files::create_folder;
use crate::tsne::quality::{Neighborhoods, Silhouettes, map_silhouettes, neighborhoods, silhouettes};
use crate::tsne::{Embedding, Method, TsneOptions, embed};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Neighbours that the quality of a map is judged by, as is usual.
const NEIGHBORS: usize = 12;
/// Longer side of the images in the page, in pixels.
const THUMBNAIL: u32 = 96;
/// Images in the page: about 4 kB each.
const MOST_THUMBNAILS: usize = 3000;

/// Arguments of `tsne`.
#[derive(Debug, Args)]
pub struct TsneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Map the features of a run's model instead of a config's backbone, and mark what it gets wrong
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    run: Option<PathBuf>,
    /// The images to map
    #[arg(long, value_enum, default_value = "all")]
    split: SplitArg,
    /// Folder for the files; default: the run's folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long, requires = "run")]
    device: Option<String>,
}

/// The images of a command on features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    /// Every split
    All,
    /// The training images
    Train,
    /// The validation images
    Val,
    /// The test images
    Test,
}

impl SplitArg {
    /// The splits, in the order of their rows.
    pub fn splits(self) -> Vec<Split> {
        match self {
            Self::All => Split::ALL.to_vec(),
            Self::Train => vec![Split::Train],
            Self::Val => vec![Split::Val],
            Self::Test => vec![Split::Test],
        }
    }
}

/// What is mapped: features with what is known of their images.
struct Subject {
    session: Session,
    features: FeatureSet,
    predicted: Option<Vec<usize>>,
    folder: PathBuf,
    title: String,
}

/// Maps, judges, draws.
///
/// # Errors
/// Every failure of the modules it composes.
pub fn run(args: &TsneArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    let subject = match &args.run {
        Some(run) => of_run(run, args, console)?,
        None => of_config(args, console)?,
    };
    let rows = subject.features.of(&args.split.splits());
    if rows.labels.is_empty() {
        return Err(DataError::invalid("there are no images in this split", "choose another --split").into());
    }
    let (session, classes) = (&subject.session, &subject.features.dataset.classes);
    let map = session.workers.install(|| mapped(rows.matrix(), session, console))?;
    map.warnings.iter().for_each(|warning| console.warn(warning));
    let quality = session.workers.install(|| Quality::of(rows.matrix(), &map, &rows.labels, classes.len()))?;

    let folder = args.out.as_ref().unwrap_or(&subject.folder);
    create_folder(&folder.join("plots"))?;
    let scatter = scatter(&subject, &rows.samples, &map, &quality);
    write_csv(&folder.join("tsne.csv"), &subject, &rows.samples, &map)?;
    plots::save_scatter(&folder.join("plots/tsne"), &scatter)?;
    let mut thumbnails = thumbnails(&scatter, session.decode(), &session.workers, console)?;
    html::save_scatter_page(&folder.join("tsne.html"), &scatter, &mut |i| thumbnails.get_mut(i)?.take())?;

    let reading = quality.map.as_ref().map(|found| {
        let reading = Reading { classes, mean: found.mean, per_class: &found.per_class };
        (reading.word(), reading.sentence())
    });
    let per_class = |found: &Option<Silhouettes>| {
        found.as_ref().map(|found| {
            json!(
                classes
                    .iter()
                    .zip(&found.per_class)
                    .map(|(class, mean)| json!({"class": class, "silhouette": mean}))
                    .collect::<Vec<_>>()
            )
        })
    };
    let result = json!({
        "n": map.points.len(),
        "perplexity": map.perplexity,
        "iterations": map.iterations,
        "kl": map.kl,
        "neighbors": quality.neighborhoods.as_ref().map(|found| found.k),
        "trustworthiness": quality.neighborhoods.as_ref().map(|found| found.trustworthiness),
        "neighbor_preservation": quality.neighborhoods.as_ref().map(|found| found.preservation),
        "silhouette": quality.map.as_ref().map(|found| found.mean),
        "silhouette_features": quality.features.as_ref().map(|found| found.mean),
        "per_class": per_class(&quality.map),
        "reading": reading.as_ref().map(|(word, _)| *word),
        "reading_sentence": reading.as_ref().map(|(_, sentence)| sentence.clone()),
        "misclassified": subject.predicted.as_ref().map(|_| scatter.points.iter().filter(|p| p.misclassified()).count()),
        "png": folder.join("plots/tsne.png"),
        "svg": folder.join("plots/tsne.svg"),
        "csv": folder.join("tsne.csv"),
        "html": folder.join("tsne.html"),
        "cache": subject.features.usage,
        "seconds": clock.elapsed().as_secs_f64(),
        "warnings": map.warnings,
    });
    write_json(&folder.join("tsne.json"), &result)?;
    console.output(&result, || table(&result))
}

/// The features of a config's pretrained backbone.
fn of_config(args: &TsneArgs, console: &Console) -> Result<Subject> {
    let settings = args.config.load()?;
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    let session = Session::open(settings, console)?;
    let wanted = &session.settings.tsne;
    let readout = Readout::new("tsne", wanted.features, wanted.blocks, &session.backbone.spec)?;
    let mut inspected = inspect(&session, dataset, console)?;
    let keys = Arc::new(std::mem::take(&mut inspected.keys));
    let pipeline = Arc::new(inspected.evaluation_pipeline(&session));
    let images = (&Arc::new(inspected.dataset), &keys, &pipeline);
    let weights = session.backbone.sha256.clone();
    let features = FeatureSet::compute(&session, &session.backbone.params, &weights, readout, images, console)?;
    let folder = session.settings.run.out.join(&session.settings.run.name);
    let title = session.settings.run.name.clone();
    Ok(Subject { session, features, predicted: None, folder, title })
}

/// The features that a run's head sees, and what it makes of them.
fn of_run(folder: &Path, args: &TsneArgs, console: &Console) -> Result<Subject> {
    let sets = &args.config.set;
    if let Some(set) =
        sets.iter().find(|set| !["tsne.", "cache.", "run.threads="].iter().any(|key| set.starts_with(key)))
    {
        return Err(Error::usage_hint(
            format!("--set {set} does not go with --run: the run's own settings made its model"),
            "with --run, override keys of [tsne] and [cache], or run.threads",
        ));
    }
    let readout = SavedRun::readout(folder)?;
    let run = SavedRun::open(folder, args.device.as_deref(), Stage::Features(readout), sets, console)?;
    let dataset = Arc::new(run.dataset()?);
    let keys = Arc::new(keys(&dataset, &run.session.workers)?);
    let pipeline: Arc<Pipeline> = Arc::new(run.pipeline());
    let images = (&dataset, &keys, &pipeline);
    let features = FeatureSet::compute(&run.session, &run.model.params, &run.weights, readout, images, console)?;
    let predicted = predictions(&run.model, features.matrix(), dataset.classes.len())?;
    let title = run.session.settings.run.name.clone();
    Ok(Subject { session: run.session, features, predicted: Some(predicted), folder: run.folder, title })
}

/// Content addresses of all images.
///
/// # Errors
/// When one cannot be read.
pub fn keys(dataset: &Dataset, workers: &Workers) -> Result<Vec<Key>> {
    let paths: Vec<&Path> = dataset.samples.iter().map(|sample| sample.path.as_path()).collect();
    workers.map(paths, |path| Ok(image_key(path)))?.into_iter().collect()
}

/// The class that a model gives to each row of features.
fn predictions(model: &Model, features: Matrix<'_>, classes: usize) -> Result<Vec<usize>> {
    let n = features.rows();
    let batch =
        Batch { inputs: features.values().to_vec(), labels: vec![0; n], indices: (0..n).collect(), ..Batch::default() };
    Ok(Scores::new(&model.run(&batch)?.logits, &batch.labels, classes)?.predicted())
}

fn mapped(features: Matrix<'_>, session: &Session, console: &Console) -> Result<Embedding> {
    let settings = &session.settings.tsne;
    let options = TsneOptions {
        perplexity: settings.perplexity,
        iterations: settings.iterations,
        learning_rate: settings.learning_rate,
        method: match settings.method {
            TsneMethod::Auto => Method::Auto,
            TsneMethod::Exact => Method::Exact,
            TsneMethod::BarnesHut => Method::BarnesHut,
            TsneMethod::Interpolation => Method::Interpolation,
        },
        seed: session.settings.run.seed,
        ..TsneOptions::default()
    };
    let progress = console.progress(settings.iterations as u64, "t-SNE");
    let map = embed(features, &options, &mut |iteration, total, kl| {
        progress.set((iteration * settings.iterations / total.max(1)) as u64);
        progress.message(format!("KL {kl:.3}"));
        ControlFlow::Continue(())
    });
    progress.finish();
    map
}

/// How good a map is, and how far the classes lie apart on it.
struct Quality {
    neighborhoods: Option<Neighborhoods>,
    map: Option<Silhouettes>,
    features: Option<Silhouettes>,
}

impl Quality {
    fn of(features: Matrix<'_>, map: &Embedding, labels: &[usize], classes: usize) -> Result<Self> {
        Ok(Self {
            neighborhoods: neighborhoods(features, &map.points, NEIGHBORS)?,
            map: map_silhouettes(&map.points, labels, classes)?,
            features: silhouettes(features, labels, classes)?,
        })
    }
}

fn scatter(subject: &Subject, samples: &[usize], map: &Embedding, quality: &Quality) -> plots::Scatter {
    let trust = quality.neighborhoods.as_ref().map(|found| format!(", trustworthiness {:.3}", found.trustworthiness));
    plots::Scatter {
        title: format!("t-SNE of {}", subject.title),
        subtitle: format!(
            "{} images, perplexity {:.0}, KL {:.3}{}",
            samples.len(),
            map.perplexity,
            map.kl,
            trust.unwrap_or_default()
        ),
        classes: subject.features.dataset.classes.clone(),
        points: samples
            .iter()
            .zip(&map.points)
            .map(|(&sample, &[x, y])| {
                let image = &subject.features.dataset.samples[sample];
                plots::ScatterPoint {
                    x,
                    y,
                    class: image.label,
                    split: image.split.name().to_owned(),
                    path: image.path.clone(),
                    predicted: subject.predicted.as_ref().map(|predicted| predicted[sample]),
                }
            })
            .collect(),
    }
}

/// One row an image: path, class, split, x, y, and the predicted class when there is one.
fn write_csv(path: &Path, subject: &Subject, samples: &[usize], map: &Embedding) -> Result<()> {
    let failed = Error::csv(path);
    let dataset = &subject.features.dataset;
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(["path", "label", "split", "x", "y", "predicted"]).map_err(failed)?;
    for (&sample, [x, y]) in samples.iter().zip(&map.points) {
        let image = &dataset.samples[sample];
        let predicted = subject.predicted.as_ref().map_or("", |predicted| &dataset.classes[predicted[sample]]);
        let (x, y) = (x.to_string(), y.to_string());
        let row = [&image.name, &dataset.classes[image.label], image.split.name(), &x, &y, predicted];
        writer.write_record(row).map_err(failed)?;
    }
    writer.flush().map_err(Error::io("write", path))
}

/// Small copies of the images; of many, the misclassified ones and an even choice of the others.
fn thumbnails(
    scatter: &plots::Scatter,
    decode: DecodeOptions,
    workers: &Workers,
    console: &Console,
) -> Result<Vec<Option<Vec<u8>>>> {
    let n = scatter.points.len();
    let step = n.div_ceil(MOST_THUMBNAILS);
    let chosen = (0..n).filter(|&i| i % step.max(1) == 0 || scatter.points[i].misclassified());
    let chosen: Vec<usize> = chosen.take(MOST_THUMBNAILS).collect();
    let progress = console.progress(chosen.len() as u64, "thumbnails");
    let made = workers.map(chosen.clone(), |i| {
        progress.inc(1);
        // An image that has gone by now is left out of the page; its features were computed before.
        Ok(decode_file(&scatter.points[i].path, decode).ok().and_then(|image| html::thumbnail(&image, THUMBNAIL)))
    })?;
    progress.finish();
    let mut thumbnails: Vec<Option<Vec<u8>>> = vec![None; n];
    chosen.into_iter().zip(made).for_each(|(i, thumbnail)| thumbnails[i] = thumbnail);
    Ok(thumbnails)
}

/// The result as a table for people; every number is the one of the JSON.
fn table(result: &serde_json::Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or("not defined").to_owned();
    let number = |key: &str| result[key].as_f64().map_or("not defined".to_owned(), |value| format!("{value:.3}"));
    let mut rows = vec![
        ("images", result["n"].to_string()),
        ("perplexity", number("perplexity")),
        ("KL divergence", number("kl")),
        ("trustworthiness", number("trustworthiness")),
        ("neighbours kept", number("neighbor_preservation")),
        ("silhouette", format!("{} (features: {})", number("silhouette"), number("silhouette_features"))),
        ("by class", by_class(&result["per_class"])),
        ("reading", text("reading_sentence")),
    ];
    if let Some(wrong) = result["misclassified"].as_u64() {
        rows.push(("misclassified", wrong.to_string()));
    }
    rows.push(("time", format!("{:.1} s", result["seconds"].as_f64().unwrap_or_default())));
    rows.extend([("picture", text("png")), ("page", text("html")), ("table", text("csv"))]);
    key_value_table(&rows)
}

/// The silhouette of each class.
fn by_class(found: &serde_json::Value) -> String {
    let one = |class: &serde_json::Value| {
        let silhouette = class["silhouette"].as_f64().map_or("not defined".to_owned(), |value| format!("{value:.2}"));
        format!("{} {silhouette}", printable(class["class"].as_str().unwrap_or_default()))
    };
    found.as_array().map_or("not defined".into(), |classes| classes.iter().map(one).collect::<Vec<_>>().join(", "))
}
