//! `vitadapt finetune`: data, model, training loop, scores, report.

use super::ConfigArgs;
use super::features::FeatureSet;
use super::fit_probe::fit;
use super::forecast::{Sizes, forecast};
use super::inspect::{Inspected, inspect};
use super::kept;
use super::prompt;
use super::records::{create_run, new_record, write_down};
use super::score::{read_evaluation, score_splits, write_evaluations};
use super::session::{ModelShape, Session, load_saved};
use crate::backbone::{Readout, is_visual_prompt};
use crate::cache::Key;
use crate::config::{self, HeadInit, LossSettings, LossWeights, Precision, Refit, Sampler, Settings};
use crate::data::{Dataset, Split, balance};
use crate::error::{Error, Result};
use crate::metrics::Evaluation;
use crate::nn::Criterion;
use crate::probe::Model;
use crate::report::{
    Console, Forecast, Run, RunRecord, Status, TrainingReport, changes, key_value_table, mebibytes, percent, plots,
    recall_table, refuse, verdict,
};
use crate::strategy::Plan;
use crate::system::memory::peak_memory_bytes;
use crate::system::signals::StopRequest;
use crate::train::adamw::AdamW;
use crate::train::checkpoint::Checkpoints;
use crate::train::classifier::HeadKind;
use crate::train::feed::{Feed, Kept};
use crate::train::fit::{Ending, Fit};
use crate::train::forecast::Texts;
use crate::train::mix::Mixer;
use crate::train::progress::Progress;
use crate::train::safeguard::Safeguard;
use crate::train::trainer::Trainer;
use candle_core::Tensor;
use clap::Args;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `finetune`.
#[derive(Debug, Args)]
pub struct FinetuneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Continue the run of this config where it stopped
    #[arg(long)]
    resume: bool,
}

/// Trains and scores.
///
/// # Errors
/// Every failure of the modules it composes.
pub fn run(args: &FinetuneArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    let settings = args.config.load()?;
    let stop = StopRequest::listen()?;
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    let mut session = prompt::open(settings, console)?;
    let prompts = prompt::context(&session, &dataset.classes, console)?;
    let (head, plan) = match &prompts {
        Some(prompts) => (HeadKind::Cosine, session.plan_prompted(prompts)?),
        None => (HeadKind::Linear, session.plan(Readout::POOL, dataset.classes.len())?),
    };
    let inspected = inspect(&session, dataset, console)?;
    let (images, classes) = (inspected.dataset.samples.len(), inspected.dataset.classes.len());
    let stage = kept::stage(&session, &plan, &inspected.preprocess, images, console);
    let shape = ModelShape { stage, readout: Readout::POOL, head, classes, knn: None };
    let trainer = session.trainer(shape, &plan)?;
    let trainer = match prompts {
        Some(prompts) => trainer.prompted(prompts)?,
        None => trainer,
    };
    let mut record = new_record(&session, &inspected, session.settings.strategy.kind());
    record.head = head;
    (record.trainable_parameters, record.total_parameters) = trainer.counts();
    let Some(run) = open_run(&session.settings, &mut record, args.resume, console)? else {
        return Ok(());
    };
    let sizes = Sizes {
        parameters: (record.trainable_parameters, record.total_parameters),
        images: (record.data.train, record.data.val),
        texts: trainer.prompts().map(Texts::of),
    };
    let forecast = forecast(&session, &plan, stage, sizes)?;
    describe(&record, &forecast, &session, console);
    record.forecast = Some(forecast);
    warn_of_double_balance(&session.settings, console);
    let mut training = Training::new(session, inspected, trainer, plan, run, record)?;
    let ending = training.fit(&stop, console, args.resume);
    training.record.wall_seconds += clock.elapsed().as_secs_f64();
    training.record.peak_memory_bytes = peak_memory_bytes().max(training.record.peak_memory_bytes);
    match ending? {
        Ending::Finished => training.finish(console),
        Ending::Stopped(signal) => {
            training.record.status = Status::Stopped;
            training.run.write_record(&training.record)?;
            let run = training.run.folder().to_path_buf();
            Err(Error::Stopped { signal: signal.name(), code: signal.exit_code(), run })
        }
    }
}

/// Creates the run directory, or opens the one to resume after checking that nothing has changed. None when the run to
/// resume is complete: its result is printed again.
fn open_run(settings: &Settings, record: &mut RunRecord, resume: bool, console: &Console) -> Result<Option<Run>> {
    if resume {
        if let Some(run) = Run::resume(settings)? {
            let earlier = RunRecord::read(run.folder())?;
            let saved = config::load(Some(&run.path("config.toml")), &[])?;
            refuse(&changes(&saved, settings))?;
            earlier.check_same(record)?;
            record.wall_seconds = earlier.wall_seconds;
            record.peak_memory_bytes = earlier.peak_memory_bytes;
            if earlier.status == Status::Done {
                console.info(format!("{} is complete, nothing is left to do", run.folder().display()));
                print_result(&run, &earlier, console)?;
                return Ok(None);
            }
            return Ok(Some(run));
        }
        console.info("there is no run to resume yet, starting it");
    }
    create_run(settings, console).map(Some)
}

fn describe(record: &RunRecord, forecast: &Forecast, session: &Session, console: &Console) {
    let (backbone, data) = (&record.backbone, &record.data);
    let spec = &session.backbone.spec;
    console.info(format!(
        "backbone  {} ({}, {}), {} px, {} tokens",
        backbone.name,
        backbone.family,
        backbone.architecture,
        spec.image_size,
        spec.tokens()
    ));
    let classes = record.classes.len();
    console.info(format!("data      {} train, {} val, {} test, {classes} classes", data.train, data.val, data.test));
    let (trainable, total) = (record.trainable_parameters, record.total_parameters);
    console.info(format!(
        "strategy  {}: {} of {} parameters learn ({:.2} %)",
        session.settings.strategy,
        thousands(trainable),
        thousands(total),
        100.0 * trainable as f64 / total as f64
    ));
    console.info(format!("device    {}, {} worker(s)", record.device, record.threads));
    console.info(format!("plan      {}", forecast.sentence()));
    for (part, bytes) in forecast.parts() {
        console.detail(format!("          {part} {bytes}"));
    }
    if let Some(warning) = forecast.warning() {
        console.warn(warning);
    }
    if session.settings.run.precision != Precision::F32 && session.device.is_cpu() {
        console.warn("half precision saves no time on a CPU: products are computed in f32 and rounded");
    }
    let (geometry, normalization) = (&record.preprocess.geometry, &record.preprocess.normalization);
    console.detail(format!("resize    {:?}, {:?}", geometry.resize, geometry.interpolation));
    console.detail(format!("normalize {normalization:?}"));
    console.detail(format!("sha256    {} (weights), {} (data)", backbone.sha256, data.sha256));
}

/// 5125 as `5,125`.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A run under way.
struct Training {
    session: Session,
    trainer: Trainer,
    plan: Plan,
    feed: Feed,
    keys: Arc<Vec<Key>>,
    criterion: Criterion,
    checkpoints: Checkpoints,
    progress: Progress,
    run: Run,
    record: RunRecord,
}

impl Training {
    /// Writes down what is fixed before training: the config, the splits, the skipped files, the record.
    fn new(
        session: Session,
        mut inspected: Inspected,
        trainer: Trainer,
        plan: Plan,
        run: Run,
        record: RunRecord,
    ) -> Result<Self> {
        let settings = &session.settings;
        write_down(&run, settings, &inspected, &record)?;
        let criterion = criterion(settings, &inspected.dataset);
        let keys = Arc::new(std::mem::take(&mut inspected.keys));
        let feed = Feed {
            training: Arc::new(inspected.training_pipeline(&session)),
            evaluation: Arc::new(inspected.evaluation_pipeline(&session)),
            dataset: Arc::new(inspected.dataset),
            sampler: settings.train.sampler,
            seed: settings.run.seed,
            batch_size: settings.train.batch_size,
            threads: session.decode_threads(),
            views: kept::views(settings),
            kept: None,
        };
        let checkpoints = Checkpoints::of_run(run.folder());
        let micro_batches = record.forecast.map_or(1, |forecast| forecast.micro_batches);
        let safeguard = Safeguard::new(micro_batches, settings.run.precision);
        let progress = Progress { safeguard, ..Progress::default() };
        Ok(Self { session, trainer, plan, feed, keys, criterion, checkpoints, progress, run, record })
    }

    /// The loop, from the start or from the last checkpoint.
    fn fit(&mut self, stop: &StopRequest, console: &Console, resume: bool) -> Result<Ending> {
        let mut optimizer = AdamW::new(self.plan.clone(), &self.trainer.params)?;
        if resume {
            self.restore(&mut optimizer, console)?;
        }
        if self.progress.step == 0 && self.session.settings.model.head_init == HeadInit::Probe {
            self.start_from_probe(console)?;
        }
        let watched = (self.run.folder(), stop);
        let kept = kept::keep(&self.session, &self.trainer, &self.feed, &self.keys, watched, console);
        if let (Err(Error::Stopped { .. }), Some(signal)) = (&kept, stop.received()) {
            return Ok(Ending::Stopped(signal));
        }
        self.feed.kept = kept?;
        self.record.cache = self.feed.kept.as_ref().map(Kept::usage);
        let settings = &self.session.settings;
        let side = self.feed.training.preprocess().geometry.image_size;
        let fit = Fit {
            settings: &settings.train,
            early_stop: &settings.early_stop,
            seed: settings.run.seed,
            trainer: &self.trainer,
            criterion: &self.criterion,
            feed: &self.feed,
            mixer: Mixer::new(&settings.train, self.feed.dataset.classes.len(), side, settings.run.seed),
            checkpoints: &self.checkpoints,
            stop,
        };
        let images = self.feed.len(Split::Train);
        let epochs = fit.total_steps().div_ceil(fit.steps_per_epoch().max(1));
        let mut report = TrainingReport::new(console, &self.run, epochs, images, &self.progress)?;
        fit.run(&mut self.progress, &mut optimizer, &mut report)
    }

    /// Sets the head to the linear probe of the training images: fine-tuning then starts where the features need not
    /// change for the head's sake (Kumar et al. 2022). Validation images choose its C but are not fitted, since they
    /// choose the epoch too.
    fn start_from_probe(&self, console: &Console) -> Result<()> {
        let (session, params) = (&self.session, &self.trainer.params);
        let images = (&self.feed.dataset, &self.keys, &self.feed.evaluation);
        // Those of the pretrained backbone, which prompts that have not learnt yet would only disturb.
        let mut pretrained = params.detached();
        pretrained.retain(|name| !is_visual_prompt(name));
        let weights = &session.backbone.sha256;
        let features = FeatureSet::compute(session, &pretrained, weights, Readout::POOL, images, console)?;
        let fitted = fit(&features, session, Refit::Train, console)?;
        let Model::Linear(found) = &fitted.model else {
            return Err(Error::usage_hint(
                "model.head_init = \"probe\" needs a linear probe, but probe.method = \"knn\"",
                "set probe.method = \"logistic\" or \"svm\"",
            ));
        };
        let chosen = &fitted.selection.path[fitted.selection.chosen];
        console.info(format!(
            "head      from a probe with C = {:.3e}: {} on held-out images",
            chosen.setting,
            percent(chosen.validation_accuracy)
        ));
        let head = [("head.weight", &found.head.weight), ("head.bias", &found.head.bias)];
        for (name, var) in params.trained() {
            if let Some((_, values)) = head.iter().find(|(wanted, _)| *wanted == name) {
                var.set(&Tensor::from_slice(values, var.shape(), var.device())?)?;
            }
        }
        Ok(())
    }

    fn restore(&mut self, optimizer: &mut AdamW, console: &Console) -> Result<()> {
        let Some(saved) = self.checkpoints.load::<Progress>("last")? else { return Ok(()) };
        load_saved(&self.trainer, &saved.params, self.run.folder())?;
        self.progress = saved.state;
        optimizer.restore(self.progress.updates, saved.optimizer.unwrap_or_default())?;
        console.info(format!("resuming after epoch {}, step {}", self.progress.epoch, self.progress.step));
        Ok(())
    }

    /// Scores the best epoch, writes the reports and prints the result.
    fn finish(mut self, console: &Console) -> Result<()> {
        if let Some(best) = self.checkpoints.load::<Progress>("best")? {
            load_saved(&self.trainer, &best.params, self.run.folder())?;
        }
        let scores =
            score_splits(&self.feed, &self.trainer, &self.record.classes, &[Split::Val, Split::Test], console)?;
        self.record.temperature = scores.temperature;
        write_evaluations(self.run.folder(), &scores.evaluations)?;
        self.draw_curves()?;
        self.record.status = Status::Done;
        self.record.result = Some(self.result(&scores.evaluations));
        self.run.write_record(&self.record)?;
        print_result(&self.run, &self.record, console)
    }

    fn draw_curves(&self) -> Result<()> {
        let best = self.progress.early_stop.best_epoch();
        let title = format!("{}, {}", self.session.settings.run.name, self.session.settings.strategy);
        plots::save_curves(&self.run.path("plots/curves"), &title, &self.progress.history, best)
    }

    /// What `finetune --json` prints.
    fn result(&self, evaluations: &[Evaluation]) -> serde_json::Value {
        let accuracy = |wanted: Split| evaluations.iter().find(|e| e.split == wanted.name()).map(|e| e.accuracy);
        let history = &self.progress.history;
        let verdict = verdict(history);
        let training_seconds: f64 =
            history.iter().map(|epoch| self.record.data.train as f64 / epoch.images_per_second).sum();
        let images = (self.record.data.train * history.len()) as f64;
        json!({
            "run": self.run.folder(),
            "strategy": self.record.strategy,
            "trainable_parameters": self.record.trainable_parameters,
            "total_parameters": self.record.total_parameters,
            "epochs": history.len(),
            "best_epoch": self.progress.early_stop.best_epoch(),
            "val_accuracy": accuracy(Split::Val),
            "test_accuracy": accuracy(Split::Test),
            "seconds": self.record.wall_seconds,
            "images_per_second": images / training_seconds,
            "peak_memory_bytes": self.record.peak_memory_bytes,
            "expected_memory_bytes": self.record.forecast.map(|forecast| forecast.memory.total()),
            "cache": self.record.cache,
            "verdict": verdict.code(),
            "verdict_reason": verdict.sentence(),
        })
    }
}

/// The training loss, with what it needs to know of the classes' sizes.
fn criterion(settings: &Settings, dataset: &Dataset) -> Criterion {
    let train = &settings.train;
    let counts = dataset.class_counts(Split::Train);
    let (focal_gamma, logit_offsets) = match train.loss {
        LossSettings::CrossEntropy => (0.0, Vec::new()),
        LossSettings::Focal { gamma } => (gamma, Vec::new()),
        LossSettings::LogitAdjusted { tau } => (0.0, balance::logit_offsets(tau, &counts)),
    };
    Criterion {
        label_smoothing: train.label_smoothing as f32,
        class_weights: balance::class_weights(train.class_weights, &counts),
        focal_gamma,
        logit_offsets,
    }
}

/// Warns of rare classes that are made up for more than once.
fn warn_of_double_balance(settings: &Settings, console: &Console) {
    let train = &settings.train;
    let remedies = [
        (train.class_weights != LossWeights::None, "train.class_weights"),
        (train.sampler == Sampler::Balanced, "train.sampler = \"balanced\""),
        (matches!(train.loss, LossSettings::LogitAdjusted { .. }), "train.loss = \"logit_adjusted\""),
    ];
    let chosen: Vec<&str> = remedies.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if chosen.len() > 1 {
        console.warn(format!("{} each make up for rare classes: together they overdo it", chosen.join(" and ")));
    }
}

/// The result, and for people how each class fared: on test images, or else on validation images.
fn print_result(run: &Run, record: &RunRecord, console: &Console) -> Result<()> {
    let Some(result) = &record.result else { return Ok(()) };
    let scored = [Split::Test, Split::Val].into_iter().find_map(|split| read_evaluation(run.folder(), split));
    console.output(result, || match &scored {
        Some(evaluation) => format!("{}\n\n{}", result_table(result), recall_table(evaluation)),
        None => result_table(result),
    })
}

/// The result as a table for people; every number is the one of the JSON.
fn result_table(result: &serde_json::Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
    let count = |key: &str| result[key].as_u64().map_or("none".to_owned(), |n| thousands(n as usize));
    let share = |key: &str| result[key].as_f64().map_or("no such images".to_owned(), percent);
    let trainable = format!("{} of {}", count("trainable_parameters"), count("total_parameters"));
    let speed = result["images_per_second"].as_f64().unwrap_or_default();
    let bytes = |key: &str| result[key].as_u64().map_or("unknown".to_owned(), mebibytes);
    let memory = format!("{} ({} expected)", bytes("peak_memory_bytes"), bytes("expected_memory_bytes"));
    key_value_table(&[
        ("strategy", text("strategy")),
        ("parameters that learn", trainable),
        ("epochs (best)", format!("{} ({})", count("epochs"), count("best_epoch"))),
        ("validation accuracy", share("val_accuracy")),
        ("test accuracy", share("test_accuracy")),
        ("time", format!("{:.1} s", result["seconds"].as_f64().unwrap_or_default())),
        ("training speed", format!("{speed:.0} images/s")),
        ("peak memory", memory),
        ("verdict", text("verdict_reason")),
        ("run", text("run")),
    ])
}
