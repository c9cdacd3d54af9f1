//! `vitadapt probe`: frozen features, a simple classifier on them, its one free number chosen on held-out images.

use super::ConfigArgs;
use crate::backbone::{Params, Readout};
use crate::config::{FeatureChoice, ProbeMethod, Settings};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::experiment::features::FeatureSet;
use crate::experiment::inspect::inspect;
use crate::experiment::known::{self, Seen};
use crate::experiment::page::Subject;
use crate::experiment::probe::{Fitted, fit, fit_tip};
use crate::experiment::record::{create_run, new_record, write_down};
use crate::experiment::score::{Calibration, SplitScore, foremost, inspection, of, write_scores};
use crate::experiment::session::Session;
use crate::experiment::texts::{self, ClassTexts};
use crate::hub::Wanted;
use crate::metrics::good_classes;
use crate::model::{CosineHead, HeadKind, Scored, VoteHead};
use crate::probe::{FittedProbe, Selection};
use crate::report::{
    Advice, Console, ProbeRecord, Run, RunRecord, Status, inspection_first, key_value_table, percent, plots,
};
use crate::system::memory::peak_memory_bytes;
use crate::text::Prompts;
use crate::train::checkpoint::Checkpoints;
use crate::train::progress::Progress;
use candle_core::{Device, Tensor};
use clap::Args;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Fits, scores and saves.
///
/// # Errors
/// Every failure of the modules it composes.
pub fn run(args: &ProbeArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    let settings = args.config.load()?;
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    good_classes(&settings.inspection.good, &dataset.classes)?;
    let prompts = prompts(&settings, &dataset, console)?;
    let wanted = if prompts.is_some() { Wanted::BackboneAndTokenizer } else { Wanted::Backbone };
    let session = Session::open_with(settings, wanted, console)?;
    let texts = prompts.map(|prompts| ClassTexts::new(&session, prompts)).transpose()?;
    let wanted = &session.settings.probe;
    let readout = Readout::new("probe", wanted.features, wanted.blocks, &session.backbone.spec)?;
    let mut inspected = inspect(&session, dataset, console)?;
    let mut record = new_record(&session, &inspected, "probe");
    let run = create_run(&session.settings, console)?;
    write_down(&run, &session.settings, &inspected, &record)?;

    let keys = Arc::new(std::mem::take(&mut inspected.keys));
    let pipeline = Arc::new(inspected.evaluation_pipeline(&session));
    let dataset = Arc::new(inspected.dataset);
    let weights = session.backbone.sha256.clone();
    let features = FeatureSet::compute(
        &session,
        &session.backbone.params,
        &weights,
        readout,
        (&dataset, &keys, &pipeline),
        console,
    )?;
    // What the head reads, before texts are compared with it.
    let seen = || Ok(Seen::among(&features));
    record.known = known::remember(run.folder(), &session, &dataset, seen, console)?;
    let (features, fitted) = match &texts {
        None => {
            let fitted = fit(&features, &session, wanted.refit, console)?;
            (features, fitted)
        }
        Some(texts) => {
            record.head = HeadKind::Cosine;
            let embeddings = texts::embedded(&features, &session.cosine_params(&texts.zero_shot()?)?)?;
            let fitted = fit_tip(&embeddings, &texts.linear()?, &session, wanted.refit, console)?;
            (embeddings, fitted)
        }
    };
    // Images that were held out: the validation images, or the training images fold by fold.
    let held_out = Scored::from(&fitted.held_out);
    let calibration = Calibration::fit(Some(&held_out), &record.classes, &session.settings.inspection)?;
    let scores = scores(&features, &fitted, held_out, &calibration)?;
    calibration.keep(&mut record, console);

    write_scores(run.folder(), &features.dataset, &scores)?;
    save_selection(&run, &session, &fitted.selection)?;
    save_model(&run, &fitted, texts.as_ref())?;
    complete(&mut record, &fitted, &features, readout, &session);
    record.wall_seconds = clock.elapsed().as_secs_f64();
    record.peak_memory_bytes = peak_memory_bytes();
    record.result = Some(result(&run, &record, &fitted, &scores, &session));
    run.write_record(&record)?;
    let subject = Subject {
        folder: run.folder(),
        session: &session,
        record: &record,
        params: &session.backbone.params,
        readout,
        dataset: &dataset,
        pipeline: &pipeline,
    };
    subject.leave_page(console);
    match &record.result {
        Some(result) => console.output(result, || inspection_first(foremost(&scores), table(result))),
        None => Ok(()),
    }
}

/// What Tip-Adapter compares images with; none for probes of features alone.
fn prompts(settings: &Settings, dataset: &Dataset, console: &Console) -> Result<Option<Prompts>> {
    let probe = &settings.probe;
    if probe.method != ProbeMethod::Tip {
        return Ok(None);
    }
    if probe.features != FeatureChoice::Pool || probe.blocks != 1 {
        return Err(Error::usage_hint(
            "probe.method = \"tip\" compares images with texts by the features that were trained for it",
            "set probe.features = \"pool\" and probe.blocks = 1",
        ));
    }
    texts::prompts(settings, &dataset.classes, console).map(Some)
}

/// The scores on validation (before the refit) and on test (once, after it).
fn scores(
    features: &FeatureSet,
    fitted: &Fitted,
    held_out: Scored,
    calibration: &Calibration,
) -> Result<Vec<SplitScore>> {
    let test = features.of(&[Split::Test]);
    let test = Scored { logits: fitted.logits(test.matrix())?, labels: test.labels, indices: test.samples };
    let val = if fitted.held_out.folds.is_some() { Scored::default() } else { held_out };
    let scored = [(Split::Val, val), (Split::Test, test)].into_iter().filter(|(_, scored)| !scored.labels.is_empty());
    let score =
        |(split, scored): (Split, Scored)| SplitScore::new(split.name(), &features.dataset, scored, calibration);
    scored.map(score).collect()
}

fn complete(record: &mut RunRecord, fitted: &Fitted, features: &FeatureSet, readout: Readout, session: &Session) {
    record.status = Status::Done;
    record.cache = Some(features.usage);
    record.trainable_parameters = match &fitted.model {
        FittedProbe::Linear(fit) => fit.head.weight.len() + fit.head.bias.len(),
        FittedProbe::Knn(_) | FittedProbe::Tip(_) => 0,
    };
    record.total_parameters = session.backbone.params.counts().1 + record.trainable_parameters;
    record.probe = Some(ProbeRecord {
        method: session.settings.probe.method,
        readout,
        chosen: fitted.selection.setting(),
        alpha: alpha(fitted),
        fitted_on: fitted.splits.clone(),
    });
}

/// The head, or the images that vote, as the run's best checkpoint.
fn save_model(run: &Run, fitted: &Fitted, texts: Option<&ClassTexts>) -> Result<()> {
    let mut params = Params::default();
    let tensor = |values: &[f32], rows: usize| -> candle_core::Result<Tensor> {
        Tensor::from_slice(values, (rows, values.len() / rows.max(1)), &Device::Cpu)
    };
    match &fitted.model {
        FittedProbe::Linear(fit) => {
            let classes = fit.head.bias.len();
            params.insert("head.weight", tensor(&fit.head.weight, classes)?);
            params.insert("head.bias", Tensor::from_slice(&fit.head.bias, classes, &Device::Cpu)?);
        }
        FittedProbe::Knn(_) => {
            let labels = &fitted.rows.labels;
            params = VoteHead::params(tensor(&fitted.rows.values, labels.len())?, labels)?;
        }
        FittedProbe::Tip(tip) => {
            let (keys, labels) = (tensor(&fitted.rows.values, fitted.rows.labels.len())?, &fitted.rows.labels);
            params.extend(CosineHead::cache(keys, labels, tip.texts.classes(), [tip.alpha, tip.beta])?);
            if let Some(texts) = texts {
                params.extend(texts.zero_shot()?.to_device(&Device::Cpu)?);
            }
        }
    }
    Checkpoints::of_run(run.folder()).save("best", 1, &params.train_where(|_| true)?, None, &Progress::default())
}

fn save_selection(run: &Run, session: &Session, selection: &Selection) -> Result<()> {
    let method = session.settings.probe.method;
    let picture = plots::SelectionPlot {
        title: format!("{}, {}", session.settings.run.name, in_words(method)),
        x_label: method.setting().into(),
        log_x: true,
        points: selection
            .path
            .iter()
            .map(|point| (point.setting, point.train_accuracy, point.validation_accuracy))
            .collect(),
        chosen: selection.setting(),
    };
    plots::save_selection(&run.path("plots/selection"), &picture)
}

/// A method in words.
fn in_words(method: ProbeMethod) -> &'static str {
    match method {
        ProbeMethod::Logistic => "logistic regression",
        ProbeMethod::Svm => "linear SVM",
        ProbeMethod::Knn => "nearest neighbours",
        ProbeMethod::Tip => "Tip-Adapter",
    }
}

/// Tip-Adapter's weight of the votes beside the texts.
fn alpha(fitted: &Fitted) -> Option<f64> {
    match &fitted.model {
        FittedProbe::Tip(tip) => Some(tip.alpha),
        FittedProbe::Linear(_) | FittedProbe::Knn(_) => None,
    }
}

/// What `probe --json` prints.
fn result(
    run: &Run,
    record: &RunRecord,
    fitted: &Fitted,
    scores: &[SplitScore],
    session: &Session,
) -> serde_json::Value {
    let chosen = &fitted.selection.path[fitted.selection.chosen];
    let test = of(scores, Split::Test);
    let settings = &session.settings.probe;
    let advice = Advice {
        target: settings.target,
        accuracy: test.map_or(chosen.validation_accuracy, |test| test.accuracy),
        interval: test.and_then(|test| test.accuracy_ci95),
        majority: test.map(|test| test.majority_baseline),
        train_accuracy: chosen.train_accuracy,
        held_out_accuracy: chosen.validation_accuracy,
    };
    json!({
        "run": run.folder(),
        "strategy": "probe",
        "method": settings.method,
        "features": settings.features,
        "blocks": settings.blocks,
        "chosen": chosen.setting,
        "alpha": alpha(fitted),
        "chosen_on": match fitted.held_out.folds {
            Some(folds) => format!("{folds} folds of the training images"),
            None => "validation images".to_owned(),
        },
        "fitted_on": fitted.splits,
        "objective": match &fitted.model {
            FittedProbe::Linear(fit) => Some(fit.objective),
            FittedProbe::Knn(_) | FittedProbe::Tip(_) => None,
        },
        "trainable_parameters": record.trainable_parameters,
        "total_parameters": record.total_parameters,
        "train_accuracy": chosen.train_accuracy,
        "val_accuracy": chosen.validation_accuracy,
        "test_accuracy": test.map(|test| test.accuracy),
        "test_accuracy_ci95": test.and_then(|test| test.accuracy_ci95),
        "seconds": record.wall_seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "cache": record.cache,
        "path": fitted.selection.path.iter().map(|point| json!({
            "setting": point.setting,
            "train_accuracy": point.train_accuracy,
            "val_accuracy": point.validation_accuracy,
            "objective": point.objective,
            "iterations": point.iterations,
            "converged": point.converged,
        })).collect::<Vec<_>>(),
        "target": settings.target,
        "advice": advice.sentence(),
        "inspection": inspection(scores),
    })
}

/// The result as a table for people; every number is the one of the JSON.
fn table(result: &serde_json::Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
    let share = |key: &str| result[key].as_f64().map_or("no such images".to_owned(), percent);
    let test = match result["test_accuracy_ci95"].as_array().map(Vec::as_slice) {
        Some([low, high]) => format!(
            "{} (95 %: {} to {})",
            share("test_accuracy"),
            percent(low.as_f64().unwrap_or_default()),
            percent(high.as_f64().unwrap_or_default())
        ),
        _ => share("test_accuracy"),
    };
    let chosen = result["chosen"].as_f64().unwrap_or_default();
    let setting = match (result["method"].as_str(), result["alpha"].as_f64()) {
        (_, Some(alpha)) => format!("α = {alpha:.2}, β = {chosen:.2}"),
        (Some("knn"), None) => format!("k = {chosen}"),
        _ => format!("C = {chosen:.3e}"),
    };
    let cache = &result["cache"];
    key_value_table(&[
        ("probe", text("method")),
        ("chosen", format!("{setting} on {}", text("chosen_on"))),
        ("training accuracy", share("train_accuracy")),
        ("held-out accuracy", share("val_accuracy")),
        ("test accuracy", test),
        ("features", format!("{} from the cache, {} computed", cache["hits"], cache["misses"])),
        ("time", format!("{:.1} s", result["seconds"].as_f64().unwrap_or_default())),
        ("advice", text("advice")),
        ("run", text("run")),
    ])
}
