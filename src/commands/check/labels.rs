//! `check --run`: labels that an image's neighbours among the run's features contradict.

use super::{CheckArgs, Section};
use crate::backbone::Segment;
use crate::data::Dataset;
use crate::error::Result;
use crate::experiment::feature_source::FeatureSource;
use crate::experiment::saved::SavedRun;
use crate::experiment::sheets;
use crate::probe::{Samples, Suspect, suspects};
use crate::report::{Console, listing_table, percent};
use crate::system::shown::{agree, part_of};
use serde_json::json;
use std::path::Path;

/// Neighbours that vote.
const NEIGHBORS: usize = 10;

/// Lists and draws the suspicious labels of a run's images.
///
/// # Errors
/// Those of opening the run; failures of drawing and writing.
pub fn run(folder: &Path, args: &CheckArgs, console: &Console) -> Result<()> {
    let run = SavedRun::open(folder, args.config.device(), Segment::Head, &[], console)?;
    let readout = run.readout();
    let source = FeatureSource::of_run(run, readout)?;
    let (features, dataset) = (source.features(console)?, &source.images.dataset);
    let labels: Vec<usize> = dataset.samples.iter().map(|sample| sample.label).collect();
    let samples = Samples::new(features.matrix(), &labels, &dataset.classes)?;
    let found = source.session.workers.install(|| suspects(&samples, NEIGHBORS))?;
    if let Some(file) = &args.sheet {
        sheets::suspects(file, dataset, &found, args.top, source.session.decode(), console)?;
    }
    let section = section(dataset, &found, args.top);
    console.output(&json!({section.key(): section.json}), || section.text)
}

fn section(dataset: &Dataset, found: &[Suspect], top: usize) -> Section {
    let row = |suspect: &Suspect| {
        let sample = &dataset.samples[suspect.sample];
        let [label, suggested] = [sample.label, suspect.suggested].map(|class| dataset.classes[class].clone());
        vec![sample.name.clone(), sample.split.to_string(), label, suggested, percent(suspect.confidence)]
    };
    let rows: Vec<Vec<String>> = found.iter().take(top).map(row).collect();
    let total = dataset.samples.len();
    let mut text = format!(
        "{} {} a label that the vote of the {NEIGHBORS} nearest others contradicts",
        part_of(found.len(), total, "image"),
        agree(found.len(), "has", "have")
    );
    if !rows.is_empty() {
        let table = listing_table(4, &["image", "split", "labelled", "looks like", "vote"], &rows);
        text = format!("{text}\n\n{table}");
    }
    let name = |index: usize| &dataset.samples[index].name;
    let json = found.iter().map(|suspect| {
        let sample = &dataset.samples[suspect.sample];
        json!({
            "image": sample.name,
            "split": sample.split,
            "label": dataset.classes[sample.label],
            "suggested": dataset.classes[suspect.suggested],
            "confidence": suspect.confidence,
            "neighbors": suspect.neighbors.iter().map(|&index| name(index)).collect::<Vec<_>>(),
        })
    });
    Section { name: "suspicious labels", text, json: json.collect() }
}
