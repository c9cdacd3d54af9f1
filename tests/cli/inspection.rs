//! Good parts, defects and unknown images on the command line: thresholds fixed at the end of a run and used after it.

use crate::common::workspace::{CLASSES, Workspace, json, textile};
use crate::snapshot::snapshot;
use image::RgbImage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use vitadapt::metrics::auroc;
use vitadapt::report::predictions::Predictions;

const COSTS: [&str; 6] = [
    "--set",
    "inspection.good=nominal",
    "--set",
    "inspection.prevalence=0.05",
    "--set",
    "inspection.costs={ escape = 50, overkill = 10, look = 1 }",
];

fn read(workspace: &Workspace, path: &str) -> Value {
    serde_json::from_slice(&fs::read(workspace.path(path)).unwrap()).unwrap()
}

fn run(workspace: &Workspace, args: &[&str]) -> Value {
    json(&workspace.command(args).output().unwrap())
}

/// A frozen backbone at the size it was pretrained at, on 20 images a class: features worth comparing.
fn probed(workspace: &Workspace, extra: &[&str]) -> Value {
    for class in CLASSES {
        for file in textile("train", class).iter().take(20) {
            fs::copy(file, workspace.path(&format!("data/train/{class}")).join(file.file_name().unwrap())).unwrap();
        }
        for (split, count) in [("val", 10), ("test", 12)] {
            for file in textile(split, class).iter().take(count) {
                let target = workspace.path(&format!("data/{split}/{class}"));
                fs::copy(file, target.join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    let fixed = ["probe", "--config", "small.toml", "--json", "-q", "--set", "run.name=probe"];
    let size = ["--set", "model.image_size=112", "--set", "run.threads=2"];
    run(workspace, &[&fixed, size.as_slice(), extra].concat())
}

#[test]
fn thresholds_of_a_run_judge_every_image_after_it() {
    let workspace = Workspace::new();
    let result = workspace.finetune("part", &COSTS);
    let record = read(&workspace, "runs/part/run.json");
    let rules = &record["inspection"];
    assert_eq!((&rules["chosen_on_goods"], &rules["chosen_on_defects"]), (&Value::from(3), &Value::from(6)));
    assert_eq!(rules["thresholds"].as_array().unwrap().len(), 4);
    let written = read(&workspace, "runs/part/eval-test.json");
    assert_eq!(result["inspection"], written["inspection"]);
    assert_eq!((&written["inspection"]["goods"], &written["inspection"]["defects"]), (&3.into(), &6.into()));
    for name in ["plots/reliability-test.png", "plots/reliability-val.svg", "known.safetensors"] {
        assert!(workspace.path("runs/part").join(name).is_file(), "{name}");
    }
    let again = run(&workspace, &["eval", "--run", "runs/part", "--json", "-q"]);
    assert_eq!(again, written, "eval disagrees with what finetune wrote");
    let elsewhere = run(&workspace, &["eval", "--run", "runs/part", "--data", "data/test", "--json", "-q"]);
    assert_eq!(elsewhere["inspection"]["band"], written["inspection"]["band"]);

    // The decisions of predict are those that eval counts, and its probabilities those of the temperature.
    let rows = run(&workspace, &["predict", "--run", "runs/part", "data/test", "--json", "-q"]);
    let rows = rows["predictions"].as_array().unwrap();
    let decided = |decision: &str, good: bool| {
        let of = rows.iter().filter(|row| row["path"].as_str().unwrap().contains("/nominal/") == good);
        of.filter(|row| row["decision"] == decision).count() as u64
    };
    let band = &written["inspection"]["band"];
    assert_eq!(band["escape"]["count"], decided("good", false));
    assert_eq!(band["overkill"]["count"], decided("defect", true));
    assert_eq!(band["review"]["count"], decided("review", true) + decided("review", false));
    let temperature = record["temperature"].as_f64().unwrap();
    let predictions = Predictions::read(&workspace.path("runs/part/predictions-test.csv")).unwrap();
    for row in rows {
        let said = predictions.rows.iter().find(|said| row["path"].as_str().unwrap().ends_with(&said.path)).unwrap();
        let exp: Vec<f64> = said.logits.iter().map(|&logit| (f64::from(logit) / temperature).exp()).collect();
        let probabilities: BTreeMap<&str, f64> = predictions
            .classes
            .iter()
            .map(String::as_str)
            .zip(exp.iter().map(|e| e / exp.iter().sum::<f64>()))
            .collect();
        for candidate in row["top"].as_array().unwrap() {
            let expected = probabilities[candidate["label"].as_str().unwrap()];
            assert!((candidate["probability"].as_f64().unwrap() - expected).abs() < 1e-5, "{row}");
        }
        assert!((row["defect_probability"].as_f64().unwrap() - (1.0 - probabilities["nominal"])).abs() < 1e-5, "{row}");
    }
}

#[test]
fn gates_end_with_their_own_code() {
    let workspace = Workspace::new();
    workspace.finetune("part", &["--set", "inspection.good=nominal", "--set", "train.steps=1"]);
    let code = |gates: &[&str]| {
        let args = [&["eval", "--run", "runs/part", "-q"], gates].concat();
        let output = workspace.command(&args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(code(&["--max-escape", "1", "--max-overkill", "1", "--max-review", "0"]).0, Some(0));
    let (missed, said) = code(&["--max-escape-upper", "0", "--max-escapes-ppm", "5"]);
    assert!(missed == Some(8) && said.contains("--max-escape-upper 0") && said.contains("is undefined"), "{said}");
    workspace.finetune("plain", &["--set", "train.steps=1"]);
    let output = workspace.command(&["eval", "--run", "runs/plain", "-q", "--max-escape", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn mistakes_are_found_before_anything_is_trained() {
    let workspace = Workspace::new();
    for command in ["finetune", "probe", "zeroshot", "check"] {
        let args = [command, "--config", "small.toml", "-q", "--set", "inspection.good=nominla"];
        let output = workspace.command(&args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("did you mean \"nominal\"?"), "{command}: {said}");
    }
    assert!(!workspace.path("runs").exists());
    snapshot!(
        workspace,
        &["finetune", "--config", "small.toml", "--set", "inspection.good=[\"local\", \"global\", \"nominal\"]"]
    );
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", "inspection.max_escape=0.1"]);
    let all = "inspection={ good = \"nominal\", costs = { escape = 1 }, max_overkill = 0.1 }";
    snapshot!(workspace, &["finetune", "--config", "small.toml", "--set", all]);
}

#[test]
fn without_validation_images_nothing_is_fixed_and_it_is_said() {
    let workspace = Workspace::new();
    fs::remove_dir_all(workspace.path("data/val")).unwrap();
    let args = ["finetune", "--config", "small.toml", "--set", "run.name=blind", "--set", "train.steps=1"];
    let sets = ["--set", "data.val=0", "--set", "inspection.good=nominal", "--set", "inspection.max_escape=0.1"];
    let output = workspace.command(&[args.as_slice(), &sets].concat()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && stderr.contains("chosen on validation images, and there are none"), "{stderr}");
    let record = read(&workspace, "runs/blind/run.json");
    assert_eq!((&record["inspection"]["band"], &record["known"]["threshold"]), (&Value::Null, &Value::Null));
    let rows = run(&workspace, &["predict", "--run", "runs/blind", "data/test/local", "--json", "-q"]);
    let row = &rows["predictions"][0];
    let decision = if row["label"] == "nominal" { "good" } else { "defect" };
    assert_eq!((&row["decision"], &row["unknown"]), (&Value::from(decision), &Value::Null));
    assert!(row["distance"].is_f64());
}

/// A run as an earlier version would have left it, and one whose file was damaged.
#[test]
fn runs_of_older_versions_are_scored_and_predicted_with() {
    let workspace = Workspace::new();
    workspace.finetune("old", &["--set", "inspection.good=nominal", "--set", "train.steps=1"]);
    let known = workspace.path("runs/old/known.safetensors");
    let bytes = fs::read(&known).unwrap();
    let predict = ["predict", "--run", "runs/old", "data/test/local", "--format", "csv", "-q"];
    let header = |output: std::process::Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
    };
    let old = "path,label,probability,error,label_1,probability_1,label_2,probability_2,label_3,probability_3,label_4,\
               probability_4,label_5,probability_5";
    let classes = "probability:global,probability:local,probability:nominal";
    let now = format!("{old},defect_probability,decision,distance,unknown,nearest,{classes}");
    assert_eq!(header(workspace.command(&predict).output().unwrap()), now);
    fs::write(&known, &bytes[..bytes.len() - 4]).unwrap();
    let refused = workspace.command(&predict).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    fs::remove_file(&known).unwrap();
    assert_eq!(workspace.command(&predict).output().unwrap().status.code(), Some(5));

    let mut record = read(&workspace, "runs/old/run.json");
    record.as_object_mut().unwrap().retain(|key, _| key != "inspection" && key != "known");
    workspace.write("runs/old/run.json", &record.to_string());
    assert_eq!(header(workspace.command(&predict).output().unwrap()), format!("{old},{classes}"));
    let evaluation = run(&workspace, &["eval", "--run", "runs/old", "--json", "-q"]);
    assert!(evaluation["inspection"].is_null() && evaluation["reliability"].is_object());
}

#[test]
fn images_unlike_those_of_training_are_unknown() {
    let workspace = Workspace::new();
    probed(&workspace, &["--set", "unknown.k=1"]);
    fs::create_dir(workspace.path("other")).unwrap();
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for i in 0..8u8 {
        let noise = RgbImage::from_fn(112, 112, |_, _| image::Rgb([random(), random(), random()]));
        noise.save(workspace.path(&format!("other/noise-{i}.png"))).unwrap();
        let plain = RgbImage::from_pixel(112, 112, image::Rgb([32 * i, 255 - 20 * i, 90]));
        plain.save(workspace.path(&format!("other/plain-{i}.png"))).unwrap();
        let rings = RgbImage::from_fn(112, 112, |x, y| {
            let radius = (f64::from(x) - 56.0).hypot(f64::from(y) - 56.0);
            image::Rgb([(radius * f64::from(i + 2)) as u8, 30 * i, 255 - 30 * i])
        });
        rings.save(workspace.path(&format!("other/rings-{i}.png"))).unwrap();
    }
    let predict = |path: &str| {
        let rows = run(&workspace, &["predict", "--run", "runs/probe", path, "--json", "-q"]);
        rows["predictions"].as_array().unwrap().clone()
    };
    let (same, other, seen) = (predict("data/test"), predict("other"), predict("data/train"));
    let distances: Vec<f64> = same.iter().chain(&other).map(|row| row["distance"].as_f64().unwrap()).collect();
    let strange: Vec<bool> = (0..distances.len()).map(|i| i >= same.len()).collect();
    let separation = auroc(&distances, &strange).unwrap();
    let unknown = |rows: &[Value]| rows.iter().filter(|row| row["unknown"] == true).count();
    assert!(separation > 0.95, "AUROC {separation}");
    assert!(
        unknown(&same) <= same.len() / 6 && unknown(&other) * 4 >= other.len() * 3,
        "{} {}",
        unknown(&same),
        unknown(&other)
    );
    // A training image is at no distance from itself.
    for row in &seen {
        assert!(row["distance"].as_f64().unwrap() < 1e-3, "{row}");
        assert!(row["path"].as_str().unwrap().ends_with(row["nearest"].as_str().unwrap()), "{row}");
    }
    let off = probed(&workspace, &["--set", "unknown.k=0"]);
    assert!(off["test_accuracy"].is_f64() && !workspace.path("runs/probe/known.safetensors").exists());
    assert!(predict("data/test")[0].get("distance").is_none());
}

#[test]
fn a_finished_run_learns_what_is_good() {
    let workspace = Workspace::new();
    let known = workspace.finetune("known", &COSTS);
    workspace.finetune("plain", &[]);
    let named = &COSTS;
    let scored = run(&workspace, &[&["eval", "--run", "runs/plain", "--json", "-q"], named.as_slice()].concat());
    assert_eq!(scored["inspection"], known["inspection"], "as if it had been named before");
    for file in ["eval-test.json", "eval-val.json"] {
        let of = |name: &str| read(&workspace, &format!("runs/{name}/{file}"));
        assert_eq!(of("plain"), of("known"), "{file}");
    }
    let record = read(&workspace, "runs/plain/run.json");
    assert_eq!(record["inspection"], read(&workspace, "runs/known/run.json")["inspection"]);
    assert_eq!(record["result"]["inspection"], known["inspection"]);
    // From now on it judges, with gates too.
    let rows = run(&workspace, &["predict", "--run", "runs/plain", "data/test/global", "--json", "-q"]);
    assert!(rows["predictions"][0]["decision"].is_string(), "{rows}");
    let gate = workspace.command(&["eval", "--run", "runs/plain", "--max-escape", "1", "-q"]).output().unwrap();
    assert_eq!(gate.status.code(), Some(0));
    assert!(fs::read_to_string(workspace.path("runs/plain/config.toml")).unwrap().contains("nominal"));

    // The same by going on with a finished run, which trains nothing.
    workspace.finetune("again", &[]);
    let weights = fs::read(workspace.path("runs/again/predictions-test.csv")).unwrap();
    let again = workspace.finetune("again", &[COSTS.as_slice(), &["--resume"]].concat());
    assert_eq!(again["inspection"], known["inspection"]);
    assert_eq!(fs::read(workspace.path("runs/again/predictions-test.csv")).unwrap(), weights);
    let other = ["eval", "--run", "runs/again", "--set", "train.epochs=3"];
    assert_eq!(workspace.command(&other).output().unwrap().status.code(), Some(2));
}

#[test]
fn images_of_another_kind_are_said() {
    let workspace = Workspace::new();
    workspace.finetune("part", &[]);
    let folder = workspace.path("deep");
    fs::create_dir_all(folder.join("nominal")).unwrap();
    for (index, file) in textile("test", "nominal").iter().take(6).enumerate() {
        let grey = image::open(file).unwrap().into_luma8();
        let deep = image::ImageBuffer::from_fn(grey.width(), grey.height(), |x, y| {
            image::Luma([u16::from(grey.get_pixel(x, y).0[0]) * 16])
        });
        image::DynamicImage::ImageLuma16(deep).save(folder.join(format!("nominal/{index}.png"))).unwrap();
    }
    let said = |args: &[&str]| String::from_utf8(workspace.command(args).output().unwrap().stderr).unwrap();
    let words = "images have 16 bits a channel (no value above 4095, as in 12-bit data), the training images 8";
    for args in [["predict", "--run", "runs/part", "deep", "-q"], ["eval", "--run", "runs/part", "--data=deep", "-q"]] {
        assert!(said(&args).contains(words), "{args:?}: {}", said(&args));
    }
    assert_eq!(said(&["predict", "--run", "runs/part", "data/test", "-q"]), "");
    // A run of an older version knows nothing of its images.
    let mut record = read(&workspace, "runs/part/run.json");
    record.as_object_mut().unwrap().remove("images");
    fs::write(workspace.path("runs/part/run.json"), record.to_string()).unwrap();
    assert_eq!(said(&["predict", "--run", "runs/part", "deep", "-q"]), "");
}

/// Thresholds that are chosen anew change nothing else of what the run has written down, nor make it another run.
#[test]
fn a_finished_run_that_is_judged_anew_stays_itself() {
    let workspace = Workspace::new();
    run(&workspace, &["probe", "--config", "small.toml", "--json", "-q"]);
    let config = || fs::read_to_string(workspace.path("runs/small/config.toml")).unwrap();
    let before = config();
    run(
        &workspace,
        &["eval", "--run", "runs/small", "--device", "cpu", "--set", "inspection.good=nominal", "--json", "-q"],
    );
    let after = config();
    let added: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
    assert!(before.lines().all(|line| after.contains(line)), "{before}\n{after}");
    assert!(!added.is_empty() && !added.iter().any(|line| line.contains("device")), "{added:?}");
    assert!(workspace.path("runs/small/plots/inspection-test.svg").exists());
}
