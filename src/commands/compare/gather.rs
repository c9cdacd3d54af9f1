//! What the runs have left behind, sorted by strategy.

use super::runs::Failed;
use crate::ladder::{Cell, Origin, Rung, State};
use crate::report::{Contender, Finished, Missing, Status};

/// The finished runs of each rung, and why the others are not among them.
pub fn contenders(
    rungs: &[Rung],
    cells: &[Cell],
    origin: Option<&Origin>,
    failed: &[Failed],
) -> (Vec<Contender>, Vec<Missing>) {
    let mut missing = Vec::new();
    let mut contenders = Vec::new();
    for &rung in rungs {
        let mut finished = Vec::new();
        let of_rung: Vec<&Cell> = cells.iter().filter(|cell| cell.rung == rung).collect();
        for cell in &of_rung {
            match cell.state(origin) {
                State::Finished(record) => {
                    finished.push(Finished { name: cell.name.clone(), folder: cell.folder(), record: *record });
                }
                state => missing.push(Missing { run: cell.name.clone(), reason: reason(cell, &state, failed) }),
            }
        }
        let updated = of_rung.first().map(|cell| rung.backbone_updated(&cell.settings)).unwrap_or_default();
        contenders.push(Contender {
            strategy: rung.name().to_owned(),
            backbone_updated: updated,
            head_updated: rung.head_updated().to_owned(),
            finished,
        });
    }
    (contenders, missing)
}

fn reason(cell: &Cell, state: &State, failed: &[Failed]) -> String {
    if let Some((_, failure)) = failed.iter().find(|(name, _)| *name == cell.name) {
        return failure.reason.clone();
    }
    match state {
        State::Absent => "not started".into(),
        State::Unfinished(Status::Stopped) => "stopped by a signal".into(),
        State::Unfinished(_) => "under way, or killed".into(),
        State::Other(why) => why.clone(),
        State::Finished(_) => String::new(),
    }
}
