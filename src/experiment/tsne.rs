//! A map of features in two dimensions: made, judged, and left as pictures, table and page.

use super::feature_source::FeatureSource;
use super::features::FeatureSet;
use super::saved::{SavedRun, refuse_patches};
use super::session::Session;
use crate::backbone::Readout;
use crate::config::Settings;
use crate::data::Split;
use crate::data::decode::{DecodeOptions, decode_file};
use crate::data::loader::Batch;
use crate::error::{DataError, Error, Result};
use crate::linalg::Matrix;
use crate::metrics::Scores;
use crate::model::Model;
use crate::nn::workers::Workers;
use crate::pixels::thumbnail;
use crate::report::{Console, html, plots};
use crate::system::files::create_folder;
use crate::system::json::read_json;
use crate::system::shown::{Shown, counted};
use crate::system::tables::write_csv;
use crate::tsne::quality::{Neighborhoods, Silhouettes, map_silhouettes, neighborhoods, silhouettes};
use crate::tsne::{Embedding, embed};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Neighbours that the quality of a map is judged by, as is usual.
const NEIGHBORS: usize = 12;
/// Longer side of the images in the page, in pixels.
const THUMBNAIL: u32 = 96;
/// Images in the page: about 4 kB each.
const MOST_THUMBNAILS: usize = 3000;

/// Written last, of a map that is complete.
pub const SUMMARY: &str = "tsne.json";

/// Refuses to replace files that no map wrote: an earlier one has its summary beside them.
///
/// # Errors
/// A usage error that names one of them.
pub fn check_folder(folder: &Path) -> Result<()> {
    let earlier: Value = read_json(&folder.join(SUMMARY)).unwrap_or_default();
    let files = ["tsne.csv", "tsne.html", "plots/tsne.png", "plots/tsne.svg", SUMMARY].map(|name| folder.join(name));
    match files.iter().find(|file| !earlier["perplexity"].is_number() && file.exists()) {
        Some(file) => {
            let message = format!("{} exists, and no map of this program wrote it", file.shown());
            Err(Error::usage_hint(message, "choose another --out, or move that file"))
        }
        None => Ok(()),
    }
}

/// What is mapped: features with what is known of their images.
pub struct Mappable {
    /// The images and their features.
    pub features: FeatureSet,
    /// The run's folder.
    pub folder: PathBuf,
    session: Session,
    /// The class that a run's model gives to each image.
    predicted: Option<Vec<usize>>,
    title: String,
}

impl Mappable {
    /// The features of a config's pretrained backbone.
    ///
    /// # Errors
    /// As [`FeatureSource::of_config`] and [`FeatureSource::features`].
    pub fn of_config(settings: Settings, console: &Console) -> Result<Self> {
        let (wanted, folder) = (settings.tsne.clone(), settings.run.out.join(&settings.run.name));
        let readout = |session: &Session| Readout::new("tsne", wanted.features, wanted.blocks, &session.backbone.spec);
        let source = FeatureSource::of_config(settings, readout, console)?;
        let features = source.features(console)?;
        let title = source.session.settings.run.name.clone();
        Ok(Self { session: source.session, features, predicted: None, folder, title })
    }

    /// The features that a run's head reads, and what it makes of them; of a run opened from its head on.
    ///
    /// # Errors
    /// As [`FeatureSource::of_run`] and [`FeatureSource::features`].
    pub fn of_run(run: SavedRun, console: &Console) -> Result<Self> {
        refuse_patches(&run.record)?;
        let backbone = (&run.model.params, run.weights.as_str());
        let features = FeatureSet::compute(&run.session, backbone, run.readout(), &run.images()?, console)?;
        let predicted = predictions(&run.model, features.matrix(), run.record.classes.len())?;
        let title = run.session.settings.run.name.clone();
        Ok(Self { session: run.session, features, predicted: Some(predicted), folder: run.folder, title })
    }

    /// Maps the images of some splits.
    ///
    /// # Errors
    /// A data error when there are none; those of [`embed`].
    pub fn map(&self, splits: &[Split], console: &Console) -> Result<FeatureMap<'_>> {
        let rows = self.features.of(splits);
        if rows.labels.is_empty() {
            return Err(DataError::invalid("there are no images in this split", "choose another --split").into());
        }
        let (workers, classes) = (&self.session.workers, self.features.dataset.classes.len());
        let embedding = workers.install(|| mapped(rows.matrix(), &self.session, console))?;
        embedding.warnings.iter().for_each(|warning| console.warn(warning));
        let quality = workers.install(|| Quality::of(rows.matrix(), &embedding, &rows.labels, classes))?;
        Ok(FeatureMap { of: self, samples: rows.samples, embedding, quality })
    }
}

/// A map of some images.
pub struct FeatureMap<'a> {
    /// Where they lie.
    pub embedding: Embedding,
    /// How good it is.
    pub quality: Quality,
    of: &'a Mappable,
    /// The sample of each point.
    samples: Vec<usize>,
}

impl FeatureMap<'_> {
    /// The images that a run's model gets wrong; none for a config.
    pub fn misclassified(&self) -> Option<usize> {
        let (predicted, samples) = (self.of.predicted.as_ref()?, &self.of.features.dataset.samples);
        Some(self.samples.iter().filter(|&&sample| predicted[sample] != samples[sample].label).count())
    }

    /// Writes `tsne.csv`, `plots/tsne.png` and `.svg`, and `tsne.html` into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, console: &Console) -> Result<()> {
        create_folder(&folder.join("plots"))?;
        let scatter = self.scatter();
        self.write_csv(&folder.join("tsne.csv"))?;
        plots::save(&scatter, &folder.join("plots/tsne"))?;
        let mut thumbnails = thumbnails(&scatter, self.of.session.decode(), &self.of.session.workers, console);
        html::save_scatter_page(&folder.join("tsne.html"), &scatter, &mut |i| thumbnails.get_mut(i)?.take())
    }

    fn scatter(&self) -> plots::Scatter {
        let dataset = &self.of.features.dataset;
        let trust = self.quality.neighborhoods.as_ref();
        let trust = trust.map(|found| format!(", trustworthiness {:.3}", found.trustworthiness));
        let point = |(&sample, &[x, y]): (&usize, &[f64; 2])| {
            let image = &dataset.samples[sample];
            plots::ScatterPoint {
                x,
                y,
                class: image.label,
                split: image.split.name().to_owned(),
                path: image.path.clone(),
                predicted: self.of.predicted.as_ref().map(|predicted| predicted[sample]),
            }
        };
        plots::Scatter {
            title: format!("t-SNE of {}", self.of.title),
            subtitle: format!(
                "{}, perplexity {:.0}, KL {:.3}{}",
                counted(self.samples.len(), "image"),
                self.embedding.perplexity,
                self.embedding.kl,
                trust.unwrap_or_default()
            ),
            classes: dataset.classes.clone(),
            points: self.samples.iter().zip(&self.embedding.points).map(point).collect(),
        }
    }

    /// One row an image: path, class, split, x, y, and the predicted class when there is one.
    fn write_csv(&self, path: &Path) -> Result<()> {
        let dataset = &self.of.features.dataset;
        write_csv(path, |table| {
            table.write_record(["path", "label", "split", "x", "y", "predicted"])?;
            self.samples.iter().zip(&self.embedding.points).try_for_each(|(&sample, [x, y])| {
                let image = &dataset.samples[sample];
                let predicted = self.of.predicted.as_ref().map_or("", |predicted| &dataset.classes[predicted[sample]]);
                let (x, y) = (x.to_string(), y.to_string());
                table.write_record([&image.name, &dataset.classes[image.label], image.split.name(), &x, &y, predicted])
            })
        })
    }
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
    let progress = console.progress(settings.iterations as u64, "t-SNE");
    embed(features, settings, session.settings.run.seed, &mut |iteration, total, kl| {
        progress.set((iteration * settings.iterations / total.max(1)) as u64);
        progress.message(format!("KL {kl:.3}"));
        ControlFlow::Continue(())
    })
}

/// How good a map is, and how far the classes lie apart on it.
pub struct Quality {
    /// How far neighbours among the features are neighbours on the map.
    pub neighborhoods: Option<Neighborhoods>,
    /// How far the classes lie apart on the map.
    pub map: Option<Silhouettes>,
    /// How far they lie apart by their features.
    pub features: Option<Silhouettes>,
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

/// Small copies of the images; of many, the misclassified ones and an even choice of the others.
fn thumbnails(
    scatter: &plots::Scatter,
    decode: DecodeOptions,
    workers: &Workers,
    console: &Console,
) -> Vec<Option<Vec<u8>>> {
    let n = scatter.points.len();
    let step = n.div_ceil(MOST_THUMBNAILS);
    let (mistakes, others): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| scatter.points[i].misclassified());
    let evenly = others.into_iter().filter(|i| i % step.max(1) == 0);
    let chosen: Vec<usize> = mistakes.into_iter().chain(evenly).take(MOST_THUMBNAILS).collect();
    let progress = console.progress(chosen.len() as u64, "thumbnails");
    let made = workers.map_on_cpu(chosen.clone(), |i| {
        progress.inc(1);
        // An image that is no longer there is left out of the page; its features were computed before.
        decode_file(&scatter.points[i].path, decode).ok().and_then(|image| thumbnail(&image, THUMBNAIL))
    });
    progress.finish();
    let mut thumbnails: Vec<Option<Vec<u8>>> = vec![None; n];
    chosen.into_iter().zip(made).for_each(|(i, thumbnail)| thumbnails[i] = thumbnail);
    thumbnails
}
