//! Exports of small runs by the command: what is written, what is said of it, what is refused.

use crate::common::workspace::{Workspace, json};
use candle_core::Device;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use vitadapt::backbone::Backbone;
use vitadapt::export::TOLERANCE;

/// Trains or probes at 32 pixels.
fn make(workspace: &Workspace, command: &str, name: &str, settings: &[&str]) {
    let name = format!("run.name={name}");
    let mut args = vec![command, "--config", "small.toml", "--json", "-q"];
    ["train.steps=2", "train.lr=1e-3", &name].iter().chain(settings).for_each(|set| args.extend(["--set", set]));
    json(&workspace.command(&args).output().unwrap());
}

fn export(workspace: &Workspace, run: &str, format: &str, out: &str) -> Output {
    let run = format!("runs/{run}");
    let args = ["export", "--run", &run, "--format", format, "--out", out, "--json", "-q"];
    workspace.command(&args).output().unwrap()
}

/// What a refused export says.
fn refused(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    stderr
}

#[test]
fn the_command_exports_a_finetuned_run() {
    let workspace = Workspace::new();
    make(&workspace, "finetune", "tuned", &["strategy={kind=\"full\"}", "preprocess.resize=letterbox"]);
    for (format, out, files) in [
        ("timm", "out/timm", vec!["README.md", "config.json", "model.safetensors"]),
        ("transformers", "out/hf", vec!["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]),
        ("onnx", "out/model.onnx", vec!["model.json", "model.onnx"]),
    ] {
        let output = export(&workspace, "tuned", format, out);
        let result = json(&output);
        assert_eq!((result["format"].as_str(), result["checked_images"].as_u64()), (Some(format), Some(9)));
        assert!(result["max_rel_diff"].as_f64().unwrap() <= TOLERANCE, "{result}");
        assert_eq!(result["notes"].as_array().unwrap().len(), usize::from(format == "transformers"), "{result}");
        let written = result["files"].as_array().unwrap().iter().map(|file| workspace.path(file.as_str().unwrap()));
        let written: Vec<PathBuf> = written.collect();
        let names: Vec<&str> = written.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, files);
        let bytes: u64 = written.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert_eq!(Some(bytes), result["bytes"].as_u64());
    }
    assert_eq!(fs::read_dir(workspace.path("out")).unwrap().count(), 4, "something was left behind");
    let config: Value = serde_json::from_slice(&fs::read(workspace.path("out/timm/config.json")).unwrap()).unwrap();
    assert_eq!(config["pretrained_cfg"]["crop_mode"], "border");
    assert_eq!(config["label_names"][1], "local");
    refused(&export(&workspace, "tuned", "timm", "out/timm"));

    // Without its images a run is exported all the same, and says what was checked.
    fs::remove_dir_all(workspace.path("data")).unwrap();
    let output = export(&workspace, "tuned", "onnx", "out/blind.onnx");
    let result = json(&output);
    assert_eq!(result["checked_images"], 0);
    assert!(result["notes"][0].as_str().unwrap().contains("made-up patterns"), "{result}");
}

/// The adapters are in the weights: what leaves is a plain backbone, and it is not the pretrained one.
#[test]
fn adapters_are_merged() {
    let workspace = Workspace::new();
    let strategy = "strategy={kind=\"lora\", targets=[\"q\", \"o\", \"fc1\"], blocks=[1, 4]}";
    let settings = [strategy, "model.backbone=builtin:vit-mini", "train.lr=3e-2", "train.head_lr=1e-3"];
    make(&workspace, "finetune", "adapted", &settings);
    let stored = Path::new("runs/adapted/checkpoints/best/model.safetensors");
    let stored = candle_core::safetensors::load(workspace.path(stored.to_str().unwrap()), &Device::Cpu).unwrap();
    assert_eq!(stored.len(), 2 * 3 * 2 + 2, "adapters and head alone are stored");
    for format in ["timm", "transformers", "onnx"] {
        let out = if format == "onnx" { "model.onnx" } else { format };
        json(&export(&workspace, "adapted", format, out));
    }
    let exported = Backbone::load(workspace.path("timm").to_str().unwrap(), None).unwrap();
    let pretrained = Backbone::load("builtin:vit-mini", Some(32)).unwrap();
    let bits = |backbone: &Backbone, name: &str| -> Vec<f32> {
        backbone.params.tensor(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let adapted = ["attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight"];
    for (name, _) in pretrained.params.iter() {
        let is_adapted = adapted.iter().any(|layer| [1, 4].iter().any(|i| name == format!("blocks.{i}.{layer}")));
        assert_eq!(bits(&exported, name) != bits(&pretrained, name), is_adapted, "{name}");
    }
}

#[test]
fn zero_shot_runs_go_to_onnx() {
    let workspace = Workspace::new();
    for name in ["hf_clip", "hf_siglip"] {
        let backbone = format!("model.backbone={}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
        make(&workspace, "zeroshot", name, &[&backbone]);
        json(&export(&workspace, name, "onnx", &format!("{name}.onnx")));
        for format in ["timm", "transformers"] {
            let stderr = refused(&export(&workspace, name, format, "refused"));
            assert!(stderr.contains("a head that compares directions of embeddings"), "{stderr}");
        }
    }
}

#[test]
fn probes_export_unless_images_vote() {
    let workspace = Workspace::new();
    make(&workspace, "probe", "linear", &["probe.features=both"]);
    json(&export(&workspace, "linear", "onnx", "linear.onnx"));
    make(&workspace, "probe", "votes", &["probe.method=knn"]);
    let stderr = refused(&export(&workspace, "votes", "onnx", "votes.onnx"));
    assert!(stderr.contains("kNN probe") && stderr.contains("probe.method"), "{stderr}");
}
