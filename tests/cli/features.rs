//! probe, tsne, extract, predict and the feature cache as a user meets them.

use crate::common::workspace::{CLASSES, Workspace, json, textile};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};
use std::time::Duration;

/// Runs a command on the workspace's config with `--json`.
pub(crate) fn run(workspace: &Workspace, command: &str, extra: &[&str]) -> Value {
    json(&output(workspace, command, extra))
}

pub(crate) fn output(workspace: &Workspace, command: &str, extra: &[&str]) -> Output {
    let mut args = vec![command, "--config", "small.toml", "--json", "-q", "--set", "augment.preset=none"];
    args.extend_from_slice(extra);
    workspace.command(&args).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn misses(result: &Value) -> u64 {
    result["cache"]["misses"].as_u64().unwrap()
}

#[test]
fn a_probe_is_a_run_and_a_second_one_computes_no_features() {
    let workspace = Workspace::new();
    let first = run(&workspace, "probe", &["--set", "run.name=first"]);
    assert_eq!((misses(&first), first["strategy"].as_str()), (36, Some("probe")));
    assert_eq!(first["path"].as_array().unwrap().len(), 45);
    for file in ["config.toml", "run.json", "splits.csv", "eval-val.json", "eval-test.json", "plots/selection.png"] {
        assert!(workspace.path("runs/first").join(file).is_file(), "{file} is missing");
    }
    let second = run(&workspace, "probe", &["--set", "run.name=second"]);
    assert_eq!((misses(&second), second["cache"]["hits"].as_u64()), (0, Some(36)));
    assert_eq!(first["path"], second["path"]);
    assert_eq!(workspace.tensors("first", "best"), workspace.tensors("second", "best"));

    let eval = json(&workspace.command(&["eval", "--run", "runs/first", "--json"]).output().unwrap());
    assert_eq!(eval["accuracy"], first["test_accuracy"]);
}

#[test]
fn every_method_and_readout_gives_a_run_that_evaluates_alike() {
    let workspace = Workspace::new();
    for (name, extra) in [
        ("svm", &["--set", "probe.method=svm", "--set", "probe.standardize=true", "--set", "probe.c=[0.01, 1]"][..]),
        ("knn", &["--set", "probe.method=knn", "--set", "probe.k=[1, 3]"]),
        ("both", &["--set", "probe.features=both", "--set", "probe.blocks=2", "--set", "probe.c=[0.01, 1]"]),
        ("avg", &["--set", "probe.features=avg", "--set", "probe.class_weights=balanced", "--set", "probe.c=[1]"]),
    ] {
        let named = format!("run.name={name}");
        let result = run(&workspace, "probe", &[extra, &["--set", &named]].concat());
        let folder = format!("runs/{name}");
        let eval = json(&workspace.command(&["eval", "--run", &folder, "--json"]).output().unwrap());
        let saved: Value =
            serde_json::from_slice(&fs::read(workspace.path(&folder).join("eval-test.json")).unwrap()).unwrap();
        assert_eq!(eval["accuracy"], result["test_accuracy"], "{name}");
        let nll = |value: &Value| value["nll"].as_f64().unwrap();
        assert!((nll(&eval) - nll(&saved)).abs() < 1e-4, "{name}: {} and {}", nll(&eval), nll(&saved));
    }
}

#[test]
fn without_validation_images_c_is_chosen_by_folds() {
    let workspace = Workspace::new();
    fs::remove_dir_all(workspace.path("data/val")).unwrap();
    let manifest: String = ["train", "test"]
        .iter()
        .flat_map(|split| CLASSES.map(|class| (split, class)))
        .flat_map(|(split, class)| {
            let folder = workspace.path("data").join(split).join(class);
            let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            files.map(move |file| format!("data/{split}/{class}/{file},{class},{split}\n")).collect::<Vec<_>>()
        })
        .collect();
    workspace.write("list.csv", &format!("path,label,split\n{manifest}"));
    let source = ["--set", "data.manifest=list.csv", "--set", "data.val=0", "--set", "probe.folds=3"];
    let result = run(&workspace, "probe", &source);
    assert_eq!(result["chosen_on"], "3 folds of the training images");
    assert_eq!(result["fitted_on"], serde_json::json!(["train"]));
    assert!(
        workspace.path("runs/small/eval-test.json").is_file() && !workspace.path("runs/small/eval-val.json").exists()
    );
    let many = output(
        &workspace,
        "probe",
        &["--set", "data.manifest=list.csv", "--set", "data.val=0", "--set", "probe.folds=50"],
    );
    assert_eq!(many.status.code(), Some(2), "{}", stderr(&many));
}

#[test]
fn kept_activations_change_no_bit_of_training() {
    let workspace = Workspace::new();
    let train = |name: &str, extra: &[&str]| {
        let named = format!("run.name={name}");
        run(&workspace, "finetune", &[&["--set", &named], extra].concat())
    };
    for (kind, extra) in [
        ("frozen", &["--set", "strategy.kind=frozen", "--set", "model.head_dropout=0.2"][..]),
        ("partial", &["--set", "strategy.kind=partial", "--set", "model.drop_path=0.3"]),
        ("views", &["--set", "strategy.kind=partial", "--set", "augment.preset=light", "--set", "cache.views=2"]),
    ] {
        let (kept, direct) = (format!("{kind}-kept"), format!("{kind}-direct"));
        let result = train(&kept, extra);
        // The images without augmentation are those of "partial"; the two views of 18 images are new.
        assert_eq!(misses(&result), 36, "{kind}");
        // A cache without room, or a flip that never happens, make every epoch run all blocks.
        let off = if kind == "views" { "cache.max_bytes=0" } else { "augment.hflip=1e-15" };
        let result = train(&direct, &[extra, &["--set", off]].concat());
        assert!(result["cache"].is_null(), "{kind}: {result}");
        for checkpoint in ["best", "last"] {
            assert_eq!(
                workspace.tensors(&kept, checkpoint),
                workspace.tensors(&direct, checkpoint),
                "{kind} {checkpoint}"
            );
        }
        let again = train(&format!("{kind}-again"), &[extra, &["--set", "train.steps=1"]].concat());
        assert_eq!(misses(&again), 0, "{kind}");
    }
}

#[test]
fn a_damaged_cache_costs_time_only() {
    let workspace = Workspace::new();
    let first = run(&workspace, "probe", &["--set", "run.name=first"]);
    let packs: Vec<_> = walk(&workspace.path("cache")).into_iter().filter(|path| path.is_file()).collect();
    assert!(!packs.is_empty());
    for pack in packs {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(&pack, bytes).unwrap();
    }
    let damaged = output(&workspace, "probe", &["--set", "run.name=second"]);
    assert!(stderr(&damaged).contains("is damaged"), "{}", stderr(&damaged));
    let second = json(&damaged);
    assert!(misses(&second) > 0 && second["path"] == first["path"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

#[test]
fn processes_share_a_cache() {
    let workspace = Workspace::new();
    let start = |name: &str| {
        let named = format!("run.name={name}");
        let args = ["probe", "--config", "small.toml", "--json", "-q", "--set", "augment.preset=none", "--set", &named];
        workspace.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = ["a", "b", "c"].map(start);
    let results = children.map(|child| json(&child.wait_with_output().unwrap()));
    assert!(results.iter().all(|result| result["path"] == results[0]["path"]));
    assert_eq!(misses(&run(&workspace, "probe", &[])), 0);
}

#[test]
fn a_head_may_start_from_the_probe() {
    let workspace = Workspace::new();
    // One step at a rate of nearly nothing: the result is the start.
    let start =
        ["--set", "train.steps=1", "--set", "train.lr=1e-12", "--set", "train.warmup=0", "--set", "probe.c=[1e-3]"];
    let init = ["--set", "model.head_init=probe", "--set", "strategy.kind=full", "--set", "train.head_lr=1e-12"];
    let probe = run(&workspace, "probe", &["--set", "probe.c=[1e-3]", "--set", "probe.refit=train"]);
    let started = run(&workspace, "finetune", &[&start[..], &init, &["--set", "run.name=lpft"]].concat());
    assert_eq!(started["test_accuracy"], probe["test_accuracy"]);
    let knn = output(&workspace, "finetune", &[&init[..], &["--set", "probe.method=knn"]].concat());
    assert_eq!(knn.status.code(), Some(2), "{}", stderr(&knn));
    assert!(stderr(&knn).contains("probe.method"), "{}", stderr(&knn));
}

#[test]
fn tsne_draws_the_same_map_for_any_number_of_threads() {
    let workspace = Workspace::new();
    let quick = ["--set", "tsne.perplexity=5", "--set", "tsne.iterations=300"];
    let one = run(&workspace, "tsne", &[&quick[..], &["--set", "run.threads=1", "--out", "one"]].concat());
    run(&workspace, "tsne", &[&quick[..], &["--set", "run.threads=2", "--out", "two"]].concat());
    assert_eq!(fs::read(workspace.path("one/tsne.csv")).unwrap(), fs::read(workspace.path("two/tsne.csv")).unwrap());
    assert_eq!(fs::read_to_string(workspace.path("one/tsne.csv")).unwrap().lines().count(), 37);
    for file in ["plots/tsne.png", "plots/tsne.svg", "tsne.html", "tsne.json"] {
        assert!(workspace.path("one").join(file).is_file(), "{file} is missing");
    }
    let page = fs::read_to_string(workspace.path("one/tsne.html")).unwrap();
    assert_eq!(page.matches("data:image/jpeg").count(), 36, "an image for every point");
    assert!(one["kl"].as_f64().unwrap() > 0.0 && one["trustworthiness"].as_f64().unwrap() > 0.5);
    assert!(one["reading"].is_string() && one["misclassified"].is_null());

    let large = output(&workspace, "tsne", &["--set", "tsne.iterations=250", "--split", "test", "--out", "three"]);
    assert!(stderr(&large).contains("perplexity of 30 is too large for 9 points"), "{}", stderr(&large));
    assert!(json(&large)["perplexity"].as_f64().unwrap() < 3.0);
}

#[test]
fn tsne_of_a_run_counts_what_it_gets_wrong() {
    let workspace = Workspace::new();
    let probe = run(&workspace, "probe", &["--set", "probe.refit=train"]);
    let args = ["tsne", "--run", "runs/small", "--split", "test", "--json", "-q"];
    let result = json(&workspace.command(&args).output().unwrap());
    let wrong = (9.0 * (1.0 - probe["test_accuracy"].as_f64().unwrap())).round() as u64;
    assert_eq!(result["misclassified"].as_u64(), Some(wrong));
    assert_eq!(misses(&result), 0, "the features of a probe are the backbone's");
    assert!(workspace.path("runs/small/tsne.html").is_file());
    let both = workspace.command(&["tsne", "--run", "runs/small", "--config", "small.toml"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn extract_writes_what_the_library_reads() {
    let workspace = Workspace::new();
    let first = run(&workspace, "extract", &["--out", "all.npy"]);
    assert_eq!((first["n"].as_u64(), first["width"].as_u64(), misses(&first)), (Some(36), Some(192), 36));
    let npy = candle_core::Tensor::read_npy(workspace.path("all.npy")).unwrap();
    assert_eq!(npy.dims(), [36, 192]);
    let second = run(&workspace, "extract", &["--out", "test.safetensors", "--split", "test"]);
    assert_eq!(misses(&second), 0);
    let tensors =
        candle_core::safetensors::load(workspace.path("test.safetensors"), &candle_core::Device::Cpu).unwrap();
    let rows = |tensor: &candle_core::Tensor| tensor.to_vec2::<f32>().unwrap();
    assert_eq!(rows(&tensors["features"]), rows(&npy)[27..], "test images come last");
    let table = fs::read_to_string(workspace.path("test.csv")).unwrap();
    assert_eq!(table.lines().count(), 10);
    assert!(table.lines().skip(1).all(|line| line.ends_with(",test")), "{table}");
    let wide = run(&workspace, "extract", &["--out", "wide.npy", "--features", "both", "--blocks", "2"]);
    assert_eq!(wide["width"].as_u64(), Some(4 * 192));
    for bad in [&["--out", "all.txt"][..], &["--out", "x.npy", "--features", "cls", "--blocks", "7"]] {
        assert_eq!(output(&workspace, "extract", bad).status.code(), Some(2));
    }
    assert!(!workspace.path("x.npy").exists());
}

#[test]
fn extract_replaces_no_table_of_others() {
    let workspace = Workspace::new();
    let extract = ["extract", "--config", "small.toml", "--out", "list.npy", "--split", "test", "-q"];
    workspace.write("list.csv", "path,label,split\n1.png,a,train\n");
    let refused = workspace.command(&extract).output().unwrap();
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("list.csv exists"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(workspace.path("list.csv")).unwrap(), "path,label,split\n1.png,a,train\n");
    fs::remove_file(workspace.path("list.csv")).unwrap();
    for _ in 0..2 {
        assert!(workspace.command(&extract).output().unwrap().status.success());
    }
    assert_eq!(fs::read_to_string(workspace.path("list.csv")).unwrap().lines().count(), 10);
}

#[test]
fn predict_answers_every_file_in_order() {
    let workspace = Workspace::new();
    let probe = run(&workspace, "probe", &["--set", "probe.c=[1]"]);
    fs::write(workspace.path("broken.png"), "no picture").unwrap();
    let args = ["predict", "--run", "runs/small", "data/test", "broken.png", "absent.jpg", "--top", "3"];
    let rows = workspace.command(&args).output().unwrap();
    assert_eq!(rows.status.code(), Some(3));
    assert!(stderr(&rows).contains("2 of 11 files could not be used"), "{}", stderr(&rows));
    let rows: Vec<Value> =
        String::from_utf8(rows.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 11);
    let right = rows[..9]
        .iter()
        .filter(|row| row["path"].as_str().unwrap().contains(&format!("/{}/", row["label"].as_str().unwrap())));
    assert_eq!(right.count() as f64 / 9.0, probe["test_accuracy"].as_f64().unwrap());
    for row in &rows[..9] {
        let top = row["top"].as_array().unwrap();
        let sum: f64 = top.iter().map(|candidate| candidate["probability"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6 && top[0]["label"] == row["label"], "{row}");
    }
    assert!(rows[9]["error"].is_string() && rows[10]["error"].is_string() && rows[9]["label"].is_null());

    let glob = workspace.command(&["predict", "--run", "runs/small", "data/test/*/*.jpg", "--json"]).output().unwrap();
    assert_eq!(json(&glob)["predictions"].as_array().unwrap().len(), 9);
    let mut child = workspace
        .command(&["predict", "--run", "runs/small", "-", "--format", "csv", "--top", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let first = rows[0]["path"].as_str().unwrap();
    child.stdin.take().unwrap().write_all(format!("{first}\n").as_bytes()).unwrap();
    let csv = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "path,label,probability,error,label_1,probability_1,distance,unknown,nearest,\
                          probability:global,probability:local,probability:nominal"
    );
    let of_classes: Vec<f64> = lines[1].rsplit(',').take(3).map(|value| value.parse().unwrap()).collect();
    assert!((of_classes.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{csv}");
    assert!(lines.len() == 2 && lines[1].starts_with(first), "{csv}");
}

#[cfg(unix)]
#[test]
fn predict_loses_no_row_and_stops_when_nobody_reads() {
    let workspace = Workspace::new();
    run(&workspace, "probe", &["--set", "probe.c=[1]"]);
    // A name that is not UTF-8, a dead link and a pipe have a row each, and so have the others.
    fs::copy(&textile("test", "global")[0], workspace.path("good.jpg")).unwrap();
    std::os::unix::fs::symlink("nowhere.jpg", workspace.path("dead.jpg")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(workspace.path("pipe.jpg")).status().unwrap().success());
    let out = ["predict", "--run", "runs/small", "-", "--out", "rows.jsonl", "--json", "-q"];
    let mut child = workspace.command(&out).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"caf\xe9.jpg\ndead.jpg\ngood.jpg\npipe.jpg\ngood.jpg\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((said["n"].as_u64(), said["errors"].as_u64()), (Some(5), Some(3)), "{said}");
    let text = fs::read_to_string(workspace.path("rows.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row["label"].is_string()).collect::<Vec<_>>(), [false, false, true, false, true]);
    assert!(rows[3]["error"].as_str().unwrap().contains("not a regular file"), "{text}");

    // An endless list ends with its reader.
    let endless = ["predict", "--run", "runs/small", "-", "-q"];
    let mut endless = workspace.command(&endless).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut list = endless.stdin.take().unwrap();
    let writer = std::thread::spawn(move || while writeln!(list, "good.jpg").is_ok() {});
    let mut first = String::new();
    BufReader::new(endless.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(endless.wait().unwrap().success() && first.contains("good.jpg"));
    writer.join().unwrap();
}

#[test]
fn predict_answers_each_line_at_once_for_the_file_as_it_is_then() {
    let workspace = Workspace::new();
    run(&workspace, "probe", &["--set", "probe.c=[1]"]);
    let predict = ["predict", "--run", "runs/small", "-", "-q"];
    let mut child = workspace.command(&predict).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut list = child.stdin.take().unwrap();
    let (sender, rows) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line.unwrap()))));
    let mut answer = |class: &str| -> Value {
        fs::copy(&textile("test", class)[0], workspace.path("part.jpg")).unwrap();
        writeln!(list, "part.jpg").unwrap();
        let row = rows.recv_timeout(Duration::from_mins(2)).expect("a row before the next line");
        serde_json::from_str(&row).unwrap()
    };
    let answers = ["global", "nominal", "global"].map(&mut answer);
    assert_ne!(answers[0]["top"], answers[1]["top"]);
    assert_eq!(answers[0], answers[2]);
    drop(list);
    assert!(child.wait().unwrap().success());
}
