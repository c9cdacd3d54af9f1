//! `vitadapt tsne`: a map of features in two dimensions, as pictures, table and page.

use super::ConfigArgs;
use crate::backbone::Segment;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::experiment::saved::SavedRun;
use crate::experiment::tsne::{Mappable, SUMMARY, check_folder};
use crate::report::{Console, Reading, key_value_table};
use crate::system::json::write_json;
use crate::system::shown::printable;
use crate::tsne::quality::Silhouettes;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Arguments of `tsne`.
#[derive(Debug, Args)]
pub struct TsneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Map the features of a run's model instead of a config's backbone, and mark what it gets wrong
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    run: Option<PathBuf>,
    /// The images to map
    #[arg(long, value_parser = SPLITS, default_value = "all")]
    split: String,
    /// Folder for the files; default: the run's folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The images of a command on features.
pub const SPLITS: [&str; 4] = ["all", "train", "val", "test"];

/// Those of [`SPLITS`], in the order of their rows.
pub fn splits(word: &str) -> Vec<Split> {
    Split::ALL.into_iter().filter(|split| word == "all" || word == split.name()).collect()
}

/// Maps, judges, draws.
///
/// # Errors
/// Every failure of the modules it composes.
pub fn run(args: &TsneArgs, console: &Console) -> Result<()> {
    let clock = Instant::now();
    args.out.as_deref().map_or(Ok(()), check_folder)?;
    let mapped = match &args.run {
        Some(run) => {
            let sets = fitting_sets(args)?;
            Mappable::of_run(SavedRun::open(run, args.config.device(), Segment::Head, &sets, console)?, console)?
        }
        None => Mappable::of_config(args.config.load()?, console)?,
    };
    let map = mapped.map(&splits(&args.split), console)?;
    let (folder, classes) = (args.out.as_ref().unwrap_or(&mapped.folder), &mapped.features.dataset.classes);
    map.write(folder, console)?;
    let reading = map.quality.map.as_ref().map(|found| {
        let reading = Reading { classes, mean: found.mean, per_class: &found.per_class };
        (reading.word(), reading.sentence())
    });
    let per_class = |found: &Option<Silhouettes>| {
        found.as_ref().map(|found| {
            json!(
                classes
                    .iter()
                    .zip(&found.per_class)
                    .map(|(class, mean)| json!({"class": class, "silhouette": mean}))
                    .collect::<Vec<_>>()
            )
        })
    };
    let result = json!({
        "n": map.embedding.points.len(),
        "perplexity": map.embedding.perplexity,
        "iterations": map.embedding.iterations,
        "kl": map.embedding.kl,
        "neighbors": map.quality.neighborhoods.as_ref().map(|found| found.k),
        "trustworthiness": map.quality.neighborhoods.as_ref().map(|found| found.trustworthiness),
        "neighbor_preservation": map.quality.neighborhoods.as_ref().map(|found| found.preservation),
        "silhouette": map.quality.map.as_ref().map(|found| found.mean),
        "silhouette_features": map.quality.features.as_ref().map(|found| found.mean),
        "per_class": per_class(&map.quality.map),
        "reading": reading.as_ref().map(|(word, _)| *word),
        "reading_sentence": reading.as_ref().map(|(_, sentence)| sentence.clone()),
        "misclassified": map.misclassified(),
        "png": folder.join("plots/tsne.png"),
        "svg": folder.join("plots/tsne.svg"),
        "csv": folder.join("tsne.csv"),
        "html": folder.join("tsne.html"),
        "cache": mapped.features.usage,
        "seconds": clock.elapsed().as_secs_f64(),
        "warnings": map.embedding.warnings,
    });
    write_json(&folder.join(SUMMARY), &result)?;
    console.output(&result, || table(&result))
}

/// The overrides; with a run only those that leave its model as it is.
fn fitting_sets(args: &TsneArgs) -> Result<Vec<String>> {
    let sets = args.config.sets_beside_run()?;
    let fits = |set: &&String| ["tsne.", "cache.", "run.threads="].iter().any(|key| set.starts_with(key));
    if let Some(set) = sets.iter().find(|set| !fits(set)) {
        return Err(Error::usage_hint(
            format!("{} does not go with --run: the run's own settings made its model", args.config.typed(set)),
            "with --run, override keys of [tsne] and [cache], or run.threads",
        ));
    }
    Ok(sets)
}

/// The result as a table for people; every number is the one of the JSON.
fn table(result: &serde_json::Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or("not defined").to_owned();
    let number = |key: &str| result[key].as_f64().map_or("not defined".to_owned(), |value| format!("{value:.3}"));
    let mut rows = vec![
        ("images", result["n"].to_string()),
        ("perplexity", number("perplexity")),
        ("KL divergence", number("kl")),
        ("trustworthiness", number("trustworthiness")),
        ("neighbours kept", number("neighbor_preservation")),
        ("silhouette", format!("{} (features: {})", number("silhouette"), number("silhouette_features"))),
        ("by class", by_class(&result["per_class"])),
        ("reading", text("reading_sentence")),
    ];
    rows.extend(result["misclassified"].as_u64().map(|wrong| ("misclassified", wrong.to_string())));
    rows.push(("time", format!("{:.1} s", result["seconds"].as_f64().unwrap_or_default())));
    rows.extend([("picture", text("png")), ("page", text("html")), ("table", text("csv"))]);
    key_value_table(&rows)
}

/// The silhouette of each class.
fn by_class(found: &serde_json::Value) -> String {
    let one = |class: &serde_json::Value| {
        let silhouette = class["silhouette"].as_f64().map_or("not defined".to_owned(), |value| format!("{value:.2}"));
        format!("{} {silhouette}", printable(class["class"].as_str().unwrap_or_default()))
    };
    found.as_array().map_or("not defined".into(), |classes| classes.iter().map(one).collect::<Vec<_>>().join(", "))
}
