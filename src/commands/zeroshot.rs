//! `vitadapt zeroshot`: images compared with what is said of the classes, without any training.

use super::ConfigArgs;
use super::features::FeatureSet;
use super::inspect::inspect;
use super::records::{create_run, new_record, write_down};
use super::score::{evaluate_scored, write_evaluations};
use super::session::{ModelShape, Session, load_saved};
use crate::backbone::{Readout, Stage};
use crate::config::{PoolChoice, Settings, StrategySettings};
use crate::data::loader::Batch;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result, WeightsError};
use crate::hub::Wanted;
use crate::metrics::{Evaluation, Scores, fit_temperature};
use crate::report::{Console, Run, RunRecord, Status, key_value_table, percent, template_table};
use crate::system::memory::peak_memory_bytes;
use crate::text::{PromptEmbeddings, Prompts, TextModel};
use crate::train::checkpoint::Checkpoints;
use crate::train::classifier::HeadKind;
use crate::train::cosine::CosineHead;
use crate::train::feed::Scored;
use crate::train::progress::Progress;
use crate::train::trainer::Trainer;
use candle_core::Tensor;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `zeroshot`.
#[derive(Debug, Args)]
pub struct ZeroshotArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Score each template alone beside the ensemble of all. Nothing is chosen by it
    #[arg(long)]
    templates: bool,
}

/// Embeds classes and images, scores and saves.
///
/// # Errors
/// Every failure of the modules it composes.
pub fn run(args: &ZeroshotArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    let settings = settings(&args.config)?;
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    let prompts = Prompts::new(&settings.prompts, &dataset.classes)?;
    warn_of_numbers(&prompts, console);
    let session = Session::open_with(settings, Wanted::BackboneAndTokenizer, console)?;
    let text = TextModel::load(&session.location, &session.device)?;
    // Before any image is read: a prompt that is too long is known by now.
    let embeddings = PromptEmbeddings::new(&prompts, &text, &session.workers)?;
    check_widths(&session, embeddings.width()?)?;

    let mut inspected = inspect(&session, dataset, console)?;
    let mut record = new_record(&session, &inspected, "zeroshot");
    record.head = HeadKind::Cosine;
    let run = create_run(&session.settings, console)?;
    write_down(&run, &session.settings, &inspected, &record)?;
    let keys = Arc::new(std::mem::take(&mut inspected.keys));
    let pipeline = Arc::new(inspected.evaluation_pipeline(&session));
    let images = (&Arc::new(inspected.dataset), &keys, &pipeline);
    let (params, weights) = (&session.backbone.params, &session.backbone.sha256);
    let features = FeatureSet::compute(&session, params, weights, Readout::POOL, images, console)?;
    let zeroshot = ZeroShot::new(session, &text, &features)?;

    let templates = if args.templates { zeroshot.templates(&prompts, &embeddings)? } else { Vec::new() };
    zeroshot.set(&embeddings.ensemble()?)?;
    let evaluations = zeroshot.save(&run, &mut record)?;
    record.wall_seconds = clock.elapsed().as_secs_f64();
    record.peak_memory_bytes = peak_memory_bytes();
    let result = result(&run, &record, &prompts, &evaluations, &templates);
    record.result = Some(result.clone());
    run.write_record(&record)?;
    console.output(&result, || table(&result, &templates))
}

/// The settings of a run of the pretrained backbone with another head, whatever they say about fine-tuning.
fn settings(config: &ConfigArgs) -> Result<Settings> {
    let settings = config.load()?;
    check_pooling(&settings)?;
    Ok(Settings { strategy: StrategySettings::Frozen, ..settings })
}

/// The projection to the texts' space was trained on the features of one pooling.
pub(super) fn check_pooling(settings: &Settings) -> Result<()> {
    if settings.model.pool == PoolChoice::Backbone {
        return Ok(());
    }
    Err(Error::usage_hint(
        "model.pool gives other features than those that were trained beside texts",
        "set model.pool = \"backbone\" to compare images with texts",
    ))
}

/// Tells of classes that are called by numbers.
pub(super) fn warn_of_numbers(prompts: &Prompts, console: &Console) {
    let wordless = prompts.wordless();
    if !wordless.is_empty() {
        console.warn(format!(
            "no word says what these classes show: {}; name them in [prompts.classes]",
            wordless.join(", ")
        ));
    }
}

/// The two sides of one model agree, those put together by hand may not.
pub(super) fn check_widths(session: &Session, texts: usize) -> Result<()> {
    let images = session.backbone.embedding();
    if images == texts {
        return Ok(());
    }
    let reason = format!("embeds images in {images} values and texts in {texts}, which cannot be compared");
    Err(WeightsError::invalid(&session.location, reason).into())
}

/// The features of the images and the head that compares them.
struct ZeroShot<'a> {
    features: &'a FeatureSet,
    trainer: Trainer,
    logit_scale: f32,
    logit_bias: f32,
    /// The model's, for messages.
    folder: PathBuf,
}

impl<'a> ZeroShot<'a> {
    fn new(mut session: Session, text: &TextModel, features: &'a FeatureSet) -> Result<Self> {
        let classes = features.dataset.classes.len();
        let plan = session.plan_cosine(classes)?;
        let stage = Stage::Features(Readout::POOL);
        let shape = ModelShape { stage, readout: Readout::POOL, head: HeadKind::Cosine, classes, knn: None };
        let trainer = session.trainer(shape, &plan)?;
        let (logit_scale, logit_bias) = (text.logit_scale, text.logit_bias.unwrap_or(0.0));
        Ok(Self { features, trainer, logit_scale, logit_bias, folder: session.location.into() })
    }

    /// Gives the head the directions (C, E) of the classes.
    fn set(&self, directions: &Tensor) -> Result<()> {
        let head = CosineHead::params(directions, self.logit_scale, self.logit_bias)?;
        let head: BTreeMap<String, Tensor> =
            head.iter().map(|(name, param)| (name.to_owned(), param.tensor().clone())).collect();
        load_saved(&self.trainer, &head, &self.folder)
    }

    /// The logits of the validation and the test images, as far as there are any.
    fn score(&self) -> Result<Vec<(Split, Scored)>> {
        let mut scored = Vec::new();
        for split in [Split::Val, Split::Test] {
            let rows = self.features.of(&[split]);
            if rows.labels.is_empty() {
                continue;
            }
            let batch =
                Batch { inputs: rows.values, labels: rows.labels, indices: rows.samples, soft_labels: Vec::new() };
            let logits = self.trainer.logits(&batch)?;
            scored.push((split, Scored { logits, labels: batch.labels, indices: batch.indices }));
        }
        Ok(scored)
    }

    /// Writes the scores and the head, and completes the record.
    fn save(&self, run: &Run, record: &mut RunRecord) -> Result<Vec<Evaluation>> {
        let scored = self.score()?;
        record.temperature = temperature(&scored, &record.classes)?;
        let evaluations = self.evaluate(&scored, record.temperature)?;
        write_evaluations(run.folder(), &evaluations)?;
        let params = &self.trainer.params;
        Checkpoints::of_run(run.folder()).save("best", 1, params, None, &Progress::default())?;
        record.status = Status::Done;
        record.cache = Some(self.features.usage);
        record.total_parameters = params.counts().1;
        Ok(evaluations)
    }

    fn evaluate(&self, scored: &[(Split, Scored)], temperature: Option<f64>) -> Result<Vec<Evaluation>> {
        let dataset = &self.features.dataset;
        let evaluate = |(split, scored): &(Split, Scored)| {
            evaluate_scored(split.name(), dataset, scored, &dataset.classes, temperature)
        };
        scored.iter().map(evaluate).collect()
    }

    /// What each template scores alone.
    fn templates(&self, prompts: &Prompts, embeddings: &PromptEmbeddings) -> Result<Vec<TemplateScore>> {
        let score = |(index, template): (usize, &String)| {
            self.set(&embeddings.of_template(index)?)?;
            let evaluations = self.evaluate(&self.score()?, None)?;
            let accuracy = |split| of(&evaluations, split).map(|evaluation| evaluation.accuracy);
            let (val_accuracy, test_accuracy) = (accuracy(Split::Val), accuracy(Split::Test));
            Ok(TemplateScore { template: template.clone(), val_accuracy, test_accuracy })
        };
        prompts.templates.iter().enumerate().map(score).collect()
    }
}

/// The accuracy of one template.
#[derive(Debug, Serialize)]
struct TemplateScore {
    template: String,
    val_accuracy: Option<f64>,
    test_accuracy: Option<f64>,
}

/// Fitted on the validation images. `SigLIP` was trained to answer each pair of image and text for itself; among classes
/// of which one is right its logits go into the same softmax, where its bias cancels.
fn temperature(scored: &[(Split, Scored)], classes: &[String]) -> Result<Option<f64>> {
    match scored.iter().find(|(split, _)| *split == Split::Val) {
        Some((_, val)) => Ok(Some(fit_temperature(&Scores::new(&val.logits, &val.labels, classes.len())?))),
        None => Ok(None),
    }
}

fn of(evaluations: &[Evaluation], split: Split) -> Option<&Evaluation> {
    evaluations.iter().find(|evaluation| evaluation.split == split.name())
}

/// What `zeroshot --json` prints.
fn result(
    run: &Run,
    record: &RunRecord,
    prompts: &Prompts,
    evaluations: &[Evaluation],
    templates: &[TemplateScore],
) -> Value {
    let said: serde_json::Map<String, Value> = prompts
        .classes
        .iter()
        .enumerate()
        .map(|(index, class)| (class.class.clone(), json!(prompts.of(index))))
        .collect();
    let test = of(evaluations, Split::Test);
    let mut result = json!({
        "run": run.folder(),
        "strategy": record.strategy,
        "prompts": said,
        "trainable_parameters": record.trainable_parameters,
        "total_parameters": record.total_parameters,
        "val_accuracy": of(evaluations, Split::Val).map(|val| val.accuracy),
        "test_accuracy": test.map(|test| test.accuracy),
        "test_accuracy_ci95": test.and_then(|test| test.accuracy_ci95),
        "majority_baseline": test.map(|test| test.majority_baseline),
        "temperature": record.temperature,
        "seconds": record.wall_seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "cache": record.cache,
    });
    if !templates.is_empty() {
        result["templates"] = json!(templates);
    }
    result
}

/// The result as a table for people; every number is the one of the JSON.
fn table(result: &Value, templates: &[TemplateScore]) -> String {
    let share = |key: &str| result[key].as_f64().map_or("no such images".to_owned(), percent);
    let interval = match result["test_accuracy_ci95"].as_array().map(Vec::as_slice) {
        Some([low, high]) => format!(
            " (95 %: {} to {})",
            percent(low.as_f64().unwrap_or_default()),
            percent(high.as_f64().unwrap_or_default())
        ),
        _ => String::new(),
    };
    let prompts = result["prompts"].as_object();
    let count: usize = prompts.into_iter().flatten().map(|(_, said)| said.as_array().map_or(0, Vec::len)).sum();
    let classes = prompts.map_or(0, serde_json::Map::len);
    let calibrated = match result["temperature"].as_f64() {
        Some(temperature) => format!("at temperature {temperature:.2}, fitted on validation images"),
        None => "not calibrated: no validation images".to_owned(),
    };
    let cache = &result["cache"];
    let summary = key_value_table(&[
        ("prompts", format!("{count} for {classes} classes")),
        ("validation accuracy", share("val_accuracy")),
        ("test accuracy", format!("{}{interval}", share("test_accuracy"))),
        ("always the largest class", share("majority_baseline")),
        ("probabilities", calibrated),
        ("features", format!("{} from the cache, {} computed", cache["hits"], cache["misses"])),
        ("time", format!("{:.1} s", result["seconds"].as_f64().unwrap_or_default())),
        ("run", result["run"].as_str().unwrap_or_default().to_owned()),
    ]);
    if templates.is_empty() {
        return summary;
    }
    let mut rows: Vec<_> =
        templates.iter().map(|row| (row.template.as_str(), row.val_accuracy, row.test_accuracy)).collect();
    rows.push(("all together", result["val_accuracy"].as_f64(), result["test_accuracy"].as_f64()));
    format!("{}\n\n{summary}", template_table(&rows))
}
