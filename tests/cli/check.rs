//! `check` as a user meets it.

use crate::common::workspace::{CLASSES, Workspace, json, textile};
use crate::snapshot::snapshot;
use serde_json::Value;
use std::fs;

const CHECK: [&str; 3] = ["check", "--config", "small.toml"];

#[test]
fn sound_data_pass_with_a_table() {
    let workspace = Workspace::new();
    snapshot!(workspace, &[&CHECK[..], &["--set", "run.threads=2"]].concat());
}

#[test]
fn everything_wrong_is_listed_at_once() {
    let workspace = Workspace::new();
    let files = textile("train", "global");
    // In two splits, of another class and compressed again, damaged, and a backbone that is not there.
    fs::copy(&files[0], workspace.path("data/test/global/copy.jpg")).unwrap();
    image::open(&files[1]).unwrap().into_rgb8().save(workspace.path("data/val/local/again.png")).unwrap();
    fs::write(workspace.path("data/train/nominal/damaged.jpg"), b"no image").unwrap();
    fs::write(workspace.path("data/val/nominal/empty.png"), b"").unwrap();
    snapshot!(workspace, &[&CHECK[..], &["--set", "model.backbone=builtin:vit-huge"]].concat());

    let output = workspace.command(&[&CHECK[..], &["--json", "-q"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((found["ok"].as_bool(), found["problems"].as_array().unwrap().len()), (Some(false), 2));
    assert_eq!(found["images"]["unusable"].as_array().unwrap().len(), 2);
    let kinds: Vec<&str> =
        found["duplicates"].as_array().unwrap().iter().map(|pair| pair["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["same", "near"]);
}

#[test]
fn sheets_are_pictures() {
    let workspace = Workspace::new();
    let files = textile("train", "global");
    image::open(&files[1]).unwrap().into_rgb8().save(workspace.path("data/train/global/again.png")).unwrap();
    let sheets =
        ["--sheet", "out/twins.png", "--augment-sheet", "out/augmented.png", "--copies", "3", "--per-class", "1"];
    let preset = ["--set", "augment.preset=industrial", "--embeddings", "--json", "-q"];
    let found = json(&workspace.command(&[&CHECK[..], &sheets, &preset].concat()).output().unwrap());
    assert_eq!(found["duplicates"].as_array().unwrap().len(), 1);
    assert!(found["duplicates"][0]["cosine"].as_f64().unwrap() > 0.98, "{found}");
    assert_eq!(found["neighbours_across_splits"][0]["cosine"].as_f64().map(|cosine| cosine <= 1.0), Some(true));
    for (name, rows) in [("twins", 1), ("augmented", CLASSES.len())] {
        let sheet = image::open(workspace.path(&format!("out/{name}.png"))).unwrap();
        assert!(
            sheet.height() as usize > 96 * rows && sheet.width() > 300,
            "{name}: {:?}",
            sheet.to_rgb8().dimensions()
        );
    }
}

#[test]
fn a_run_tells_which_labels_its_neighbours_contradict() {
    let workspace = Workspace::new();
    let probe = ["probe", "--config", "small.toml", "--set", "augment.preset=none", "--set", "run.name=probe", "-q"];
    assert!(workspace.command(&probe).output().unwrap().status.success());
    let check = ["check", "--run", "runs/probe", "--sheet", "labels.png", "--top", "4"];
    let found = json(&workspace.command(&[&check[..], &["--json", "-q"]].concat()).output().unwrap());
    let suspects = found["suspicious_labels"].as_array().unwrap();
    assert!(!suspects.is_empty() && suspects.len() < 36, "{}", suspects.len());
    for suspect in suspects {
        assert_ne!(suspect["label"], suspect["suggested"]);
        assert_eq!(suspect["neighbors"].as_array().unwrap().len(), 10);
    }
    let confidence: Vec<f64> = suspects.iter().map(|suspect| suspect["confidence"].as_f64().unwrap()).collect();
    assert!(confidence.is_sorted_by(|a, b| a >= b));
    assert!(workspace.path("labels.png").is_file());
    let table = workspace.command(&check).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&table.stdout).lines().count(), 2 + 2 + 4);
}

#[test]
fn what_the_preprocessing_loses_is_said() {
    let workspace = Workspace::new();
    for class in CLASSES {
        for file in textile("val", class).iter().take(6) {
            let wide = image::open(file).unwrap().crop_imm(0, 0, 250, 90);
            let name = file.file_name().unwrap();
            wide.save(workspace.path(&format!("data/train/{class}")).join(name).with_extension("png")).unwrap();
        }
    }
    fs::write(workspace.path("data/train/global/empty.png"), b"").unwrap();
    let sets = ["--set", "preprocess.resize=crop", "--set", "model.image_size=128", "--set", "data.on_error=skip"];
    let found = json(&workspace.command(&[&CHECK[..], &sets, &["--json", "-q"]].concat()).output().unwrap());
    let (images, warnings) = (&found["images"], found["warnings"].as_array().unwrap());
    assert_eq!((images["images"].as_u64(), images["smaller_than_input"].as_u64()), (Some(54), Some(18)));
    let sets = ["--set", "preprocess.resize=letterbox", "--set", "model.image_size=128", "--set", "data.on_error=skip"];
    let boxed = json(&workspace.command(&[&CHECK[..], &sets, &["--json", "-q"]].concat()).output().unwrap());
    assert_eq!(boxed["images"]["smaller_than_input"], 0, "the longer side fills the square");
    assert!(images["crop_discards"]["max"].as_f64().unwrap() >= 0.64, "{images}");
    assert_eq!(images["height"], serde_json::json!([90, 250]));
    for words in ["leaves out", "1 image cannot be used"] {
        assert!(warnings.iter().any(|warning| warning.as_str().unwrap().contains(words)), "{words}: {warnings:?}");
    }
}
