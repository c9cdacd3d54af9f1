//! The ladder of strategies as ordinary runs: which rungs there are, the command line of each run, how far it has come.

mod cell;
mod failure;
mod rung;
mod shell;
mod state;

pub use cell::{Cell, Ladder};
pub use failure::Failure;
pub use rung::Rung;
pub use state::{Origin, State, commonest_origin};
