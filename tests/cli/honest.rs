//! A score that is no estimate says so, and takes no honest number's place.

use crate::common::workspace::{Workspace, json};
use crate::report::page;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use vitadapt::data::decode::{DecodeOptions, decode_file};

fn eval(workspace: &Workspace, run: &str, extra: &[&str]) -> Value {
    let folder = format!("runs/{run}");
    json(&workspace.command(&[&["eval", "--run", &folder, "--json", "-q"], extra].concat()).output().unwrap())
}

/// Kind and number of images of each doubt.
fn doubts(evaluation: &Value) -> Vec<(&str, u64)> {
    let doubts = evaluation["doubts"].as_array().unwrap();
    doubts.iter().map(|doubt| (doubt["kind"].as_str().unwrap(), doubt["images"].as_u64().unwrap())).collect()
}

fn first_image(folder: &Path) -> PathBuf {
    let mut images: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    images.sort();
    images.remove(0)
}

#[test]
fn test_images_that_changed_since_the_run_are_noticed() {
    let workspace = Workspace::new();
    let result = workspace.finetune("first", &[]);
    let honest = workspace.path("runs/first/eval-test.json");
    assert_eq!(doubts(&eval(&workspace, "first", &[])), []);
    assert!(!page(&workspace, "first").contains("Scored again"));

    // One image of a class becomes another one's.
    let image = first_image(&workspace.path("data/test/local"));
    let original = fs::read(&image).unwrap();
    fs::copy(first_image(&workspace.path("data/val/nominal")), &image).unwrap();
    let kept = fs::read(&honest).unwrap();
    let changed = eval(&workspace, "first", &[]);
    assert_eq!(doubts(&changed), [("changed", 1)]);
    assert_eq!(fs::read(&honest).unwrap(), kept, "the honest number was replaced");
    let table = workspace.command(&["eval", "--run", "runs/first", "-q"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.starts_with("doubtful: 1 of 9 test images is not the same file as at the time of the run"),
        "{table}"
    );
    assert!(page(&workspace, "first").contains("Scored again"));
    let again: Value =
        serde_json::from_slice(&fs::read(workspace.path("runs/first/eval-test-again.json")).unwrap()).unwrap();
    assert_eq!(again["accuracy"], changed["accuracy"]);

    fs::write(&image, original).unwrap();
    let restored = eval(&workspace, "first", &[]);
    assert_eq!((doubts(&restored), &restored["accuracy"]), (vec![], &result["test_accuracy"]));
    assert!(!workspace.path("runs/first/eval-test-again.json").exists());
    assert!(!page(&workspace, "first").contains("Scored again"));
}

#[test]
fn images_that_the_run_has_seen_are_known_in_any_folder() {
    let workspace = Workspace::new();
    workspace.finetune("tuned", &[]);
    // Under other names, as where a folder was copied.
    for class in ["global", "local", "nominal"] {
        let target = workspace.path(&format!("elsewhere/{class}"));
        fs::create_dir_all(&target).unwrap();
        for (split, name) in [("train", "x.png"), ("val", "y.png"), ("test", "z.png")] {
            fs::copy(first_image(&workspace.path(&format!("data/{split}/{class}"))), target.join(name)).unwrap();
        }
    }
    assert_eq!(doubts(&eval(&workspace, "tuned", &["--data", "elsewhere"])), [("trained_on", 3), ("chosen_on", 3)]);
    assert_eq!(doubts(&eval(&workspace, "tuned", &["--data", "data/train"])), [("trained_on", 18)]);
    assert_eq!(doubts(&eval(&workspace, "tuned", &["--data", "data/test"])), []);
    assert_eq!(doubts(&eval(&workspace, "tuned", &["--split", "train"])), [("trained_on", 18)]);

    // Saved without loss in other formats: other bytes, the same pixels, which are known without the original files.
    for (class, ending) in [("global", "png"), ("local", "bmp"), ("nominal", "tiff")] {
        let target = workspace.path(&format!("again/{class}"));
        fs::create_dir_all(&target).unwrap();
        for (split, name) in [("train", "x"), ("val", "y"), ("test", "z")] {
            let source = first_image(&workspace.path(&format!("data/{split}/{class}")));
            decode_file(&source, DecodeOptions::default())
                .unwrap()
                .save(target.join(name).with_extension(ending))
                .unwrap();
        }
    }
    for split in ["train", "val"] {
        fs::rename(workspace.path(&format!("data/{split}")), workspace.path(&format!("{split} of then"))).unwrap();
    }
    let again = eval(&workspace, "tuned", &["--data", "again"]);
    assert_eq!(doubts(&again), [("trained_on", 3), ("chosen_on", 3)]);
    let sentence = again["doubts"][0]["sentence"].as_str().unwrap();
    assert!(sentence.contains("3 of them as other files with the same pixels"), "{sentence}");
}

#[test]
fn it_is_said_which_split_of_another_folder_is_scored() {
    let workspace = Workspace::new();
    workspace.finetune("tuned", &[]);
    let whole = eval(&workspace, "tuned", &["--data", "data"]);
    let found = ["train", "val", "test"];
    assert_eq!(whole["data_splits"], serde_json::json!({"found": found, "scored": "test"}));
    assert_eq!(whole["n"], 9);
    let part = eval(&workspace, "tuned", &["--data", "data", "--split", "val"]);
    assert_eq!(part["data_splits"], serde_json::json!({"found": found, "scored": "val"}));
    assert_eq!((&part["split"], doubts(&part)), (&Value::from("data"), vec![("chosen_on", 9)]));
    let table = workspace.command(&["eval", "--run", "runs/tuned", "--data", "data", "-q"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    let said = "scored: the test images of data alone, which names \"train\" and \"val\" too: --split train or --split val \
                scores those";
    assert!(table.starts_with(said), "{table}");

    // Class folders name no splits; splits without train can be scored all the same.
    assert!(eval(&workspace, "tuned", &["--data", "data/test"]).get("data_splits").is_none());
    let wrong = ["eval", "--run", "runs/tuned", "--data", "data/test", "--split", "val"];
    assert_eq!(workspace.command(&wrong).output().unwrap().status.code(), Some(2));
    fs::rename(workspace.path("data/train"), workspace.path("elsewhere")).unwrap();
    assert_eq!(eval(&workspace, "tuned", &["--data", "data"])["n"], 9);
}

#[test]
fn a_probe_that_was_fitted_on_validation_images_keeps_its_honest_score() {
    let workspace = Workspace::new();
    let args =
        ["probe", "--config", "small.toml", "--json", "-q", "--set", "run.name=p", "--set", "augment.preset=none"];
    json(&workspace.command(&args).output().unwrap());
    let honest = workspace.path("runs/p/eval-val.json");
    let before = fs::read(&honest).unwrap();
    let flattering = eval(&workspace, "p", &["--split", "val"]);
    assert_eq!(doubts(&flattering), [("trained_on", 9)]);
    assert_eq!(fs::read(&honest).unwrap(), before, "the honest number was replaced");
    assert!(page(&workspace, "p").contains("the model was fitted on the val images"));
    assert_eq!(doubts(&eval(&workspace, "p", &["--data", "data/val"])), [("trained_on", 9)]);
}

#[test]
fn a_lossless_copy_of_a_training_image_among_the_test_images_is_said() {
    let workspace = Workspace::new();
    let (seen, tested) = ("data/train/nominal", "data/test/nominal");
    let copy = workspace.path(tested).join("copy.bmp");
    decode_file(&first_image(&workspace.path(seen)), DecodeOptions::default()).unwrap().save(&copy).unwrap();
    let probe = ["probe", "--config", "small.toml", "--set", "run.name=copied"];
    let made = workspace.command(&probe).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(
        made.status.success() && said.contains("warning: 1 image is the same picture as one of another split"),
        "{said}"
    );
    let sentence = "1 of 10 test images shows the same pixels as images that the model was fitted or chosen on";
    let table = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(table.starts_with(&format!("doubtful: {sentence}")), "{table}");
    let tuned = workspace.finetune("tuned", &[]);
    assert_eq!(doubts(&tuned), [("copied", 1)]);
    let read = |file: &str| -> Value { serde_json::from_slice(&fs::read(workspace.path(file)).unwrap()).unwrap() };
    for run in ["copied", "tuned"] {
        let [record, scores] = ["run.json", "eval-test.json"].map(|file| read(&format!("runs/{run}/{file}")));
        assert_eq!((doubts(&record), doubts(&scores)), (vec![("copied", 1)], vec![("copied", 1)]), "{run}");
        assert!(page(&workspace, run).contains(sentence), "{run}");
    }
    assert_eq!(doubts(&read("runs/tuned/eval-val.json")), []);
    let listed = String::from_utf8(workspace.command(&["runs"]).output().unwrap().stdout).unwrap();
    assert!(listed.contains(&format!("doubtful: runs/tuned, {sentence}")), "{listed}");
    let compared = workspace.command(&["compare", "--runs", "runs/copied", "runs/tuned"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&compared.stdout).matches(sentence).count(), 1, "{compared:?}");

    let found = eval(&workspace, "copied", &[]);
    assert_eq!(doubts(&found), [("copied", 1)]);
    // The run's own score is in the same doubt, so this is no other one.
    assert!(!workspace.path("runs/copied/eval-test-again.json").exists());
    assert!(page(&workspace, "copied").contains("test (1 image seen before)"));
}
