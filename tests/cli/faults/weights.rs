//! Weights, their configs and tokenizers.

use super::Table;
use crate::common::fixture;
use crate::common::workspace::Workspace;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

pub(super) const EXTRACT: [&str; 7] =
    ["extract", "--config", "small.toml", "--set", "model.backbone=./weights", "--out", "f.npy"];
const ZEROSHOT: [&str; 5] = ["zeroshot", "--config", "clip.toml", "--set", "run.name=zero"];

/// A pipe that nobody writes to.
#[cfg(unix)]
pub(super) fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A small model of timm, its header and its values.
pub(super) struct Weights {
    pub(super) header: Map<String, Value>,
    pub(super) values: Vec<u8>,
}

impl Weights {
    pub(super) fn read() -> Self {
        let bytes = fs::read(fixture("backbones/timm_vit_cls/model.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Self { header, values: bytes[8 + length..].to_vec() }
    }

    fn with_header(&self, header: &str) -> Vec<u8> {
        let header = header.to_owned() + &" ".repeat(header.len().next_multiple_of(8) - header.len());
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &self.values].concat()
    }

    /// With every name changed.
    fn renamed(&self, name: impl Fn(&str) -> String) -> Vec<u8> {
        let header: Map<String, Value> = self.header.iter().map(|(key, value)| (name(key), value.clone())).collect();
        self.with_header(&json!(header).to_string())
    }

    /// With one entry changed.
    fn forged(&self, change: impl Fn(&mut Value)) -> Vec<u8> {
        let mut header = self.header.clone();
        change(&mut header["blocks.0.attn.proj.bias"]);
        self.with_header(&json!(header).to_string())
    }
}

/// An archive as `torch.save` writes it.
pub(super) fn archive(pickle: &[u8], beside: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", options).unwrap();
    archive.write_all(pickle).unwrap();
    for (name, content) in beside {
        archive.start_file(*name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// The same as other programs pack it anew: its entries say that they are compressed.
fn compressed(mut archive: Vec<u8>) -> Vec<u8> {
    let central = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    archive[central + 10] = 8;
    archive
}

/// A folder of weights with the config of the small model.
pub(super) fn folder() -> Workspace {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("weights")).unwrap();
    fs::copy(fixture("backbones/timm_vit_cls/config.json"), workspace.path("weights/config.json")).unwrap();
    workspace
}

pub(super) fn rows(table: &mut Table) {
    let (workspace, weights) = (folder(), Weights::read());
    let file = workspace.path("weights/model.safetensors");
    table.row(&workspace, "weights with a wrapper's prefix on all names", "loaded, and said", |row| {
        let prefixes = [
            "module.", "_orig_mod.", "timm_model.", "model.", "backbone.", "encoder.", "net.", "teacher.",
            "module.model.",
        ];
        for prefix in prefixes {
            fs::write(&file, weights.renamed(|name| format!("{prefix}{name}"))).unwrap();
            row.case(&EXTRACT, 0, &[prefix]);
        }
    });
    table.row(&workspace, "names of another model: 44 missing, 44 unexpected", "4, the lists cut short", |row| {
        fs::write(&file, weights.renamed(|name| name.replace('s', "z"))).unwrap();
        let all = row.case(&EXTRACT, 4, &["missing: ", "unexpected: ", " more"]);
        assert!(all.lines().count() < 60, "{all}");
    });
    table.row(&workspace, "a damaged or forged header of safetensors", "4, nothing allocated", |row| {
        let whole = weights.renamed(str::to_owned);
        let length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
        let header = json!(weights.header).to_string();
        let twice = format!("{},\"norm.bias\":{}}}", &header[..header.len() - 1], weights.header["norm.bias"]);
        let deep = format!("{{\"a\":{}", "[".repeat(500_000));
        for bytes in [
            Vec::new(),
            whole[..whole.len() - 100].to_vec(),
            [&whole[..], &[0; 8]].concat(),
            length(u64::MAX),
            length(1 << 40),
            length(7),
            weights.with_header(&twice),
            weights.with_header(&deep),
            weights.forged(|entry| entry["data_offsets"] = json!([64, 128])),
            weights.forged(|entry| entry["data_offsets"] = json!([1u64 << 60, (1u64 << 60) + 64])),
            weights.forged(|entry| entry["shape"] = json!([1u64 << 40, 1u64 << 40])),
            weights.forged(|entry| entry["dtype"] = json!("I64")),
            weights.forged(|entry| entry["shape"] = json!([-1])),
        ] {
            fs::write(&file, bytes).unwrap();
            row.case(&EXTRACT, 4, &["model.safetensors"]);
        }
    });
    table.row(&workspace, "a value that is no finite number", "4, with the tensor", |row| {
        for value in [f32::NAN, f32::INFINITY] {
            let mut values = weights.values.clone();
            values[..4].copy_from_slice(&value.to_le_bytes());
            fs::write(&file, Weights { header: weights.header.clone(), values }.renamed(str::to_owned)).unwrap();
            row.case(&EXTRACT, 4, &["not finite"]);
        }
    });
    table.row(&workspace, "something else under the name of weights", "4, named as what it is", |row| {
        for (bytes, said) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "git lfs pull"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\x80\x02}q\x00.", "before 1.6"),
        ] {
            fs::write(&file, bytes).unwrap();
            row.case(&EXTRACT, 4, &[said]);
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        row.case(&EXTRACT, 4, &["it is a folder"]);
        fs::remove_dir(&file).unwrap();
    });
    pickles(table, &workspace);
    special(table, &workspace);
    configs(table, &workspace, &weights);
    tokenizers(table);
}

fn pickles(table: &mut Table, workspace: &Workspace) {
    let file = workspace.path("weights/pytorch_model.bin");
    let pickle = |body: &[u8]| [b"\x80\x02", body, b"."].concat();
    table.row(workspace, "files of PyTorch that are no state dict", "4, with the way out", |row| {
        for (bytes, said) in [
            (b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec(), "before 1.6"),
            (archive(&pickle(b"}"), &[("archive/constants.pkl", b"")]), "TorchScript"),
            (archive(&pickle(b"ctimm.models\nVisionTransformer\n)\x81"), &[]), "VisionTransformer"),
            (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
            (b"<html>".to_vec(), "web page"),
            (archive(&pickle(b"}"), &[]), "no tensors"),
            (compressed(archive(&pickle(b"}"), &[])), "is compressed"),
            (b"PK\x03\x04".to_vec(), "not a file that PyTorch saved"),
        ] {
            fs::write(&file, bytes).unwrap();
            row.case(&EXTRACT, 4, &[said]);
        }
    });
    table.row(
        workspace,
        "pickles that nest deeply, that stand for 2^40 objects, that are cut short",
        "4 at once",
        |row| {
            let doubled: Vec<u8> = (0..40u8).flat_map(|i| [b'q', i, b'h', i, 0x86]).collect();
            for body in [
                [vec![b'N'], vec![0x85; 200_000]].concat(),
                [vec![b']'; 100_000], vec![b'a'; 99_999]].concat(),
                [vec![b'N'], doubled].concat(),
                b"X\xff\xff\xff\xff".to_vec(),
                b"cos\nsystem\n(X\x04\0\0\0exittR".to_vec(),
            ] {
                fs::write(&file, archive(&pickle(&body), &[])).unwrap();
                row.case(&EXTRACT, 4, &["pytorch_model.bin"]);
            }
        },
    );
    fs::remove_file(file).unwrap();
}

#[cfg(unix)]
fn special(table: &mut Table, workspace: &Workspace) {
    table.row(
        workspace,
        "a pipe or a device as config.json, weights, manifest, configuration",
        "refused at once, 2 to 4",
        |row| {
            let file = row.path("weights/model.safetensors");
            pipe(&file);
            row.case(&EXTRACT, 4, &["pipe, device or socket"]);
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
            row.case(&EXTRACT, 4, &["pipe, device or socket"]);
            fs::remove_file(&file).unwrap();
            let config = fs::read(row.path("weights/config.json")).unwrap();
            pipe(&row.path("weights/config.json"));
            row.case(&EXTRACT, 4, &["pipe, device or socket"]);
            fs::remove_file(row.path("weights/config.json")).unwrap();
            fs::write(row.path("weights/config.json"), config).unwrap();
            pipe(&row.path("pipe.toml"));
            row.case(&["finetune", "--config", "pipe.toml"], 2, &["pipe, device or socket"]);
            pipe(&row.path("pipe.csv"));
            row.case(&["finetune", "--set", "data.manifest=pipe.csv"], 3, &["pipe, device or socket"]);
        },
    );
}

#[cfg(not(unix))]
fn special(_: &mut Table, _: &Workspace) {}

fn configs(table: &mut Table, workspace: &Workspace, weights: &Weights) {
    fs::write(workspace.path("weights/model.safetensors"), weights.renamed(str::to_owned)).unwrap();
    let place = workspace.path("weights/config.json");
    let config: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
    table.row(
        workspace,
        "a config.json that is damaged, nested, not UTF-8, or asks for gigantic or no sizes",
        "4",
        |row| {
            let sized = |key: &str, value: Value| {
                let mut config = config.clone();
                config["model_args"][key] = value;
                config.to_string().into_bytes()
            };
            for bytes in [
                b"{".to_vec(),
                b"\xff\xfe{}".to_vec(),
                vec![b'['; 1 << 20],
                b"[]".to_vec(),
                sized("depth", json!(1u64 << 40)),
                sized("embed_dim", json!(1u64 << 62)),
                sized("num_heads", json!(0)),
                sized("num_heads", json!(7)),
                sized("patch_size", json!(0)),
                sized("embed_dim", json!(-3)),
                sized("img_size", json!([0, 0])),
            ] {
                fs::write(&place, bytes).unwrap();
                row.case(&EXTRACT, 4, &["weights"]);
            }
        },
    );
    table.row(
        workspace,
        "a folder with an adapter alone, without weights, a file in its place",
        "4, with the way out",
        |row| {
            fs::remove_file(row.path("weights/model.safetensors")).unwrap();
            fs::write(&place, config.to_string()).unwrap();
            row.case(&EXTRACT, 4, &["has no model.safetensors"]);
            fs::write(row.path("weights/adapter_config.json"), "{\"base_model_name_or_path\": \"google/vit\"}")
                .unwrap();
            row.case(&EXTRACT, 4, &["only an adapter for \"google/vit\"", "merge_and_unload"]);
            File::create(row.path("file")).unwrap();
            row.case(&[&EXTRACT[..], &["--set", "model.backbone=./file"]].concat(), 4, &["not the folder"]);
        },
    );
}

fn tokenizers(table: &mut Table) {
    let workspace = Workspace::with_text_models();
    let place = workspace.path("hf_clip/tokenizer.json");
    let tokenizer: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
    let what =
        "a tokenizer with a rule of 10 MB, rules that make gigabytes of a prompt, nested, damaged, of another model";
    table.row(&workspace, what, "4, bounded in time and memory", |row| {
        let with = |key: &str, rule: Value| {
            let mut tokenizer = tokenizer.clone();
            tokenizer[key] = rule;
            tokenizer.to_string().into_bytes()
        };
        let split = |pattern: String| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true});
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"});
        let sequence = json!({"type": "Sequence", "normalizers": vec![replace; 30]});
        let mut nested = json!({"type": "NFC"});
        for _ in 0..120 {
            nested = json!({"type": "Sequence", "normalizers": [nested]});
        }
        for bytes in [
            with("pre_tokenizer", split("a|".repeat(5 << 20))),
            with("pre_tokenizer", split("(".into())),
            with("normalizer", sequence),
            with("normalizer", nested),
            with("model", json!({"type": "BPE", "vocab": {}, "merges": ["a b"]})),
            with("post_processor", Value::Null),
            vec![b'['; 1 << 20],
            b"\xff\xfe".to_vec(),
            Vec::new(),
        ] {
            fs::write(&place, bytes).unwrap();
            row.case(&ZEROSHOT, 4, &["tokenizer.json"]);
        }
    });
}
