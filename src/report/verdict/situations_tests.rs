//! Trainings of all kinds, made up image by image, with the verdict and the advice that each must get.
//!
//! An image's logits are noise of its own, scaled by how bold the model is by then, and for its class a signal. The table
//! is in `docs/verdicts.md`; `VITADAPT_RENEW=1 cargo test --lib situations` writes it anew.

use super::*;
use crate::config::testing::settings;
use crate::metrics::{Scores, evaluate, losses};
use crate::rng::{Purpose, Stream};
use crate::train::early_stop::ValScore;
use crate::train::validation::ImageScores;
use std::fmt::Write;

/// A number by epoch, from 0 before training to 1 at its end.
type Curve = fn(f64) -> f64;

struct Situation {
    name: &'static str,
    /// Images of each class in validation, and as many in test.
    images: &'static [(&'static str, usize)],
    epochs: usize,
    /// What speaks for the right class, by class.
    signal: fn(usize, f64) -> f64,
    /// How bold the answers are: the scale of the noise.
    noise: Curve,
    /// The share of images with a wrong label, one in so many; 0 = none.
    mislabelled: usize,
    train_loss: Curve,
    train_accuracy: Curve,
    /// The verdict, part of its reason, and part of the advice, which is empty when there must be none.
    expected: [&'static str; 3],
}

const TEXTILE: &[(&str, usize)] = &[("global", 20), ("local", 20), ("nominal", 20)];
const CELLS: &[(&str, usize)] = &[("defect", 9), ("good", 291)];
const PARTS: &[(&str, usize)] = &[("defect", 15), ("good", 135)];
const LEAVES: &[(&str, usize)] = &[("leaf", 8); 26];

/// Soon near 1.
fn soon(t: f64) -> f64 {
    1.0 - (-12.0 * t).exp()
}

const SOUND: Situation = Situation {
    name: "sound",
    images: TEXTILE,
    epochs: 12,
    signal: |_, t| 3.0 * soon(2.0 * t),
    noise: |t| 1.0 + 0.3 * t,
    mislabelled: 0,
    train_loss: |t| 1.1 - 0.9 * soon(t),
    train_accuracy: |t| 0.4 + 0.52 * soon(t),
    expected: ["ok", "no sign of over-fitting", ""],
};

#[allow(clippy::too_many_lines)] // a table
fn situations() -> Vec<Situation> {
    let memorised =
        Situation { train_loss: |t| 1.1 * (1.0 - soon(t)), train_accuracy: |t| 0.4 + 0.6 * soon(t), ..SOUND };
    vec![
        SOUND,
        Situation {
            name: "at the ceiling",
            signal: |_, t| 9.0 * soon(t),
            expected: ["ok", "every image is classified correctly", ""],
            ..memorised
        },
        Situation {
            name: "over-fitted",
            images: &[("global", 15), ("local", 15), ("nominal", 15)],
            epochs: 30,
            signal: |_, t| 2.6 * soon(4.0 * t),
            noise: |t| 0.9 + 5.0 * t,
            expected: ["over_fits", "over-fits after epoch", "augmentation"],
            ..memorised
        },
        Situation {
            name: "over-fitted, many images",
            images: &[("defect", 200), ("good", 400)],
            epochs: 20,
            signal: |_, t| 2.0 * soon(2.0 * t),
            noise: |t| 1.0 + 2.5 * t,
            expected: ["over_fits", "over-fits after epoch", "augmentation"],
            ..memorised
        },
        Situation {
            name: "fewer and fewer right",
            images: &[("a", 60), ("b", 60), ("c", 60)],
            signal: |_, t| 1.4 * soon(t),
            expected: ["over_fits", "12 fewer of 180 validation images are right at the last epoch", "dropout"],
            ..memorised
        },
        Situation {
            name: "label noise",
            images: &[("a", 80), ("b", 80)],
            epochs: 20,
            signal: |_, t| 4.0 * soon(2.0 * t) + 4.0 * t,
            mislabelled: 4,
            expected: ["over_fits", "over-fits", "augmentation"],
            ..memorised
        },
        Situation {
            name: "random labels",
            epochs: 30,
            signal: |_, _| 0.0,
            noise: |t| 3.0 * t,
            expected: [
                "chance",
                "learns the training labels only: no better than chance on validation",
                "then more images",
            ],
            ..memorised
        },
        Situation {
            name: "random labels, 10 % defects",
            images: PARTS,
            epochs: 20,
            signal: |class, t| if class == 0 { -3.0 * soon(t) } else { 3.0 * soon(t) },
            noise: |t| 1.0 + t,
            expected: [
                "chance",
                "no better than chance on validation; misses class defect: 0 of 15 found",
                "look at the labels",
            ],
            ..memorised
        },
        Situation {
            name: "nothing learned",
            signal: |_, _| 0.0,
            noise: |_| 0.2,
            train_loss: |t| 1.1 - 0.01 * t,
            train_accuracy: |_| 0.36,
            expected: ["chance", "baseline 33.3 %: no better than chance on validation", "train for longer"],
            ..SOUND
        },
        Situation {
            name: "one class missed",
            signal: |class, t| if class == 1 { -2.0 * soon(t) } else { 4.0 * soon(t) },
            expected: ["misses_class", "misses class local: ", "look at its images"],
            ..SOUND
        },
        Situation {
            name: "one class missed, and over-fitted",
            epochs: 30,
            signal: |class, t| if class == 1 { -2.0 * soon(t) } else { 3.0 * soon(4.0 * t) },
            noise: |t| 0.9 + 5.0 * t,
            expected: ["misses_class", "; over-fits after epoch", "look at its images"],
            ..memorised
        },
        Situation {
            name: "one class missed that its scores tell apart",
            images: &[("a", 30), ("b", 30)],
            signal: |class, t| if class == 0 { -soon(t) } else { 4.0 * soon(t) },
            noise: |_| 0.5,
            train_loss: |t| 0.9 - 0.4 * soon(t),
            train_accuracy: |t| 0.5 + 0.1 * soon(t),
            expected: [
                "misses_class",
                "misses class a: ",
                "train for longer (train.epochs) or faster (train.lr), or judge",
            ],
            ..SOUND
        },
        Situation {
            name: "26 classes of 4 images, many of which are missed",
            images: &[("leaf", 4); 26],
            signal: |class, t| if class % 2 == 0 { -2.0 * soon(t) } else { 6.0 * soon(t) },
            expected: ["misses_class", "misses class leaf: 0 of 4 found, ", "look at its images"],
            ..SOUND
        },
        Situation { name: "rare defects found (3 %)", images: CELLS, signal: |_, t| 7.0 * soon(t), ..SOUND },
        Situation {
            name: "rare defects missed (3 %)",
            images: CELLS,
            signal: |class, t| if class == 0 { -2.5 * soon(t) } else { 5.0 * soon(t) },
            expected: ["misses_class", "misses class defect: 0 of 9 found", "train.class_weights = \"balanced\""],
            ..SOUND
        },
        Situation {
            name: "few rare defects, most of them missed",
            images: &[("defect", 8), ("good", 260)],
            signal: |class, t| if class == 0 { -1.1 * soon(t) } else { 5.0 * soon(t) },
            expected: [
                "too_few_images",
                "too few images to say whether class defect is missed: 3 of 8 found on test",
                "train.class_weights = \"balanced\"",
            ],
            ..SOUND
        },
        Situation {
            name: "under-trained",
            epochs: 5,
            signal: |_, t| 2.0 * t,
            noise: |_| 1.0,
            train_loss: |t| 1.2 - 0.5 * t,
            train_accuracy: |t| 0.4 + 0.3 * t,
            expected: ["still_improving", "still improving at the last epoch", "raise train.epochs"],
            ..SOUND
        },
        Situation {
            name: "a good run whose loss rises by 0.075",
            epochs: 20,
            signal: |_, t| 4.0 * soon(3.0 * t),
            noise: |t| 1.0 + 0.3 * t,
            ..memorised
        },
        Situation {
            name: "bolder, and more often right",
            images: &[("a", 300), ("b", 300)],
            epochs: 20,
            signal: |_, t| 1.0 * soon(3.0 * t) + 9.0 * t,
            noise: |t| 1.0 + 5.5 * t,
            train_accuracy: |t| 0.5 + 0.4 * soon(t),
            expected: ["ok", "no sign of over-fitting", "the last epoch is the best"],
            ..SOUND
        },
        Situation {
            name: "tiny validation set",
            images: &[("a", 3), ("b", 2)],
            expected: ["too_few_images", "too few images to judge by: 5 in validation", "hold out more images"],
            ..SOUND
        },
        Situation {
            name: "tiny validation set, its loss rises",
            images: &[("a", 3), ("b", 2)],
            epochs: 30,
            signal: |_, t| 2.0 * soon(4.0 * t),
            noise: |t| 1.0 + 5.0 * t,
            expected: ["too_few_images", "too few images to judge by: 5 in validation", "hold out more images"],
            ..memorised
        },
        Situation {
            name: "no validation images",
            images: &[],
            expected: ["too_few_images", "there is no validation split", "data.val"],
            ..SOUND
        },
        Situation {
            name: "two defects in each split",
            images: &[("defect", 2), ("good", 98)],
            signal: |_, t| 8.0 * soon(t),
            expected: [
                "too_few_images",
                "too few images to judge class defect by: 4 in validation and test",
                "hold out more images",
            ],
            ..SOUND
        },
        Situation {
            name: "one defect in 50",
            images: &[("defect", 1), ("good", 49)],
            signal: |class, t| if class == 0 { -2.0 * soon(t) } else { 5.0 * soon(t) },
            expected: [
                "too_few_images",
                "too few images to judge class defect by: 2 in validation and test",
                "hold out more images",
            ],
            ..SOUND
        },
        Situation {
            name: "24 images, undecided",
            images: &[("a", 12), ("b", 12)],
            signal: |_, t| 0.7 * soon(t),
            noise: |_| 1.0,
            train_loss: |t| 0.7 - 0.2 * soon(t),
            train_accuracy: |t| 0.5 + 0.2 * soon(t),
            expected: ["chance", "not shown to be better than chance on validation", "hold out more images"],
            ..SOUND
        },
        Situation {
            name: "the commonest class missed",
            images: &[("good", 60), ("hole", 20), ("stain", 20)],
            signal: |class, t| if class == 0 { -2.0 * soon(t) } else { 4.0 * soon(t) },
            expected: ["misses_class", "misses class good: ", "look at its images"],
            ..SOUND
        },
        Situation {
            name: "26 classes, ever surer of the mistakes",
            images: LEAVES,
            signal: |_, t| 5.0 * soon(2.0 * t),
            expected: ["over_fits", "over-fits after epoch 3, which is kept", "dropout"],
            ..SOUND
        },
        Situation {
            name: "a hard task, learned as far as it goes",
            images: &[("a", 100), ("b", 100), ("c", 100)],
            signal: |_, t| 1.5 * soon(t),
            noise: |_| 1.0,
            train_loss: |t| 1.1 - 0.5 * soon(t),
            train_accuracy: |t| 0.4 + 0.36 * soon(t),
            expected: ["ok", "no sign of over-fitting", "the last epoch is the best"],
            ..SOUND
        },
    ]
}

impl Situation {
    fn labels(&self) -> Vec<usize> {
        self.images.iter().enumerate().flat_map(|(class, (_, images))| vec![class; *images]).collect()
    }

    /// The logits of a split's images at time `t`.
    fn logits(&self, split: u64, t: f64) -> Vec<f64> {
        let (classes, labels) = (self.images.len(), self.labels());
        let row = |(image, &label): (usize, &usize)| {
            let mut own = Stream::new(split, Purpose::Init, &[image as u64]);
            let mistaken = self.mislabelled > 0 && image % self.mislabelled == 0;
            let shown = if mistaken { (label + 1) % classes } else { label };
            let mut row: Vec<f64> = (0..classes).map(|_| (self.noise)(t) * own.normal()).collect();
            row[shown] += (self.signal)(shown, t);
            row
        };
        labels.iter().enumerate().flat_map(row).collect()
    }

    fn evaluation(&self, name: &str, split: u64, t: f64) -> Option<Evaluation> {
        let classes: Vec<String> = self.images.iter().map(|(class, _)| (*class).to_owned()).collect();
        (!classes.is_empty())
            .then(|| evaluate(name, &self.logits(split, t), &self.labels(), &classes, 1.0, &[]).unwrap())
    }

    /// What `read` makes of the verdict.
    fn judged<T>(&self, read: impl Fn(&Verdict<'_>) -> T) -> T {
        let mut progress = Progress::default();
        let time = |epoch: usize| epoch as f64 / self.epochs as f64;
        for epoch in 1..=self.epochs {
            let t = time(epoch);
            let mut record = EpochRecord {
                epoch,
                train_loss: (self.train_loss)(t),
                train_accuracy: (self.train_accuracy)(t),
                ..EpochRecord::default()
            };
            if let Some(val) = self.evaluation("val", 1, t) {
                let scores = Scores::new(&self.logits(1, t), &self.labels(), self.images.len()).unwrap();
                let images = ImageScores {
                    losses: losses(&scores, 1.0).iter().map(|&loss| loss as f32).collect(),
                    right: scores.predicted().iter().zip(self.labels()).map(|(&p, label)| p == label).collect(),
                };
                let loss = val.nll.unwrap();
                (record.val_loss, record.val_accuracy) = (Some(loss), Some(val.accuracy));
                let scored = ValScore { score: val.accuracy, loss, accuracy: val.accuracy };
                let best = progress.early_stop.update(epoch, scored);
                progress.validation.add(epoch, images, best);
            } else {
                progress.early_stop.update(epoch, ValScore { score: epoch as f64, ..ValScore::default() });
            }
            progress.history.push(record);
        }
        let best = time(progress.early_stop.best_epoch().unwrap());
        let (val, test) = (self.evaluation("val", 1, best), self.evaluation("test", 2, best));
        read(&Evidence::new(&progress, val.as_ref(), test.as_ref()).verdict())
    }
}

#[test]
fn situations_get_their_verdicts_and_advice_and_are_documented() {
    let settings = settings(&[]);
    let mut wrong = String::new();
    let mut table = String::from("| training | `verdict` | `verdict_reason` | `remedy` |\n|---|---|---|---|\n");
    for situation in situations() {
        let read = |found: &Verdict<'_>| {
            (found.kind().to_string(), found.sentence(), found.remedy(&settings).unwrap_or_default())
        };
        let (kind, sentence, remedy) = situation.judged(read);
        let [verdict, says, advises] = situation.expected;
        let advised = if advises.is_empty() { remedy.is_empty() } else { remedy.contains(advises) };
        if kind != verdict || !sentence.contains(says) || !advised {
            writeln!(wrong, "{}: {kind}, {sentence} | {remedy}", situation.name).unwrap();
        }
        writeln!(table, "| {} | `{kind}` | {sentence} | {remedy} |", situation.name).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verdicts.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (head, _) = page.split_once("| training |").unwrap();
    let wanted = format!("{head}{table}");
    if std::env::var_os("VITADAPT_RENEW").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    assert!(page == wanted, "docs/verdicts.md is not what this prints; VITADAPT_RENEW=1 writes it");
}

#[test]
fn advice_knows_the_settings_and_which_epoch_is_kept() {
    let of = |name: &str| situations().into_iter().find(|situation| situation.name == name).unwrap();
    let read = |found: &Verdict<'_>| found.remedy(&settings(&["inspection.good=good"])).unwrap();
    let inspected = of("rare defects missed (3 %)").judged(read);
    let judge = "judge by the thresholds of [inspection], not by the largest probability";
    assert!(inspected.ends_with(judge), "{inspected}");
    let later = of("over-fitted").judged(|found| {
        let evidence = Evidence { best_epoch: Some(30), ..found.evidence };
        Verdict { evidence, ..found.clone() }.remedy(&settings(&[])).unwrap()
    });
    let keep = "keep the epoch of the lowest loss (early_stop.metric = \"log_loss\"), or try ";
    assert!(later.starts_with(keep), "{later}");
}
