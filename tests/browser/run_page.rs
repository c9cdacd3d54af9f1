//! A page about a run with everything that a page can have, and names that no page may take at their word.

use image::{Rgb, RgbImage};
use serde_json::json;
use vitadapt::config::{self, InspectionSettings};
use vitadapt::features::EvidenceGrid;
use vitadapt::metrics::{Evaluation, Robustness, Rules, Scores, evaluate};
use vitadapt::pixels::thumbnail;
use vitadapt::report::html::{MapKind, Mistake, Mistakes, Neighbor, RunPage, heat_map};
use vitadapt::train::progress::EpochRecord;

pub const HOSTILE: &str = "</script><b onclick=\"alert('1')\">&\u{2028}\u{202e}日本 <!--";
/// The same as it is shown: what turns the direction of text is escaped.
pub const SHOWN: &str = "</script><b onclick=\"alert('1')\">&\u{2028}\\u{202e}日本 <!--";

/// Of `k` classes, the first with a hostile name and the second with a long one.
pub fn classes(k: usize) -> Vec<String> {
    let long = "a_very_long_name_of_a_class_that_has_no_space_to_break_at_and_does_not_fit_anywhere";
    (0..k).map(|c| [HOSTILE, long].get(c).map_or(format!("class {c}"), |&name| name.into())).collect()
}

/// Ten images a class, of which every third one is taken for the next class.
fn evaluation(split: &str, classes: &[String]) -> Evaluation {
    let k = classes.len();
    let labels: Vec<usize> = (0..10 * k).map(|i| i / 10).collect();
    let answer = |(i, label): (usize, &usize)| if i % 3 == 2 { (label + 1) % k } else { *label };
    let predicted: Vec<usize> = labels.iter().enumerate().map(answer).collect();
    let logits: Vec<f64> = predicted
        .iter()
        .enumerate()
        .flat_map(|(i, &answer)| (0..k).map(move |c| if c == answer { 1.0 + (i % 7) as f64 / 2.0 } else { 0.0 }))
        .collect();
    let settings = InspectionSettings { good: vec![classes[0].clone()], ..InspectionSettings::default() };
    let held_out = Scores::new(&logits, &labels, k).unwrap();
    let rules = Rules::choose(&settings, classes, Some((&held_out, 1.5))).unwrap().unwrap();
    let evaluation = evaluate(split, &logits, &labels, classes, 1.5, &[]).unwrap();
    evaluation.inspected(&logits, &labels, classes, &[], &rules).unwrap()
}

fn epochs(n: usize) -> Vec<EpochRecord> {
    let record = |epoch: usize| EpochRecord {
        epoch,
        train_loss: 1.0 / epoch as f64,
        train_accuracy: 1.0 - 0.5 / epoch as f64,
        val_loss: Some(0.2 + 1.0 / epoch as f64),
        val_accuracy: Some(0.9 - 0.5 / epoch as f64),
        seconds: 2.0,
        ..EpochRecord::default()
    };
    (1..=n).map(record).collect()
}

fn mistakes(classes: &[String], n: usize) -> Mistakes {
    let square = |i: usize| RgbImage::from_fn(112, 112, |x, y| Rgb([(40 * i) as u8, (2 * x) as u8, (2 * y) as u8]));
    let shares = EvidenceGrid::of(7.into(), (0..49).map(|i| (i % 10) as f32).collect()).unwrap();
    let neighbor = |i: usize| Neighbor {
        path: format!("train/{i}<&>'\".png").into(),
        class: classes[i % classes.len()].clone(),
        image: thumbnail(&square(i), 96),
    };
    let mistake = |i: usize| Mistake {
        path: format!("images/{i}<&>'\"_{}.png", "x".repeat(80)).into(),
        class: classes[i % classes.len()].clone(),
        predicted: classes[(i + 1) % classes.len()].clone(),
        confidence: 0.9,
        image: thumbnail(&square(i), 224),
        heat: heat_map(&square(i), &shares, f32::NEG_INFINITY).and_then(|heat| thumbnail(&heat, 224)),
        neighbors: (i..i + 3).map(neighbor).collect(),
    };
    Mistakes {
        split: "test".into(),
        wrong: n + 4,
        total: 90,
        shown: (0..n).map(mistake).collect(),
        map: Some(MapKind::Hint),
        ..Mistakes::default()
    }
}

/// The page of a training run with `k` classes and `n` shown mistakes.
pub fn run_page(k: usize, n: usize) -> RunPage {
    let classes = classes(k);
    let (test, val) = (evaluation("test", &classes), evaluation("val", &classes));
    let at = |share: f64| Evaluation { accuracy: share * test.accuracy, ..test.clone() };
    let kinds = ["stains", "blur", "noise", "jpeg"].map(|kind| (kind, vec![at(0.9), at(0.6)]));
    let hash = "0123456789abcdef".repeat(4);
    let record = json!({
        "status": "done", "version": "0.1.0", "strategy": "full", "seed": 42, "device": "cpu", "threads": 2,
        "backbone": {"name": HOSTILE, "family": "timm ViT", "architecture": "vit_tiny_patch16_224", "sha256": hash},
        "data": {"sha256": hash, "train": 70, "val": 20, "test": 30},
        "classes": classes,
        "preprocess": {"image_size": 112, "resize": "squash", "interpolation": "bicubic", "crop_pct": 0.9,
                       "normalization": {"kind": "per_channel", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
        "trainable_parameters": 5_700_000, "total_parameters": 5_700_000, "temperature": 1.5,
        "wall_seconds": 71.4, "peak_memory_bytes": 271_000_000,
        "result": {"run": "runs/page", "strategy": "full", "trainable_parameters": 5_700_000,
                   "total_parameters": 5_700_000, "epochs": 8, "best_epoch": 6, "seconds": 71.4,
                   "verdict": "over_fits", "verdict_reason": "over-fits: training accuracy reaches 99.0 %",
                   "remedy": "try dropout (model.head_dropout = 0.2)"},
    });
    let toml = format!("# {HOSTILE}\n[data]\nroot = \"images\"\n");
    RunPage {
        name: HOSTILE.into(),
        record: serde_json::from_value(record).unwrap(),
        config: toml,
        settings: config::load(None, &["data.root=images".into(), "train.lr=0.0031".into()]).unwrap(),
        epochs: epochs(8),
        robustness: vec![Robustness::new(42, vec![0.5, 1.0], &test, &kinds)],
        evaluations: vec![test, val],
        again: Vec::new(),
        counts: ["train", "val", "test"].map(|split| (split.to_owned(), vec![10; k])).to_vec(),
        skipped: 2,
        separation: None,
        mistakes: Some(mistakes(&classes, n)),
    }
}
