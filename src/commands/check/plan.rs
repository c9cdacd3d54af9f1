//! The plan of a training: what learns, the memory and the time it takes, and what to change if that does not fit.

use super::{Report, Section};
use crate::backbone::{Readout, Stage, VitSpec};
use crate::config::{Settings, StrategySettings};
use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::experiment::forecast::{Sizes, forecast};
use crate::experiment::session::{plan_over, visual_prompts};
use crate::experiment::{device, keep};
use crate::model::HeadKind;
use crate::nn::workers::Workers;
use crate::report::{Console, Forecast, key_value_table, mebibytes, thousands};
use crate::train::forecast::Images;
use serde_json::json;

/// Describes the plan; one that does not fit is a warning, one that the backbone does not allow a problem.
pub fn section(
    settings: &Settings,
    spec: &VitSpec,
    dataset: &Dataset,
    report: &mut Report,
    console: &Console,
) -> Option<Section> {
    // What learnt words take depends on a text tower, which nobody has looked for yet.
    if matches!(&settings.strategy, StrategySettings::Prompt(prompt) if prompt.may_be_text()) {
        return None;
    }
    let (sizes, forecast) = report.note(planned(settings, spec, dataset, console))?;
    report.warnings.extend(forecast.warning());
    let (learning, all) = sizes.parameters;
    let mut rows = vec![
        ("strategy", settings.strategy.to_string()),
        ("parameters that learn", format!("{} of {}", thousands(learning), thousands(all))),
        ("expected", forecast.sentence()),
    ];
    rows.extend(forecast.parts());
    if let Some(bytes) = forecast.checkpointed_bytes.filter(|&bytes| bytes < forecast.memory.total()) {
        rows.push(("with train.checkpoint_blocks = true", mebibytes(bytes)));
    }
    let json = json!({
        "strategy": settings.strategy.to_string(),
        "trainable_parameters": learning,
        "total_parameters": all,
        "forecast": forecast,
        "memory_bytes": forecast.memory.total(),
    });
    Some(Section { name: "plan", text: key_value_table(&rows), json })
}

fn planned(settings: &Settings, spec: &VitSpec, dataset: &Dataset, console: &Console) -> Result<(Sizes, Forecast)> {
    let mut shapes = spec.shapes();
    shapes.extend(HeadKind::Linear.shapes(Readout::POOL.width(spec), dataset.classes.len()));
    if let Some(visual) = visual_prompts(settings) {
        shapes.extend(visual.shapes(spec));
    }
    let plan = plan_over(settings, spec.depth, &shapes)?;
    let factors = plan.lora.as_ref().map(|lora| lora.shapes(&shapes)).unwrap_or_default();
    let values = |learning: bool| {
        let counted = shapes.iter().chain(&factors).filter(|(name, _)| !learning || plan.get(name).is_some());
        counted.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    };
    let images = |split| dataset.indices(split).len();
    let sizes = Sizes {
        parameters: (values(true), values(false)),
        images: Images { train: images(Split::Train), val: images(Split::Val), test: images(Split::Test) },
        texts: None,
    };
    let stage: Stage = keep::stage(settings, spec, &plan, dataset.samples.len(), console);
    let device = device::open(settings.run.device)?;
    let workers = Workers::new(settings.run.threads, &device)?;
    Ok((sizes, forecast(settings, (spec, &plan, stage), sizes, (&device, &workers))?))
}
