//! `vitadapt compare` as a user meets it: real runs, interrupted, repeated, collected, failing.

use crate::common::workspace::{Workspace, json};
use crate::features::stderr;
use crate::snapshot::snapshot;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn args<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&["compare", "--config", "small.toml", "--set", "train.epochs=1"], extra].concat()
}

fn compare(workspace: &Workspace, extra: &[&str]) -> Value {
    json(&workspace.command(&args(&[&["--json"], extra].concat())).output().unwrap())
}

/// Has a shell run a line of the list.
fn shell(workspace: &Workspace, line: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(workspace.folder.path()).env("XDG_CACHE_HOME", workspace.path("cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The run directories of the comparison, earlier ones set aside included.
fn runs(workspace: &Workspace) -> BTreeSet<String> {
    let names = fs::read_dir(workspace.path("runs/small-compare")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("seed") || name.contains("fold")).collect()
}

#[test]
fn the_list_is_one_line_a_run_that_a_shell_can_run() {
    let workspace = Workspace::new();
    let list = args(&["--set", "run.out=my runs", "--strategies", "lora,knn,partial", "--seeds", "2", "--list"]);
    snapshot!(workspace, &list);
    let lines = String::from_utf8(workspace.command(&list).output().unwrap().stdout).unwrap();
    shell(&workspace, lines.lines().next().unwrap());
    assert!(workspace.path("my runs/small-compare/knn-seed42/predictions-test.csv").is_file());
    let all = workspace.command(&args(&["--list"])).output().unwrap();
    assert_eq!(String::from_utf8(all.stdout).unwrap().lines().count(), 6, "no texts, no zero-shot");
}

#[test]
fn finished_runs_are_kept_and_changed_ones_made_again() {
    let workspace = Workspace::new();
    let extra = ["--strategies", "knn,probe,frozen,partial", "--seeds", "2"];
    let first = compare(&workspace, &extra);
    let rows = first["strategies"].as_array().unwrap();
    let column = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(column("strategy"), ["knn", "probe", "frozen", "partial"]);
    assert_eq!(column("backbone_updated"), ["no", "no", "no", "last block"]);
    assert_eq!(column("head_updated"), ["no", "solved", "yes", "yes"]);
    assert_eq!((first["test_images"].as_u64(), first["tests"].as_array().unwrap().len()), (Some(9), 3));
    assert!(first["recommendation"]["sentence"].is_string() && first["missing"].as_array().unwrap().is_empty());
    for row in rows {
        let runs = row["runs"].as_array().unwrap();
        let mean = runs.iter().map(|run| run["test_accuracy"].as_f64().unwrap()).sum::<f64>() / runs.len() as f64;
        assert!((mean - row["test_accuracy"].as_f64().unwrap()).abs() < 1e-12, "{row}");
        for run in runs {
            let record: Value =
                serde_json::from_slice(&fs::read(format!("{}/run.json", run["folder"].as_str().unwrap())).unwrap())
                    .unwrap();
            assert_eq!((&record["seed"], &record["result"]["test_accuracy"]), (&run["seed"], &run["test_accuracy"]));
        }
    }
    for file in ["compare.json", "compare.csv", "compare.md", "plots/compare.png", "logs/partial-seed43.log"] {
        assert!(workspace.path("runs/small-compare").join(file).is_file(), "{file} is missing");
    }
    let there = runs(&workspace);
    assert_eq!(there.len(), 8);

    let again = workspace.command(&args(&[&["--json"], extra.as_slice()].concat())).output().unwrap();
    assert_eq!(json(&again), first);
    assert_eq!(stderr(&again).matches("already finished").count(), 8, "{}", stderr(&again));
    assert_eq!(runs(&workspace), there, "nothing was run again");

    // The head's rate is part of every run, of a kNN too, so all are made again, and nothing is lost.
    compare(&workspace, &["--set", "train.head_lr=1e-2", "--strategies", "knn,partial"]);
    assert_eq!(runs(&workspace).len(), 10);
    assert!(workspace.path("runs/small-compare/knn-seed42.1/run.json").is_file());

    // Another image less: whatever the settings say, the runs are of other data.
    let image = fs::read_dir(workspace.path("data/train/local")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(image).unwrap();
    let other = args(&["--set", "train.head_lr=1e-2", "--strategies", "knn"]);
    let output = workspace.command(&other).output().unwrap();
    assert!(stderr(&output).contains("again (from other images)"), "{}", stderr(&output));
}

#[test]
fn an_interrupted_comparison_goes_on_to_the_same_bits() {
    let workspace = Workspace::new();
    let long = ["train.epochs=10", "early_stop.patience=0", "augment.preset=none"];
    let sets: Vec<&str> = long.iter().flat_map(|set| ["--set", set]).collect();
    workspace.finetune("whole", &[sets.as_slice(), &["--set", "strategy.kind=full"]].concat());
    let line = args(&[sets.as_slice(), &["--strategies", "knn,full", "--json"]].concat());
    let run = "small-compare/full-seed42";
    let stopped = workspace.interrupt(&line, run, 2);
    assert_eq!(stopped.status.code(), Some(130), "{}", stderr(&stopped));
    assert!(
        stderr(&stopped).contains("hint: the same command continues where this one stopped"),
        "{}",
        stderr(&stopped)
    );
    let record: Value =
        serde_json::from_slice(&fs::read(workspace.path(&format!("runs/{run}/run.json"))).unwrap()).unwrap();
    assert_eq!(record["status"], "stopped", "the run got the signal and saved itself");

    let collected = workspace.command(&[line.as_slice(), &["--collect"]].concat()).output().unwrap();
    assert_eq!(json(&collected)["missing"][0]["reason"], "stopped by a signal");

    let output = workspace.command(&line).output().unwrap();
    let result = json(&output);
    assert!(stderr(&output).contains("full-seed42: goes on"), "{}", stderr(&output));
    assert_eq!(result["strategies"][1]["runs"].as_array().unwrap().len(), 1);
    for checkpoint in ["last", "best"] {
        assert!(workspace.tensors("whole", checkpoint) == workspace.tensors(run, checkpoint), "{checkpoint} differs");
    }
}

#[test]
fn runs_that_were_made_elsewhere_are_collected() {
    let workspace = Workspace::new();
    let extra = ["--strategies", "knn,probe", "--seeds", "2"];
    let list = workspace.command(&args(&[extra.as_slice(), &["--list", "--json"]].concat())).output().unwrap();
    let lines = json(&list)["runs"].as_array().unwrap().clone();
    for line in &lines[..3] {
        shell(&workspace, line["command"].as_str().unwrap());
    }
    let collected = compare(&workspace, &[extra.as_slice(), &["--collect"]].concat());
    assert_eq!(collected["missing"], serde_json::json!([{"run": "probe-seed43", "reason": "not started"}]));
    let complete: Vec<_> = collected["strategies"].as_array().unwrap().iter().map(|row| &row["complete"]).collect();
    assert_eq!(complete, [true, false]);
    assert_eq!(collected["recommended"], Value::Null, "one alone is no choice");
    snapshot!(
        workspace,
        &args(&[extra.as_slice(), &["--collect"]].concat()),
        // The columns of time and memory, as wide as what stands in them.
        (r" +\d+\.\d s +\d+ MiB", "  [TIME]  [MEMORY]"),
        (r"p +work +time +peak memory\n─+", "p  work  time  peak memory\n─")
    );
    // A run of other images is not compared with the rest.
    let image = fs::read_dir(workspace.path("data/train/local")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(image).unwrap();
    shell(&workspace, lines[3]["command"].as_str().unwrap());
    let collected = compare(&workspace, &[extra.as_slice(), &["--collect"]].concat());
    assert_eq!(collected["missing"][0]["reason"], "from other images");

    fs::remove_dir_all(workspace.path("runs/small-compare")).unwrap();
    snapshot!(workspace, &args(&[extra.as_slice(), &["--collect"]].concat()));
}

#[test]
fn a_run_that_fails_is_told_and_the_others_are_compared() {
    let workspace = Workspace::new();
    let line = args(&["--strategies", "knn,partial,probe", "--set", "strategy.blocks=99", "--json"]);
    let output = workspace.command(&line).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["strategies"].as_array().unwrap().len(), 2);
    let reason = result["missing"][0]["reason"].as_str().unwrap();
    assert!(result["missing"][0]["run"] == "partial-seed42" && reason.contains("99"), "{reason}");
    assert!(stderr(&output).contains("error: 1 of 3 runs failed:\n  partial-seed42: "), "{}", stderr(&output));
    let later = json(&workspace.command(&[line.as_slice(), &["--collect"]].concat()).output().unwrap());
    assert_eq!(later["missing"][0]["reason"], format!("failed: {reason}"));
    let alone = workspace.command(&args(&["--strategies", "partial", "--set", "strategy.blocks=99"])).output().unwrap();
    assert_eq!((alone.status.code(), alone.stdout.len()), (Some(2), 0), "nothing to compare, nothing printed");
}

#[test]
fn folds_test_every_image_once() {
    let workspace = Workspace::new();
    let result = compare(&workspace, &["--strategies", "knn,probe", "--folds", "3"]);
    assert_eq!((result["test_images"].as_u64(), &result["repeats"]["folds"]), (Some(36), &Value::from(3)));
    let mut tested = BTreeSet::new();
    for fold in 1..=3 {
        let file = workspace.path(&format!("runs/small-compare/knn-fold{fold}of3/predictions-test.csv"));
        let text = fs::read_to_string(file).unwrap();
        text.lines()
            .skip(1)
            .for_each(|line| assert!(tested.insert(line.split(',').next().unwrap().to_owned()), "{line}"));
    }
    assert_eq!(tested.len(), 36);
    let log = fs::read_to_string(workspace.path("runs/small-compare/logs/knn-fold1of3.log")).unwrap();
    assert!(log.contains("divides all images anew"), "{log}");
}

#[test]
fn texts_add_zero_shot() {
    let workspace = Workspace::with_text_models();
    let line = ["compare", "--config", "clip.toml", "--strategies", "zeroshot,knn", "--json"];
    let result = json(&workspace.command(&line).output().unwrap());
    assert_eq!(result["strategies"][0]["strategy"], "zeroshot");
    assert_eq!(result["strategies"][0]["trainable_parameters"], 0);
    let list = workspace.command(&["compare", "--config", "clip.toml", "--list"]).output().unwrap();
    assert!(String::from_utf8(list.stdout).unwrap().lines().next().unwrap().contains(" zeroshot --config clip.toml "));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let workspace = Workspace::new();
    snapshot!(workspace, &args(&["--strategies", "knn,partail"]));
    snapshot!(workspace, &args(&["--strategies", "zeroshot"]));
    snapshot!(workspace, &args(&["--folds", "1"]));
    snapshot!(workspace, &args(&["--folds", "3", "--seeds", "2"]));
    snapshot!(workspace, &args(&["--target", "90"]));
    snapshot!(workspace, &args(&["--strategies", "full", "--set", "strategy.rank=4"]));
    snapshot!(workspace, &args(&["--set", "strategy.rnk=4"]));
    let none = ["--set", "data.root=data/train", "--set", "data.test=0"];
    snapshot!(workspace, &args(&none));
    snapshot!(workspace, &args(&["--set", "model.backbone=./weights"]));
    snapshot!(workspace, &["compare"]);
    assert!(!workspace.path("runs").exists(), "what cannot start leaves nothing");
    fs::create_dir_all(workspace.path("runs/small-compare")).unwrap();
    let _lock = vitadapt::system::lock::Lock::acquire(&workspace.path("runs/small-compare")).unwrap();
    assert_eq!(workspace.command(&args(&["--strategies", "knn"])).output().unwrap().status.code(), Some(7));
}
