//! `vitadapt predict`: labels and calibrated probabilities for new images, one row each as soon as it is known.

mod rows;

use crate::backbone::Stage;
use crate::data::inputs::{Inputs, expand};
use crate::data::loader::Batch;
use crate::data::transform::{Pipeline, View};
use crate::error::Result;
use crate::experiment::saved::SavedRun;
use crate::features::{Distance, ReferenceRecord, ReferenceSet};
use crate::linalg::Matrix;
use crate::metrics::softmax;
use crate::model::Outputs;
use crate::report::Console;
use clap::{Args, ValueEnum};
use rows::{Candidate, Likeness, Prediction, Rows, Verdict};
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// The run directory
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Images, folders, patterns such as 'new/*.png', or - for a list of files on stdin
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How rows are written (with --json: all rows in one object)
    #[arg(long, value_enum, default_value = "jsonl", conflicts_with = "json")]
    format: Format,
    /// Classes to name in each row, the likeliest first
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long)]
    device: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line
    Jsonl,
    /// A header, then one row an image
    Csv,
}

/// Predicts.
///
/// # Errors
/// A data error at the end when files could not be used; each has its row before.
pub fn run(args: &PredictArgs, console: &Console) -> Result<()> {
    let run = SavedRun::open(&args.run, args.device.as_deref(), Stage::Pixels, &[], console)?;
    if run.record.temperature.is_none() {
        console.detail("the run had no validation images: probabilities are not calibrated");
    }
    let predictor = Predictor { pipeline: run.pipeline(), known: run.known()?, top: usize::from(args.top), run };
    let mut rows = Rows::new(args, &predictor, console)?;
    let size = predictor.run.session.settings.train.batch_size;
    let mut inputs = all_inputs(&args.paths)?;
    loop {
        let paths: Vec<PathBuf> = inputs.by_ref().take(size).collect::<Result<_>>()?;
        if paths.is_empty() {
            break;
        }
        predictor.predict(&paths)?.into_iter().try_for_each(|row| rows.write(row))?;
    }
    rows.finish(&predictor.run)
}

fn all_inputs(paths: &[PathBuf]) -> Result<Inputs> {
    let standard_input = || -> Box<dyn std::io::BufRead> { Box::new(BufReader::new(std::io::stdin())) };
    let expanded: Vec<Inputs> = paths.iter().map(|path| expand(path, standard_input)).collect::<Result<_>>()?;
    Ok(Box::new(expanded.into_iter().flatten()))
}

/// A model with its way from files to rows.
struct Predictor {
    run: SavedRun,
    pipeline: Pipeline,
    known: Option<(ReferenceSet, ReferenceRecord)>,
    top: usize,
}

impl Predictor {
    /// The rows of some files, in their order.
    fn predict(&self, paths: &[PathBuf]) -> Result<Vec<Prediction>> {
        let view = View { epoch: 0, sample: 0 };
        let load = |path: &PathBuf| Ok(self.pipeline.load(path, view).map_err(|error| error.to_string()));
        let loaded = self.run.session.workers.map(paths.iter().collect(), load)?;
        let mut batch = Batch::default();
        for (index, pixels) in loaded.iter().enumerate() {
            if let Ok(pixels) = pixels {
                batch.inputs.extend_from_slice(pixels);
                batch.labels.push(0);
                batch.indices.push(index);
            }
        }
        self.pipeline.finish(&mut batch.inputs, &vec![view; batch.indices.len()]);
        let mut answers = self.answers(&batch)?.into_iter();
        let row = |(path, pixels): (&PathBuf, std::result::Result<Vec<f32>, String>)| match pixels {
            Ok(_) => answers.next().map_or_else(|| Prediction::of(path), |answer| self.classified(path, &answer)),
            Err(error) => Prediction { error: Some(error), ..Prediction::of(path) },
        };
        Ok(paths.iter().zip(loaded).map(row).collect())
    }

    /// The logits of each image of a batch, and how far it is from the training images.
    fn answers(&self, batch: &Batch) -> Result<Vec<Answer>> {
        let images = batch.indices.len();
        if images == 0 {
            return Ok(Vec::new());
        }
        let Outputs { features, logits } = self.run.model.run(batch)?;
        let features = Matrix::new(&features, features.len() / images);
        let distances = match &self.known {
            // Features that are no numbers are reported by their logits.
            Some((known, record)) if features.check_finite(|_| String::new()).is_ok() => self
                .run
                .session
                .workers
                .install(|| known.distances(features, record.k))?
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
            return Prediction { error: Some("the model gives no finite numbers".into()), ..Prediction::of(path) };
        }
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        let candidate =
            |&class: &usize| Candidate { label: record.classes[class].clone(), probability: probabilities[class] };
        Prediction {
            label: order.first().map(|&class| record.classes[class].clone()),
            probability: order.first().map(|&class| probabilities[class]),
            top: order.iter().take(self.top).map(candidate).collect(),
            inspection: record.inspection.as_ref().map(|rules| Verdict {
                defect_probability: rules.score(&probabilities, &record.classes),
                decision: rules.decide(&probabilities, &record.classes),
            }),
            likeness: self.likeness(answer.distance),
            ..Prediction::of(path)
        }
    }

    fn likeness(&self, distance: Option<Distance>) -> Option<Likeness> {
        let ((known, record), Distance { distance, nearest }) = (self.known.as_ref()?, distance?);
        let unknown = record.threshold.map(|threshold| distance > threshold);
        Some(Likeness { distance, unknown, nearest: known.name(nearest).to_owned() })
    }
}

/// What the model says of one image.
struct Answer {
    logits: Vec<f64>,
    distance: Option<Distance>,
}
