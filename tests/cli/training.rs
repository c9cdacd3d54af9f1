//! The keys of `[train]` beyond the plain recipe, as a user meets them.

#[path = "../../examples/finetune.rs"]
#[allow(dead_code)] // its `main`
mod example;

use crate::common::workspace::{Workspace, files, json};
use crate::features::stderr;
use std::fs;
use std::process::Output;
use vitadapt::report::{RunRecord, RunResult, Status};

fn finetune(workspace: &Workspace, name: &str, sets: &[&str]) -> Output {
    let name = format!("run.name={name}");
    let mut args = vec!["finetune", "--config", "small.toml", "--json", "--set", &name];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    workspace.command(&args).output().unwrap()
}

#[test]
fn rare_classes_can_be_made_up_for() {
    let workspace = Workspace::new();
    // Two of six images are left of one class.
    let folder = workspace.path("data/train/local");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files[2..].iter().for_each(|file| fs::remove_file(file).unwrap());
    let plain = finetune(&workspace, "plain", &["augment.preset=none", "train.epochs=1"]);
    json(&plain);
    for (name, sets) in [
        ("sampler", ["train.sampler=balanced"].as_slice()),
        ("focal", &["train.loss=focal", "train.focal_gamma=1", "train.class_weights=inverse"]),
        ("adjusted", &["train.loss=logit_adjusted"]),
        ("effective", &["train.class_weights=effective", "train.effective_beta=0.9"]),
    ] {
        let output = finetune(&workspace, name, &[&["augment.preset=none", "train.epochs=1"], sets].concat());
        // Frozen blocks are kept whatever the order of the images.
        assert!(json(&output)["cache"]["hits"].as_u64().unwrap() > 0, "{name}");
        assert!(!stderr(&output).contains("overdo"), "{name}");
        assert!(workspace.tensors(name, "last") != workspace.tensors("plain", "last"), "{name} changed nothing");
    }
    let twice =
        finetune(&workspace, "twice", &["train.epochs=1", "train.sampler=balanced", "train.loss=logit_adjusted"]);
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

#[test]
fn averages_and_soups_are_what_is_kept() {
    let workspace = Workspace::new();
    let output = finetune(
        &workspace,
        "soup",
        &["train.epochs=4", "train.soup=3", "train.ema=true", "train.sam=0.1", "early_stop.metric=val_loss"],
    );
    let result = json(&output);
    let soup = &result["soup"];
    let tried = soup["tried"].as_array().unwrap();
    assert_eq!((tried.len(), &tried[0]), (3, &result["best_epoch"]));
    assert!(soup["soup"]["loss"].as_f64() <= soup["best"]["loss"].as_f64(), "{soup}");
    assert!(stderr(&output).contains("soup      "), "{}", stderr(&output));
    assert_eq!(files(&workspace.path("runs/soup/checkpoints")), ["best", "last"]);
    // The best is the soup or an average: never the parameters that the optimiser goes on from.
    assert!(workspace.tensors("soup", "best") != workspace.tensors("soup", "last"));
    let eval = ["eval", "--run", "runs/soup", "--split", "val", "--json", "-q"];
    let scored = json(&workspace.command(&eval).output().unwrap());
    assert!((scored["nll"].as_f64().unwrap() - soup["soup"]["loss"].as_f64().unwrap()).abs() < 1e-5);
    let alone = finetune(&workspace, "alone", &["data.root=data/train", "data.val=0", "train.soup=2"]);
    assert!(json(&alone)["soup"].is_null() && stderr(&alone).contains("train.soup needs"), "{}", stderr(&alone));
}

#[test]
fn a_changed_run_is_not_resumed() {
    let workspace = Workspace::new();
    let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/vit-mini");
    fs::create_dir(workspace.path("weights")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(assets.join(file), workspace.path("weights").join(file)).unwrap();
    }
    let sets = ["train.steps=1", "model.backbone=./weights"];
    json(&finetune(&workspace, "run", &sets));
    let resume = |extra: &[&str]| {
        let mut args = vec!["finetune", "--config", "small.toml", "--json", "--resume", "--set", "run.name=run"];
        sets.iter().chain(extra).for_each(|set| args.extend(["--set", set]));
        workspace.command(&args).output().unwrap()
    };
    let refused = |extra: &[&str], why: &str| {
        let output = resume(extra);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stderr(&output).contains(why), "{why}: {}", stderr(&output));
    };
    // When to save changes nothing of the result.
    json(&resume(&["train.checkpoint_steps=3", "train.checkpoint_minutes=0"]));
    refused(&["train.loss=focal"], "train.loss: \"cross_entropy\" then, \"focal\" now");

    let weights = workspace.path("weights/model.safetensors");
    let original = fs::read(&weights).unwrap();
    let mut changed = original.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, changed).unwrap();
    refused(&[], "backbone: ");
    fs::write(&weights, original).unwrap();

    let image = fs::read_dir(workspace.path("data/train/local")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&image).unwrap();
    fs::remove_file(&image).unwrap();
    refused(&[], "data: 18/9/9 images");
    fs::write(&image, bytes).unwrap();
    json(&resume(&[]));

    for split in ["train", "val", "test"] {
        let folder = workspace.path(&format!("data/{split}"));
        fs::rename(folder.join("local"), folder.join("spot")).unwrap();
    }
    refused(&[], "classes: global, local, nominal then, global, nominal, spot now");
}

/// A limit on the size of files stands in for a full disk: the write fails in the middle of a file.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_checkpoint() {
    let workspace = Workspace::new();
    let sets = ["train.epochs=5", "train.checkpoint_steps=1", "early_stop.patience=0"];
    let arguments = |name: &str| {
        let mut args = vec!["finetune".to_owned(), "--config".into(), "small.toml".into(), "--resume".into()];
        let name = format!("run.name={name}");
        sets.iter().copied().chain([name.as_str()]).for_each(|set| args.extend(["--set".into(), set.into()]));
        args
    };
    let args = arguments("full");
    let stopped = workspace.interrupt(&args.iter().map(String::as_str).collect::<Vec<_>>(), "full", 1);
    assert_eq!(stopped.status.code(), Some(130), "{stopped:?}");
    let files = |checkpoint: &str| {
        let folder = workspace.path(&format!("runs/full/checkpoints/{checkpoint}"));
        ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
            .map(|file| fs::read(folder.join(file)).unwrap())
    };
    let before = files("last");

    let script = "trap '' XFSZ; ulimit -f 2500; exec \"$0\" \"$@\"";
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", script]).arg(workspace.command(&[]).get_program()).args(&args);
    limited.current_dir(workspace.folder.path()).env("XDG_CACHE_HOME", workspace.path("cache"));
    let full = limited.output().unwrap();
    // The shell counts in blocks of 512 or 1024 bytes: either way the model's or the optimiser's file is too large.
    assert_eq!(full.status.code(), Some(5), "{full:?}");
    // The next save is that of the step or, when the epoch was just over, that of the best.
    assert!(stderr(&full).contains(".tmp/") && stderr(&full).contains(".safetensors"), "{}", stderr(&full));
    assert!(files("last") == before, "the old checkpoint has changed");
    let temporary = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let mut entries = fs::read_dir(workspace.path("runs/full/checkpoints")).unwrap().map(Result::unwrap);
    assert!(!entries.any(|entry| temporary(&entry)), "a temporary is left behind");

    for run in ["full", "whole"] {
        let args = arguments(run);
        let output = workspace.command(&args.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert!(workspace.tensors("full", "last") == workspace.tensors("whole", "last"));
}

#[cfg(unix)]
#[test]
fn a_run_directory_that_cannot_be_written_is_found_out_at_once() {
    let workspace = Workspace::new();
    workspace.write("runs", "a file where the folder of the runs should be");
    let output = finetune(&workspace, "any", &[]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(stderr(&output).contains("runs/any") && !stderr(&output).contains("epoch"), "{}", stderr(&output));
}

#[test]
fn the_example_trains_scores_and_predicts() {
    let workspace = Workspace::new();
    example::run(&workspace.path("data"), &workspace.path("runs")).unwrap();
    let runs: Vec<_> = fs::read_dir(workspace.path("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let folder = runs.iter().find(|folder| folder.join("run.json").is_file()).unwrap();
    let record = RunRecord::read(folder).unwrap();
    let Some(RunResult::Finetune(result)) = record.result else { panic!("{:?}", record.result) };
    assert_eq!((record.status, result.epochs, &result.run), (Status::Done, 5, folder));
    assert!(result.test_accuracy.unwrap() > 0.5, "{result:?}");
}
