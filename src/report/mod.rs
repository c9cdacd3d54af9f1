//! What a user sees of a run: tables, pictures, logs, the verdict, and the files of the run directory.

mod advice;
mod comparison;
mod console;
mod forecast;
pub mod html;
mod inspection;
pub mod junit;
pub mod plots;
pub mod predictions;
mod result;
mod run;
mod table;
mod tensorboard;
mod training;
mod tsne;
mod verdict;

pub use advice::Advice;
pub use comparison::{Comparison, Contender, Finished, Missing, PREDICTIONS, Question, Repeats};
pub use console::{Console, ProgressBar, Verbosity};
pub use forecast::{Forecast, mebibytes};
pub use inspection::{inspection_first, inspection_table};
pub use result::{
    FinetuneResult, LrFinderResult, PatchcoreResult, PathPoint, PoolScore, ProbeResult, RunResult, TemplateScore,
    WorstClass, ZeroshotResult,
};
pub use run::{BackboneRecord, DataRecord, ProbeRecord, Run, RunRecord, Status, changes, no_checkpoint, refuse};
pub use table::{
    confusion_table, doubts_first, evaluation_table, key_value_table, listing_table, percent, places_table,
    recall_table, robustness_table, template_table, thousands,
};
pub use training::{TrainingReport, read_epochs};
pub use tsne::Reading;
pub use verdict::{Evidence, Verdict, VerdictKind};

pub use crate::system::json::write_json;
