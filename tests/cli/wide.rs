//! Inputs that are not square, as a user meets them.

use crate::common::workspace::{Workspace, json};
use crate::features::{misses, output, run, stderr};
use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use vitadapt::report::RunRecord;
use vitadapt::size::Size;

const WIDE: [&str; 2] = ["--set", "model.image_size=[32, 48]"];

/// The answers to some files or folders, each file by its name.
fn predicted(workspace: &Workspace, run: &str, inputs: &[&str]) -> BTreeMap<String, Value> {
    let args = [&["predict", "--run", run, "--json", "-q"], inputs].concat();
    let rows = json(&workspace.command(&args).output().unwrap());
    let rows = rows["predictions"].as_array().unwrap();
    rows.iter().map(|row| (row["path"].as_str().unwrap().to_owned(), row.clone())).collect()
}

/// The size of the input in the record of a run, read and as it is written.
fn recorded(workspace: &Workspace, run: &str) -> (Size, Value) {
    let written = std::fs::read(workspace.path(run).join("run.json")).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    let read = RunRecord::read(&workspace.path(run)).unwrap();
    (read.preprocess.geometry.image_size, written["preprocess"]["image_size"].clone())
}

#[test]
fn a_probe_reads_maps_and_repeats() {
    let workspace = Workspace::new();
    let result = run(&workspace, "probe", &[&WIDE[..], &["--set", "run.name=wide"]].concat());
    assert_eq!(misses(&result), 36);
    assert_eq!(recorded(&workspace, "runs/wide"), ([32, 48].into(), value!([32, 48])));
    workspace.assert_scores_repeat("wide", &result);
    // The features of another shape are others, and those of a square are found again however it is written.
    let square = run(&workspace, "probe", &["--set", "run.name=square"]);
    assert_eq!(misses(&square), 36);
    let again = run(&workspace, "probe", &["--set", "run.name=again", "--set", "model.image_size=[32, 32]"]);
    assert_eq!((misses(&again), recorded(&workspace, "runs/again").1), (0, value!(32)));
    let maps = predicted(&workspace, "runs/wide", &["data/test", "--maps", "maps"]);
    for row in maps.values() {
        let (width, height) = image::image_dimensions(workspace.path(row["map"].as_str().unwrap())).unwrap();
        assert_eq!((width, height), (48, 32), "{row}");
    }
    let mapped = run(&workspace, "tsne", &[&WIDE[..], &["--set", "tsne.perplexity=5", "--out", "map"]].concat());
    assert_eq!(misses(&mapped), 0, "{mapped}");
}

#[test]
fn a_training_resumes_and_a_batch_equals_its_images() {
    let workspace = Workspace::new();
    let mixed = [
        "augment.crop=true", "augment.rotate90=0.5", "augment.erasing=0.5", "train.cutmix=1", "train.mixup=0.2",
        "preprocess.resize=letterbox", "train.epochs=10", "early_stop.patience=0",
    ];
    let sets: Vec<&str> = WIDE.into_iter().chain(mixed.iter().flat_map(|set| ["--set", set])).collect();
    let result = workspace.finetune("wide", &sets);
    workspace.assert_scores_repeat("wide", &result);
    let all = predicted(&workspace, "runs/wide", &["data/test"]);
    for (path, row) in all.iter().step_by(4) {
        let alone = &predicted(&workspace, "runs/wide", &[path])[path];
        let (a, b) = (&row["top"][0]["probability"], &alone["top"][0]["probability"]);
        assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5, "{a} {b}");
    }
    // Interrupted, it ends in the same weights.
    let args = [&["finetune", "--config", "small.toml", "-q", "--set", "run.name=stopped"][..], &sets].concat();
    workspace.interrupt(&args, "stopped", 1);
    workspace.finetune("stopped", &[&sets[..], &["--resume"]].concat());
    assert_eq!(workspace.tensors("wide", "last"), workspace.tensors("stopped", "last"));
}

#[test]
fn what_takes_squares_alone_says_so() {
    let workspace = Workspace::new();
    for (sets, said) in [
        (&["preprocess.tiles=true"][..], "preprocess.tiles cuts squares"),
        (
            &["model.image_size=[32, 50]"],
            "model.image_size = [32, 50] is not a multiple of the backbone's patch size 16",
        ),
        (
            &["model.image_size=[32, 48, 3]"],
            "[32, 48, 3] has 3 items (expected an integer from 16 to 4096, or [height, width]",
        ),
    ] {
        let sets: Vec<&str> = WIDE.into_iter().chain(sets.iter().flat_map(|set| ["--set", set])).collect();
        let refused = output(&workspace, "probe", &sets);
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
    }
}
