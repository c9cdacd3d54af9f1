//! Runs of all kinds: `predict`, the table of `eval` and the exported model give the same probabilities of the same files.

use crate::common::workspace::{CLASSES, Workspace, json};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::transform::{Pipeline, View};
use vitadapt::export::FORMATS;
use vitadapt::report::RunRecord;
use vitadapt::report::predictions::Predictions;

/// Largest difference of a probability.
const TOLERANCE: f64 = 1e-4;

const ALL: &[&str] = &["transformers", "timm", "onnx"];
const ONNX: &[&str] = &["onnx"];

/// Command, config, overrides, and the formats that the model leaves in.
type Kind = (&'static str, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const KINDS: [Kind; 13] = [
    ("frozen", "finetune", "small.toml", &["strategy.kind=frozen", "preprocess.resize=crop", "train.epochs=1"], ALL),
    ("partial", "finetune", "small.toml", &["train.epochs=1"], ALL),
    ("wide", "finetune", "small.toml", &["model.image_size=[32, 48]", "preprocess.resize=crop", "train.epochs=1"], ALL),
    ("full", "finetune", "small.toml", &["strategy.kind=full", "preprocess.normalize=dataset", "train.epochs=1"], ALL),
    ("lora", "finetune", "small.toml", &["strategy.kind=lora", "train.lr=1e-2", "train.epochs=1"], ALL),
    ("tokens", "finetune", "small.toml", &["strategy.kind=prompt", "strategy.tokens=2", "train.epochs=1"], ONNX),
    ("logistic", "probe", "small.toml", &["augment.preset=none", "probe.c=[1]"], ALL),
    (
        "svm",
        "probe",
        "small.toml",
        &["augment.preset=none", "probe.method=svm", "probe.standardize=true", "probe.c=[1]"],
        ALL,
    ),
    (
        "blocks",
        "probe",
        "small.toml",
        &["augment.preset=none", "probe.features=both", "probe.blocks=2", "probe.c=[1]"],
        ONNX,
    ),
    ("knn", "probe", "small.toml", &["augment.preset=none", "probe.method=knn", "probe.k=[3]"], &[]),
    ("zeroshot", "zeroshot", "clip.toml", &[], ONNX),
    ("texts", "finetune", "clip.toml", &["model.head_init=text", "strategy.kind=full", "train.epochs=1"], ONNX),
    ("words", "finetune", "clip.toml", &["strategy.kind=prompt", "strategy.modality=text", "train.epochs=1"], ONNX),
];

/// The probabilities of each test image, by its name.
type Answers = BTreeMap<String, Vec<f64>>;

fn softmax(logits: impl Iterator<Item = f64>) -> Vec<f64> {
    let exponentials: Vec<f64> = logits.map(f64::exp).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

fn predicted(workspace: &Workspace, run: &str) -> Answers {
    let args = ["predict", "--run", run, "data/test", "--top", "3", "--json", "-q"];
    let rows = json(&workspace.command(&args).output().unwrap());
    let answer = |row: &serde_json::Value| {
        let of_class = |class: &str| {
            let top = row["top"].as_array().unwrap();
            top.iter().find(|candidate| candidate["label"] == class).unwrap()["probability"].as_f64().unwrap()
        };
        let path = row["path"].as_str().unwrap().rsplit_once("data/").unwrap().1;
        (path.to_owned(), CLASSES.map(of_class).to_vec())
    };
    rows["predictions"].as_array().unwrap().iter().map(answer).collect()
}

fn evaluated(workspace: &Workspace, run: &str, temperature: f64) -> Answers {
    json(&workspace.command(&["eval", "--run", run, "--json", "-q"]).output().unwrap());
    let rows = Predictions::read(&workspace.path(run).join("predictions-test.csv")).unwrap().rows;
    rows.into_iter()
        .map(|row| {
            let probabilities = softmax(row.logits.iter().map(|&logit| f64::from(logit) / temperature));
            assert!((probabilities[row.predicted] - row.confidence).abs() < 1e-6, "{row:?}");
            (row.path, probabilities)
        })
        .collect()
}

/// From the raw files and the exported ones alone.
fn of_export(workspace: &Workspace, run: &str, format: &str, record: &RunRecord, names: &[&String]) -> Answers {
    let name = format!("model-{format}.onnx");
    let out = if format == "onnx" { format!("{run}/{name}") } else { format!("{run}/{format}") };
    let args = ["export", "--run", run, "--format", format, "--out", &out, "--json", "-q"];
    json(&workspace.command(&args).output().unwrap());
    let pipeline = Pipeline::evaluation(record.preprocess, DecodeOptions { bit_depth: 16 });
    let shape = [&[names.len()][..], &record.preprocess.geometry.image_size.shape()].concat();
    let view = View { epoch: 0, sample: 0 };
    let pixels = names
        .iter()
        .flat_map(|name| pipeline.load_once(&workspace.path("data").join(name), view).unwrap())
        .collect::<Vec<f32>>();
    let pixels = Tensor::from_vec(pixels, shape, &Device::Cpu).unwrap();
    let out = workspace.path(&out);
    let folder: &Path = if format == "onnx" { out.parent().unwrap() } else { &out };
    let format = FORMATS.iter().find(|known| known.name == format).unwrap();
    let logits = (format.logits)(folder, &name, &pixels).unwrap().to_vec2::<f32>().unwrap();
    let answers = logits.into_iter().map(|row| softmax(row.into_iter().map(f64::from)));
    names.iter().map(|name| (*name).clone()).zip(answers).collect()
}

fn assert_agree(ours: &Answers, others: &Answers, what: &str) {
    assert!(!ours.is_empty() && ours.keys().eq(others.keys()), "{what}: other images");
    for (name, probabilities) in ours {
        for (a, b) in probabilities.iter().zip(&others[name]) {
            assert!((a - b).abs() < TOLERANCE, "{what}: {probabilities:?} and {:?} for {name}", others[name]);
        }
    }
}

#[test]
fn every_kind_of_run_answers_alike_wherever_it_is_asked() {
    let workspace = Workspace::with_text_models();
    for (name, command, config, sets, formats) in KINDS {
        let named = format!("run.name={name}");
        let mut args = vec![command, "--config", config, "--json", "-q", "--set", &named];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        json(&workspace.command(&args).output().unwrap());
        let run = format!("runs/{name}");
        let record = RunRecord::read(&workspace.path(&run)).unwrap();
        let predicted = predicted(&workspace, &run);
        let evaluated = evaluated(&workspace, &run, record.temperature.unwrap());
        assert_agree(&predicted, &evaluated, &format!("{name}, eval"));
        let names: Vec<&String> = predicted.keys().collect();
        for format in formats {
            let exported = of_export(&workspace, &run, format, &record, &names);
            assert_agree(&predicted, &exported, &format!("{name}, {format}"));
        }
        if formats.is_empty() {
            let args = ["export", "--run", &run, "--format", "onnx", "--out", "no.onnx", "-q"];
            assert_eq!(workspace.command(&args).output().unwrap().status.code(), Some(2));
        }
    }
}
