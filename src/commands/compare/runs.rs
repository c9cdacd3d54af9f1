//! Runs the cells one after another, each as a process of this very program: time and memory are those of a real run.

use crate::backbone::Backbone;
use crate::config::Settings;
use crate::data::{Dataset, Split};
use crate::error::{DataError, Error, ExitCode, Result};
use crate::experiment::images::check_images_with;
use crate::experiment::weights;
use crate::hub::Wanted;
use crate::ladder::{LOGS, PlannedRun, Provenance, RunFailure, RunState};
use crate::report::{Console, RunResult, percent};
use crate::system::child::run_to_end;
use crate::system::files::create_folder;
use crate::system::lock::Lock;
use crate::system::signals::StopRequest;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The name of a run that failed, and why.
pub type Failed = (String, RunFailure);

/// What finished runs have to be made of: a look at all images and the sum of the weights. What would fail in every run
/// fails here, once.
///
/// # Errors
/// Data errors, also when there is nothing to test on; weights errors.
pub fn provenance(runs: &[PlannedRun], base: &Settings, console: &Console) -> Result<Provenance> {
    let data = runs.first().map_or(&base.data, |run| &run.settings.data);
    let dataset = Dataset::open(data)?;
    if dataset.indices(Split::Test).is_empty() {
        let message = "there are no test images to compare strategies on";
        let hint = "set data.test to a share above 0, or use --folds 5 to test on every image once";
        return Err(DataError::invalid(message, hint).into());
    }
    let location = weights::local(&base.model.backbone, Wanted::Backbone, console)?;
    let spec = Backbone::describe(&location, &base.model)?;
    let images = check_images_with(base, &spec, dataset, console)?;
    Ok(Provenance { data: images.audit.data_hash, weights: Backbone::checksum(&location)? })
}

/// Runs every cell that is not finished; those that fail do not keep others from running.
///
/// # Errors
/// [`Error::Interrupted`] after a signal, which the run under way has got too; when the folder is in use or cannot be
/// written, or the program cannot be started.
pub fn all(runs: &[PlannedRun], provenance: &Provenance, folder: &Path, console: &Console) -> Result<Vec<Failed>> {
    create_folder(&folder.join(LOGS))?;
    let _lock = Lock::acquire(folder)?;
    let stop = StopRequest::listen()?;
    let progress = console.progress(runs.len() as u64, "runs");
    let mut failed = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let place = format!("{:>width$}/{}", index + 1, runs.len(), width = runs.len().to_string().len());
        let state = run.state(Some(provenance));
        if let RunState::Finished(_) = state {
            console.info(format!("{place}  {}: already finished", run.name));
        } else {
            console.info(format!("{place}  {}{}", run.name, intention(&state)));
            let failure = one(run, &state, &stop)?;
            if let Some(signal) = stop.received() {
                return Err(Error::Interrupted { signal, folder: folder.to_path_buf() });
            }
            let failure = failure.map_or_else(|| outcome(run, provenance, console), Some);
            if let Some(failure) = failure {
                console.warn(format!("{} failed: {}", run.name, failure.reason));
                failed.push((run.name.clone(), failure));
            }
        }
        progress.set(index as u64 + 1);
    }
    progress.finish();
    Ok(failed)
}

/// The error to end with when runs failed.
pub fn error(failed: &[Failed], total: usize) -> Option<Error> {
    let (_, first) = failed.first()?;
    let same = failed.iter().all(|(_, failure)| failure.code == first.code);
    let code = if same { first.code } else { ExitCode::Unexpected };
    let failed = failed.iter().map(|(name, failure)| format!("{name}: {}", failure.reason)).collect();
    Some(Error::Runs { failed, total, code })
}

fn one(run: &PlannedRun, state: &RunState, stop: &StopRequest) -> Result<Option<RunFailure>> {
    let program = std::env::current_exe().map_err(Error::io("find", PathBuf::from("this program")))?;
    let log = run.log();
    let file = File::create(&log).map_err(Error::io("create", &log))?;
    // A run of other settings cannot go on; it is set aside by the new one.
    let resume = !matches!(state, RunState::Other(_));
    let mut command = Command::new(program);
    command.args(run.args(resume)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    Ok(RunFailure::of(run_to_end(&mut command, stop)?, &log))
}

fn intention(state: &RunState) -> String {
    match state {
        RunState::Absent | RunState::Finished(_) => String::new(),
        RunState::Unfinished(_) => ": goes on".into(),
        RunState::Other(why) => format!(": again ({why})"),
    }
}

/// Tells what came out; a failure when there is no result although the process said so.
fn outcome(run: &PlannedRun, provenance: &Provenance, console: &Console) -> Option<RunFailure> {
    match run.state(Some(provenance)) {
        RunState::Finished(record) => {
            let accuracy = record.result.as_ref().and_then(RunResult::test_accuracy);
            let accuracy = accuracy.map_or_else(|| "no accuracy".to_owned(), percent);
            console.info(format!("      {accuracy}, {:.1} s", record.wall_seconds));
            None
        }
        RunState::Other(reason) => Some(RunFailure { reason, code: ExitCode::Unexpected }),
        RunState::Absent | RunState::Unfinished(_) => {
            Some(RunFailure { reason: "ended without a result".into(), code: ExitCode::Unexpected })
        }
    }
}
