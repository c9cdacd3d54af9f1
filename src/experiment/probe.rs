//! A probe: frozen features, a simple classifier on them, its one free number chosen on held-out images.

use super::doubts::write_first;
use super::features::FeatureSet;
use super::fit_probe::{Fitted, fit, fit_tip};
use super::head;
use super::images::check_images;
use super::mahalanobis;
use super::open::Opened;
use super::page::PageInputs;
use super::patchcore::patchcore;
use super::pooling::{self, OpenChoices};
use super::record::{Completed, conclude, recorded, start_run};
use super::reference::{self, ReferenceFeatures};
use super::score::{Calibration, SplitScore, foremost, inspection, of};
use super::session::Session;
use super::texts::{self, ClassTexts};
use crate::backbone::{Layer, Params, Readout};
use crate::config::{ClassWeights, FeatureChoice, MetricChoice, ProbeMethod, ProbeSettings, Settings};
use crate::data::Split;
use crate::error::{Error, Result};
use crate::metrics::Evaluation;
use crate::model::{CosineHead, Scored, VoteHead};
use crate::probe::FittedProbe;
use crate::report::{Advice, Console, PathPoint, ProbeRecord, ProbeResult, Run, RunRecord, RunResult, Status, plots};
use crate::train::checkpoint::Checkpoints;
use crate::train::progress::Progress;
use candle_core::{Device, Tensor};
use std::time::Instant;

/// Fits, scores and saves the probe of the settings.
///
/// # Errors
/// Usage, data and weights errors, all before anything is fitted but for files that change under way; I/O errors.
pub fn probe(mut settings: Settings, console: &Console) -> Result<Completed> {
    if settings.probe.method == ProbeMethod::Patchcore {
        return patchcore(settings, console);
    }
    let clock = Instant::now();
    let worded = compares_with_texts(&settings.probe)?;
    let open = OpenChoices::of(&mut settings)?;
    let (Opened { mut session, dataset }, texts) = Opened::with_texts_if(worded, settings, console)?;
    let wanted = session.settings.probe.clone();
    let readout = Readout::new("probe", wanted.features, wanted.blocks, &session.backbone.spec)?;
    let checked = check_images(&session, dataset, console)?;
    let images = checked.images(&session);
    let weights = mahalanobis::measure(&mut session, &images, console)?;
    let chosen = open.map(|open| pooling::choose(&mut session, (open, &weights), &images, console)).transpose()?;
    let (run, mut record) = start_run(&session, &checked, ("probe", head::kind(worded)), console)?;

    recorded(&run, &mut record, |record| {
        let (features, pools) = if let Some(chosen) = chosen {
            (chosen.features, chosen.scores)
        } else {
            let backbone = (&session.backbone.params, weights.as_str());
            (FeatureSet::compute(&session, backbone, readout, &images, console)?, Vec::new())
        };
        // What the head reads, before texts are compared with it.
        let references = || Ok(ReferenceFeatures::among(&features));
        record.reference = reference::remember(run.folder(), &session, &images.dataset, references, console)?;
        let (features, fitted) = match &texts {
            None => {
                let fitted = fit(&features, &session, wanted.refit, console)?;
                (features, fitted)
            }
            Some(texts) => {
                let embeddings = texts::embedded(&features, &session.cosine_params(&texts.zero_shot()?)?)?;
                let fitted = fit_tip(&embeddings, &texts.linear()?, &session, wanted.refit, console)?;
                (embeddings, fitted)
            }
        };
        // Images that were held out: the validation images, or the training images fold by fold.
        let held_out = Scored::from(&fitted.held_out);
        let calibration = Calibration::fit(Some(&held_out), &record.classes, &session.settings.inspection)?;
        let mut scores = scores(&features, &fitted, held_out, &calibration)?;
        // Without images of their own to be scored on, folds of the training images are what there is.
        let judged = match foremost(&scores) {
            Some(evaluation) => evaluation.clone(),
            None => SplitScore::new("held-out", &features.dataset, (&fitted.held_out).into(), &calibration)?.evaluation,
        };
        calibration.record(record, console);

        save_selection(&run, &session, &fitted)?;
        save_model(&run, &fitted, texts.as_ref(), &session.backbone.params)?;
        complete(record, &fitted, &features, readout, &session);
        write_first(run.folder(), &features.dataset, record, &mut scores)?;
        let result = conclude((&run, record), (&session, &checked), clock, |record| {
            let result = result((&run, record), &fitted, (&scores, &judged), &features, &session);
            RunResult::Probe(Box::new(ProbeResult { pools, ..result }))
        })?;
        let page = PageInputs {
            folder: run.folder(),
            session: &session,
            record,
            params: &session.backbone.params,
            readout,
            head: linear_head(&fitted)?,
            patches: None,
            dataset: &images.dataset,
            pipeline: &images.pipeline,
        };
        page.leave(console);
        Ok(Completed::new(&run, record, result, &scores))
    })
}

/// Whether images are compared with texts, as by Tip-Adapter, and not with one another alone.
fn compares_with_texts(settings: &ProbeSettings) -> Result<bool> {
    if settings.method != ProbeMethod::Tip {
        return Ok(false);
    }
    if settings.features != FeatureChoice::Pool || settings.blocks != 1 {
        let message = "probe.method = \"tip\" compares images with texts by the features that were trained for it";
        return Err(Error::usage_hint(message, "set probe.features = \"pool\" and probe.blocks = 1"));
    }
    if !matches!(settings.metric, MetricChoice::Auto | MetricChoice::Accuracy) {
        let message = "probe.method = \"tip\" chooses its weights by accuracy, and probe.metric names another metric";
        return Err(Error::usage_hint(message, "leave probe.metric out, or set probe.method to \"logistic\""));
    }
    Ok(true)
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
        patches: None,
        fitted_on: fitted.splits.clone(),
    });
}

fn tensor(values: &[f32], rows: usize) -> candle_core::Result<Tensor> {
    Tensor::from_slice(values, (rows, values.len() / rows.max(1)), &Device::Cpu)
}

/// The weights (C, w) of a linear probe.
fn linear_head(fitted: &Fitted) -> Result<Option<Tensor>> {
    match &fitted.model {
        FittedProbe::Linear(fit) => Ok(Some(tensor(&fit.head.weight, fit.head.bias.len())?)),
        FittedProbe::Knn(_) | FittedProbe::Tip(_) => Ok(None),
    }
}

/// The head, or the images that vote, as the run's best checkpoint.
fn save_model(run: &Run, fitted: &Fitted, texts: Option<&ClassTexts>, backbone: &Params) -> Result<()> {
    let mut params = Params::default();
    for name in [Layer::Whitening.weight(), Layer::Whitening.bias()] {
        if let Some(measured) = backbone.get(name) {
            params.insert(name, measured.to_device(&Device::Cpu)?);
        }
    }
    match &fitted.model {
        FittedProbe::Linear(fit) => {
            let classes = fit.head.bias.len();
            params.insert(Layer::Head.weight(), tensor(&fit.head.weight, classes)?);
            params.insert(Layer::Head.bias(), Tensor::from_slice(&fit.head.bias, classes, &Device::Cpu)?);
        }
        FittedProbe::Knn(_) => {
            let labels = &fitted.rows.labels;
            params.extend(VoteHead::params(tensor(&fitted.rows.values, labels.len())?, labels)?);
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

fn save_selection(run: &Run, session: &Session, fitted: &Fitted) -> Result<()> {
    let selection = &fitted.selection;
    let method = session.settings.probe.method;
    let picture = plots::SelectionPlot {
        title: format!("{}, {}", session.settings.run.name, in_words(method)),
        x_label: method.setting().into(),
        points: selection
            .path
            .iter()
            .map(|point| (point.setting, point.train_accuracy, point.validation_accuracy))
            .collect(),
        chosen: selection.setting(),
        metric: fitted.metric,
    };
    plots::save(&picture, &run.path("plots/selection"))
}

/// A method in words.
fn in_words(method: ProbeMethod) -> &'static str {
    match method {
        ProbeMethod::Logistic => "logistic regression",
        ProbeMethod::Svm => "linear SVM",
        ProbeMethod::Knn => "nearest neighbours",
        ProbeMethod::Tip => "Tip-Adapter",
        ProbeMethod::Patchcore => "PatchCore",
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
    (run, record): (&Run, &RunRecord),
    fitted: &Fitted,
    (scores, judged): (&[SplitScore], &Evaluation),
    features: &FeatureSet,
    session: &Session,
) -> ProbeResult {
    let chosen = &fitted.selection.path[fitted.selection.chosen];
    let test = of(scores, Split::Test);
    let settings = &session.settings.probe;
    let at_edge = fitted.selection.at_edge();
    let advice = Advice {
        target: settings.target,
        metric: fitted.metric,
        scored: judged,
        // Votes have no weights of classes.
        balanced: settings.class_weights == ClassWeights::Balanced
            || matches!(settings.method, ProbeMethod::Knn | ProbeMethod::Tip),
        train_accuracy: chosen.train_accuracy,
        held_out_accuracy: chosen.validation_accuracy,
        // Every image may vote, and Tip-Adapter's range is not the user's.
        at_edge: (at_edge && matches!(settings.method, ProbeMethod::Logistic | ProbeMethod::Svm))
            .then(|| settings.method.setting()),
    };
    ProbeResult {
        run: run.folder().to_path_buf(),
        strategy: record.strategy.clone(),
        method: settings.method,
        features: settings.features,
        blocks: settings.blocks,
        chosen: chosen.setting,
        at_edge,
        metric: Some(fitted.metric),
        alpha: alpha(fitted),
        chosen_on: match fitted.held_out.folds {
            Some(folds) => format!("{folds} folds of the training images"),
            None => "validation images".to_owned(),
        },
        fitted_on: fitted.splits.clone(),
        objective: match &fitted.model {
            FittedProbe::Linear(fit) => Some(fit.objective),
            FittedProbe::Knn(_) | FittedProbe::Tip(_) => None,
        },
        trainable_parameters: record.trainable_parameters,
        total_parameters: record.total_parameters,
        train_accuracy: chosen.train_accuracy,
        val_accuracy: chosen.validation_accuracy,
        test_accuracy: test.map(|test| test.accuracy),
        test_accuracy_ci95: test.and_then(|test| test.accuracy_ci95),
        seconds: record.wall_seconds,
        peak_memory_bytes: record.peak_memory_bytes,
        cache: features.usage,
        path: fitted.selection.path.iter().map(PathPoint::from).collect(),
        target: settings.target,
        advice: advice.sentence(),
        inspection: inspection(scores).cloned(),
        pool: session.settings.model.pool,
        tile_pool: session.settings.preprocess.tiles.map(|_| session.settings.model.tile_pool),
        pools: Vec::new(),
    }
}
