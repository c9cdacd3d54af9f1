//! What a run forecasts of its memory, against the largest resident set of its process.

use crate::common::workspace::{CLASSES, Workspace, textile};
use serde_json::Value;
use std::fs;
use std::ops::RangeInclusive;

/// The measured peak as a share of the forecast. It must not lie far above, which would end a run that was promised to
/// fit; below it varies with how far decoding runs ahead of the training.
const SHARE: RangeInclusive<f64> = 0.7..=1.25;

/// What a program that is not optimised has resident of its code, in bytes, beyond the one that is forecast.
const MORE_CODE: f64 = if cfg!(debug_assertions) { 25.0 } else { 0.0 } * 1_048_576.0;

/// Forecast and measured peak of a training run, in bytes: each in a process of its own.
fn peak(workspace: &Workspace, name: &str, sets: &[&str]) -> (f64, f64) {
    let mut args = vec!["model.image_size=112", "train.batch_size=16", "train.steps=5", "run.decode_threads=2"];
    args.extend_from_slice(sets);
    let sets: Vec<&str> = args.iter().flat_map(|&set| ["--set", set]).collect();
    workspace.finetune(name, &sets);
    let record: Value =
        serde_json::from_slice(&fs::read(workspace.path(&format!("runs/{name}/run.json"))).unwrap()).unwrap();
    let parts = record["forecast"]["memory"].as_object().unwrap();
    let forecast = parts.values().map(|bytes| bytes.as_f64().unwrap()).sum();
    (forecast, record["peak_memory_bytes"].as_f64().unwrap() - MORE_CODE)
}

#[test]
#[cfg(target_os = "linux")] // where a process knows its peak
fn the_forecast_is_the_measured_peak() {
    // A hundred images, and 1,800.
    let [few, many] = [(30, Workspace::new()), (600, Workspace::new())].map(|(count, workspace)| {
        for class in CLASSES {
            for (i, file) in textile("train", class).iter().cycle().take(count).enumerate() {
                fs::copy(file, workspace.path(&format!("data/train/{class}/more-{i}.jpg"))).unwrap();
            }
        }
        workspace
    });
    let mut wrong = Vec::new();
    for (name, sets) in [
        ("frozen", &["strategy={kind=\"frozen\"}"][..]),
        ("partial", &["strategy={kind=\"partial\", blocks=3}"]),
        ("full", &["strategy={kind=\"full\"}"]),
        ("checkpointed", &["strategy={kind=\"full\"}", "train.checkpoint_blocks=true"]),
        ("lora", &["strategy={kind=\"lora\"}"]),
        ("prompt", &["strategy={kind=\"prompt\", tokens=20}"]),
        ("many", &["strategy={kind=\"full\"}"]),
    ] {
        let workspace = if name == "many" { &many } else { &few };
        let (forecast, measured) = peak(workspace, name, sets);
        println!("{name}: {:.0} MiB forecast, {:.0} measured", forecast / 1_048_576.0, measured / 1_048_576.0);
        if !SHARE.contains(&(measured / forecast)) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}: the measured peak is not {SHARE:?} of the forecast");
}
