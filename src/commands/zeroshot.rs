//! `vitadapt zeroshot`: images compared with what is said of the classes, without any training.

use super::ConfigArgs;
use crate::backbone::{Params, Readout, Stage};
use crate::config::{InspectionSettings, Settings, StrategySettings};
use crate::data::loader::Batch;
use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::experiment::features::FeatureSet;
use crate::experiment::inspect::inspect;
use crate::experiment::known::{self, Seen};
use crate::experiment::page::Subject;
use crate::experiment::record::{create_run, new_record, write_down};
use crate::experiment::score::{SplitScore, evaluate_splits, foremost, inspection, of, write_scores};
use crate::experiment::session::{ModelShape, Session};
use crate::experiment::texts::{self, ClassTexts};
use crate::hub::Wanted;
use crate::metrics::good_classes;
use crate::model::{HeadKind, Model, Scored};
use crate::report::{Console, Run, RunRecord, Status, inspection_first, key_value_table, percent, template_table};
use crate::system::memory::peak_memory_bytes;
use crate::text::Prompts;
use crate::train::checkpoint::Checkpoints;
use crate::train::progress::Progress;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
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
    // A run of the pretrained backbone with another head, whatever the settings say about fine-tuning.
    let settings = Settings { strategy: StrategySettings::Frozen, ..args.config.load()? };
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    good_classes(&settings.inspection.good, &dataset.classes)?;
    let prompts = texts::prompts(&settings, &dataset.classes, console)?;
    let mut session = Session::open_with(settings, Wanted::BackboneAndTokenizer, console)?;
    // Before any image is read: a prompt that is too long is known by now.
    let texts = ClassTexts::new(&session, prompts)?;

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
    let seen = || Ok(Seen::among(&features));
    record.known = known::remember(run.folder(), &session, &features.dataset, seen, console)?;
    let inspection = session.settings.inspection.clone();
    let zeroshot = ZeroShot::new(&mut session, &texts, &features)?;

    let templates = if args.templates { zeroshot.templates()? } else { Vec::new() };
    zeroshot.set_head(&texts.zero_shot()?)?;
    let evaluations = zeroshot.save(&run, &mut record, &inspection, console)?;
    record.wall_seconds = clock.elapsed().as_secs_f64();
    record.peak_memory_bytes = peak_memory_bytes();
    let result = result(&run, &record, &texts.prompts, &evaluations, &templates);
    record.result = Some(result.clone());
    run.write_record(&record)?;
    let subject = Subject {
        folder: run.folder(),
        session: &session,
        record: &record,
        params: &zeroshot.model.params,
        readout: Readout::POOL,
        dataset: &features.dataset,
        pipeline: &pipeline,
    };
    subject.leave_page(console);
    console.output(&result, || inspection_first(foremost(&evaluations), table(&result, &templates)))
}

/// The features of the images and the head that compares them.
struct ZeroShot<'a> {
    features: &'a FeatureSet,
    texts: &'a ClassTexts,
    model: Model,
}

impl<'a> ZeroShot<'a> {
    fn new(session: &mut Session, texts: &'a ClassTexts, features: &'a FeatureSet) -> Result<Self> {
        let classes = features.dataset.classes.len();
        let plan = session.plan(HeadKind::Cosine, Readout::POOL, classes)?;
        let stage = Stage::Features(Readout::POOL);
        let shape = ModelShape { stage, readout: Readout::POOL, head: HeadKind::Cosine, classes };
        Ok(Self { features, texts, model: session.model(shape, &plan, None)? })
    }

    fn set_head(&self, head: &Params) -> Result<()> {
        Ok(self.model.params.assign(|name, _| Ok(head.get(name)))?)
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
            let logits = self.model.run(&batch)?.logits;
            scored.push((split, Scored { logits, labels: batch.labels, indices: batch.indices }));
        }
        Ok(scored)
    }

    /// Writes the scores and the head, and completes the record.
    fn save(
        &self,
        run: &Run,
        record: &mut RunRecord,
        inspection: &InspectionSettings,
        console: &Console,
    ) -> Result<Vec<SplitScore>> {
        let dataset = &self.features.dataset;
        let (calibration, scores) = evaluate_splits(dataset, self.score()?, inspection)?;
        calibration.keep(record, console);
        write_scores(run.folder(), dataset, &scores)?;
        let params = &self.model.params;
        Checkpoints::of_run(run.folder()).save("best", 1, params, None, &Progress::default())?;
        record.status = Status::Done;
        record.cache = Some(self.features.usage);
        record.total_parameters = params.counts().1;
        Ok(scores)
    }

    /// What each template scores alone.
    fn templates(&self) -> Result<Vec<TemplateScore>> {
        let ClassTexts { prompts, embeddings, .. } = self.texts;
        let score = |(index, template): (usize, &String)| {
            self.set_head(&self.texts.head(&embeddings.of_template(index)?)?)?;
            let (_, scores) = evaluate_splits(&self.features.dataset, self.score()?, &InspectionSettings::default())?;
            let accuracy = |split| of(&scores, split).map(|evaluation| evaluation.accuracy);
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

/// What `zeroshot --json` prints.
fn result(
    run: &Run,
    record: &RunRecord,
    prompts: &Prompts,
    scores: &[SplitScore],
    templates: &[TemplateScore],
) -> Value {
    let said: serde_json::Map<String, Value> = prompts
        .classes
        .iter()
        .enumerate()
        .map(|(index, class)| (class.class.clone(), json!(prompts.of(index))))
        .collect();
    let test = of(scores, Split::Test);
    let mut result = json!({
        "run": run.folder(),
        "strategy": record.strategy,
        "prompts": said,
        "trainable_parameters": record.trainable_parameters,
        "total_parameters": record.total_parameters,
        "val_accuracy": of(scores, Split::Val).map(|val| val.accuracy),
        "test_accuracy": test.map(|test| test.accuracy),
        "test_accuracy_ci95": test.and_then(|test| test.accuracy_ci95),
        "majority_baseline": test.map(|test| test.majority_baseline),
        "temperature": record.temperature,
        "seconds": record.wall_seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "cache": record.cache,
        "inspection": inspection(scores),
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
