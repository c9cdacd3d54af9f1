//! What the runs have left behind, sorted by strategy.

use super::runs::Failed;
use crate::ladder::{PlannedRun, Provenance, RunState, Rung, said};
use crate::report::{Contender, Finished, Missing, Status};
use crate::system::shown::Shown;

/// The finished runs of each rung, and why the others are not among them.
pub fn contenders(
    rungs: &[Rung],
    runs: &[PlannedRun],
    provenance: Option<&Provenance>,
    failed: &[Failed],
) -> (Vec<Contender>, Vec<Missing>) {
    let mut missing = Vec::new();
    let mut contenders = Vec::new();
    for &rung in rungs {
        let mut finished = Vec::new();
        let of_rung: Vec<&PlannedRun> = runs.iter().filter(|run| run.rung == rung).collect();
        for run in &of_rung {
            match run.state(provenance) {
                RunState::Finished(record) => {
                    finished.push(Finished { name: run.name.clone(), folder: run.folder(), record: *record });
                }
                state => missing.push(Missing { run: run.name.clone(), reason: reason(run, &state, failed) }),
            }
        }
        let updated = of_rung.first().map(|run| rung.backbone_updated(&run.settings)).unwrap_or_default();
        contenders.push(Contender {
            strategy: rung.to_string(),
            backbone_updated: updated,
            head_updated: rung.head_updated().to_owned(),
            finished,
        });
    }
    (contenders, missing)
}

fn reason(run: &PlannedRun, state: &RunState, failed: &[Failed]) -> String {
    if let Some((_, failure)) = failed.iter().find(|(name, _)| *name == run.name) {
        return failure.reason.clone();
    }
    let log = run.log();
    let failed = || said(&log).map(|reason| format!("failed: {reason}"));
    match state {
        RunState::Absent if !log.is_file() => "not started".into(),
        RunState::Absent => failed().unwrap_or_else(|| format!("has written nothing down yet; see {}", log.shown())),
        RunState::Unfinished(Status::Stopped) => "stopped by a signal".into(),
        RunState::Unfinished(Status::Failed) => failed().unwrap_or_else(|| "failed".into()),
        RunState::Unfinished(_) => "under way, or killed".into(),
        RunState::Other(why) => why.clone(),
        RunState::Finished(_) => String::new(),
    }
}
