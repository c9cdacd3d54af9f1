//! What every run writes down before it computes anything.

use super::device;
use super::images::CheckedImages;
use super::score::{SplitScore, foremost};
use super::session::Session;
use crate::config::Settings;
use crate::data::{Split, write_splits_csv};
use crate::error::{Error, Result};
use crate::metrics::{Doubt, Evaluation};
use crate::model::HeadKind;
use crate::report::{Console, DataRecord, Run, RunRecord, RunResult, Status};
use crate::system::files::write_atomic;
use crate::system::memory::peak_memory_bytes;
use crate::system::shown::Shown;
use crate::train::work;
use std::path::PathBuf;
use std::time::Instant;

/// `run.json` before the first step.
pub fn new_record(session: &Session, images: &CheckedImages, strategy: &str, head: HeadKind) -> RunRecord {
    let count = |split| images.dataset.indices(split).len();
    RunRecord {
        status: Status::Running,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        strategy: strategy.to_owned(),
        seed: session.settings.run.seed,
        device: device::name(&session.device),
        threads: session.workers.count(),
        backbone: session.backbone_record(),
        data: DataRecord {
            sha256: images.audit.data_hash.clone(),
            train: count(Split::Train),
            val: count(Split::Val),
            test: count(Split::Test),
        },
        classes: images.dataset.classes.clone(),
        preprocess: images.preprocess,
        images: Some(images.audit.kinds),
        trainable_parameters: 0,
        total_parameters: 0,
        head,
        temperature: None,
        inspection: None,
        reference: None,
        probe: None,
        cache: None,
        soup: None,
        wise_ft: None,
        forecast: None,
        operations: None,
        wall_seconds: 0.0,
        peak_memory_bytes: None,
        doubts: Vec::new(),
        result: None,
    }
}

/// Creates the run directory; an earlier run of the same name is set aside.
///
/// # Errors
/// When another process works there or it cannot be written.
pub fn create_run(settings: &Settings, console: &Console) -> Result<Run> {
    let (run, aside) = Run::create(settings)?;
    if let Some(aside) = aside {
        console.info(format!("the earlier run of this name is kept as {}", aside.shown()));
    }
    Ok(run)
}

/// Writes what is fixed from the start: the config, the splits, the skipped files, the record.
///
/// # Errors
/// When it cannot be written.
pub fn write_down(run: &Run, settings: &Settings, images: &CheckedImages, record: &RunRecord) -> Result<()> {
    write_atomic(&run.path("config.toml"), settings.to_toml()?.as_bytes())?;
    write_splits_csv(&run.path("splits.csv"), &images.dataset, (&images.audit.keys, &images.audit.pixels))?;
    images.write_skipped(&run.path("skipped.csv"))?;
    run.write_record(record)
}

/// Creates the run directory of a command that trains nothing, and writes down what is fixed from the start.
///
/// # Errors
/// As [`create_run`] and [`write_down`].
pub fn start_run(
    session: &Session,
    images: &CheckedImages,
    (strategy, head): (&str, HeadKind),
    console: &Console,
) -> Result<(Run, RunRecord)> {
    let record = new_record(session, images, strategy, head);
    let run = create_run(&session.settings, console)?;
    write_down(&run, &session.settings, images, &record)?;
    Ok((run, record))
}

/// Does the work of a run that was started, and writes down when it fails, as far as possible: the error to end with
/// is the first one.
///
/// # Errors
/// Those of `work`.
pub fn recorded<T>(run: &Run, record: &mut RunRecord, work: impl FnOnce(&mut RunRecord) -> Result<T>) -> Result<T> {
    work(record).inspect_err(|error| record_end(run, record, error))
}

/// Writes down which error ended a run, as far as possible: the error to end with is that one.
pub fn record_end(run: &Run, record: &mut RunRecord, error: &Error) {
    record.status = if matches!(error, Error::Stopped { .. }) { Status::Stopped } else { Status::Failed };
    let _ = run.write_record(record);
}

/// Writes down how long a run took since `clock`, in which the pretrained backbone of `session` has seen each of the images
/// once, and its result.
///
/// # Errors
/// When the record cannot be written.
pub fn conclude(
    (run, record): (&Run, &mut RunRecord),
    (session, images): (&Session, &CheckedImages),
    clock: Instant,
    result: impl FnOnce(&RunRecord) -> RunResult,
) -> Result<RunResult> {
    let inputs_of = |&size: &(u32, u32)| images.preprocess.tiles.map_or(1, |tiles| tiles.count(size));
    let inputs: usize = images.audit.sizes.iter().map(inputs_of).sum();
    record.operations = Some(inputs as f64 * work::forward(&session.backbone.spec));
    record.wall_seconds = clock.elapsed().as_secs_f64();
    record.peak_memory_bytes = peak_memory_bytes();
    let result = result(record);
    record.result = Some(result.clone());
    run.write_record(record)?;
    Ok(result)
}

/// A run at its end.
pub struct Completed {
    /// Its directory.
    pub folder: PathBuf,
    /// Its result.
    pub result: RunResult,
    /// The scores that a person wants to see first: on test images, or else on validation images.
    pub evaluation: Option<Evaluation>,
    /// What speaks against its scores.
    pub doubts: Vec<Doubt>,
}

impl Completed {
    /// A run that has just ended.
    pub fn new(run: &Run, record: &RunRecord, result: RunResult, scores: &[SplitScore]) -> Self {
        let (folder, evaluation) = (run.folder().to_path_buf(), foremost(scores).cloned());
        Self { folder, result, evaluation, doubts: record.doubts.clone() }
    }
}
