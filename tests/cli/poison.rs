//! Values in the weights that are not numbers, or too large to compute with, whatever the command: it ends with its own
//! code, says which tensor it was, and passes no gate.

use crate::common::workspace::Workspace;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;
use vitadapt::system::digest::sha256_of_file;

/// Makes all values of a tensor this one.
fn fill(file: &Path, tensor: &str, value: f32) {
    let mut bytes = fs::read(file).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let (start, end) = metadata.info(tensor).unwrap().data_offsets;
    let values = bytes[8 + header + start..8 + header + end].as_chunks_mut::<4>().0;
    values.fill(value.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

fn poison(file: &Path, tensor: &str) {
    fill(file, tensor, f32::NAN);
}

fn refused(output: &Output, tensor: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains(tensor) && stderr.contains("not finite"), "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn towers_and_scales_that_are_not_finite_are_refused() {
    let places = [
        ("logit_scale", &["zeroshot"][..]),
        ("text_model.final_layer_norm.weight", &["zeroshot"]),
        ("vision_model.post_layernorm.weight", &["zeroshot", "probe", "extract", "finetune"]),
    ];
    for (tensor, commands) in places {
        let workspace = Workspace::with_text_models();
        poison(&workspace.path("hf_clip/model.safetensors"), tensor);
        for command in commands {
            let mut args = vec![*command, "--config", "clip.toml", "--json", "-q"];
            if *command == "extract" {
                args.extend(["--out", "features.npy"]);
            }
            refused(&workspace.command(&args).output().unwrap(), tensor.rsplit('.').nth(1).unwrap_or(tensor));
        }
        assert!(!workspace.path("features.npy").exists());
    }
}

/// No learning rate is to blame for what is not finite before the first update.
#[test]
fn weights_that_overflow_are_said_to() {
    let workspace = Workspace::with_text_models();
    fill(&workspace.path("hf_clip/model.safetensors"), "vision_model.post_layernorm.weight", 3e38);
    for kind in ["full", "frozen"] {
        let set = format!("strategy.kind={kind}");
        let output = workspace.command(&["finetune", "--config", "clip.toml", "-q", "--set", &set]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{stderr}");
        assert!(stderr.contains("values overflow inside the model") && !stderr.contains("lower train.lr"), "{stderr}");
    }
}

#[test]
fn a_head_that_is_not_finite_passes_no_gate() {
    let workspace = Workspace::new();
    workspace.finetune("poisoned", &["--set", "strategy.kind=frozen", "--set", "train.epochs=1"]);
    let best = workspace.path("runs/poisoned/checkpoints/best");
    poison(&best.join("model.safetensors"), "head.bias");
    // As if the run itself had saved it.
    let manifest = best.join("manifest.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    text["files"]["model.safetensors"] = sha256_of_file(&best.join("model.safetensors")).unwrap().into();
    fs::write(&manifest, text.to_string()).unwrap();
    let run = ["--run", "runs/poisoned", "--json", "-q"];
    for args in [
        &["eval", "--min-accuracy", "0"][..],
        &["predict", "data/test"],
        &["export", "--format", "onnx", "--out", "x.onnx"],
    ] {
        refused(&workspace.command(&[args, &run].concat()).output().unwrap(), "head.bias");
    }
    assert!(!workspace.path("x.onnx").exists());
}
