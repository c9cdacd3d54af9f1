//! Checkpoints of a stopped training: forged, damaged, not to be written any more.

use super::runs::{forge, names, read};
use super::{Row, Table};
use crate::common::workspace::{Workspace, copy};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use vitadapt::system::digest::sha256_of_file;

const ARGS: [&str; 7] =
    ["finetune", "--config", "small.toml", "--set", "train.epochs=6", "--set", "train.checkpoint_steps=1"];

pub(super) fn rows(table: &mut Table) {
    let stopped = Stopped::new();
    stopped.states(table);
    stopped.tensors(table);
    stopped.continued(table);
}

/// Makes a checkpoint's manifest fit its files.
fn sign(checkpoint: &Path) {
    let manifest = checkpoint.join("manifest.json");
    let mut found = read(&manifest);
    for (name, sum) in found["files"].as_object_mut().unwrap() {
        *sum = sha256_of_file(&checkpoint.join(name)).unwrap().into();
    }
    fs::write(manifest, found.to_string()).unwrap();
}

/// A stopped training to go on from, and what is done to a copy of its last checkpoint.
struct Stopped {
    workspace: Workspace,
    kept: PathBuf,
    last: PathBuf,
    resume: Vec<&'static str>,
}

impl Stopped {
    fn new() -> Self {
        let workspace = Workspace::new();
        let stopped = workspace.interrupt(&ARGS, "small", 2);
        assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
        let (kept, last) = (workspace.path("kept"), workspace.path("runs/small/checkpoints/last"));
        copy(&workspace.path("runs/small"), &kept);
        Self { workspace, kept, last, resume: [&ARGS[..], &["--resume", "-q"]].concat() }
    }

    fn anew(&self) {
        fs::remove_dir_all(self.workspace.path("runs/small")).unwrap();
        copy(&self.kept, &self.workspace.path("runs/small"));
        let _ = fs::remove_dir_all(self.workspace.path("runs/small/checkpoints/.last.old"));
    }

    fn refused(&self, row: &mut Row<'_>, said: &str) {
        sign(&self.last);
        row.case(&self.resume, 4, &["last", said]);
    }

    fn states(&self, table: &mut Table) {
        table.row(&self.workspace, "a checkpoint with a forged state", "4, with the reason", |row| {
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
                self.anew();
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                forge(&self.last.join("state.json"), &keys, value);
                self.refused(row, said);
            }
            for bytes in [b"\xff\xfe".to_vec(), vec![b'['; 1 << 20], b"[]".to_vec()] {
                self.anew();
                fs::write(self.last.join("state.json"), bytes).unwrap();
                self.refused(row, "state.json");
            }
        });
    }

    fn tensors(&self, table: &mut Table) {
        table.row(
            &self.workspace,
            "a checkpoint with a forged optimiser state or weights",
            "4, with the tensor",
            |row| {
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
                    self.anew();
                    let path = self.last.join(format!("{file}.safetensors"));
                    let mut tensors: HashMap<String, Tensor> =
                        candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
                    match tensor {
                        Some(tensor) => drop(tensors.insert(name.into(), tensor)),
                        None => drop(tensors.remove(name)),
                    }
                    candle_core::safetensors::save(&tensors, &path).unwrap();
                    self.refused(row, name);
                }
                let gigantic =
                    json!({"head.bias": {"dtype": "F32", "shape": [1u64 << 40], "data_offsets": [0, 1u64 << 42]}});
                let overflowing =
                    json!({"head.bias": {"dtype": "F32", "shape": [1u64 << 40, 1u64 << 40], "data_offsets": [0, 4]}});
                let with_header = |header: &Value| {
                    let header = header.to_string();
                    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat()
                };
                for file in ["optimizer.safetensors", "model.safetensors"] {
                    for bytes in [
                        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}".to_vec(),
                        b"\0\0\0\0\0\x01\0\0{}".to_vec(),
                        with_header(&gigantic),
                        with_header(&overflowing),
                        Vec::new(),
                    ] {
                        self.anew();
                        fs::write(self.last.join(file), bytes).unwrap();
                        self.refused(row, file);
                    }
                }
            },
        );
    }

    fn continued(&self, table: &mut Table) {
        table.row(
            &self.workspace,
            "a damaged `last`, with the checkpoint before it",
            "goes on from that, and says so",
            |row| {
                for file in ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"] {
                    self.anew();
                    copy(&self.last, &self.workspace.path("runs/small/checkpoints/.last.old"));
                    fs::write(self.last.join(file), "damaged").unwrap();
                    row.case(&[&ARGS[..], &["--resume"]].concat(), 0, &["continuing from"]);
                }
            },
        );
        #[cfg(unix)]
        table.row(
            &self.workspace,
            "a checkpoint that cannot be written any more",
            "5; the one before it is gone on from",
            |row| {
                self.anew();
                row.shell("ulimit -f 40;", &self.resume, 5, &["cannot write", "checkpoints"]);
                let left = names(&row.path("runs/small/checkpoints"));
                assert!(!left.iter().any(|path| path.extension().is_some_and(|ending| ending == "tmp")), "{left:?}");
                row.case(&self.resume, 0, &[]);
            },
        );
        table.row(
            &self.workspace,
            "`--resume` with another number of threads",
            "goes on; a warning that the last bits may differ",
            |row| {
                self.anew();
                row.case(&[&self.resume[..], &["--set", "run.threads=1"]].concat(), 0, &["its last bits may differ"]);
            },
        );
    }
}
