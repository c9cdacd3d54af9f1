//! The first minute: from images to a trained run in two commands, and without a file at all.

use crate::common::workspace::{Workspace, files, json};
use crate::snapshot::snapshot;
use serde_json::Value;
use std::fs;

/// Writes a configuration with `init`, then trains by it as it is, with fewer epochs.
fn init_and_train(workspace: &Workspace, data: &str, file: &str) -> (Value, Value) {
    let init = ["init", data, "--out", file, "--backbone", "builtin:vit-flaw", "--image-size", "32", "--json", "-q"];
    let made = json(&workspace.command(&init).output().unwrap());
    let train = ["finetune", "--config", file, "--epochs", "2", "--device", "cpu", "--json", "-q"];
    (made, json(&workspace.command(&train).output().unwrap()))
}

#[test]
fn a_folder_of_images_is_trained_on_in_two_commands() {
    let workspace = Workspace::new();
    let (made, trained) = init_and_train(&workspace, "data", "my.toml");
    assert_eq!((&made["classes"]["local"], &made["splits"]["train"]), (&12.into(), &18.into()), "{made}");
    assert_eq!(made["good"], "nominal");
    assert_eq!(made["next"], "vitadapt finetune --config my.toml");
    assert!(trained["test_accuracy"].is_number() && trained["inspection"].is_object(), "{trained}");
    let again = workspace.command(&["init", "data", "--out", "my.toml"]).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(2) && said.contains("my.toml exists, and nothing is overwritten"), "{said}");
    for (wrong, why) in [
        (["--out", "my.csv", "--image-size", "32"], "a configuration is written"),
        (["--out", "odd.toml", "--image-size", "100"], "is not a multiple of the patch size 8"),
    ] {
        let args = [&["init", "data", "--backbone", "builtin:vit-flaw"][..], &wrong].concat();
        let refused = workspace.command(&args).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(why), "{said}");
        assert!(!workspace.path(wrong[1]).exists());
    }
}

#[test]
fn a_spreadsheet_is_trained_on_in_two_commands() {
    let workspace = Workspace::new();
    let mut rows = String::from("\u{feff}No;File Name;Diagnosis\r\n");
    let mut n = 0;
    for split in ["train", "val", "test"] {
        for class in ["global", "local", "nominal"] {
            for file in files(&workspace.path(&format!("data/{split}/{class}"))) {
                n += 1;
                rows.push_str(&format!("{n};data\\{split}\\{class}\\{file};\"{class} weave\"\r\n"));
            }
        }
    }
    workspace.write("list.csv", &rows);
    let (made, trained) = init_and_train(&workspace, "list.csv", "list.toml");
    assert_eq!(made["classes"]["local weave"], 12, "{made}");
    assert!(trained["val_accuracy"].is_number(), "{trained}");
    let text = fs::read_to_string(workspace.path("list.toml")).unwrap();
    assert!(text.contains("columns = { path = \"File Name\", label = \"Diagnosis\" }"), "{text}");
}

#[test]
fn a_tree_for_anomaly_detection_is_trained_on_in_two_commands() {
    let workspace = Workspace::new();
    let copy = |from: &str, to: &str| {
        fs::create_dir_all(workspace.path(to)).unwrap();
        for file in files(&workspace.path(from)) {
            fs::copy(workspace.path(from).join(&file), workspace.path(to).join(file)).unwrap();
        }
    };
    copy("data/train/nominal", "fabric/train/good");
    copy("data/test/nominal", "fabric/test/good");
    copy("data/train/local", "fabric/test/local");
    copy("data/train/global", "fabric/test/global");
    copy("data/train/local", "fabric/ground_truth/local");
    let (made, trained) = init_and_train(&workspace, "fabric", "fabric.toml");
    assert_eq!((&made["classes"]["good"], &made["classes"]["local"]), (&9.into(), &6.into()), "{made}");
    assert!(trained["inspection"].is_object(), "{trained}");
    assert!(fs::read_to_string(workspace.path("fabric.csv")).unwrap().contains("train/good/"));
    // Images named on the command line take the place of the list, not of the folder that it begins at.
    let check =
        ["check", "--config", "fabric.toml", "--data", "data", "--json", "-q", "--set", "inspection.good=nominal"];
    let other = json(&workspace.command(&check).output().unwrap());
    assert_eq!(other["images"]["images"], 36, "{other}");
}

#[test]
fn a_first_run_needs_no_file() {
    let workspace = Workspace::new();
    let args = [
        "finetune", "--data", "data", "--backbone", "builtin:vit-flaw", "--epochs", "1", "--batch-size", "8", "--lr",
        "1e-3", "--seed", "7", "--name", "bare", "--device", "cpu", "--set", "model.image_size=32", "--json", "-q",
    ];
    let result = json(&workspace.command(&args).output().unwrap());
    assert_eq!(
        (&result["epochs"], &result["run"]),
        (&1.into(), &workspace.path("runs/bare").display().to_string().into())
    );
    let config = fs::read_to_string(workspace.path("runs/bare/config.toml")).unwrap();
    assert!(config.contains("seed = 7\n") && config.contains("batch_size = 8\n"), "{config}");
}

#[test]
fn mistakes_in_short_forms_are_named() {
    let workspace = Workspace::new();
    snapshot!(workspace, &["finetune", "--data", "data", "--lr", "1", "--set", "train.lr=2"]);
    snapshot!(workspace, &["finetune", "--data", "data", "--epochs", "many", "--set", "train.learning_rate=1"]);
    snapshot!(workspace, &["init", "data", "--good", "nominol"]);
    snapshot!(workspace, &["init", "no-such-folder"]);
}

#[test]
fn classes_are_merged_for_training_and_for_what_is_scored_after_it() {
    let workspace = Workspace::new();
    let merged = ["--set", "data.classes.flaw=[\"global\", \"local\"]", "--set", "data.max_per_class=12"];
    let trained = workspace.finetune("two", &merged);
    assert!(trained["test_accuracy"].is_number(), "{trained}");
    // A table of some of the images, by the old names and the new one, without ours for columns.
    let mut rows = String::from("File Name;Category\r\n");
    for (class, label) in [("global", "global"), ("local", "flaw"), ("nominal", "nominal")] {
        for file in files(&workspace.path(&format!("data/test/{class}"))).iter().take(2) {
            rows.push_str(&format!("data\\test\\{class}\\{file};{label}\r\n"));
        }
    }
    workspace.write("new.csv", &rows);
    let eval = ["eval", "--run", "runs/two", "--data", "new.csv", "--json", "-q"];
    let scored = json(&workspace.command(&eval).output().unwrap());
    let classes: Vec<&str> =
        scored["per_class"].as_array().unwrap().iter().map(|row| row["class"].as_str().unwrap()).collect();
    assert_eq!((classes, &scored["n"]), (vec!["flaw", "nominal"], &6.into()), "{scored}");
    // Gates as tests of a CI system: those that hold and those that do not.
    let gates = ["--junit", "gates.xml", "--min-accuracy", "0", "--max-nll", "0", "-q"];
    let gated = workspace.command(&[&eval[..5], &gates].concat()).output().unwrap();
    assert_eq!(gated.status.code(), Some(8));
    let xml = fs::read_to_string(workspace.path("gates.xml")).unwrap();
    for part in [
        "<testsuite name=\"eval runs/two data\" tests=\"2\" failures=\"1\"",
        "name=\"accuracy (--min-accuracy 0)\"/>",
        "name=\"NLL (--max-nll 0)\">\n      <failure message=\"NLL ",
    ] {
        assert!(xml.contains(part), "{part}\n{xml}");
    }
    let predict = ["predict", "--run", "runs/two", "new.csv", "--json", "-q"];
    let rows = json(&workspace.command(&predict).output().unwrap());
    let rows = rows["predictions"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert!(rows.iter().all(|row| ["flaw", "nominal"].contains(&row["label"].as_str().unwrap())), "{rows:?}");
}

#[test]
fn what_check_finds_are_tests_too() {
    let workspace = Workspace::new();
    let check = |extra: &[&str]| {
        let args = [&["check", "--config", "small.toml", "--junit", "check.xml", "-q"], extra].concat();
        let code = workspace.command(&args).output().unwrap().status.code();
        (code, fs::read_to_string(workspace.path("check.xml")).unwrap())
    };
    let (code, xml) = check(&[]);
    assert!(code == Some(0) && xml.contains("tests=\"4\" failures=\"0\""), "{xml}");
    workspace.write("data/train/local/odd.png", "no image");
    let (code, xml) = check(&[]);
    let failed = "name=\"the images, labels and splits\">\n      <failure message=\"";
    assert!(code == Some(3) && xml.contains(failed) && xml.contains("odd.png"), "{xml}");
}

#[test]
fn shells_and_manuals_know_every_command() {
    let workspace = Workspace::new();
    for (shell, part) in
        [("bash", "complete -F _vitadapt"), ("zsh", "#compdef vitadapt"), ("fish", "complete -c vitadapt")]
    {
        let output = workspace.command(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains(part) && script.contains("min-accuracy"), "{shell}");
    }
    assert!(workspace.command(&["man", "share/man1"]).output().unwrap().status.success());
    let page = |name: &str| fs::read_to_string(workspace.path("share/man1").join(name)).unwrap();
    assert!(page("vitadapt.1").contains("vitadapt\\-finetune(1)"), "{}", page("vitadapt.1"));
    assert!(page("vitadapt-eval.1").contains("min\\-accuracy"));
}
