use super::*;
use crate::report::predictions::{Predicted, Predictions};
use serde_json::{Value, json};

/// A finished run of that name, without files.
pub(super) fn finished(name: &str) -> Finished {
    let record = json!({
        "status": "done", "version": "0.1.0", "strategy": name, "seed": 42, "device": "cpu", "threads": 2,
        "backbone": {"name": "builtin:vit-mini", "family": "timm", "architecture": "vit", "sha256": "w"},
        "data": {"sha256": "d", "train": 70, "val": 20, "test": 30},
        "classes": ["a", "b"],
        "preprocess": {
            "image_size": 32, "resize": "squash", "interpolation": "bilinear", "crop_pct": 1.0,
            "normalization": {"kind": "batch"},
        },
        "trainable_parameters": 1234, "total_parameters": 2_826_816, "temperature": null,
        "operations": 2e9, "wall_seconds": 2.0, "peak_memory_bytes": 200 << 20, "result": null,
    });
    Finished { name: name.into(), folder: name.into(), record: serde_json::from_value(record).unwrap() }
}

/// Writes answers to images `split/NUMBER.png` from `first` on, each of this label and right or not.
fn answer(folder: &Path, file: &str, (split, first): (&str, usize), answers: &[(usize, bool)]) {
    let row = |(i, &(label, right)): (usize, &(usize, bool))| {
        let (path, predicted) = (format!("{split}/{:03}.png", first + i), if right { label } else { 1 - label });
        Predicted { path, label, predicted, confidence: 0.5, logits: vec![0.0, 1.0] }
    };
    let rows = answers.iter().enumerate().map(row).collect();
    let predictions = Predictions { classes: vec!["a".into(), "b".into()], rows };
    std::fs::create_dir_all(folder).unwrap();
    predictions.write(&folder.join(file)).unwrap();
}

/// Images of both classes by turns, from `first` on.
fn by_turns(first: usize, right: &[bool]) -> Vec<(usize, bool)> {
    right.iter().enumerate().map(|(i, &right)| ((first + i) % 2, right)).collect()
}

/// The same run with validation images that are answered right where `right` says so.
fn validated(run: Finished, right: &[bool]) -> Finished {
    answer(&run.folder, VAL_PREDICTIONS, ("val", 0), &by_turns(0, right));
    run
}

/// A run in `root` whose images from `first` on are answered right where `right` says so; two images a group if grouped.
fn run(root: &Path, name: &str, first: usize, right: &[bool], grouped: bool) -> Finished {
    let folder = root.join(name);
    answer(&folder, PREDICTIONS, ("test", first), &by_turns(first, right));
    let group = |i: usize| if grouped { format!("part {}", i / 2) } else { String::new() };
    let images = first..first + right.len();
    let rows: String = images.map(|i| format!("test/{i:03}.png,{},test,{}\n", ["a", "b"][i % 2], group(i))).collect();
    std::fs::write(folder.join("splits.csv"), format!("path,label,split,group\n{rows}")).unwrap();
    Finished { folder, ..finished(name) }
}

fn contender(strategy: &str, finished: Vec<Finished>) -> Contender {
    let (backbone_updated, head_updated) = ("no".into(), "yes".into());
    Contender { strategy: strategy.into(), backbone_updated, head_updated, finished }
}

fn question(root: &Path, repeats: Repeats) -> Question {
    Question { name: "textile".into(), folder: root.join("textile-compare"), repeats, target: None }
}

/// Runs of one seed side by side.
fn compared(root: &Path, contenders: &[Contender]) -> Comparison {
    Comparison::new(question(root, Repeats::Seeds(1)), contenders, Vec::new()).unwrap()
}

/// Right but for every `n`-th of 40.
fn all_but(n: usize) -> Vec<bool> {
    (0..40).map(|i| i % n != 0).collect()
}

#[test]
fn seeds_are_put_together_image_by_image() {
    let root = tempfile::tempdir().unwrap();
    let two = |name: &str, n: usize| {
        let seed = |seed: usize| {
            let mut run = run(root.path(), &format!("{name}-seed{seed}"), 0, &all_but(n + seed), false);
            run.record.seed = seed as u64;
            run.record.wall_seconds = n as f64;
            run.record.operations = Some(1e9 * n as f64);
            run
        };
        contender(name, vec![seed(0), seed(1)])
    };
    let contenders = [two("knn", 2), two("probe", 5), two("full", 6), contender("lora", vec![])];
    let missing = vec![Missing { run: "lora-seed0".into(), reason: "not started".into() }];
    let comparison = Comparison::new(question(root.path(), Repeats::Seeds(2)), &contenders, missing).unwrap();
    let probe = &comparison.strategies[1];
    assert_eq!((probe.runs[0].test_accuracy, probe.runs[1].test_accuracy), (32.0 / 40.0, 33.0 / 40.0));
    assert!((probe.test_accuracy - 65.0 / 80.0).abs() < 1e-15);
    assert!(probe.seeds_ci95.is_some() && probe.run_deviation.unwrap() < 0.02);
    assert_eq!(comparison.tests.len(), 2);
    assert!(comparison.tests[0].p_value < 0.05 && comparison.tests[1].p_value > 0.05, "{:?}", comparison.tests);
    let recommendation = &comparison.recommendation;
    assert_eq!((recommendation.strategy.as_deref(), recommendation.best.as_deref()), (Some("probe"), Some("full")));
    let table = comparison.table().replace(&root.path().display().to_string(), "[TMP]");
    insta::assert_snapshot!(table);
    insta::assert_snapshot!(comparison.markdown());
}

#[test]
fn folds_cover_the_images_between_them() {
    let root = tempfile::tempdir().unwrap();
    let fold = |name: &str, first: usize| run(root.path(), name, first, &all_but(4)[first..first + 20], true);
    let both = contender("probe", vec![fold("probe-fold1of2", 0), fold("probe-fold2of2", 20)]);
    let half = contender("full", vec![fold("full-fold1of2", 0)]);
    let comparison = Comparison::new(question(root.path(), Repeats::Folds(2)), &[both, half], Vec::new()).unwrap();
    assert_eq!((comparison.test_images, comparison.test_groups), (40, Some(20)));
    assert_eq!(comparison.strategies[0].test_accuracy, 0.75);
    assert!(comparison.strategies[0].seeds_ci95.is_none(), "folds are not independent repeats");
    // Half a strategy is shown, but neither tested nor recommended.
    assert!(!comparison.strategies[1].complete && comparison.tests.is_empty());
    assert_eq!(comparison.recommended, None);
    assert_eq!(comparison.recommendation.sentence, "only probe could be chosen: full is not complete");
    assert!(comparison.table().contains("full (incomplete)"));
}

#[test]
fn everything_is_written_and_agrees() {
    let root = tempfile::tempdir().unwrap();
    let contenders = [("knn", 3), ("probe", 9)]
        .map(|(name, n)| contender(name, vec![run(root.path(), name, 0, &all_but(n), false)]));
    let comparison = compared(root.path(), &contenders);
    comparison.write().unwrap();
    let read = |name: &str| std::fs::read_to_string(comparison.folder.join(name)).unwrap();
    let json: Value = serde_json::from_str(&read("compare.json")).unwrap();
    assert_eq!(json["repeats"], json!({"seeds": 1}));
    assert_eq!(json["strategies"][1]["test_accuracy"], 35.0 / 40.0);
    assert!(json["interval"].as_str().unwrap().starts_with("Clopper-Pearson over the 40 test images"));
    assert_eq!(json["tests"][0]["test"], "exact McNemar test over test images");
    let csv = read("compare.csv");
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.lines().nth(2).unwrap().starts_with("probe,no,yes,1234,1,0.875,"), "{csv}");
    assert!(read("compare.md").contains("| **probe** |"));
    assert!(
        comparison.folder.join("plots/compare.svg").is_file() && comparison.folder.join("plots/compare.png").is_file()
    );
}

/// A run on 9 defects and 81 good parts, in validation as in test, of which so many are answered right.
fn parts(root: &Path, name: &str, defects: usize, good: usize) -> Finished {
    let folder = root.join(name);
    let answers: Vec<_> = (0..90).map(|i| if i < 9 { (0, i < defects) } else { (1, i - 9 < good) }).collect();
    answer(&folder, VAL_PREDICTIONS, ("val", 0), &answers);
    answer(&folder, PREDICTIONS, ("test", 0), &answers);
    std::fs::write(folder.join("splits.csv"), "path,label,split,group\n").unwrap();
    Finished { folder, ..finished(name) }
}

#[test]
fn where_classes_are_unbalanced_the_one_that_finds_the_rare_ones_is_taken() {
    let root = tempfile::tempdir().unwrap();
    // By accuracy the one that never says "defect" is level with the best, and cheaper.
    let contenders = [("blind", 0, 81, 1e9), ("finds", 9, 73, 9e9)].map(|(name, defects, good, operations)| {
        let mut run = parts(root.path(), name, defects, good);
        run.record.operations = Some(operations);
        contender(name, vec![run])
    });
    let comparison = compared(root.path(), &contenders);
    assert_eq!((comparison.metric, comparison.recommended.as_deref()), (Measure::BalancedAccuracy, Some("finds")));
    let finds = &comparison.strategies[1];
    assert!((finds.test - f64::midpoint(1.0, 73.0 / 81.0)).abs() < 1e-12 && finds.val == Some(finds.test));
    assert!((finds.test_accuracy - 82.0 / 90.0).abs() < 1e-12);
    assert!((comparison.tests[0].difference - (finds.test - 0.5)).abs() < 1e-12);
    assert!(comparison.tests[0].p_value < 0.01, "{:?}", comparison.tests);
    insta::assert_snapshot!(comparison.table().replace(&root.path().display().to_string(), "[TMP]"));
    comparison.write().unwrap();
    let csv = std::fs::read_to_string(comparison.folder.join("compare.csv")).unwrap();
    assert!(csv.lines().nth(1).unwrap().contains(",balanced accuracy,0.5,"), "{csv}");
    let svg = std::fs::read_to_string(comparison.folder.join("plots/compare.svg")).unwrap();
    assert!(svg.contains("test balanced accuracy, %"));
}

#[test]
fn strategies_are_judged_by_what_their_runs_chose_by() {
    let root = tempfile::tempdir().unwrap();
    let measure = |defects: usize, metrics: &[Option<&str>]| {
        let made = |(i, metric): (usize, Option<&str>)| {
            let mut run = parts(root.path(), &format!("{i}"), defects, 81);
            run.record.result = metric.map(|metric| {
                serde_json::from_value(json!({
                    "run": "runs/a", "strategy": "full", "trainable_parameters": 1, "total_parameters": 2, "epochs": 3,
                    "metric": metric, "seconds": 1.5, "verdict": "ok", "verdict_reason": "",
                }))
                .unwrap()
            });
            contender(&run.name.clone(), vec![run])
        };
        let contenders: Vec<Contender> = metrics.iter().copied().enumerate().map(made).collect();
        choice::measured_by(&contenders.iter().collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(measure(9, &[Some("accuracy"), None]), Measure::Accuracy, "asked for, although classes are unbalanced");
    assert_eq!(measure(9, &[Some("accuracy"), Some("auroc")]), Measure::BalancedAccuracy);
    assert_eq!(measure(9, &[Some("log_loss"), None]), Measure::BalancedAccuracy, "9 of 90 are unbalanced");
}

#[test]
fn nothing_finished_is_an_error_that_says_why() {
    let missing = vec![Missing { run: "full-seed42".into(), reason: "stopped by SIGINT".into() }];
    let question = question(Path::new("/x"), Repeats::Seeds(1));
    let error = Comparison::new(question, &[contender("full", vec![])], missing).unwrap_err().to_string();
    assert!(error.contains("full-seed42: stopped by SIGINT"), "{error}");
}

#[test]
fn the_choice_is_made_on_validation_images_and_its_cost_is_told() {
    let root = tempfile::tempdir().unwrap();
    // On validation images lora does best, on test images full does.
    let contenders = [("probe", 2, 3), ("lora", 40, 4), ("full", 3, 20)].map(|(name, val, test)| {
        let mut run = validated(run(root.path(), name, 0, &all_but(test), false), &all_but(val));
        run.record.operations = Some(1e9 * test as f64);
        contender(name, vec![run])
    });
    let comparison = compared(root.path(), &contenders);
    assert_eq!(comparison.recommended.as_deref(), Some("lora"));
    assert_eq!(comparison.recommended_by, Some(ChosenBy::Val));
    assert_eq!(comparison.exportable, ["transformers", "timm", "onnx"]);
    let lora = &comparison.strategies[1];
    assert_eq!((lora.val, lora.test), (Some(39.0 / 40.0), 0.75));
    let sentence = &comparison.recommendation.sentence;
    let told = "These scores are of the 40 validation images that it was chosen on; on the test images lora scores 75.0 % (95 %: 58.8 to 87.3), and full \
                scores highest there with 95.0 %: the choice costs 20.0 points (paired test, p = 0.008)";
    assert!(sentence.contains(told), "{sentence}");
    let table = comparison.table();
    assert!(table.contains("validation  accuracy") && table.contains("97.5 %    75.0 %"), "{table}");
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!((&json["recommended"], &json["recommended_by"]), (&json!("lora"), &json!("val")));
    assert_eq!((&json["strategies"][1]["val"], &json["strategies"][1]["test"]), (&json!(0.975), &json!(0.75)));
}

/// The same runs on a machine that was busy now with this one and now with that one.
#[test]
fn whatever_the_times_the_same_strategy_is_recommended() {
    let root = tempfile::tempdir().unwrap();
    let runs = [("knn", 7, 1e9), ("probe", 9, 1e9), ("partial", 10, 7e9), ("full", 20, 40e9)].map(|(name, n, work)| {
        let mut run = validated(run(root.path(), name, 0, &all_but(n), false), &all_but(n));
        run.record.operations = Some(work);
        run
    });
    let found = |times: [f64; 4], target: Option<f64>| {
        let mut runs = runs.clone();
        runs.iter_mut().zip(times).for_each(|(run, seconds)| run.record.wall_seconds = seconds);
        let contenders = runs.map(|run| contender(&run.name.clone(), vec![run]));
        let question = Question { target, ..question(root.path(), Repeats::Seeds(1)) };
        let comparison = Comparison::new(question, &contenders, Vec::new()).unwrap();
        assert_eq!(comparison.strategies[3].seconds, times[3], "the time stays as measured");
        comparison.recommendation
    };
    for (target, strategy) in [(None, "probe"), (Some(0.84), "probe"), (Some(0.89), "partial")] {
        let idle = found([1.0, 2.0, 12.0, 30.0], target);
        assert_eq!(idle.strategy.as_deref(), Some(strategy));
        for busy in [[30.0, 12.0, 2.0, 1.0], [1.0, 40.0, 2.0, 3.0], [90.0, 60.0, 12.0, 1.0], [2.0, 1.0, 30.0, 12.0]] {
            assert_eq!(found(busy, target), idle);
        }
    }
    assert!(found([1.0; 4], None).sentence.contains("with 2.5 % of the work of full"));
}

#[test]
fn a_strategy_of_unknown_cost_does_not_keep_the_others_from_being_chosen() {
    let root = tempfile::tempdir().unwrap();
    let compared = |unknown: &[&str]| {
        let contenders = [("old", 20), ("new", 8), ("full", 9)].map(|(name, n)| {
            let mut run = run(root.path(), name, 0, &all_but(n), false);
            run.record.operations = run.record.operations.filter(|_| !unknown.contains(&name));
            contender(name, vec![run])
        });
        Comparison::new(question(root.path(), Repeats::Seeds(1)), &contenders, Vec::new()).unwrap()
    };
    let found = compared(&["old"]);
    assert_eq!((found.recommended.as_deref(), found.recommendation.best.as_deref()), (Some("new"), Some("new")));
    let sentence = &found.recommendation.sentence;
    let told = "new and full score highest (87.5 %), and none is cheaper: take new; full scores the same, and is as good a \
                choice. Left out of the choice: the runs of old (95.0 % on test) do not say how many operations they took, \
                as those of older versions do not";
    assert!(sentence.starts_with(told), "{sentence}");
    let alone = compared(&["old", "full"]);
    assert!(alone.recommended.is_none() && alone.table().contains("Only new could be chosen: the runs of old"));
    let none = compared(&["old", "full", "new"]);
    assert!(none.recommended.is_none() && none.recommended_by.is_none());
    assert!(none.table().contains("No strategy can be recommended: the runs of old"), "{}", none.table());
}

#[test]
fn without_validation_images_it_is_said_that_the_test_images_chose() {
    let root = tempfile::tempdir().unwrap();
    let contenders = [("probe", 2), ("full", 20)]
        .map(|(name, n)| contender(name, vec![run(root.path(), name, 0, &all_but(n), false)]));
    let comparison = compared(root.path(), &contenders);
    assert_eq!(comparison.recommended_by, Some(ChosenBy::Test));
    let sentence = &comparison.recommendation.sentence;
    assert!(
        sentence.contains("There are no validation images that all have in common: chosen by the test images"),
        "{sentence}"
    );
}

#[test]
fn what_cannot_leave_is_told_with_the_best_that_can() {
    let root = tempfile::tempdir().unwrap();
    let voting = |mut run: Finished| {
        let fitted_on = vec![crate::data::Split::Train];
        run.record.probe = Some(crate::report::ProbeRecord {
            method: crate::config::ProbeMethod::Knn,
            readout: crate::backbone::Readout::POOL,
            chosen: 5.0,
            alpha: None,
            patches: None,
            fitted_on,
        });
        run
    };
    let prompted = |mut run: Finished| {
        run.record.strategy = "prompt".into();
        run
    };
    let made = |name: &str, n: usize| validated(run(root.path(), name, 0, &all_but(n), false), &all_but(n));
    let compared = |contenders: &[Contender]| compared(root.path(), contenders);
    let knn = || contender("knn", vec![voting(made("knn", 20))]);
    let prompt = || contender("prompt", vec![prompted(made("prompt", 10))]);
    let found = compared(&[knn(), prompt(), contender("full", vec![made("full", 2)])]);
    assert_eq!((found.recommended.as_deref(), found.exportable.len()), (Some("knn"), 0));
    let sentence = &found.recommendation.sentence;
    let told = "knn cannot be exported, since training images are part of it; the best for transformers and timm is full (50.0 % on \
                validation); the best for onnx is prompt (90.0 % on validation)";
    assert!(sentence.ends_with(told), "{sentence}");
    let sentence = compared(&[knn(), contender("full", vec![made("full", 2)])]).recommendation.sentence;
    assert!(
        sentence.ends_with("the best for transformers, timm and onnx is full (50.0 % on validation)"),
        "{sentence}"
    );
    let found = compared(&[prompt(), knn()]);
    let sentence = &found.recommendation.sentence;
    assert!(
        sentence.ends_with(
            "none can be exported to transformers or timm; the best for onnx is prompt (90.0 % on validation)"
        ),
        "{sentence}"
    );
    assert_eq!(found.strategies[0].exportable, ["onnx"]);
    assert!(found.strategies[1].exportable.is_empty());
}

#[test]
fn validation_images_choose_only_where_all_were_validated_on_the_same() {
    let root = tempfile::tempdir().unwrap();
    let made = |name: &str, images: usize| {
        contender(name, vec![validated(run(root.path(), name, 0, &all_but(9), false), &all_but(9)[..images])])
    };
    let by = |contenders: &[Contender]| compared(root.path(), contenders).recommended_by;
    assert_eq!(by(&[made("a", 40), made("b", 40)]), Some(ChosenBy::Val));
    assert_eq!(by(&[made("a", 40), made("b", 30)]), Some(ChosenBy::Test));
}

#[test]
fn a_pooling_that_libraries_do_not_have_leaves_as_onnx_alone() {
    let root = tempfile::tempdir().unwrap();
    let formats = |pool: &str| {
        let run = run(root.path(), pool, 0, &all_but(2), false);
        let settings = crate::config::testing::settings(&[&format!("model.pool={pool}")]);
        std::fs::write(run.folder.join("config.toml"), settings.to_toml().unwrap()).unwrap();
        super::choice::formats(&run)
    };
    assert_eq!((formats("max"), formats("avg").len()), (vec!["onnx"], 3));
}
