//! `vitadapt zeroshot` as a user meets it, on the tiny models of `fixtures/text`.

use crate::common::workspace::{Workspace, json};
use crate::snapshot::snapshot;
use serde_json::Value;
use std::fs;

fn args<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&["zeroshot", "--config", "clip.toml"], extra].concat()
}

#[test]
fn a_zero_shot_run_is_a_run() {
    let workspace = Workspace::with_text_models();
    for (case, prompts) in [("hf_clip", 20), ("open_clip", 20), ("hf_siglip", 20)] {
        let (name, backbone) = (format!("run.name={case}"), format!("model.backbone={case}"));
        let extra = ["--set", &name, "--set", &backbone, "--json", "-q"];
        let result = json(&workspace.command(&args(&extra)).output().unwrap());
        assert_eq!((result["strategy"].as_str(), result["trainable_parameters"].as_u64()), (Some("zeroshot"), Some(0)));
        assert!(result["templates"].is_null());
        let said = result["prompts"].as_object().unwrap();
        assert_eq!(said.values().map(|said| said.as_array().unwrap().len()).sum::<usize>(), prompts);
        assert_eq!(said["local"][5], "a photo of a cut thread for visual inspection.");
        let folder = format!("runs/{case}");
        for file in ["config.toml", "run.json", "splits.csv", "eval-val.json", "checkpoints/best/model.safetensors"] {
            assert!(workspace.path(&folder).join(file).is_file(), "{file} is missing");
        }
        let saved: Value =
            serde_json::from_slice(&fs::read(workspace.path(&folder).join("eval-test.json")).unwrap()).unwrap();
        workspace.assert_scores_repeat(case, &result);
        assert_eq!(saved["temperature"], result["temperature"]);
    }
    // Its features are those of any other command.
    let args = ["extract", "--run", "runs/hf_clip", "--out", "x.npy", "--json", "-q"];
    assert_eq!(json(&workspace.command(&args).output().unwrap())["cache"]["misses"], 0);
}

#[test]
fn a_resize_other_than_the_librarys_is_pointed_out() {
    let workspace = Workspace::with_text_models();
    let said = |extra: &[&str]| {
        let output = workspace.command(&args(extra)).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!said(&[]).contains("not square"));
    let oblong = workspace.path("data/test/global/oblong.png");
    image::RgbImage::from_fn(80, 40, |x, y| image::Rgb([x as u8, y as u8, 90])).save(oblong).unwrap();
    let warning = said(&[]);
    assert!(
        warning.contains("1 of 37 images is not square") && warning.contains("preprocess.resize = \"crop\""),
        "{warning}"
    );
    assert!(!said(&["--set", "preprocess.resize=crop"]).contains("not square"));
    // The library of this one squashes as well.
    assert!(!said(&["--set", "model.backbone=hf_siglip"]).contains("not square"));
}

#[test]
fn every_template_is_compared_with_all_together() {
    let workspace = Workspace::with_text_models();
    let single = ["--set", "prompts.templates=[\"a photo of a part with {}.\"]", "--json", "-q"];
    let alone = json(&workspace.command(&args(&single)).output().unwrap());
    let result = json(&workspace.command(&args(&["--templates", "--json", "-q"])).output().unwrap());
    let rows = result["templates"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[4]["template"], "a photo of a part with {}.");
    for key in ["val_accuracy", "test_accuracy"] {
        assert_eq!(rows[4][key], alone[key]);
        assert!(result[key].is_f64());
    }
    snapshot!(workspace, &args(&["--templates"]));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let workspace = Workspace::with_text_models();
    snapshot!(workspace, &args(&["--set", "prompts.classes.nominl=fine"]));
    snapshot!(workspace, &args(&["--set", "prompts.templates=[\"a photo\"]", "--set", "prompts.classes.local=[]"]));
    snapshot!(workspace, &args(&["--set", "model.pool=avg"]));
    snapshot!(workspace, &args(&["--set", "model.backbone=builtin:vit-mini"]));
    let long = format!("prompts.templates=[\"{} {{}}\"]", "very ".repeat(80));
    let refused = workspace.command(&args(&["--set", &long])).output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && stderr.contains("tokens, and the text tower takes 77"), "{stderr}");
    fs::remove_file(workspace.path("hf_clip/tokenizer.json")).unwrap();
    snapshot!(workspace, &args(&[]));
    assert!(!workspace.path("runs").exists(), "a run that cannot start leaves nothing");
    fs::copy(workspace.path("hf_siglip/tokenizer.json"), workspace.path("hf_clip/tokenizer.json")).unwrap();
    snapshot!(workspace, &args(&[]));
}

#[test]
fn folders_of_numbers_are_pointed_out() {
    let workspace = Workspace::with_text_models();
    for split in ["train", "val", "test"] {
        fs::rename(workspace.path(&format!("data/{split}/global")), workspace.path(&format!("data/{split}/0")))
            .unwrap();
    }
    let output = workspace.command(&args(&["--json", "-q"])).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("no word says what these classes show: 0"), "{stderr}");
}
