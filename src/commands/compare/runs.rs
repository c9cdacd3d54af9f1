//! Runs the cells one after another, each as a process of this very program: time and memory are those of a real run.

use crate::backbone::Backbone;
use crate::config::Settings;
use crate::data::{Dataset, Split};
use crate::error::{DataError, Error, ExitCode, Result};
use crate::experiment::inspect::inspect_with;
use crate::experiment::weights;
use crate::hub::Wanted;
use crate::ladder::{Cell, Failure, Origin, State};
use crate::report::{Console, percent};
use crate::system::child::run_to_end;
use crate::system::files::create_folder;
use crate::system::lock::Lock;
use crate::system::signals::StopRequest;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The name of a run that failed, and why.
pub type Failed = (String, Failure);

/// What finished runs have to be made of: a look at all images and the sum of the weights. What would fail in every run
/// fails here, once.
///
/// # Errors
/// Data errors, also when there is nothing to test on; weights errors.
pub fn origin(cells: &[Cell], base: &Settings, console: &Console) -> Result<Origin> {
    let data = cells.first().map_or(&base.data, |cell| &cell.settings.data);
    let dataset = Dataset::open(data)?;
    if dataset.indices(Split::Test).is_empty() {
        return Err(DataError::invalid(
            "there are no test images to compare strategies on",
            "set data.test to a share above 0, or use --folds 5 to test on every image once",
        )
        .into());
    }
    let location = weights::local(&base.model.backbone, Wanted::Backbone, console)?;
    let spec = Backbone::describe(&location, base.model.image_size)?;
    let inspected = inspect_with(base, &spec, dataset, console)?;
    Ok(Origin { data: inspected.data_hash, weights: Backbone::checksum(&location)? })
}

/// Runs every cell that is not finished; those that fail do not keep others from running.
///
/// # Errors
/// [`Error::Interrupted`] after a signal, which the run under way has got too; when the folder is in use or cannot be
/// written, or the program cannot be started.
pub fn all(cells: &[Cell], origin: &Origin, folder: &Path, console: &Console) -> Result<Vec<Failed>> {
    let logs = folder.join("logs");
    create_folder(&logs)?;
    let _lock = Lock::acquire(folder)?;
    let stop = StopRequest::listen()?;
    let progress = console.progress(cells.len() as u64, "runs");
    let mut failed = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let place = format!("{:>width$}/{}", index + 1, cells.len(), width = cells.len().to_string().len());
        let state = cell.state(Some(origin));
        if let State::Finished(_) = state {
            console.info(format!("{place}  {}: finished before", cell.name));
        } else {
            console.info(format!("{place}  {}{}", cell.name, intention(&state)));
            let log = logs.join(format!("{}.log", cell.name));
            let failure = one(cell, &state, &log, &stop)?;
            if let Some(signal) = stop.received() {
                return Err(Error::Interrupted {
                    signal: signal.name(),
                    code: signal.exit_code(),
                    folder: folder.to_path_buf(),
                });
            }
            let failure = failure.map_or_else(|| outcome(cell, origin, console), Some);
            if let Some(failure) = failure {
                console.warn(format!("{} failed: {}", cell.name, failure.reason));
                failed.push((cell.name.clone(), failure));
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

fn one(cell: &Cell, state: &State, log: &Path, stop: &StopRequest) -> Result<Option<Failure>> {
    let program = std::env::current_exe().map_err(Error::io("find", PathBuf::from("this program")))?;
    let file = File::create(log).map_err(Error::io("create", log))?;
    // A run of other settings cannot go on; it is set aside by the new one.
    let resume = !matches!(state, State::Other(_));
    let mut command = Command::new(program);
    command.args(cell.args(resume)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    Ok(Failure::of(run_to_end(&mut command, stop)?, log))
}

fn intention(state: &State) -> String {
    match state {
        State::Absent | State::Finished(_) => String::new(),
        State::Unfinished(_) => ": goes on".into(),
        State::Other(why) => format!(": again ({why})"),
    }
}

/// Tells what came out; a failure when there is no result although the process said so.
fn outcome(cell: &Cell, origin: &Origin, console: &Console) -> Option<Failure> {
    match cell.state(Some(origin)) {
        State::Finished(record) => {
            let accuracy = record.result.as_ref().and_then(|result| result["test_accuracy"].as_f64());
            let accuracy = accuracy.map_or_else(|| "no accuracy".to_owned(), percent);
            console.info(format!("      {accuracy}, {:.1} s", record.wall_seconds));
            None
        }
        State::Other(reason) => Some(Failure { reason, code: ExitCode::Unexpected }),
        State::Absent | State::Unfinished(_) => {
            Some(Failure { reason: "ended without a result".into(), code: ExitCode::Unexpected })
        }
    }
}
