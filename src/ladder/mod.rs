//! The ladder of strategies as ordinary runs: which rungs there are, the command line and the state of each run.

mod failure;
mod run;
mod rung;
pub mod shell;
mod state;

pub use failure::{RunFailure, said};
pub use run::{LOGS, Ladder, PlannedRun};
pub use rung::Rung;
pub use state::{Provenance, RunState, commonest_provenance};
