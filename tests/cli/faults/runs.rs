//! Runs and their files, and what commands leave.

use super::images::damaged_jpegs;
use super::{Row, Table};
use crate::common::workspace::{Workspace, textile};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Changes one value of a JSON file; true as a test of the path.
fn forge(path: &Path, keys: &[&str], value: Value) {
    let mut all = read(path);
    let mut place = &mut all;
    for key in keys {
        place = &mut place[*key];
    }
    *place = value;
    fs::write(path, all.to_string()).unwrap();
}

/// Makes a checkpoint's manifest fit its files.
fn sign(checkpoint: &Path) {
    let manifest = checkpoint.join("manifest.json");
    let mut found = read(&manifest);
    for (name, sum) in found["files"].as_object_mut().unwrap() {
        let bytes = fs::read(checkpoint.join(name)).unwrap();
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        *sum = hex.into();
    }
    fs::write(manifest, found.to_string()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(names(&path));
        }
        found.push(path);
    }
    found
}

pub(super) fn rows(table: &mut Table) {
    let workspace = Workspace::new();
    workspace.finetune("small", &["--set", "train.steps=6"]);
    table.row(&workspace, "a finished run", "without temporary files", |row| {
        let left = names(&row.path("runs/small"));
        let temporary = |path: &&PathBuf| {
            let ending = path.extension().unwrap_or_default();
            ending == "tmp" || ending == "old"
        };
        assert_eq!(left.iter().find(temporary), None);
        row.cases += 1;
    });
    records(table, &workspace);
    predict(table, &workspace);
    table.row(&workspace, "`eval --data` with a damaged JPEG", "3, as in training", |row| {
        let place = row.path("other/global/odd.jpg");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::create_dir_all(row.path("other/local")).unwrap();
        fs::copy(&textile("test", "local")[4], row.path("other/local/a.jpg")).unwrap();
        for (_, bytes) in damaged_jpegs() {
            fs::write(&place, bytes).unwrap();
            row.case(&["eval", "--run", "runs/small", "--data", "other"], 3, &["odd.jpg", "damaged"]);
        }
    });
    table.row(
        &workspace,
        "an output that exists, or a sidecar that the command did not write",
        "2, nothing replaced",
        |row| {
            fs::write(row.path("x.csv"), "mine").unwrap();
            row.case(&["extract", "--run", "runs/small", "--out", "x.npy"], 2, &["x.csv"]);
            assert_eq!(fs::read(row.path("x.csv")).unwrap(), b"mine");
            row.case(&["export", "--run", "runs/small", "--format", "timm", "--out", "data"], 2, &["data"]);
        },
    );
    table.row(&workspace, "`run.threads`, `run.decode_threads` of 1024", "2", |row| {
        for key in ["run.threads=1024", "run.decode_threads=1024"] {
            row.case(&["finetune", "--config", "small.toml", "--set", key], 2, &["this machine has"]);
        }
    });
    table.row(&workspace, "a failure after the last epoch", "its own code; `run.json` says `failed`", |row| {
        fs::create_dir_all(row.path("runs/late")).unwrap();
        fs::write(row.path("runs/late/plots"), "in the way").unwrap();
        let late = ["finetune", "--config", "small.toml", "--set", "run.name=late", "--set", "train.steps=2"];
        row.case(&late, 5, &["plots"]);
        assert_eq!(read(&row.path("runs/late/run.json"))["status"], "failed");
        fs::create_dir_all(row.path("runs/probe")).unwrap();
        fs::write(row.path("runs/probe/plots"), "in the way").unwrap();
        row.case(&["probe", "--config", "small.toml", "--set", "run.name=probe"], 5, &["plots"]);
        assert_eq!(read(&row.path("runs/probe/run.json"))["status"], "failed");
    });
    checkpoints(table);
}

fn records(table: &mut Table, workspace: &Workspace) {
    let (path, eval) = (workspace.path("runs/small/run.json"), ["eval", "--run", "runs/small"]);
    let whole = fs::read(&path).unwrap();
    table.row(
        workspace,
        "a forged, damaged or nested `run.json`, or one of another version",
        "4, with the reason",
        |row| {
            for (keys, value, said) in [
                (&["preprocess", "image_size"][..], json!(0), "image_size 0"),
                (&["preprocess", "image_size"], json!(1u64 << 32), "image_size 4294967296"),
                (&["preprocess", "image_size"], json!(-1), "run.json"),
                (&["preprocess", "crop_pct"], json!(-1.0), "crop_pct -1"),
                (&["preprocess", "normalization", "std"], json!([0.0, 1.0, 1.0]), "standard deviation of 0"),
                (&["temperature"], json!(-1.0), "temperature -1"),
                (&["classes"], json!(["a", "b", "a"]), "the class \"a\" twice"),
                (&["classes"], json!([]), "no classes"),
                (&["classes"], json!(7), "run.json"),
                (&["head"], json!("other"), "run.json"),
            ] {
                fs::write(&path, &whole).unwrap();
                forge(&path, keys, value);
                row.case(&eval, 4, &[said]);
            }
            fs::write(&path, &whole).unwrap();
            forge(&path, &["version"], json!("9.0.0"));
            forge(&path, &["preprocess"], json!({}));
            row.case(&eval, 4, &["made by vitadapt 9.0.0"]);
            for bytes in [b"\xff\xfe{}".to_vec(), vec![b'['; 1 << 20], b"{".to_vec(), Vec::new(), vec![0; 1 << 20]] {
                fs::write(&path, bytes).unwrap();
                row.case(&eval, 4, &["run.json"]);
            }
            fs::write(&path, &whole).unwrap();
        },
    );
}

fn predict(table: &mut Table, workspace: &Workspace) {
    let good = textile("test", "global")[0].display().to_string();
    table.row(
        workspace,
        "`predict` of damaged files, with a good one among them",
        "3; rows of those say why, the other is predicted",
        |row| {
            let place = row.path("odd.jpg");
            let others = [b"".to_vec(), b"no image".to_vec(), b"\0\0\0\x18ftypheic\0\0\0\0".to_vec()];
            for bytes in damaged_jpegs().into_iter().map(|(_, bytes)| bytes).chain(others) {
                fs::write(&place, bytes).unwrap();
                let all =
                    row.case(&["predict", "--run", "runs/small", "odd.jpg", &good], 3, &["1 of 2 files", "\"error\""]);
                assert!(all.contains("\"probability\""), "{all}");
            }
        },
    );
}

/// A stopped training to go on from, and what is done to a copy of its last checkpoint.
fn checkpoints(table: &mut Table) {
    let workspace = Workspace::new();
    let args = ["finetune", "--config", "small.toml", "--set", "train.epochs=6", "--set", "train.checkpoint_steps=1"];
    let stopped = workspace.interrupt(&args, "small", 2);
    assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
    let kept = workspace.path("kept");
    copy(&workspace.path("runs/small"), &kept);
    let last = workspace.path("runs/small/checkpoints/last");
    let resume = [&args[..], &["--resume", "-q"]].concat();
    let anew = || {
        fs::remove_dir_all(workspace.path("runs/small")).unwrap();
        copy(&kept, &workspace.path("runs/small"));
        let _ = fs::remove_dir_all(workspace.path("runs/small/checkpoints/.last.old"));
    };
    let refused = |row: &mut Row<'_>, said: &str| {
        sign(&last);
        row.case(&resume, 4, &["last", said]);
    };
    table.row(&workspace, "a checkpoint with a forged state", "4, with the reason", |row| {
        let safeguard = |key: &str, value: Value| (vec!["safeguard".to_owned(), key.to_owned()], value);
        let plain = |key: &str, value: Value| (vec![key.to_owned()], value);
        for ((keys, value), said) in [
            (safeguard("loss_scale", json!(0.0)), "loss scale"),
            (safeguard("loss_scale", json!(-1.0)), "loss scale"),
            (safeguard("loss_scale", json!(1e300)), "loss scale"),
            (safeguard("loss_scale", json!(65536.0)), "loss scale"),
            (safeguard("loss_scale", Value::Null), "state.json"),
            (safeguard("micro_batches", json!(0)), "micro-batches"),
            (safeguard("micro_batches", json!(u64::MAX)), "micro-batches"),
            (plain("step", json!(1u64 << 40)), "step 1099511627776"),
            (plain("epoch", json!(0)), "epochs"),
            (plain("batch", json!(1u64 << 50)), "batches"),
            (plain("updates", json!(1u64 << 50)), "updates"),
            (plain("skipped", json!(1u64 << 50)), "skipped"),
            (plain("history", json!([])), "records of 0 epochs"),
        ] {
            anew();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            forge(&last.join("state.json"), &keys, value);
            refused(row, said);
        }
        for bytes in [b"\xff\xfe".to_vec(), vec![b'['; 1 << 20], b"[]".to_vec()] {
            anew();
            fs::write(last.join("state.json"), bytes).unwrap();
            refused(row, "state.json");
        }
    });
    table.row(&workspace, "a checkpoint with a forged optimiser state or weights", "4, with the tensor", |row| {
        let bias = |value: f32| Tensor::full(value, 3, &Device::Cpu).unwrap();
        let steps = |steps: u32| Tensor::new(steps, &Device::Cpu).unwrap();
        let wide = Tensor::zeros(1 << 16, DType::F32, &Device::Cpu).unwrap();
        for (file, name, tensor) in [
            ("optimizer", "first.head.bias", Some(bias(f32::NAN))),
            ("optimizer", "first.head.bias", Some(bias(f32::INFINITY))),
            ("optimizer", "second.head.bias", Some(bias(-1.0))),
            ("optimizer", "second.head.bias", Some(bias(f32::NAN))),
            ("optimizer", "second.head.bias", Some(bias(0.0).to_dtype(DType::F16).unwrap())),
            ("optimizer", "first.head.bias", Some(wide.clone())),
            ("optimizer", "first.head.bias", None),
            ("optimizer", "steps.head.bias", Some(steps(u32::MAX))),
            ("optimizer", "steps.head.bias", Some(bias(1.0))),
            ("model", "head.bias", Some(bias(f32::NAN))),
            ("model", "head.bias", Some(wide)),
            ("model", "head.bias", None),
        ] {
            anew();
            let path = last.join(format!("{file}.safetensors"));
            let mut tensors: HashMap<String, Tensor> = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            match tensor {
                Some(tensor) => drop(tensors.insert(name.into(), tensor)),
                None => drop(tensors.remove(name)),
            }
            candle_core::safetensors::save(&tensors, &path).unwrap();
            refused(row, name);
        }
        anew();
        fs::write(last.join("optimizer.safetensors"), b"\xff\xff\xff\xff\xff\xff\xff\x7f{}").unwrap();
        refused(row, "optimizer.safetensors");
    });
    table.row(&workspace, "a damaged `last`, with the checkpoint before it", "goes on from that, and says so", |row| {
        for file in ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"] {
            anew();
            copy(&last, &workspace.path("runs/small/checkpoints/.last.old"));
            fs::write(last.join(file), "damaged").unwrap();
            row.case(&[&args[..], &["--resume"]].concat(), 0, &["continuing from"]);
        }
    });
    table.row(
        &workspace,
        "`--resume` with another number of threads",
        "goes on; a warning that the last bits may differ",
        |row| {
            anew();
            row.case(&[&resume[..], &["--set", "run.threads=1"]].concat(), 0, &["its last bits may differ"]);
        },
    );
}
