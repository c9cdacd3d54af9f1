//! What a head that starts from texts can do, and Tip-Adapter, as a user meets them, on the tiny models of
//! `fixtures/text`.

use crate::common::workspace::{Workspace, copy, json};
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::process::Output;

/// Runs a command on `clip.toml` with overrides.
fn output(workspace: &Workspace, command: &str, name: &str, sets: &[&str], extra: &[&str]) -> Output {
    let name = format!("run.name={name}");
    let mut args = vec![command, "--config", "clip.toml", "--json", "--set", &name];
    args.extend(sets.iter().flat_map(|set| ["--set", *set]));
    args.extend(extra);
    workspace.command(&args).output().unwrap()
}

fn run(workspace: &Workspace, command: &str, name: &str, sets: &[&str]) -> Value {
    json(&output(workspace, command, name, sets, &["-q"]))
}

/// Fine-tuning from texts, two epochs unless overridden.
fn from_texts<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    [&["model.head_init=text", "train.epochs=2", "train.batch_size=4"], sets].concat()
}

pub(crate) fn tensors(workspace: &Workspace, run: &str, checkpoint: &str) -> HashMap<String, Tensor> {
    let file = format!("runs/{run}/checkpoints/{checkpoint}/model.safetensors");
    candle_core::safetensors::load(workspace.path(&file), &Device::Cpu).unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar().unwrap()
}

#[test]
fn training_starts_at_the_zero_shot_score() {
    let workspace = Workspace::with_text_models();
    for (case, strategy) in [("hf_clip", "frozen"), ("hf_siglip", "partial"), ("open_clip", "full")] {
        let backbone = format!("model.backbone={case}");
        let zero = run(&workspace, "zeroshot", "zero", &[&backbone]);
        let kind = format!("strategy.kind={strategy}");
        let mut sets = from_texts(&[&backbone, &kind]);
        if strategy == "partial" {
            sets.push("strategy.blocks=1");
        }
        let trained = output(&workspace, "finetune", case, &sets, &[]);
        let stderr = String::from_utf8_lossy(&trained.stderr).into_owned();
        let score = format!("from texts: {:.1} %", 100.0 * zero["val_accuracy"].as_f64().unwrap());
        assert!(stderr.contains(&score), "{case}: no {score:?} in {stderr}");
        let result = json(&trained);
        let eval =
            json(&workspace.command(&["eval", "--run", &format!("runs/{case}"), "--json", "-q"]).output().unwrap());
        assert_eq!(eval["accuracy"], result["test_accuracy"], "{case}");
        let saved = tensors(&workspace, case, "best");
        let start = tensors(&workspace, "zero", "best");
        for name in ["head.weight", "head.logit_scale", "head.bias"] {
            assert!(saved[name].dims() == start[name].dims() && distance(&saved[name], &start[name]) > 0.0, "{name}");
        }
        assert_eq!(saved.contains_key("projection.weight"), strategy == "full" && case == "open_clip");
        fs::remove_dir_all(workspace.path("runs/zero")).unwrap();
    }
}

#[test]
fn half_precision_and_checkpointed_blocks_take_the_head_too() {
    let workspace = Workspace::with_text_models();
    let sets = ["strategy.kind=full", "run.precision=bf16", "train.checkpoint_blocks=true", "train.epochs=1"];
    assert!(run(&workspace, "finetune", "half", &[&["model.head_init=text"], &sets[..]].concat())["epochs"] == 1);
}

#[test]
fn a_pull_keeps_the_directions_near_their_texts() {
    let workspace = Workspace::with_text_models();
    run(&workspace, "zeroshot", "zero", &[]);
    let start = tensors(&workspace, "zero", "best");
    let moved = |name: &str, pull: &str| {
        let result = run(&workspace, "finetune", name, &from_texts(&["train.lr=0.01", "train.epochs=4", pull]));
        assert!(result["epochs"].as_u64().unwrap() > 0);
        distance(&tensors(&workspace, name, "last")["head.weight"], &start["head.weight"])
    };
    let (free, adaptive, strong) = (
        moved("free", "train.head_pull=0"),
        moved("adaptive", "train.head_pull=true"),
        moved("strong", "train.head_pull=1000"),
    );
    assert!(strong < adaptive && adaptive < free, "{strong} {adaptive} {free}");
    assert!(strong < 0.5 * free, "{strong} {free}");
}

#[test]
fn the_mean_with_the_start_is_kept_and_recomputed_after_a_kill() {
    let workspace = Workspace::with_text_models();
    let zero = run(&workspace, "zeroshot", "zero", &[]);
    let sets = from_texts(&["strategy.kind=lora", "train.epochs=1", "train.wise_ft=true"]);
    let result = run(&workspace, "finetune", "wise", &sets);
    let record: Value = serde_json::from_slice(&fs::read(workspace.path("runs/wise/run.json")).unwrap()).unwrap();
    let curve = record["wise_ft"]["curve"].as_array().unwrap();
    assert_eq!((curve.len(), &curve[0]["val_accuracy"]), (11, &zero["val_accuracy"]));
    assert!(
        curve
            .iter()
            .any(|mean| mean["alpha"] == record["wise_ft"]["alpha"] && mean["val_accuracy"] == result["val_accuracy"])
    );
    assert_eq!(result["wise_ft"], record["wise_ft"]);
    let eval = json(&workspace.command(&["eval", "--run", "runs/wise", "--json", "-q"]).output().unwrap());
    assert_eq!(eval["accuracy"], result["test_accuracy"]);
    assert!(
        workspace.path("runs/wise/plots/wise-ft.svg").is_file()
            && workspace.path("runs/wise/plots/wise-ft.png").is_file()
    );

    // A given share lies where it should between the texts and the one epoch that was trained.
    let sets = from_texts(&["train.epochs=1", "train.lr=0.1", "train.wise_ft=0.25"]);
    run(&workspace, "finetune", "given", &sets);
    let (start, end) = (tensors(&workspace, "zero", "best"), tensors(&workspace, "given", "last"));
    let kept = workspace.tensors("given", "best");
    let means = tensors(&workspace, "given", "best");
    for name in ["head.weight", "head.logit_scale", "head.bias"] {
        let mean = &means[name];
        let expected = ((&start[name] * 0.75).unwrap() + (&end[name] * 0.25).unwrap()).unwrap();
        assert!(distance(mean, &expected) <= 1e-6 && distance(mean, &start[name]) > 0.0, "{name}");
    }
    // Killed after the mean was saved, and before.
    let folder = |name: &str| workspace.path(&format!("runs/given/checkpoints/{name}"));
    assert!(!folder("finetuned").exists());
    for interrupted in ["finetuned", "best"] {
        let record = fs::read_to_string(workspace.path("runs/given/run.json")).unwrap();
        let running = record.replace("\"status\": \"done\"", "\"status\": \"running\"");
        assert_ne!(running, record);
        workspace.write("runs/given/run.json", &running);
        let _ = fs::remove_dir_all(folder(interrupted));
        copy(&folder("last"), &folder(interrupted));
        json(&output(&workspace, "finetune", "given", &sets, &["--resume", "-q"]));
        assert!(workspace.tensors("given", "best") == kept && !folder("finetuned").exists(), "{interrupted}");
    }
}

#[test]
fn tip_adapter_is_a_run() {
    let workspace = Workspace::with_text_models();
    for case in ["hf_clip", "hf_siglip"] {
        let backbone = format!("model.backbone={case}");
        let zero = run(&workspace, "zeroshot", "zero", &[&backbone]);
        let result = run(&workspace, "probe", case, &["probe.method=tip", &backbone]);
        assert_eq!((&result["method"], result["trainable_parameters"].as_u64()), (&"tip".into(), Some(0)));
        let (alpha, beta) = (result["alpha"].as_f64().unwrap(), result["chosen"].as_f64().unwrap());
        assert!(
            (0.0999..50.1).contains(&alpha)
                && (0.0999..50.1).contains(&beta)
                && result["path"].as_array().unwrap().len() == 40
        );
        assert!(result["val_accuracy"].as_f64() >= zero["val_accuracy"].as_f64(), "the grid reaches down to the texts");
        let folder = format!("runs/{case}");
        let eval = json(&workspace.command(&["eval", "--run", &folder, "--json", "-q"]).output().unwrap());
        assert_eq!(eval["accuracy"], result["test_accuracy"], "{case}");
        let predict = ["predict", "--run", &folder, "data/test", "--json", "-q"];
        let rows = json(&workspace.command(&predict).output().unwrap());
        assert_eq!(rows["predictions"].as_array().unwrap().len(), 9);
        fs::remove_dir_all(workspace.path("runs/zero")).unwrap();
    }
    let export = ["export", "--run", "runs/hf_clip", "--format", "onnx", "--out", "x.onnx"];
    refused(&workspace.command(&export).output().unwrap(), 2, "Tip-Adapter");
}

fn refused(output: &Output, code: i32, message: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && stderr.contains(message), "{:?}: {stderr}", output.status);
}

#[test]
fn what_has_no_texts_or_no_images_to_choose_on_is_refused() {
    let workspace = Workspace::with_text_models();
    let finetune = |sets: &[&str]| output(&workspace, "finetune", "none", &from_texts(sets), &[]);
    let probe = |sets: &[&str]| output(&workspace, "probe", "none", &[&["probe.method=tip"], sets].concat(), &[]);
    refused(&finetune(&["model.backbone=builtin:vit-mini"]), 4, "text");
    refused(&probe(&["model.backbone=builtin:vit-mini"]), 4, "text");
    refused(&finetune(&["model.pool=avg"]), 2, "model.pool");
    refused(&probe(&["probe.features=both"]), 2, "probe.features");
    refused(&probe(&["probe.metric=auroc"]), 2, "probe.metric");
    refused(&finetune(&["model.head_init=probe", "probe.method=tip"]), 2, "needs texts");
    fs::remove_dir_all(workspace.path("data/val")).unwrap();
    // Before any image is decoded, of which one is none.
    workspace.write("data/train/global/zz.png", "no image");
    refused(&finetune(&["train.wise_ft=true", "data.val=0"]), 2, "train.wise_ft = true");
    fs::remove_file(workspace.path("data/train/global/zz.png")).unwrap();
    fs::remove_file(workspace.path("hf_clip/tokenizer.json")).unwrap();
    refused(&finetune(&[]), 4, "tokenizer.json");
}
