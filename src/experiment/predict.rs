//! What a run's model says of new images: labels with calibrated probabilities, what is to be done with a part, and how
//! far an image is from those that the model was trained on.

use super::maps::{Located, Maps, SeenImage};
use super::saved::SavedRun;
use crate::backbone::Segment;
use crate::data::kinds::Watch;
use crate::data::loader::Batch;
use crate::data::transform::{Bag, Normalization, Pipeline, View};
use crate::error::Result;
use crate::features::{Distance, Extractor, Looked, LookedBag, ReferenceRecord, ReferenceSet, TiledImages};
use crate::linalg::Matrix;
use crate::metrics::{Decision, argmax, softmax};
use crate::model::Outputs;
use crate::report::Console;
use image::RgbImage;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The error of an image for which the model gives no finite numbers.
pub const NOT_FINITE: &str = "the model gives no finite numbers";

/// An image on its way into the model.
enum Input {
    /// Itself resized, and its width and height.
    Whole(RgbImage, (u32, u32)),
    /// Cut into tiles.
    Tiles(Bag),
}

/// The image, or why there is none.
type Loaded = std::result::Result<Input, String>;

/// What is said of one image; with an `error` in place of a label when the file cannot be used.
#[derive(Debug, Default, Serialize)]
pub struct Prediction {
    /// The file, as it was named.
    pub path: String,
    /// The likeliest class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The likeliest classes, the likeliest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<ClassProbability>,
    /// The probability of each class of the run, in their order; empty with an error.
    #[serde(skip)]
    pub all: Vec<f64>,
    /// Set when the run has a good class.
    #[serde(flatten)]
    pub inspection: Option<Judgement>,
    /// Set when the run compares patches with those of sound parts.
    #[serde(flatten)]
    pub strangeness: Option<PartScore>,
    /// Set when the run remembers its training images.
    #[serde(flatten)]
    pub novelty: Option<Novelty>,
    /// Set when maps are drawn.
    #[serde(flatten)]
    pub located: Option<Located>,
    /// Why there is no label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A class with its probability.
#[derive(Debug, Serialize)]
pub struct ClassProbability {
    /// The class.
    pub label: String,
    /// From 0 to 1.
    pub probability: f64,
}

/// What is to be done with a part.
#[derive(Debug, Serialize)]
pub struct Judgement {
    /// The summed probability of all classes that are not good.
    pub defect_probability: f64,
    /// By the rules of the run.
    pub decision: Decision,
}

/// How far the patches of a part are from those of sound ones.
#[derive(Debug, Serialize)]
pub struct PartScore {
    /// The larger, the stranger.
    pub score: f64,
    /// A part is defective from this score on.
    pub threshold: f64,
}

/// How far an image is from the training images.
#[derive(Debug, Serialize)]
pub struct Novelty {
    /// To the k-th nearest one, among features of unit length: from 0 to 2.
    pub distance: f64,
    /// Whether that is farther than known images are; none for a run without validation images.
    pub unknown: Option<bool>,
    /// The training image most like it, by its name in `splits.csv`.
    pub nearest: String,
}

impl Prediction {
    fn of(path: &Path) -> Self {
        Self { path: path.to_string_lossy().into_owned(), ..Self::default() }
    }
}

/// A run's model on its way from files to predictions.
pub struct Predictor {
    /// The run.
    pub run: SavedRun,
    pipeline: Pipeline,
    watch: Option<Arc<Watch>>,
    pub(super) references: Option<(ReferenceSet, ReferenceRecord)>,
    top: usize,
    pub(super) maps: Option<Maps>,
    /// What makes features of tiles, when images are cut.
    tile_extractor: Option<Extractor>,
}

impl Predictor {
    /// Opens the run in `folder`, on `device` instead of the run's own if given; each prediction names the `top` likeliest
    /// classes.
    ///
    /// # Errors
    /// As [`SavedRun::open`] and [`SavedRun::reference_set`].
    pub fn open(folder: &Path, device: Option<&str>, top: usize, console: &Console) -> Result<Self> {
        let run = SavedRun::open(folder, device, Segment::Embed, &[], console)?;
        let watch = run.watch();
        let pipeline = run.pipeline().watched(watch.clone());
        let tile_extractor = run.record.preprocess.tiles.map(|_| run.model.extractor(run.model.read())).transpose()?;
        Ok(Self { pipeline, watch, references: run.reference_set()?, top, maps: None, tile_extractor, run })
    }

    /// How the images seen so far differ in kind from those of training.
    pub fn notices(&self) -> Vec<String> {
        self.watch.as_ref().map(|watch| watch.notices()).unwrap_or_default()
    }

    /// Draws a map of each image into `folder` as well.
    ///
    /// # Errors
    /// As [`Maps::new`].
    pub fn with_maps(self, folder: &Path) -> Result<Self> {
        Ok(Self { maps: Some(Maps::new(&self.run, folder)?), ..self })
    }

    /// Whether what is said of an image depends on those that are predicted with it.
    pub fn depends_on_batch(&self) -> bool {
        self.pipeline.preprocess().normalization == Normalization::Batch
    }

    /// Files that are best predicted at a time: those whose tiles are cut are in memory as they are.
    pub fn batch_size(&self) -> usize {
        let usual = self.run.session.settings.train.batch_size;
        match (&self.tile_extractor, &self.maps) {
            (None, _) => usual,
            (Some(_), None) => usual.min(self.run.session.decode_threads()),
            // Maps are made of the tokens of a whole image.
            (Some(_), Some(_)) => 1,
        }
    }

    /// The way of images that are cut into tiles.
    fn tiled(&self) -> Option<TiledImages<'_>> {
        let tiles = self.pipeline.preprocess().tiles?;
        Some(TiledImages { extractor: self.tile_extractor.as_ref()?, pipeline: &self.pipeline, tiles })
    }

    fn load(&self, path: &Path) -> Loaded {
        let loaded = match self.pipeline.preprocess().tiles {
            Some(tiles) => self.pipeline.bag_once(&tiles, path).map(Input::Tiles),
            None => self.pipeline.see_once(path, View::PLAIN).map(|(resized, size)| Input::Whole(resized, size)),
        };
        loaded.map_err(|error| error.to_string())
    }

    /// What the model says of some files as they are now, in their order.
    ///
    /// # Errors
    /// When the device fails; a file that cannot be used is not an error here: its prediction says why.
    pub fn predict(&self, paths: &[PathBuf]) -> Result<Vec<Prediction>> {
        let loaded = self.run.session.workers.map_on_cpu(paths.iter().collect(), |path: &PathBuf| self.load(path));
        let mut batch = Batch::default();
        let (tiled, mut bags) = (self.tiled(), Vec::new());
        for (index, seen) in loaded.iter().enumerate() {
            match (seen, &tiled) {
                (Ok(Input::Whole(resized, _)), _) => {
                    batch.inputs.extend(self.pipeline.preprocess().normalization.standardize(resized));
                }
                (Ok(Input::Tiles(bag)), Some(tiled)) => {
                    let looked =
                        self.maps.as_ref().map(|maps| maps.finder.look_at_tiles(tiled, bag)).transpose()?.flatten();
                    batch.inputs.extend(match &looked {
                        Some(looked) => looked.pooled()?,
                        None => self.run.model.row_of(tiled, bag)?,
                    });
                    bags.push(looked);
                }
                _ => continue,
            }
            batch.labels.push(0);
            batch.indices.push(index);
        }
        if tiled.is_none() {
            self.pipeline.finish(&mut batch.inputs, &vec![View::PLAIN; batch.indices.len()]);
        }
        let looked = match &self.maps {
            Some(maps) if !batch.indices.is_empty() && tiled.is_none() => maps.finder.look(&batch.inputs)?,
            _ => None,
        };
        let answers = self.answers(&batch, looked.as_ref())?;
        let views = Views { whole: (&batch.inputs, looked.as_ref()), bags: &bags };
        let mut located = self.located(paths, &loaded, &views, &answers)?.into_iter();
        let mut answers = answers.into_iter();
        let row = |(path, seen): (&PathBuf, &Loaded)| match seen {
            Ok(_) => answers.next().map_or_else(
                || Prediction::of(path),
                |answer| {
                    let (located, prediction) = (located.next().flatten(), self.classified(path, &answer));
                    if prediction.error.is_some() { prediction } else { Prediction { located, ..prediction } }
                },
            ),
            Err(error) => Prediction { error: Some(error.clone()), ..Prediction::of(path) },
        };
        Ok(paths.iter().zip(&loaded).map(row).collect())
    }

    /// Where the likeliest class of each image of a batch was found; nothing without maps.
    fn located(
        &self,
        paths: &[PathBuf],
        loaded: &[Loaded],
        views: &Views<'_>,
        answers: &[Answer],
    ) -> Result<Vec<Option<Located>>> {
        let Some(maps) = self.maps.as_ref().filter(|_| !answers.is_empty()) else { return Ok(Vec::new()) };
        let likeliest = |answer: &Answer| argmax(&answer.logits);
        let classes: Vec<usize> = answers.iter().map(likeliest).collect();
        let seen = || paths.iter().zip(loaded).filter_map(|(path, loaded)| Some((path, loaded.as_ref().ok()?)));
        if let Some(tiled) = self.tiled() {
            let drawn = seen().zip(views.bags).zip(&classes).map(|(((path, input), looked), &class)| match input {
                Input::Tiles(bag) => maps.draw_tiles(path, (&tiled, bag), looked.as_ref(), class),
                Input::Whole(..) => Ok(None),
            });
            return drawn.collect();
        }
        let whole = seen().filter_map(|(path, input)| match input {
            Input::Whole(shown, size) => Some(SeenImage { path, size: *size, shown }),
            Input::Tiles(_) => None,
        });
        maps.draw(&whole.collect::<Vec<_>>(), views.whole, &classes)
    }

    /// The logits of each image of a batch, and how far it is from the training images.
    fn answers(&self, batch: &Batch, looked: Option<&Looked>) -> Result<Vec<Answer>> {
        let images = batch.indices.len();
        if images == 0 {
            return Ok(Vec::new());
        }
        let Outputs { features, logits } = match looked {
            Some(looked) => self.run.model.classify(&looked.features, images)?,
            None => self.run.model.run(batch)?,
        };
        let features = Matrix::new(&features, features.len() / images);
        let distances = match &self.references {
            // Features that are not finite are reported by their logits.
            Some((references, record)) if features.check_finite(|_| String::new()).is_ok() => self
                .run
                .session
                .workers
                .install(|| references.distances(features, record.k))?
                .into_iter()
                .map(Some)
                .collect(),
            _ => vec![None; images],
        };
        let logits = logits.chunks_exact(self.run.record.classes.len().max(1));
        let answer = |(logits, distance): (&[f32], Option<Distance>)| Answer {
            logits: logits.iter().map(|&logit| f64::from(logit)).collect(),
            distance,
        };
        Ok(logits.zip(distances).map(answer).collect())
    }

    fn classified(&self, path: &Path, answer: &Answer) -> Prediction {
        let record = &self.run.record;
        let probabilities = softmax(&answer.logits, record.temperature.unwrap_or(1.0));
        if probabilities.iter().any(|probability| !probability.is_finite()) {
            return Prediction { error: Some(NOT_FINITE.into()), ..Prediction::of(path) };
        }
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        let candidate = |&class: &usize| ClassProbability {
            label: record.classes[class].clone(),
            probability: probabilities[class],
        };
        Prediction {
            label: order.first().map(|&class| record.classes[class].clone()),
            probability: order.first().map(|&class| probabilities[class]),
            top: order.iter().take(self.top).map(candidate).collect(),
            inspection: record.inspection.as_ref().map(|rules| Judgement {
                defect_probability: rules.score(&probabilities, &record.classes),
                decision: rules.decide(&probabilities, &record.classes),
            }),
            strangeness: self.strangeness(&answer.logits),
            novelty: self.novelty(answer.distance),
            all: probabilities,
            ..Prediction::of(path)
        }
    }

    fn strangeness(&self, logits: &[f64]) -> Option<PartScore> {
        let head = self.run.model.patch_head()?;
        let rule = head.rule?;
        let of_sound: f64 =
            logits.iter().enumerate().filter(|(class, _)| *class != head.defect()).map(|(_, l)| l).sum();
        let score = rule.score(logits.get(head.defect())? - of_sound);
        Some(PartScore { score, threshold: f64::from(rule.threshold) })
    }

    fn novelty(&self, distance: Option<Distance>) -> Option<Novelty> {
        let ((references, record), Distance { distance, nearest }) = (self.references.as_ref()?, distance?);
        let unknown = record.threshold.map(|threshold| distance > threshold);
        Some(Novelty { distance, unknown, nearest: references.name(nearest).to_owned() })
    }
}

/// What maps of a batch are made of.
struct Views<'a> {
    /// Pixels of whole images, and what was seen in them if that is what exact maps need.
    whole: (&'a [f32], Option<&'a Looked>),
    /// The same of images that are cut into tiles.
    bags: &'a [Option<LookedBag<'a>>],
}

/// What the model says of one image.
struct Answer {
    logits: Vec<f64>,
    distance: Option<Distance>,
}
