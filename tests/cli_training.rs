//! The keys of `[train]` beyond the plain recipe, as a user meets them.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod common;

use common::workspace::{Workspace, json};
use std::fs;
use std::process::Output;

fn finetune(workspace: &Workspace, name: &str, sets: &[&str]) -> Output {
    let name = format!("run.name={name}");
    let mut args = vec!["finetune", "--config", "small.toml", "--json", "--set", &name];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    workspace.command(&args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn rare_classes_can_be_made_up_for() {
    let workspace = Workspace::new();
    // Two of six images are left of one class.
    let folder = workspace.path("data/train/local");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files[2..].iter().for_each(|file| fs::remove_file(file).unwrap());
    let plain = finetune(&workspace, "plain", &["augment.preset=none"]);
    json(&plain);
    for (name, sets) in [
        ("sampler", ["train.sampler=balanced"].as_slice()),
        ("focal", &["train.loss=focal", "train.focal_gamma=1", "train.class_weights=inverse"]),
        ("adjusted", &["train.loss=logit_adjusted"]),
        ("effective", &["train.class_weights=effective", "train.effective_beta=0.9"]),
    ] {
        let output = finetune(&workspace, name, &[&["augment.preset=none"], sets].concat());
        // Frozen blocks are kept whatever the order of the images.
        assert!(json(&output)["cache"]["hits"].as_u64().unwrap() > 0, "{name}");
        assert!(!stderr(&output).contains("overdo"), "{name}");
        assert!(workspace.tensors(name, "last") != workspace.tensors("plain", "last"), "{name} changed nothing");
    }
    let twice = finetune(&workspace, "twice", &["train.sampler=balanced", "train.loss=logit_adjusted"]);
    assert!(stderr(&twice).contains("together they overdo it"), "{}", stderr(&twice));
}

#[test]
fn mixed_images_are_new_views() {
    let workspace = Workspace::new();
    let output = finetune(&workspace, "mixed", &["augment.preset=none", "train.mixup=true", "train.cutmix=0.5"]);
    let result = json(&output);
    assert!(result["cache"].is_null() && stderr(&output).contains("mixing"), "{}", stderr(&output));
    let accumulated = ["augment.preset=none", "train.mixup=true", "train.cutmix=0.5", "train.accumulate=2"];
    json(&finetune(&workspace, "accumulated", &accumulated));
    let metrics = |run: &str| fs::read_to_string(workspace.path(&format!("runs/{run}/metrics.jsonl"))).unwrap();
    let loss = |run: &str| -> f64 {
        let line: serde_json::Value = serde_json::from_str(metrics(run).lines().next().unwrap()).unwrap();
        line["train_loss"].as_f64().unwrap()
    };
    assert!((loss("mixed") - loss("accumulated")).abs() < 1e-4, "micro-batches are mixed otherwise than batches");
}
