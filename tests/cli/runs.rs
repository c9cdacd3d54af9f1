//! The command line as a user meets it: stdout, stderr and exit code together, with paths and times filtered.

use crate::common::workspace::{CLASSES, Workspace, json, textile};
use crate::snapshot::snapshot;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_learning_rate_is_suggested_in_a_folder_of_its_own() {
    let workspace = Workspace::new();
    let args = ["finetune", "--config", "small.toml", "--find-lr", "--json", "-q"];
    let found = json(&workspace.command(&args).output().unwrap());
    let (lr, head_lr) = (found["lr"].as_f64().unwrap(), found["head_lr"].as_f64().unwrap());
    assert!(lr > 1e-7 && lr < 0.1 && head_lr >= lr, "{found}");
    let steps = fs::read_to_string(workspace.path("runs/small-lr/lr-finder.csv")).unwrap();
    assert_eq!(steps.lines().count(), 1 + found["steps"].as_u64().unwrap() as usize);
    assert!(steps.starts_with("lr,head_lr,loss,smoothed\n"));
    for name in ["runs/small-lr/plots/lr-finder.png", "runs/small-lr/plots/lr-finder.svg"] {
        assert!(workspace.path(name).is_file(), "{name}");
    }
    assert!(!workspace.path("runs/small").exists());
    fs::create_dir_all(workspace.path("runs/late-lr")).unwrap();
    fs::write(workspace.path("runs/late-lr/plots"), "in the way").unwrap();
    let late = ["finetune", "--config", "small.toml", "--find-lr", "--name", "late"];
    assert_eq!(workspace.command(&late).output().unwrap().status.code(), Some(5));
    let record: Value = serde_json::from_slice(&fs::read(workspace.path("runs/late-lr/run.json")).unwrap()).unwrap();
    assert_eq!(record["status"], "failed");
}

#[test]
fn finetune_then_eval_leaves_a_complete_run() {
    let workspace = Workspace::new();
    let result = workspace.finetune("full", &[]);
    let keys: Vec<&str> = result.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "run", "strategy", "trainable_parameters", "total_parameters", "epochs", "best_epoch", "val_accuracy",
        "test_accuracy", "seconds", "images_per_second", "peak_memory_bytes", "val_balanced_accuracy",
        "test_balanced_accuracy", "test_accuracy_ci95", "baseline", "worst_class", "verdict", "verdict_reason",
    ] {
        assert!(keys.contains(&key), "{key} is missing from {keys:?}");
    }
    assert_eq!((result["strategy"].as_str(), result["epochs"].as_u64()), (Some("partial"), Some(2)));
    for file in [
        "config.toml", "run.json", "splits.csv", "metrics.jsonl", "checkpoints/last/optimizer.safetensors",
        "checkpoints/best/model.safetensors", "eval-val.json", "eval-test.json", "plots/curves.png",
        "plots/curves.svg", "plots/confusion-test.png", "plots/confusion-test.svg",
    ] {
        assert!(workspace.path("runs/full").join(file).is_file(), "{file} is missing");
    }
    let metrics = fs::read_to_string(workspace.path("runs/full/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), lines[1]["epoch"].as_u64(), lines[1]["step"].as_u64()), (2, Some(2), Some(10)));

    let written: Value =
        serde_json::from_slice(&fs::read(workspace.path("runs/full/eval-test.json")).unwrap()).unwrap();
    let again = json(&workspace.command(&["eval", "--run", "runs/full", "--json", "-q"]).output().unwrap());
    assert_eq!(written, again, "eval disagrees with what finetune wrote");
    assert_eq!((again["n"].as_u64(), again["accuracy"].as_f64()), (Some(9), result["test_accuracy"].as_f64()));
    let elsewhere = ["eval", "--run", "runs/full", "--data", "data/test", "--json", "-q"];
    let other = json(&workspace.command(&elsewhere).output().unwrap());
    assert_eq!((&other["split"], &other["confusion"]), (&Value::from("data"), &again["confusion"]));
}

#[test]
fn rows_from_the_cache_are_no_speed_of_the_model() {
    let workspace = Workspace::new();
    let speeds = |run: &str| -> Vec<Option<f64>> {
        let metrics = fs::read_to_string(workspace.path(&format!("runs/{run}/metrics.jsonl"))).unwrap();
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["images_per_second"].clone();
        metrics.lines().map(|text| serde_json::from_value(line(text)).unwrap()).collect()
    };
    let cached = ["--set", "augment.preset=none", "--set", "early_stop.patience=0"];
    let result = workspace.finetune("cached", &cached);
    assert!(result["cache"].is_object() && result["images_per_second"].is_null(), "{result}");
    assert_eq!(speeds("cached"), [None, None]);
    // It goes on from what it has written, and the page about it is made.
    let longer = workspace.finetune("cached", &[&cached[..], &["--epochs", "3", "--resume"]].concat());
    assert!(longer["images_per_second"].is_null() && workspace.path("runs/cached/report.html").is_file());
    assert_eq!(speeds("cached"), [None; 3]);
    let whole = workspace.finetune("whole", &["--set", "strategy.kind=full", "--epochs", "1"]);
    assert!(whole["images_per_second"].is_number() && speeds("whole")[0].is_some(), "{whole}");
}

#[test]
fn one_seed_gives_one_result_whatever_the_decoding_threads() {
    let workspace = Workspace::new();
    workspace.finetune("first", &["--set", "run.decode_threads=1", "--epochs", "1"]);
    workspace.finetune("second", &["--set", "run.decode_threads=3", "--epochs", "1"]);
    workspace.finetune("other", &["--set", "run.seed=1", "--epochs", "1"]);
    for checkpoint in ["last", "best"] {
        assert!(workspace.tensors("first", checkpoint) == workspace.tensors("second", checkpoint));
    }
    assert!(workspace.tensors("first", "last") != workspace.tensors("other", "last"));
}

#[test]
fn a_resumed_run_ends_in_the_same_bits() {
    let workspace = Workspace::new();
    let long = ["--set", "train.epochs=20", "--set", "early_stop.patience=0", "--set", "model.drop_path=0.1"];
    workspace.finetune("whole", &long);
    let mut args = vec!["finetune", "--config", "small.toml", "--set", "run.name=cut"];
    args.extend_from_slice(&long);
    let stopped = workspace.interrupt(&args, "cut", 2);
    let stderr = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert_eq!(stopped.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("stopped by SIGINT") && stderr.contains("--resume"), "{stderr}");

    args.extend(["--resume", "--json"]);
    let result = json(&workspace.command(&args).output().unwrap());
    assert_eq!(result["epochs"], 20);
    for checkpoint in ["last", "best"] {
        assert!(workspace.tensors("whole", checkpoint) == workspace.tensors("cut", checkpoint), "{checkpoint} differs");
    }
    let metrics = fs::read_to_string(workspace.path("runs/cut/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 20);
    // A finished run has nothing left to do, and a changed one is refused.
    assert_eq!(json(&workspace.command(&args).output().unwrap()), result);
    args.extend(["--set", "train.lr=1e-5"]);
    let refused = workspace.command(&args).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("train.lr: 0.0001 then, 0.00001 now"), "{refused:?}");
}

#[test]
fn an_earlier_run_is_kept_and_a_running_one_is_left_alone() {
    let workspace = Workspace::new();
    let short = ["--set", "train.steps=1"];
    workspace.finetune("twice", &short);
    let first = workspace.tensors("twice", "last");
    workspace.finetune("twice", &short);
    assert!(workspace.tensors("twice.1", "last") == first);
    let _lock = vitadapt::system::lock::Lock::acquire(&workspace.path("runs/twice")).unwrap();
    let args = ["finetune", "--config", "small.toml", "--set", "run.name=twice"];
    let refused = workspace.command(&args).output().unwrap();
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
}

#[test]
fn tables_for_people() {
    let workspace = Workspace::new();
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "train.epochs=1"]);
    let gated = ["eval", "--run", "runs/small", "--min-accuracy", "1", "--min-macro-f1", "0"];
    snapshot!(workspace, &gated);
}

#[test]
fn config_mistakes_are_all_reported_at_once() {
    let workspace = Workspace::new();
    workspace.write(
        "typo.toml",
        "[data]\nroot = \"data\"\nvall = 0.2\n\n[strategy]\nkind = \"partail\"\n\n[train]\nlr = \"fast\"\nepochs = 0\n\n[trian]\n",
    );
    snapshot!(workspace, &["finetune", "--config", "typo.toml"]);
    snapshot!(workspace, &["finetune", "--config", "absent.toml"]);
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "train.leraning_rate=1"]);
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "run.device=cuda:0"]);
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "model.image_size=50"]);
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "strategy.blocks=9"]);
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "model.backbone=builtin:vit-huge"]);
    snapshot!(workspace, &["finetune", "--confg", "small.toml"]);
    snapshot!(workspace, &["finetune"]);
}

#[test]
fn unusable_data_is_refused() {
    let workspace = Workspace::new();
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "data.root=dta"]);
    let truncate = |split: &str, class: &str| {
        let folder = workspace.path(&format!("data/{split}/{class}"));
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let bytes = fs::read(&files[0]).unwrap();
        fs::write(&files[0], &bytes[..bytes.len() / 2]).unwrap();
    };
    truncate("train", "local");
    truncate("test", "global");
    snapshot!(workspace, &["finetune", "--config", "small.toml"]);
    let skipping = workspace.finetune("skipping", &["--set", "data.on_error=skip", "--set", "train.steps=1"]);
    assert!(skipping["test_accuracy"].is_f64());
    let skipped = fs::read_to_string(workspace.path("runs/skipping/skipped.csv")).unwrap();
    assert_eq!(skipped.lines().count(), 3, "{skipped}");
    fs::create_dir(workspace.path("data/train/empty")).unwrap();
    snapshot!(workspace, &["finetune", "--config", "small.toml"]);
    for class in ["global", "local", "empty"] {
        for split in ["train", "val", "test"] {
            let _ = fs::remove_dir_all(workspace.path(&format!("data/{split}/{class}")));
        }
    }
    snapshot!(workspace, &["finetune", "--config", "small.toml"]);
}

#[test]
fn unusable_weights_are_refused() {
    let workspace = Workspace::new();
    let weights = workspace.path("weights");
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/vit-mini");
    let args = ["finetune", "--config", "small.toml", "--set", "model.backbone=./weights"];
    snapshot!(workspace, &args);
    fs::create_dir(&weights).unwrap();
    snapshot!(workspace, &args);
    fs::copy(assets.join("model.safetensors"), weights.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(assets.join("config.json")).unwrap();
    fs::write(weights.join("config.json"), config.replace("\"depth\": 6", "\"depth\": 7, \"embed_dim\": 96")).unwrap();
    let output = workspace.command(&args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("missing: blocks.6.attn.qkv.weight [288, 96]"), "{stderr}");
    assert!(stderr.contains("wrong shape: ") && stderr.contains(" more\n") && stderr.lines().count() < 60, "{stderr}");
    assert!(stderr.contains("wrong shape: blocks.0.attn.proj.bias is [192], expected [96]"), "{stderr}");
    fs::write(weights.join("config.json"), config.replace("\"depth\": 6", "\"depth\": 5")).unwrap();
    let output = workspace.command(&args).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("unexpected: blocks.5.attn.proj.bias [192]"));
    fs::write(weights.join("config.json"), &config).unwrap();
    let bytes = fs::read(assets.join("model.safetensors")).unwrap();
    fs::write(weights.join("model.safetensors"), &bytes[..bytes.len() - 100]).unwrap();
    snapshot!(workspace, &args);
    fs::write(weights.join("config.json"), "{\"model_type\": \"resnet\"}").unwrap();
    fs::write(weights.join("model.safetensors"), &bytes).unwrap();
    snapshot!(workspace, &args);
}

#[test]
fn an_exploding_run_stops_with_its_own_code() {
    let workspace = Workspace::new();
    let mut args = vec!["finetune", "--config", "small.toml", "--set", "train.epochs=30"];
    args.extend(["--set", "train.lr=1000", "--set", "train.head_lr=1000", "--set", "train.clip_grad=0"]);
    args.extend(["--set", "train.warmup=0"]);
    let output = workspace.command(&args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("not finite") && stderr.contains("hint: lower train.lr"), "{stderr}");
    let record: Value = serde_json::from_slice(&fs::read(workspace.path("runs/small/run.json")).unwrap()).unwrap();
    assert_eq!(record["status"], "failed");
}

#[test]
fn a_manifest_keeps_its_groups_together_and_needs_no_validation() {
    let workspace = Workspace::new();
    let mut rows = String::from("path,label,group\n");
    for class in CLASSES {
        for (i, file) in textile("train", class).iter().take(9).enumerate() {
            let name = format!("{class}-{i}.jpg");
            fs::copy(file, workspace.path(&name)).unwrap();
            rows.push_str(&format!("{name},{class},{class}{}\n", i / 3));
        }
    }
    workspace.write("list.csv", &rows);
    let base = ["--set", "data.manifest=list.csv", "--set", "train.epochs=1", "--set", "model.image_size=32"];
    let run = |name: &str, extra: &[&str]| {
        let name = format!("run.name={name}");
        let args = [&["finetune", "--json", "-q", "--set", &name], base.as_slice(), extra].concat();
        json(&workspace.command(&args).output().unwrap())
    };
    run("groups", &["--set", "data.val=0.3", "--set", "data.test=0.3"]);
    let splits = fs::read_to_string(workspace.path("runs/groups/splits.csv")).unwrap();
    let mut by_group = std::collections::BTreeMap::new();
    for row in splits.lines().skip(1) {
        let columns: Vec<&str> = row.split(',').collect();
        assert_eq!(by_group.entry(columns[3]).or_insert(columns[2]), &columns[2], "{row} parts from its group");
    }
    assert_eq!(by_group.len(), 9);
    assert!(["train", "val", "test"].iter().all(|split| by_group.values().any(|found| found == split)), "{by_group:?}");

    let alone = run("alone", &["--set", "data.val=0", "--set", "data.test=0"]);
    assert_eq!((&alone["val_accuracy"], &alone["verdict"]), (&Value::Null, &Value::from("too_few_images")));
    let refused = workspace.command(&["eval", "--run", "runs/alone"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn a_forged_record_is_refused_before_anything_is_made_of_it() {
    let workspace = Workspace::new();
    workspace.finetune("small", &["--set", "train.steps=1"]);
    let path = workspace.path("runs/small/run.json");
    let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let forged = |key: &[&str], value: Value| {
        let mut record = record.clone();
        let mut place = &mut record;
        for key in key {
            place = &mut place[*key];
        }
        *place = value;
        record.to_string().into_bytes()
    };
    let mut cases = vec![
        (forged(&["preprocess", "image_size"], 0.into()), "image_size 0"),
        (forged(&["preprocess", "image_size"], (1u64 << 32).into()), "image_size 4294967296"),
        (forged(&["preprocess", "crop_pct"], (-1.0).into()), "crop_pct -1"),
        (forged(&["temperature"], (-1.0).into()), "temperature -1"),
        (forged(&["classes"], serde_json::json!(["a", "b", "a"])), "the class \"a\" twice"),
        (forged(&["classes"], serde_json::json!([])), "no classes"),
        (b"\xff\xfe{}".to_vec(), "not the JSON"),
        (vec![b'['; 1 << 20], "recursion limit"),
    ];
    let mut other = forged(&["version"], "9.0.0".into());
    other = String::from_utf8(other).unwrap().replace("\"preprocess\"", "\"transforms\"").into_bytes();
    cases.push((other, "made by vitadapt 9.0.0"));
    for (bytes, said) in cases {
        fs::write(&path, bytes).unwrap();
        let output = workspace.command(&["eval", "--run", "runs/small"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(4) && stderr.contains(said), "{said}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_far_too_many_threads_are_refused_at_once() {
    let workspace = Workspace::new();
    assert!(std::process::Command::new("mkfifo").arg(workspace.path("pipe.toml")).status().unwrap().success());
    let output = workspace.command(&["finetune", "--config", "pipe.toml"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("pipe, device or socket"), "{stderr}");
    for key in ["run.threads", "run.decode_threads"] {
        let set = format!("{key}=1024");
        let output = workspace.command(&["finetune", "--config", "small.toml", "--set", &set]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains("this machine has"), "{stderr}");
    }
}

#[test]
fn eval_refuses_what_is_no_run() {
    let workspace = Workspace::new();
    snapshot!(workspace, &["eval", "--run", "data"]);
    snapshot!(workspace, &["eval", "--run", "runs/small", "--min-accuracy", "90"]);
}
