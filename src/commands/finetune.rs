//! `vitadapt finetune`: data, model, training loop, scores, report.

mod head_start;

use super::ConfigArgs;
use crate::backbone::Readout;
use crate::cache::Key;
use crate::config::{self, HeadInit, Precision, Settings};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::experiment::forecast::{Sizes, forecast};
use crate::experiment::inspect::{Inspected, inspect};
use crate::experiment::keep;
use crate::experiment::known::{self, Seen};
use crate::experiment::loss::{criterion, warn_of_double_balance};
use crate::experiment::page::Subject;
use crate::experiment::prompt;
use crate::experiment::record::{create_run, new_record, write_down};
use crate::experiment::score::{self, SplitScore, evaluate_splits, read_evaluation, score_splits, write_scores};
use crate::experiment::session::{ModelShape, Session, computation, load_saved};
use crate::experiment::texts::{self, ClassTexts};
use crate::features::ReferenceRecord;
use crate::metrics::good_classes;
use crate::model::{BatchSource, DropRates, FrozenInputs, HeadKind, Model};
use crate::report::{
    Console, Forecast, Run, RunRecord, Status, TrainingReport, changes, inspection_first, key_value_table, mebibytes,
    percent, plots, recall_table, refuse, thousands, verdict,
};
use crate::strategy::Plan;
use crate::system::memory::peak_memory_bytes;
use crate::system::signals::{Signal, StopRequest};
use crate::train::checkpoint::Checkpoints;
use crate::train::fit::{Ending, Fit};
use crate::train::forecast::{Images, Texts};
use crate::train::mix::Mixer;
use crate::train::progress::Progress;
use crate::train::safeguard::Safeguard;
use crate::train::soup::clear_ingredients;
use crate::train::state::TrainState;
use crate::train::trainer::{Objective, Trainer};
use candle_core::Tensor;
use clap::Args;
use head_start::{FINETUNED, check_wise_ft};
use serde_json::json;
use std::collections::BTreeMap;
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
    /// Do not train: raise the learning rate step by step, and draw where the loss falls and where it breaks away
    #[arg(long, conflicts_with = "resume")]
    find_lr: bool,
}

/// Trains and scores.
///
/// # Errors
/// Every failure of the modules it composes.
pub fn run(args: &FinetuneArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    let mut settings = args.config.load()?;
    if args.find_lr {
        // A folder of its own: the run itself is not touched.
        settings.run.name.push_str("-lr");
    }
    let stop = StopRequest::listen()?;
    let Prepared { session, plan, inspected, model, texts } = prepare(settings, console)?;
    let mut record = new_record(&session, &inspected, session.settings.strategy.kind());
    record.head = model.spec().head;
    (record.trainable_parameters, record.total_parameters) = model.counts();
    let Some(run) = open_run(&session.settings, &mut record, args.resume, console)? else {
        return Ok(());
    };
    let sizes = Sizes {
        parameters: (record.trainable_parameters, record.total_parameters),
        images: Images { train: record.data.train, val: record.data.val, test: record.data.test },
        texts: model.directions().map(|directions| Texts::of(directions.prompts())),
    };
    let trained = (&session.backbone.spec, &plan, model.spec().stage);
    let forecast = forecast(&session.settings, trained, sizes, (&session.device, &session.workers))?;
    describe(&record, &forecast, &session, console);
    record.forecast = Some(forecast);
    warn_of_double_balance(&session.settings, console);
    let mut training = Training::new(session, inspected, (model, texts), plan, run, record)?;
    if args.find_lr {
        return training.find_lr(&stop, console);
    }
    let ending = training.fit(&stop, console, args.resume);
    training.record.wall_seconds += clock.elapsed().as_secs_f64();
    training.record.peak_memory_bytes = peak_memory_bytes().max(training.record.peak_memory_bytes);
    match ending? {
        Ending::Finished => training.finish(console),
        Ending::Stopped(signal) => Err(training.stopped(signal)?),
    }
}

/// A model and its images, before anything is written or learns.
struct Prepared {
    session: Session,
    plan: Plan,
    inspected: Inspected,
    model: Model,
    /// The classes in words, when the head starts from them.
    texts: Option<ClassTexts>,
}

fn prepare(settings: Settings, console: &Console) -> Result<Prepared> {
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    good_classes(&settings.inspection.good, &dataset.classes)?;
    check_wise_ft(&settings, dataset.indices(Split::Val).len())?;
    let prompts = texts::prompts_of_head(&settings, &dataset.classes, console)?;
    let mut session = prompt::open(settings, prompts.is_some(), console)?;
    let context = prompt::context(&session, &dataset.classes, console)?;
    let texts = prompts.map(|prompts| ClassTexts::new(&session, prompts)).transpose()?;
    let (head, plan) = match (&context, &texts) {
        (Some(context), _) => (HeadKind::Cosine, session.plan_prompted(context)?),
        (None, texts) => {
            let head = if texts.is_some() { HeadKind::Cosine } else { HeadKind::Linear };
            (head, session.plan(head, Readout::POOL, dataset.classes.len())?)
        }
    };
    let inspected = inspect(&session, dataset, console)?;
    let (images, classes) = (inspected.dataset.samples.len(), inspected.dataset.classes.len());
    let stage = keep::stage(&session.settings, &session.backbone.spec, &plan, images, console);
    let model = session.model(ModelShape { stage, readout: Readout::POOL, head, classes }, &plan, context)?;
    if let Some(texts) = &texts {
        let head = texts.zero_shot()?;
        model.params.assign(|name, _| Ok(head.get(name)))?;
    }
    Ok(Prepared { session, plan, inspected, model, texts })
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
                let checkpoints = Checkpoints::of_run(run.folder());
                clear_ingredients(&checkpoints, earlier.soup.as_ref())?;
                checkpoints.remove(FINETUNED)?;
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
    let joining = match session.settings.unfreeze {
        0 => String::new(),
        1 => ", one block more every epoch".into(),
        epochs => format!(", one block more every {epochs} epochs"),
    };
    console.info(format!(
        "strategy  {}{joining}: {} of {} parameters learn ({:.2} %)",
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

/// A run under way.
pub(super) struct Training {
    pub(super) session: Session,
    model: Model,
    plan: Plan,
    objective: Objective,
    source: BatchSource,
    keys: Arc<Vec<Key>>,
    checkpoints: Checkpoints,
    progress: Progress,
    pub(super) run: Run,
    pub(super) record: RunRecord,
    /// What the head starts from, when those are texts.
    texts: Option<ClassTexts>,
    /// The learning parameters before training, when they are wanted after it.
    start: Option<BTreeMap<String, Tensor>>,
}

impl Training {
    /// Writes down what is fixed before training: the config, the splits, the skipped files, the record.
    fn new(
        session: Session,
        mut inspected: Inspected,
        (model, texts): (Model, Option<ClassTexts>),
        plan: Plan,
        run: Run,
        record: RunRecord,
    ) -> Result<Self> {
        let settings = &session.settings;
        write_down(&run, settings, &inspected, &record)?;
        let objective = Objective {
            criterion: criterion(settings, &inspected.dataset),
            regulariser: None,
            drop: DropRates { path: settings.model.drop_path, head: settings.model.head_dropout },
        };
        let keys = Arc::new(std::mem::take(&mut inspected.keys));
        let evaluation = inspected.evaluation_pipeline(&session);
        let source = BatchSource {
            training: Arc::new(evaluation.augmented_by(&settings.augment, settings.run.seed)),
            evaluation: Arc::new(evaluation),
            dataset: Arc::new(inspected.dataset),
            sampler: settings.train.sampler,
            seed: settings.run.seed,
            batch_size: settings.train.batch_size,
            threads: session.decode_threads(),
            views: keep::views(settings),
            frozen: None,
        };
        let checkpoints = Checkpoints::of_run(run.folder());
        let micro_batches = record.forecast.map_or(1, |forecast| forecast.micro_batches);
        let safeguard = Safeguard::new(micro_batches, settings.run.precision);
        let progress = Progress { safeguard, ..Progress::default() };
        let start = None;
        Ok(Self { session, model, plan, objective, source, keys, checkpoints, progress, run, record, texts, start })
    }

    /// The loop, from the start or from the last checkpoint.
    fn fit(&mut self, stop: &StopRequest, console: &Console, resume: bool) -> Result<Ending> {
        if let Some(signal) = self.keep(stop, console)? {
            return Ok(Ending::Stopped(signal));
        }
        let mut state = self.initial_state(console, resume)?;
        let settings = &self.session.settings;
        let fit = self.ready(stop);
        let images = self.source.len(Split::Train);
        let epochs = fit.total_steps().div_ceil(fit.steps_per_epoch().max(1));
        let unfreezing = self.plan.epochs_of_unfreezing();
        if unfreezing >= epochs {
            console.warn(format!(
                "training has {epochs} epochs, but with strategy.unfreeze = {} all blocks learn only from epoch {}",
                settings.unfreeze,
                unfreezing + 1
            ));
        }
        let mut report = TrainingReport::new(console, &self.run, self.title(), (epochs, images), &state.progress)?;
        let ending = fit.run(&mut state, &mut report)?;
        let TrainState { progress, optimizer, average } = state;
        // Before anything is scored: the largest buffers of training.
        drop((optimizer, average));
        if ending == Ending::Finished && settings.train.soup > 0 {
            self.record.soup = fit.soup(&progress)?;
            match &self.record.soup {
                Some(soup) => console.info(format!("soup      {}", soup.sentence())),
                None => console.warn("train.soup needs two epochs with validation scores: nothing is mixed"),
            }
        }
        self.progress = progress;
        Ok(ending)
    }

    /// Computes or finds what frozen layers make of the images, and holds a head from texts to its start; to be called
    /// before anything has moved. A signal when one ended it.
    pub(super) fn keep(&mut self, stop: &StopRequest, console: &Console) -> Result<Option<Signal>> {
        let watched = (self.run.folder(), stop);
        let kept = keep::keep(&self.session, &self.model, &self.source, &self.keys, watched, console);
        if let (Err(Error::Stopped { .. }), Some(signal)) = (&kept, stop.received()) {
            return Ok(Some(signal));
        }
        self.source.frozen = kept?;
        self.record.cache = self.source.frozen.as_ref().map(FrozenInputs::usage);
        self.regularise_to_texts(console)?;
        Ok(None)
    }

    /// The loop over what is there.
    pub(super) fn ready<'a>(&'a self, stop: &'a StopRequest) -> Fit<'a> {
        let settings = &self.session.settings;
        let side = self.source.training.preprocess().geometry.image_size;
        Fit {
            settings: &settings.train,
            early_stop: &settings.early_stop,
            seed: settings.run.seed,
            trainer: Trainer {
                model: &self.model,
                plan: &self.plan,
                objective: &self.objective,
                computation: computation(settings),
            },
            source: &self.source,
            mixer: Mixer::new(&settings.train, self.source.dataset.classes.len(), side, settings.run.seed),
            checkpoints: &self.checkpoints,
            stop,
        }
    }

    /// Writes down that a signal ended the run; the error to end with.
    pub(super) fn stopped(&mut self, signal: Signal) -> Result<Error> {
        self.record.status = Status::Stopped;
        self.run.write_record(&self.record)?;
        let run = self.run.folder().to_path_buf();
        Ok(Error::Stopped { signal: signal.name(), code: signal.exit_code(), run })
    }

    /// From the last checkpoint, or from the start.
    pub(super) fn initial_state(&self, console: &Console, resume: bool) -> Result<TrainState> {
        let settings = &self.session.settings;
        let saved = if resume {
            self.checkpoints.recover()?;
            self.checkpoints.load::<Progress>("last")?
        } else {
            None
        };
        match &saved {
            Some(saved) => load_saved(&self.model.params, &saved.params, self.run.folder())?,
            None if settings.model.head_init == HeadInit::Probe => self.start_from_probe(console)?,
            None => {}
        }
        let mut state =
            TrainState::new(&settings.train, self.plan.clone(), &self.model.params, self.progress.safeguard)?;
        if let Some(saved) = saved {
            state.restore(saved.state, saved.optimizer.unwrap_or_default())?;
            console.info(format!("resuming after epoch {}, step {}", state.progress.epoch, state.progress.step));
        }
        Ok(state)
    }

    /// Scores the best epoch, writes the reports and prints the result.
    fn finish(mut self, console: &Console) -> Result<()> {
        if let Some(best) = self.checkpoints.load::<Progress>("best")? {
            load_saved(&self.model.params, &best.params, self.run.folder())?;
        }
        self.mix_with_start(console)?;
        self.model = self.model.merged()?;
        let (splits, inspection) = ([Split::Val, Split::Test], &self.session.settings.inspection);
        let (scored, val_features) = score_splits(&self.source, &self.model, &splits, console)?;
        let (calibration, scores) = evaluate_splits(&self.source.dataset, scored, inspection)?;
        calibration.keep(&mut self.record, console);
        self.record.known = self.remember(val_features, console)?;
        write_scores(self.run.folder(), &self.source.dataset, &scores)?;
        self.draw_curves()?;
        self.record.status = Status::Done;
        self.record.peak_memory_bytes = peak_memory_bytes().max(self.record.peak_memory_bytes);
        self.record.result = Some(self.result(&scores));
        self.run.write_record(&self.record)?;
        clear_ingredients(&self.checkpoints, self.record.soup.as_ref())?;
        self.checkpoints.remove(FINETUNED)?;
        self.page().leave_page(console);
        print_result(&self.run, &self.record, console)
    }

    /// What its page is made of.
    fn page(&self) -> Subject<'_> {
        Subject {
            folder: self.run.folder(),
            session: &self.session,
            record: &self.record,
            params: &self.model.params,
            readout: Readout::POOL,
            dataset: &self.source.dataset,
            pipeline: &self.source.evaluation,
        }
    }

    fn remember(&self, val_features: Vec<f32>, console: &Console) -> Result<Option<ReferenceRecord>> {
        let images = (&self.source, &self.keys);
        let seen = || Seen::by(&self.model, val_features, &self.session, &self.plan, images, console);
        known::remember(self.run.folder(), &self.session, &self.source.dataset, seen, console)
    }

    fn draw_curves(&self) -> Result<()> {
        let best = self.progress.early_stop.best_epoch();
        plots::save_curves(&self.run.path("plots/curves"), &self.title(), &self.progress.history, best)
    }

    /// What stands above its pictures.
    pub(super) fn title(&self) -> String {
        format!("{}, {}", self.session.settings.run.name, self.session.settings.strategy)
    }

    /// What `finetune --json` prints.
    fn result(&self, scores: &[SplitScore]) -> serde_json::Value {
        let accuracy = |wanted: Split| score::of(scores, wanted).map(|evaluation| evaluation.accuracy);
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
            "soup": self.record.soup,
            "wise_ft": self.record.wise_ft,
            "inspection": score::inspection(scores),
            "verdict": verdict.code(),
            "verdict_reason": verdict.sentence(),
            "remedy": verdict.remedy(&self.session.settings),
        })
    }
}

/// The result, and for people how each class fared: on test images, or else on validation images.
fn print_result(run: &Run, record: &RunRecord, console: &Console) -> Result<()> {
    let Some(result) = &record.result else { return Ok(()) };
    let scored = [Split::Test, Split::Val].into_iter().find_map(|split| read_evaluation(run.folder(), split));
    console.output(result, || match &scored {
        Some(evaluation) => {
            let tables = format!("{}\n\n{}", result_table(result), recall_table(evaluation));
            inspection_first(Some(evaluation), tables)
        }
        None => result_table(result),
    })
}

/// The result as a table for people; every number is the one of the JSON.
fn result_table(result: &serde_json::Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
    let count = |key: &str| result[key].as_u64().map_or("none".to_owned(), |n| thousands(n as usize));
    let share = |key: &str| result[key].as_f64().map_or("no such images".to_owned(), percent);
    let trainable = format!("{} of {}", count("trainable_parameters"), count("total_parameters"));
    let verdict = match result["remedy"].as_str() {
        Some(remedy) => format!("{}; {remedy}", text("verdict_reason")),
        None => text("verdict_reason"),
    };
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
        ("verdict", verdict),
        ("run", text("run")),
    ])
}
