//! The plan of a training run: what is trainable, the memory and the time it takes, and what to change if that does not fit.

use super::{Report, Section};
use crate::backbone::{Params, Readout, VitSpec};
use crate::config::Settings;
use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::experiment::forecast::{Sizes, forecast};
use crate::experiment::head::{self, HeadPlan};
use crate::experiment::tiles::check_training;
use crate::experiment::{device, frozen};
use crate::nn::workers::Workers;
use crate::report::{Console, Forecast, key_value_table, mebibytes, thousands};
use crate::train::forecast::{ImageCounts, TileCounts};
use serde_json::json;

/// Describes the plan; one that does not fit is a warning, one that the backbone does not allow a problem.
pub fn section(
    settings: &Settings,
    spec: &VitSpec,
    (dataset, tiles): (&Dataset, Option<TileCounts>),
    report: &mut Report,
    console: &Console,
) -> Option<Section> {
    // The cost of learnt words depends on a text tower, and no file of one has been read yet.
    if settings.strategy.may_learn_words() {
        return None;
    }
    let (sizes, forecast) = report.note(planned(settings, spec, (dataset, tiles), console))?;
    report.warnings.extend(forecast.warning());
    let (trainable, all) = sizes.parameters;
    let mut rows = vec![
        ("strategy", settings.strategy.to_string()),
        ("trainable parameters", format!("{} of {}", thousands(trainable), thousands(all))),
        ("expected", forecast.sentence()),
    ];
    rows.extend(forecast.parts());
    let less = forecast.checkpointed_bytes.filter(|&bytes| bytes < forecast.memory.total());
    rows.extend(less.map(|bytes| ("with train.checkpoint_blocks = true", mebibytes(bytes))));
    let json = json!({
        "strategy": settings.strategy.to_string(),
        "trainable_parameters": trainable,
        "total_parameters": all,
        "forecast": forecast,
        "memory_bytes": forecast.memory.total(),
    });
    Some(Section { name: "plan", text: key_value_table(&rows), json })
}

fn planned(
    settings: &Settings,
    spec: &VitSpec,
    (dataset, tiles): (&Dataset, Option<TileCounts>),
    console: &Console,
) -> Result<(Sizes, Forecast)> {
    let head = (head::kind(false), Readout::POOL, dataset.classes.len());
    let head = HeadPlan::new(settings, (spec, &Params::default()), head, None)?;
    check_training(settings)?;
    let images = |split| dataset.indices(split).len();
    let sizes = Sizes {
        parameters: head.parameters(),
        images: ImageCounts { train: images(Split::Train), val: images(Split::Val), test: images(Split::Test) },
        tiles,
        texts: None,
    };
    let start = frozen::start(settings, spec, &head.plan, dataset.samples.len(), console);
    let device = device::open(settings.run.device)?;
    let workers = Workers::new(settings.run.threads, &device)?;
    Ok((sizes, forecast(settings, (spec, &head.plan, start), sizes, (&device, &workers))?))
}
