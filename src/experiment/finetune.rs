//! Fine-tuning from settings to a scored run: data, model, training loop, scores, report.

use super::adopt::adopt;
use super::extension::Extension;
use super::forecast::{Sizes, forecast};
use super::frozen;
use super::head::{self, HeadPlan};
use super::images::{CheckedImages, check_images};
use super::loss::warn_of_double_balance;
use super::mahalanobis;
use super::open::Opened;
use super::page::PageInputs;
use super::prompt;
use super::record::{Completed, create_run, new_record};
use super::saved::SavedRun;
use super::score::read_foremost;
use super::session::Session;
use super::texts::ClassTexts;
use super::tiles::check_training;
use super::training::{FINETUNED, Training, check_wise_ft};
use crate::backbone::{Readout, Segment};
use crate::config::{self, HeadInit, Precision, Settings};
use crate::error::Result;
use crate::model::Model;
use crate::report::{Console, Forecast, Run, RunRecord, Status, changes, refuse, thousands};
use crate::strategy::Plan;
use crate::system::memory::peak_memory_bytes;
use crate::system::shown::{Shown, counted};
use crate::system::signals::StopRequest;
use crate::train::checkpoint::Checkpoints;
use crate::train::fit::Ending;
use crate::train::forecast::{ImageCounts, Texts, TileCounts};
use crate::train::soup::clear_ingredients;
use std::time::Instant;

/// Trains by the settings and scores the best epoch; with `resume` from where an earlier run of these settings stopped, or
/// from the end of one that had fewer epochs.
///
/// # Errors
/// Usage, data and weights errors, before training but for files that change under way; I/O errors; numerical errors of
/// the loop; [`Error::Stopped`](crate::error::Error::Stopped) after a signal, when everything is saved.
pub fn finetune(settings: Settings, resume: bool, console: &Console) -> Result<Completed> {
    let clock = Instant::now();
    let ready = Ready::new(settings, console)?;
    // Until here there is nothing to save: a signal ends the process.
    let stop = StopRequest::listen()?;
    let mut record = ready.record();
    let run = match open_run(&ready, &mut record, resume, console)? {
        OpenedRun::Open(run) => run,
        OpenedRun::Complete(completed) => return Ok(*completed),
    };
    let mut training = ready.start(run, record, console)?;
    let ending = training.fit(&stop, console, resume);
    training.record.wall_seconds += clock.elapsed().as_secs_f64();
    training.record.peak_memory_bytes = peak_memory_bytes().max(training.record.peak_memory_bytes);
    match ending {
        Ok(Ending::Finished) => training.finish(console),
        Ok(Ending::Stopped(signal)) => Err(training.stopped(signal)),
        Err(error) => Err(error),
    }
    .map_err(|error| training.ended(error))
}

/// Trains nothing: tests learning rates for the settings, in a run of its own whose name ends in `-lr`.
///
/// # Errors
/// As [`finetune`].
pub fn find_lr(mut settings: Settings, console: &Console) -> Result<Completed> {
    settings.run.name.push_str("-lr");
    let ready = Ready::new(settings, console)?;
    // Until here there is nothing to save: a signal ends the process.
    let stop = StopRequest::listen()?;
    let run = create_run(&ready.session.settings, console)?;
    let record = ready.record();
    let mut training = ready.start(run, record, console)?;
    training.find_lr(&stop, console).map_err(|error| training.ended(error))
}

/// A model and its images, before anything is written or trained.
struct Ready {
    session: Session,
    plan: Plan,
    images: CheckedImages,
    model: Model,
    /// The classes in words, when the head starts from them.
    texts: Option<ClassTexts>,
}

impl Ready {
    fn new(settings: Settings, console: &Console) -> Result<Self> {
        let from_texts = settings.model.head_init == HeadInit::Text;
        let (Opened { mut session, dataset }, texts) = Opened::with_texts_if(from_texts, settings, console)?;
        check_wise_ft(&session.settings, &dataset)?;
        let words = prompt::context(&session, &dataset.classes, console)?;
        let kind = head::kind(words.is_some() || texts.is_some());
        let head = (kind, Readout::POOL, dataset.classes.len());
        let backbone = (&session.backbone.spec, &session.backbone.outputs);
        let head = HeadPlan::new(&session.settings, backbone, head, words.as_ref())?;
        check_training(&session.settings)?;
        mahalanobis::refuse(session.settings.model.pool, "finetune")?;
        let images = check_images(&session, dataset, console)?;
        // Files that cannot be used may have been the last validation images.
        check_wise_ft(&session.settings, &images.dataset)?;
        let samples = images.dataset.samples.len();
        let start = frozen::start(&session.settings, &session.backbone.spec, &head.plan, samples, console);
        let model = session.model(start, &head, words)?;
        if let Some(texts) = &texts {
            let head = texts.zero_shot()?;
            model.params.assign(|name, _| Ok(head.get(name)))?;
        }
        Ok(Self { session, plan: head.plan, images, model, texts })
    }

    fn record(&self) -> RunRecord {
        let strategy = self.session.settings.strategy.kind();
        let (trainable_parameters, total_parameters) = self.model.counts();
        RunRecord {
            trainable_parameters,
            total_parameters,
            ..new_record(&self.session, &self.images, strategy, self.model.spec().head)
        }
    }

    /// Says what is about to be done, writes down what is fixed by now, and gets everything ready for the loop.
    fn start(self, run: Run, mut record: RunRecord, console: &Console) -> Result<Training> {
        let Self { session, plan, images, model, texts } = self;
        let sizes = Sizes {
            parameters: (record.trainable_parameters, record.total_parameters),
            images: ImageCounts { train: record.data.train, val: record.data.val, test: record.data.test },
            tiles: images
                .preprocess
                .tiles
                .map(|tiles| TileCounts::of(&tiles, &images.audit.sizes, session.decode_threads())),
            texts: model.directions().map(|directions| Texts::of(directions.prompts())),
        };
        let trained = (&session.backbone.spec, &plan, model.spec().start);
        let forecast = forecast(&session.settings, trained, sizes, (&session.device, &session.workers))?;
        describe(&record, &forecast, &session, console);
        record.forecast = Some(forecast);
        warn_of_double_balance(&session.settings, console);
        Training::new(session, &images, (model, texts), plan, run, record)
    }
}

/// The directory of a run.
enum OpenedRun {
    /// New, or with a checkpoint to go on from.
    Open(Run),
    /// The run was completed before.
    Complete(Box<Completed>),
}

/// Creates the run directory, or opens the one to resume after checking that nothing has changed.
fn open_run(ready: &Ready, record: &mut RunRecord, resume: bool, console: &Console) -> Result<OpenedRun> {
    let settings = &ready.session.settings;
    if resume {
        if let Some(run) = Run::resume(settings)? {
            let mut earlier = RunRecord::read(run.folder())?;
            let saved = config::load(Some(&run.path("config.toml")), &[])?;
            let extension = Extension::between(&saved, settings, earlier.status)?;
            // What is good and what mistakes cost changes no weight.
            let judged_anew = saved.inspection != settings.inspection;
            let mut before = extension.map_or_else(|| settings.clone(), |extension| extension.undone(settings));
            before.inspection = saved.inspection.clone();
            refuse(&changes(&saved, &before))?;
            earlier.check_same(record)?;
            let goes_on = earlier.status != Status::Done || extension.is_some();
            if earlier.threads != record.threads && goes_on {
                console.warn(format!(
                    "the run began with {} and goes on with {}: sums are rounded in another order, so its last bits \
                     may differ from those of an uninterrupted run",
                    counted(earlier.threads, "thread"),
                    record.threads
                ));
            }
            if judged_anew && !goes_on {
                let judged = Settings { inspection: settings.inspection.clone(), ..saved };
                adopt(run.folder(), &mut earlier, &judged, &ready.images.dataset, console)?;
                match SavedRun::open(run.folder(), Some(&settings.run.device.to_string()), Segment::Embed, &[], console)
                {
                    Ok(saved) => PageInputs::of_run(&saved, &ready.images.dataset, &saved.pipeline()).leave(console),
                    Err(error) => console.warn(error.to_string()),
                }
            }
            record.wall_seconds = earlier.wall_seconds;
            record.peak_memory_bytes = earlier.peak_memory_bytes;
            if let Some(extension) = extension {
                let ended = Extension::reopen(&Checkpoints::of_run(run.folder()))?;
                console.info(extension.sentence(&settings.train, record.data.train, ended));
                return Ok(OpenedRun::Open(run));
            }
            return match earlier.result {
                Some(result) if earlier.status == Status::Done => {
                    console.info(format!("{} is complete, nothing is left to do", run.folder().shown()));
                    let checkpoints = Checkpoints::of_run(run.folder());
                    clear_ingredients(&checkpoints, earlier.soup.as_ref())?;
                    checkpoints.remove(FINETUNED)?;
                    checkpoints.finish()?;
                    let (folder, evaluation) = (run.folder().to_path_buf(), read_foremost(run.folder()));
                    let doubts = earlier.doubts;
                    Ok(OpenedRun::Complete(Box::new(Completed { folder, result, evaluation, doubts })))
                }
                _ => Ok(OpenedRun::Open(run)),
            };
        }
        console.info("there is no run to resume yet, starting it");
    }
    create_run(settings, console).map(OpenedRun::Open)
}

fn describe(record: &RunRecord, forecast: &Forecast, session: &Session, console: &Console) {
    let (backbone, data) = (&record.backbone, &record.data);
    let spec = &session.backbone.spec;
    console.info(format!(
        "backbone  {} ({}, {}), {} px, {}",
        backbone.name,
        backbone.family,
        backbone.architecture,
        spec.image_size,
        counted(spec.tokens(), "token")
    ));
    let classes = counted(record.classes.len(), "class");
    console.info(format!("data      {} train, {} val, {} test, {classes}", data.train, data.val, data.test));
    let (trainable, total) = (record.trainable_parameters, record.total_parameters);
    let joining = match session.settings.unfreeze {
        0 => String::new(),
        1 => ", one block more every epoch".into(),
        epochs => format!(", one block more every {epochs} epochs"),
    };
    console.info(format!(
        "strategy  {}{joining}: {} of {} parameters are trainable ({:.2} %)",
        session.settings.strategy,
        thousands(trainable),
        thousands(total),
        100.0 * trainable as f64 / total as f64
    ));
    console.info(format!("device    {}, {}", record.device, counted(record.threads, "worker")));
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
