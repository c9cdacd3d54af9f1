//! Finished is not final: runs are extended, listed and put side by side.

use crate::common::workspace::{Workspace, json};
use crate::snapshot::snapshot;
use serde_json::Value;
use std::fs;

const CONSTANT: [&str; 4] = ["--set", "train.schedule=constant", "--set", "train.warmup=0"];

/// Resumes a run with other settings; what it says on stderr, and its JSON.
fn resume(workspace: &Workspace, name: &str, extra: &[&str]) -> (String, Value) {
    let mut args = vec!["finetune", "--config", "small.toml", "--json", "--resume", "--name", name];
    args.extend(extra);
    let output = workspace.command(&args).output().unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), json(&output))
}

#[test]
fn a_probe_is_no_training_to_resume() {
    let workspace = Workspace::new();
    assert!(workspace.command(&["probe", "--config", "small.toml"]).output().unwrap().status.success());
    let output = workspace.command(&["finetune", "--config", "small.toml", "--resume"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("strategy: probe then, "), "{said}");
}

#[test]
fn a_finished_run_is_extended_to_the_bits_of_a_longer_one() {
    let workspace = Workspace::new();
    workspace.finetune("long", &[&CONSTANT[..], &["--epochs", "4"]].concat());
    workspace.finetune("short", &[&CONSTANT[..], &["--epochs", "2"]].concat());
    let (said, extended) = resume(&workspace, "short", &[&CONSTANT[..], &["--epochs", "4"]].concat());
    assert!(said.contains("the finished run of 2 epochs goes on to 4 at the same learning rate"), "{said}");
    assert_eq!(extended["epochs"], 4);
    for checkpoint in ["last", "best"] {
        assert!(workspace.tensors("short", checkpoint) == workspace.tensors("long", checkpoint), "{checkpoint}");
    }
    let (said, again) = resume(&workspace, "short", &[&CONSTANT[..], &["--epochs", "4"]].concat());
    assert!(said.contains("nothing is left to do") && again == extended, "{said}");
    let mut shorter = vec!["finetune", "--config", "small.toml", "--resume", "--name", "short", "--epochs", "3"];
    shorter.extend(CONSTANT);
    let refused = workspace.command(&shorter).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("train.epochs: 4 then, 3 now"), "{said}");
}

#[test]
fn a_cosine_goes_on_where_the_longer_one_is_and_patience_begins_anew() {
    let workspace = Workspace::new();
    workspace.finetune("cosine", &["--set", "train.warmup=0"]);
    let (said, extended) = resume(&workspace, "cosine", &["--set", "train.warmup=0", "--epochs", "4"]);
    assert!(said.contains("where the cosine of 4 epochs is after 2, at 50 % of the peak"), "{said}");
    assert_eq!(extended["epochs"], 4);
    let still = ["--lr", "1e-12", "--set", "train.head_lr=1e-12", "--set", "early_stop.patience=1", "--epochs"];
    let stopped = workspace.finetune("still", &[&still[..], &["8"]].concat())["epochs"].as_u64().unwrap();
    assert!(stopped < 8, "{stopped}");
    let (_, extended) = resume(&workspace, "still", &[&still[..], &["9"]].concat());
    assert!(extended["epochs"].as_u64().unwrap() > stopped, "{extended}");
}

#[test]
fn runs_are_listed_and_put_side_by_side() {
    let workspace = Workspace::new();
    let test = |name: &str, extra: &[&str]| workspace.finetune(name, extra)["test_accuracy"].clone();
    let first = test("first", &[]);
    test("second", &["--epochs", "1"]);
    test("other", &["--set", "data.fold=1/3"]);
    fs::create_dir_all(workspace.path("runs/broken")).unwrap();
    workspace.write("runs/broken/run.json", "{}");
    let listed = json(&workspace.command(&["runs", "--json", "-q"]).output().unwrap());
    let runs = listed["runs"].as_array().unwrap();
    let of = |name: &str| runs.iter().find(|run| run["run"] == format!("runs/{name}")).unwrap();
    assert_eq!((runs.len(), &of("first")["test_accuracy"], &of("first")["status"]), (4, &first, &"done".into()));
    assert!(of("broken")["status"].is_null() && of("first")["bytes"].as_u64().unwrap() > 100_000, "{listed}");
    let table = workspace.command(&["runs", "-q"]).output().unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("damaged") && table.contains("runs/second"), "{table}");
    assert!(!table.contains(" 0 MiB"), "{table}");

    let args = ["compare", "--runs", "runs/first", "runs/second", "--json", "-q"];
    let compared = json(&workspace.command(&args).output().unwrap());
    assert_eq!(compared["strategies"][0]["test_accuracy"], first);
    assert!(compared["tests"][0]["p_value"].as_f64().unwrap() <= 1.0, "{compared}");
    let page = fs::read_to_string(workspace.path("runs/compare-first-second/compare.html")).unwrap();
    assert!(page.contains("runs/second") && page.contains("<svg"), "{page}");
    let kept = fs::read(workspace.path("runs/compare-first-second/compare.json")).unwrap();
    let turned = ["compare", "--runs", "runs/second", "runs/first", "--json", "-q"];
    json(&workspace.command(&turned).output().unwrap());
    assert_eq!(fs::read(workspace.path("runs/compare-first-second/compare.json")).unwrap(), kept, "overwritten");
    json(&workspace.command(&[&turned[..], &["--out", "elsewhere"]].concat()).output().unwrap());
    assert!(workspace.path("elsewhere/compare/compare.json").is_file());

    snapshot!(workspace, &["compare", "--runs", "runs/first", "runs/other"]);
    snapshot!(workspace, &["compare", "--runs", "runs/first", "runs/second", "--config", "small.toml"]);
    snapshot!(workspace, &["compare", "--runs", "runs/first", "runs/broken"]);
    snapshot!(workspace, &["runs", "nowhere"]);
}
