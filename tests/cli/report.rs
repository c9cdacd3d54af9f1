//! `vitadapt report`, the page that each run leaves, and `eval --corrupt`.

use crate::common::workspace::{Workspace, json};
use crate::snapshot::snapshot;
use serde_json::Value;
use std::fs;

pub(crate) fn page(workspace: &Workspace, run: &str) -> String {
    fs::read_to_string(workspace.path(&format!("runs/{run}/report.html"))).unwrap()
}

/// The paths of the wrong answers on the test images.
fn wrong(workspace: &Workspace, run: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace.path(&format!("runs/{run}/predictions-test.csv"))).unwrap();
    let rows = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    rows.filter(|row| row[1] != row[2]).map(|row| row[0].to_owned()).collect()
}

#[test]
fn a_run_leaves_its_page_and_it_can_be_made_again() {
    let workspace = Workspace::new();
    workspace.finetune("full", &["--set", "early_stop.patience=0"]);
    let first = page(&workspace, "full");
    let mistakes = wrong(&workspace, "full");
    assert!(!mistakes.is_empty(), "nothing to show after two epochs on 18 images would be a surprise");
    // The image, its heat map and the three nearest of the training images.
    assert_eq!(first.matches("<img ").count(), 5 * mistakes.len());
    assert!(mistakes.iter().all(|path| first.contains(path.as_str())));

    let again = json(&workspace.command(&["report", "--run", "runs/full", "--json", "-q"]).output().unwrap());
    assert_eq!(again["bytes"].as_u64(), Some(first.len() as u64));
    assert!(page(&workspace, "full") == first, "the same run gives the same page");
    let one =
        json(&workspace.command(&["report", "--run", "runs/full", "--mistakes", "1", "--json"]).output().unwrap());
    assert!(one["bytes"].as_u64() <= again["bytes"].as_u64());
    assert_eq!(page(&workspace, "full").matches("<article ").count(), 1);

    fs::remove_file(workspace.path("runs/full/report.html")).unwrap();
    let eval = workspace.command(&["eval", "--run", "runs/full", "--split", "train"]).output().unwrap();
    assert!(
        eval.status.success() && page(&workspace, "full").contains("<th scope=\"row\">train (no honest estimate)</th>")
    );
}

#[test]
fn a_page_is_never_worth_a_run() {
    let workspace = Workspace::new();
    workspace.finetune("none", &["--set", "report.html=false"]);
    assert!(!workspace.path("runs/none/report.html").exists());

    let lost = wrong(&workspace, "none");
    fs::write(workspace.path("data").join(&lost[0]), "no image any more").unwrap();
    let report = workspace.command(&["report", "--run", "runs/none"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&report.stderr);
    assert!(report.status.success() && stderr.contains("warning: 1 of the images"), "{stderr}");
    assert_eq!(page(&workspace, "none").matches("<img ").count(), 5 * (lost.len() - 1));

    fs::remove_file(workspace.path("runs/none/known.safetensors")).unwrap();
    let report = workspace.command(&["report", "--run", "runs/none"]).output().unwrap();
    assert!(report.status.success() && String::from_utf8_lossy(&report.stderr).contains("training images"));
    assert_eq!(page(&workspace, "none").matches("<img ").count(), 2 * (lost.len() - 1));
    // Runs of older versions have no list of answers.
    fs::remove_file(workspace.path("runs/none/predictions-test.csv")).unwrap();
    assert!(workspace.command(&["report", "--run", "runs/none"]).status().unwrap().success());
    assert!(!page(&workspace, "none").contains("<img "));
}

#[test]
fn a_run_whose_images_are_gone_has_a_page_without_pictures() {
    let workspace = Workspace::new();
    let probe = ["probe", "--config", "small.toml", "--set", "run.name=probe", "-q"];
    assert!(workspace.command(&probe).status().unwrap().success());
    let before = page(&workspace, "probe");
    let report = || workspace.command(&["report", "--run", "runs/probe"]).output().unwrap();
    fs::remove_dir_all(workspace.path("data/test/local")).unwrap();
    let some = report();
    let said = String::from_utf8_lossy(&some.stderr);
    assert!(
        some.status.success() && said.contains("of the run are gone: the page is made without their pictures"),
        "{said}"
    );
    fs::remove_dir_all(workspace.path("data")).unwrap();
    let none = report();
    assert!(none.status.success(), "{}", String::from_utf8_lossy(&none.stderr));
    let after = page(&workspace, "probe");
    assert!(before.contains("<img ") && !after.contains("<img "));
    assert!(wrong(&workspace, "probe").iter().all(|path| after.contains(path.as_str())), "they are named all the same");
}

#[test]
fn probes_adapters_and_prompts_have_pages_too() {
    let workspace = Workspace::new();
    let probe = ["probe", "--config", "small.toml", "--set", "run.name=probe", "--json", "-q"];
    json(&workspace.command(&probe).output().unwrap());
    assert!(page(&workspace, "probe").contains("<section id=\"selection\">"));
    for (name, sets) in [
        ("lora", ["--set", "strategy={ kind = \"lora\" }"]),
        ("visual", ["--set", "strategy={ kind = \"prompt\", modality = \"visual\" }"]),
    ] {
        workspace.finetune(name, &[&sets[..], &["--epochs", "1"]].concat());
    }
    for run in ["probe", "lora", "visual"] {
        let mistakes = wrong(&workspace, run).len();
        assert_eq!(page(&workspace, run).matches("where the model found its answer\"").count(), mistakes, "{run}");
        assert!(page(&workspace, run).contains("<section id=\"confusion\">"));
    }
}

#[test]
fn zero_shot_runs_have_pages_too() {
    let workspace = Workspace::with_text_models();
    let zeroshot = ["zeroshot", "--config", "clip.toml", "--set", "run.name=clip", "--json", "-q"];
    json(&workspace.command(&zeroshot).output().unwrap());
    let mistakes = wrong(&workspace, "clip").len();
    assert_eq!(page(&workspace, "clip").matches("where the model found its answer\"").count(), mistakes);
}

#[test]
fn flaws_of_growing_strength() {
    let workspace = Workspace::new();
    let trained = workspace.finetune("full", &[]);
    let eval = |args: &[&str]| {
        let all = [&["eval", "--run", "runs/full"], args].concat();
        workspace.command(&all).output().unwrap()
    };
    let found = json(&eval(&["--corrupt", "blur,noise", "jpeg", "--levels", "2", "--json", "-q"]));
    assert_eq!(found["accuracy"], trained["test_accuracy"]);
    let robustness = &found["robustness"];
    let kinds = robustness["kinds"].as_array().unwrap();
    assert_eq!(kinds.iter().map(|kind| kind["kind"].as_str().unwrap()).collect::<Vec<_>>(), ["blur", "noise", "jpeg"]);
    assert_eq!(robustness["strengths"], serde_json::json!([0.5, 1.0]));
    assert_eq!(robustness["clean_accuracy"], trained["test_accuracy"]);
    let all: Vec<f64> =
        kinds.iter().flat_map(|kind| kind["accuracy"].as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    assert!(all.len() == 6 && (robustness["mean_accuracy"].as_f64().unwrap() - mean).abs() < 1e-12);
    let written: Value =
        serde_json::from_slice(&fs::read(workspace.path("runs/full/robustness-test.json")).unwrap()).unwrap();
    assert_eq!(&written, robustness);
    assert!(workspace.path("runs/full/plots/robustness-test.svg").is_file());
    assert!(page(&workspace, "full").contains("<section id=\"robustness\">"));

    // The same flaws again, whatever the threads and whatever else is tried.
    let again = json(&eval(&["--corrupt", "noise", "--levels", "2", "--json", "-q"]));
    assert_eq!(again["robustness"]["kinds"][0], kinds[1]);
    let missed = eval(&["--corrupt", "noise", "--levels", "1", "--min-corrupt-accuracy", "1", "-q"]);
    let stderr = String::from_utf8_lossy(&missed.stderr);
    assert!(missed.status.code() == Some(8) && stderr.contains("mean accuracy under flaws"), "{stderr}");
    let elsewhere = json(&eval(&["--data", "data/val", "--corrupt", "jpeg", "--levels", "1", "--json", "-q"]));
    assert_eq!(elsewhere["robustness"]["split"], "data");
    assert!(!workspace.path("runs/full/robustness-data.json").exists());
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let workspace = Workspace::new();
    for args in [
        &["eval", "--run", "runs/x", "--corrupt", "noize"][..],
        &["eval", "--run", "runs/x", "--corrupt", "rain"],
        &["eval", "--run", "runs/x", "--levels", "3"],
        &["eval", "--run", "runs/x", "--corrupt", "--levels", "0"],
        &["eval", "--run", "runs/x", "--min-corrupt-accuracy", "0.5"],
        &["report", "--run", "runs/x"],
        &["report"],
    ] {
        snapshot!(workspace, args);
    }
}
