//! What every run writes down before it computes anything.

use super::device;
use super::inspect::Inspected;
use super::session::Session;
use crate::config::Settings;
use crate::data::{Split, write_splits_csv};
use crate::error::Result;
use crate::model::HeadKind;
use crate::report::{Console, DataRecord, Run, RunRecord, Status};
use crate::system::files::write_atomic;

/// `run.json` as it stands before the first step.
pub fn new_record(session: &Session, inspected: &Inspected, strategy: &str) -> RunRecord {
    let images = |split| inspected.dataset.indices(split).len();
    RunRecord {
        status: Status::Running,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        strategy: strategy.to_owned(),
        seed: session.settings.run.seed,
        device: device::name(&session.device),
        threads: session.workers.count(),
        backbone: session.backbone_record(),
        data: DataRecord {
            sha256: inspected.data_hash.clone(),
            train: images(Split::Train),
            val: images(Split::Val),
            test: images(Split::Test),
        },
        classes: inspected.dataset.classes.clone(),
        preprocess: inspected.preprocess,
        trainable_parameters: 0,
        total_parameters: 0,
        head: HeadKind::Linear,
        temperature: None,
        inspection: None,
        known: None,
        probe: None,
        cache: None,
        soup: None,
        wise_ft: None,
        forecast: None,
        wall_seconds: 0.0,
        peak_memory_bytes: None,
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
        console.info(format!("the earlier run of this name is kept as {}", aside.display()));
    }
    Ok(run)
}

/// Writes what is fixed from the start: the config, the splits, the skipped files, the record.
///
/// # Errors
/// When it cannot be written.
pub fn write_down(run: &Run, settings: &Settings, inspected: &Inspected, record: &RunRecord) -> Result<()> {
    write_atomic(&run.path("config.toml"), settings.to_toml()?.as_bytes())?;
    write_splits_csv(&run.path("splits.csv"), &inspected.dataset)?;
    inspected.write_skipped(&run.path("skipped.csv"))?;
    run.write_record(record)
}
