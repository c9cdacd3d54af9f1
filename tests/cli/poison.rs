//! One value that is not a number in the weights, whatever the command: it ends with its own code, says which tensor it
//! was, and passes no gate.

use crate::common::workspace::Workspace;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;
use vitadapt::system::digest::sha256_of_file;

/// Makes the first value of a tensor NaN.
fn poison(file: &Path, tensor: &str) {
    let mut bytes = fs::read(file).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let start = 8 + header + metadata.info(tensor).unwrap().data_offsets.0;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(file, bytes).unwrap();
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
