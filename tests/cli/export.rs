//! Exports of small runs: written, opened again, compared with the run's own logits; and what is refused.

use candle_core::{Device, Tensor};
use insta_cmd::get_cargo_bin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use vitadapt::backbone::{Backbone, Pool, Readout, TILE_POOLS, Vit};
use vitadapt::config::{FeatureChoice, PoolChoice, ResizeMode, TilePool, VisualPromptSettings};
use vitadapt::data::transform::{Geometry, Interpolation, Normalization, Preprocess, Tiles};
use vitadapt::error::{Error, ExitCode};
use vitadapt::export::{Check, ExportModel, Exported, FORMATS, Format, TOLERANCE, export};
use vitadapt::nn::{Linear, Mode};

const CLASSES: [&str; 3] = ["global", "local", "nominal"];
const SIDE: usize = 32;

fn format(name: &str) -> &'static Format {
    FORMATS.into_iter().find(|format| format.name == name).unwrap()
}

/// Numbers without a pattern, the same each time.
fn noise(shape: &[usize], scale: f64) -> Tensor {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i as f64 * 12.9898).sin() * 43_758.547).fract() as f32);
    (Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap() * scale).unwrap()
}

/// A fixture's backbone with a head of noise on its pooled features, and its own logits for noise.
fn model(backbone: &str, image_size: Option<usize>, pool: PoolChoice) -> (ExportModel, Check) {
    let backbone = Backbone::load(backbone, image_size).unwrap().with_pool(pool, 0).unwrap();
    let mut params = backbone.params.clone();
    params.insert("head.weight", noise(&[3, backbone.spec.features()], 0.5));
    params.insert("head.bias", noise(&[3], 0.1));
    let side = backbone.spec.image_size;
    let geometry =
        Geometry { image_size: side, resize: ResizeMode::Squash, interpolation: Interpolation::Bicubic, crop_pct: 1.0 };
    let normalization = Normalization::PerChannel { mean: [0.5; 3], std: [0.5; 3] };
    let pixels = noise(&[2, 3, side, side], 1.0);
    let vit = Vit::new(&backbone.spec, &params, &[]).unwrap();
    let head = Linear::new(params.tensor("head.weight").unwrap(), params.get("head.bias"));
    let logits = head.forward(&vit.features(&pixels, Mode::Eval).unwrap()).unwrap();
    let model = ExportModel {
        name: "run".into(),
        spec: backbone.spec,
        params,
        readout: Readout::POOL,
        classes: CLASSES.map(str::to_owned).to_vec(),
        preprocess: Preprocess { geometry, normalization, tiles: None },
        bit_depth: 16,
        temperature: Some(1.5),
        backbone: "a backbone".into(),
    };
    (model, Check { inputs: vec![pixels], logits: logits.flatten_all().unwrap().to_vec1().unwrap() })
}

/// ONNX has every pooling of tiles, for any number of them; what else libraries have takes one square.
#[test]
fn tiles_are_pooled_in_the_file() {
    for pool in [PoolChoice::Max, PoolChoice::Backbone] {
        for tile_pool in TILE_POOLS.into_iter().chain([TilePool::Attention]) {
            let (mut model, _) = model(&fixture("timm_vit_cls"), None, pool);
            let backbone = Backbone::load(&fixture("timm_vit_cls"), None).unwrap().with_pool(pool, 0).unwrap();
            let backbone = backbone.with_tile_pool(tile_pool, 3).unwrap();
            model.params.extend(backbone.params);
            (model.spec, model.preprocess.tiles) = (backbone.spec, Some(Tiles { side: 32, overlap: 4 }));
            let width = Readout::POOL.width(&model.spec);
            model.params.insert("head.weight", noise(&[3, width], 0.5));
            let vit = Vit::new(&model.spec, &model.params, &[]).unwrap();
            let head = Linear::new(model.params.tensor("head.weight").unwrap(), model.params.get("head.bias"));
            let side = model.spec.image_size;
            let mut check = Check { inputs: Vec::new(), logits: Vec::new() };
            for tiles in [1, 70] {
                let pixels = noise(&[tiles, 3, side, side], 1.0);
                let features = vit.features(&pixels, Mode::Eval).unwrap().unsqueeze(0).unwrap();
                let logits = head.forward(&vit.tile_pool().forward(&features).unwrap()).unwrap();
                check.logits.extend(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                check.inputs.push(pixels);
            }
            let exported_as = exported("onnx", &model, &check).unwrap();
            assert!(exported_as.max_rel_diff <= TOLERANCE, "{pool} {tile_pool}: {exported_as:?}");
            for other in ["timm", "transformers"] {
                let error = exported(other, &model, &check).unwrap_err();
                assert!(error.to_string().contains("cannot express images that are cut into tiles"), "{error}");
            }
        }
    }
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/backbones/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn target(folder: &TempDir, format: &str) -> PathBuf {
    folder.path().join(if format == "onnx" { "model.onnx" } else { "model" })
}

fn exported(format_name: &str, model: &ExportModel, check: &Check) -> Result<Exported, Error> {
    let folder = tempfile::tempdir().unwrap();
    export(format(format_name), model, check, &target(&folder, format_name))
}

/// Every fixture in every format: either it gives the model's logits, or it is refused as something that the format
/// cannot express.
#[test]
fn every_backbone_leaves_with_its_logits_or_is_refused_by_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backbones");
    let mut refused = Vec::new();
    let mut classes = BTreeMap::new();
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for name in &names {
        let (model, check) = model(&fixture(name), None, PoolChoice::Backbone);
        for format in FORMATS {
            let folder = tempfile::tempdir().unwrap();
            match export(format, &model, &check, &target(&folder, format.name)) {
                Ok(exported) => {
                    let differ = exported.max_rel_diff.max(exported.max_probability_diff);
                    assert!(differ <= TOLERANCE, "{name} as {}: {exported:?}", format.name);
                    if format.name == "transformers" {
                        let config = fs::read(folder.path().join("model/config.json")).unwrap();
                        let config: Value = serde_json::from_slice(&config).unwrap();
                        let class = config["architectures"][0].as_str().unwrap_or("TimmWrapper").to_owned();
                        assert_eq!(
                            class == "TimmWrapper",
                            exported.notes.iter().any(|note| note.contains("package timm"))
                        );
                        classes.insert(name.as_str(), class);
                    }
                }
                // timm's layer norms cannot have the epsilon of transformers' ViT, and these tokens are tiny.
                Err(error) if error.exit_code() == ExitCode::Weights => {
                    let why = "timm's layer norms add 0.000001 to the variance, the model's add 0.000000000001";
                    assert!(error.to_string().contains(why), "{name} as {}: {error}", format.name);
                    refused.push((format.name, name.as_str()));
                }
                Err(error) => {
                    assert_eq!(error.exit_code(), ExitCode::Usage, "{name} as {}: {error}", format.name);
                    assert!(error.to_string().contains("cannot express"), "{error}");
                    refused.push((format.name, name.as_str()));
                }
            }
        }
    }
    assert!(names.len() > 30);
    assert!(!refused.iter().any(|(format, _)| *format == "onnx"), "ONNX can express all: {refused:?}");
    assert!(
        !refused.iter().any(|(format, _)| *format == "transformers"),
        "the wrapper expresses the rest: {refused:?}"
    );
    for (format, name) in [("timm", "hf_dinov2"), ("timm", "hf_deit")] {
        assert!(refused.contains(&(format, name)), "{name} as {format} is not refused: {refused:?}");
    }
    let refused = |format: &str, name: &str| refused.contains(&(format, name));
    let theirs = names.iter().filter(|name| !refused("timm", name)).filter(|name| name.starts_with("timm"));
    assert_eq!(theirs.count(), names.iter().filter(|name| name.starts_with("timm")).count());
    for (name, class) in CLASSES_OF_TRANSFORMERS {
        assert_eq!(classes[name], *class, "{name}");
    }
}

/// In which class of transformers a backbone leaves: its own where that computes the same.
const CLASSES_OF_TRANSFORMERS: &[(&str, &str)] = &[
    ("hf_vit", "ViTForImageClassification"),
    ("hf_mae", "ViTForImageClassification"),
    ("hf_msn", "ViTMSNForImageClassification"),
    ("hf_ijepa", "IJepaForImageClassification"),
    ("hf_deit", "DeiTForImageClassification"),
    ("hf_deit_teacher", "DeiTForImageClassificationWithTeacher"),
    ("hf_beit", "BeitForImageClassification"),
    ("hf_beit_v5_names", "BeitForImageClassification"),
    ("hf_data2vec", "Data2VecVisionForImageClassification"),
    ("timm_beit", "BeitForImageClassification"),
    ("timm_beitv2_token", "BeitForImageClassification"),
    ("timm_vit_avg", "BeitForImageClassification"),
    ("hf_dinov2", "Dinov2ForImageClassification"),
    ("hf_dinov2_swiglu", "Dinov2ForImageClassification"),
    ("hf_dinov2_registers", "Dinov2WithRegistersForImageClassification"),
    ("hf_clip_classifier", "CLIPForImageClassification"),
    ("hf_metaclip2_classifier", "MetaClip2ForImageClassification"),
    ("hf_siglip_classifier", "SiglipForImageClassification"),
    ("hf_siglip", "TimmWrapper"),
    ("hf_clip", "TimmWrapper"),
    ("hf_aimv2", "TimmWrapper"),
    ("hf_dinov3", "TimmWrapper"),
    ("timm_dinov3_plus", "TimmWrapper"),
    ("timm_eva02", "TimmWrapper"),
    ("timm_pe_core", "TimmWrapper"),
];

/// What neither a class of transformers nor timm can do is named for both.
#[test]
fn a_refusal_names_the_nearest_class_and_timm() {
    let (model, check) = model(&fixture("timm_qk_norm"), None, PoolChoice::ClsAvg);
    let refusal = exported("transformers", &model, &check).unwrap_err().to_string();
    for part in [
        "norms inside attention or MLP (nearest: Dinov2ForImageClassification)",
        "features of the class token beside the mean patch (as a model of timm)",
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }
}

/// Whoever takes the softmax of a library's logits gets the run's calibrated probabilities.
#[test]
fn the_temperature_is_in_the_head_of_every_format() {
    let (model, check) = model(&fixture("timm_vit_cls"), None, PoolChoice::Backbone);
    for (temperature, divisor) in [(Some(1.5), 1.5), (Some(0.002), 0.002), (None, 1.0)] {
        let model = ExportModel { temperature, ..model.clone() };
        for format in FORMATS {
            let folder = tempfile::tempdir().unwrap();
            let out = target(&folder, format.name);
            let exported = export(format, &model, &check, &out).unwrap();
            assert!(exported.max_probability_diff <= TOLERANCE, "{exported:?}");
            let (place, name) = if out.is_dir() { (out.as_path(), "model") } else { (folder.path(), "model.onnx") };
            let found: Vec<f32> =
                (format.logits)(place, name, &check.inputs[0]).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            for (found, own) in found.iter().zip(&check.logits) {
                let wanted = own / divisor;
                assert!(
                    (found - wanted).abs() <= 1e-3 * wanted.abs().max(1.0),
                    "{}: {found} for {wanted}",
                    format.name
                );
            }
        }
    }
}

/// Poolings that other libraries' classes do not have, with a layer norm before and behind the backbone's own.
#[test]
fn added_poolings_go_to_onnx_only() {
    use PoolChoice::{Attention, Gem, Lse, Mahalanobis, Max, Stats, Topk};
    for case in ["timm_vit_cls", "timm_vit_gap", "hf_siglip"] {
        for pool in [Max, Lse, Topk, Gem, Stats, Attention, Mahalanobis] {
            let (model, check) = model(&fixture(case), None, pool);
            let found = exported("onnx", &model, &check).unwrap();
            assert!(found.max_rel_diff <= TOLERANCE, "{case} {pool:?}: {found:?}");
            for format in ["timm", "transformers"] {
                let error = exported(format, &model, &check).unwrap_err().to_string();
                assert!(error.contains("cannot express") && error.contains("of the patch tokens"), "{error}");
            }
        }
    }
}

#[test]
fn learnt_tokens_go_to_onnx_only() {
    for case in ["timm_vit_cls", "timm_vit_reg4_gap", "timm_vit_gap"] {
        for deep in [false, true] {
            let (mut model, mut check) = model(&fixture(case), None, PoolChoice::Backbone);
            let plain = check.logits.clone();
            VisualPromptSettings { tokens: 3, deep }.insert(&model.spec, &mut model.params, 1).unwrap();
            let vit = Vit::new(&model.spec, &model.params, &[]).unwrap();
            let head = Linear::new(model.params.tensor("head.weight").unwrap(), model.params.get("head.bias"));
            let logits = head.forward(&vit.features(&check.inputs[0], Mode::Eval).unwrap()).unwrap();
            check.logits = logits.flatten_all().unwrap().to_vec1().unwrap();
            assert_ne!(check.logits, plain);
            assert!(exported("onnx", &model, &check).unwrap().max_rel_diff <= TOLERANCE, "{case}");
            for format in ["timm", "transformers"] {
                let error = exported(format, &model, &check).unwrap_err();
                assert!(error.to_string().contains("cannot express learnt prompts among the tokens"), "{error}");
            }
        }
    }
}

#[test]
fn a_readout_of_one_block_is_a_pooling_and_of_several_goes_to_onnx_only() {
    let (plain, mut check) = model(&fixture("timm_vit_cls"), None, PoolChoice::Backbone);
    let vit = Vit::new(&plain.spec, &plain.params, &[]).unwrap();
    let tokens = vit.last_tokens(&check.inputs[0], 2, Mode::Eval).unwrap();
    for (features, blocks) in [(FeatureChoice::Both, 1), (FeatureChoice::Avg, 1), (FeatureChoice::Both, 2)] {
        let mut parts = Vec::new();
        for tokens in &tokens[2 - blocks..] {
            if features == FeatureChoice::Both {
                parts.push(tokens.get_on_dim(1, 0).unwrap());
            }
            parts.push(tokens.narrow(1, 1, tokens.dim(1).unwrap() - 1).unwrap().mean(1).unwrap());
        }
        let seen = Tensor::cat(&parts, 1).unwrap();
        let mut model = ExportModel { readout: Readout { features, blocks }, ..plain.clone() };
        let weight = noise(&[3, seen.dim(1).unwrap()], 0.5);
        model.params.insert("head.weight", weight.clone());
        let logits = seen.matmul(&weight.t().unwrap()).unwrap();
        let logits = logits.broadcast_add(&plain.params.tensor("head.bias").unwrap()).unwrap();
        check.logits = logits.flatten_all().unwrap().to_vec1().unwrap();
        let model = model.with_plain_pooling();
        exported("onnx", &model, &check).unwrap();
        match blocks {
            1 => assert!(exported("transformers", &model, &check).is_ok()),
            _ => {
                for format in ["timm", "transformers"] {
                    let refused = exported(format, &model, &check).unwrap_err();
                    assert!(refused.to_string().contains("reads the last 2 blocks"), "{refused}");
                }
            }
        }
        if features == FeatureChoice::Avg {
            assert_eq!(model.spec.pooling.pool, Pool::Avg);
            exported("timm", &model, &check).unwrap();
        }
    }
}

/// What makes the comparison worth something.
#[test]
fn other_logits_leave_nothing_behind() {
    let (model, mut check) = model(&fixture("timm_vit_cls"), None, PoolChoice::Backbone);
    let largest = check.logits.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
    let truth = check.logits[4];
    for wrong in [truth + 3e-4 * largest, f32::NAN] {
        check.logits[4] = wrong;
        for format_name in ["timm", "transformers", "onnx"] {
            let folder = tempfile::tempdir().unwrap();
            let out = target(&folder, format_name);
            let error = export(format(format_name), &model, &check, &out).unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Weights, "{error}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{format_name} left something");
        }
    }
}

#[test]
fn what_exists_is_not_overwritten() {
    let (model, check) = model(&fixture("timm_vit_cls"), None, PoolChoice::Backbone);
    let folder = tempfile::tempdir().unwrap();
    let refuse = |format_name: &str, out: &Path, word: &str| {
        let error = export(format(format_name), &model, &check, out).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Usage);
        assert!(error.to_string().contains(word), "{error}");
    };
    let out = folder.path().join("model");
    fs::create_dir(&out).unwrap();
    export(format("timm"), &model, &check, &out).unwrap(); // an empty folder is no loss
    let before = fs::read(out.join("config.json")).unwrap();
    refuse("transformers", &out, "not overwritten");
    assert_eq!(fs::read(out.join("config.json")).unwrap(), before);
    refuse("onnx", &out, ".onnx");
    fs::write(folder.path().join("other.json"), "{}").unwrap();
    refuse("onnx", &folder.path().join("other.onnx"), "other.json");
}

/// A folder with a few images of each class and a config.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        let workspace = Self(tempfile::tempdir().unwrap());
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/textile");
        for (split, count) in [("train", 4), ("val", 2), ("test", 2)] {
            for class in CLASSES {
                let target = workspace.path(&format!("data/{split}/{class}"));
                fs::create_dir_all(&target).unwrap();
                let mut files: Vec<PathBuf> =
                    fs::read_dir(images.join(split).join(class)).unwrap().map(|entry| entry.unwrap().path()).collect();
                files.sort();
                for file in files.iter().take(count) {
                    fs::copy(file, target.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn vitadapt(&self, args: &[&str]) -> Output {
        Command::new(get_cargo_bin("vitadapt")).args(args).current_dir(self.0.path()).output().unwrap()
    }

    /// Trains or probes at 32 pixels.
    fn make(&self, command: &str, name: &str, settings: &[&str]) {
        let (name, size) = (format!("run.name={name}"), format!("model.image_size={SIDE}"));
        let fixed =
            ["run.out=runs", "run.device=cpu", "data.root=data", "train.steps=2", "train.lr=1e-3", &name, &size];
        let mut args = vec![command, "-q"];
        fixed.iter().chain(settings).for_each(|setting| args.extend(["--set", setting]));
        let done = self.vitadapt(&args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn export(&self, run: &str, format: &str, out: &str) -> Output {
        self.vitadapt(&["export", "--run", &format!("runs/{run}"), "--format", format, "--out", out, "--json", "-q"])
    }
}

#[test]
fn the_command_exports_a_finetuned_run() {
    let workspace = Workspace::new();
    workspace.make("finetune", "tuned", &["strategy.kind=full", "preprocess.resize=letterbox"]);
    for (format, out, files) in [
        ("timm", "out/timm", vec!["README.md", "config.json", "model.safetensors"]),
        ("transformers", "out/hf", vec!["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]),
        ("onnx", "out/model.onnx", vec!["model.json", "model.onnx"]),
    ] {
        let output = workspace.export("tuned", format, out);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((result["format"].as_str(), result["checked_images"].as_u64()), (Some(format), Some(6)));
        assert!(result["max_rel_diff"].as_f64().unwrap() <= TOLERANCE, "{result}");
        assert_eq!(result["notes"].as_array().unwrap().len(), usize::from(format == "transformers"), "{result}");
        let written = result["files"].as_array().unwrap().iter().map(|file| workspace.path(file.as_str().unwrap()));
        let written: Vec<PathBuf> = written.collect();
        let names: Vec<&str> = written.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, files);
        let bytes: u64 = written.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert_eq!(Some(bytes), result["bytes"].as_u64());
    }
    assert_eq!(fs::read_dir(workspace.path("out")).unwrap().count(), 4, "something was left behind");
    let config: Value = serde_json::from_slice(&fs::read(workspace.path("out/timm/config.json")).unwrap()).unwrap();
    assert_eq!(config["pretrained_cfg"]["crop_mode"], "border");
    assert_eq!(config["label_names"][1], "local");
    let again = workspace.export("tuned", "timm", "out/timm");
    assert_eq!(again.status.code(), Some(2), "{again:?}");

    // Without its images a run is exported all the same, and says what was checked.
    fs::remove_dir_all(workspace.path("data")).unwrap();
    let output = workspace.export("tuned", "onnx", "out/blind.onnx");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["checked_images"], 0);
    assert!(result["notes"][0].as_str().unwrap().contains("made-up patterns"), "{result}");
}

/// The adapters are in the weights: what leaves is a plain backbone, and it is not the pretrained one.
#[test]
fn adapters_are_merged() {
    let workspace = Workspace::new();
    let strategy = ["strategy.kind=lora", "strategy.targets=[\"q\", \"o\", \"fc1\"]", "strategy.blocks=[1, 4]"];
    let settings = ["model.backbone=builtin:vit-mini", "train.lr=3e-2", "train.head_lr=1e-3"];
    workspace.make("finetune", "adapted", &[&strategy[..], &settings].concat());
    let stored = Path::new("runs/adapted/checkpoints/best/model.safetensors");
    let stored = candle_core::safetensors::load(workspace.path(stored.to_str().unwrap()), &Device::Cpu).unwrap();
    assert_eq!(stored.len(), 2 * 3 * 2 + 2, "adapters and head alone are stored");
    for format in ["timm", "transformers", "onnx"] {
        let out = if format == "onnx" { "model.onnx" } else { format };
        let output = workspace.export("adapted", format, out);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let exported = Backbone::load(workspace.path("timm").to_str().unwrap(), None).unwrap();
    let pretrained = Backbone::load("builtin:vit-mini", Some(SIDE)).unwrap();
    let bits = |backbone: &Backbone, name: &str| -> Vec<f32> {
        backbone.params.tensor(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let adapted = ["attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight"];
    for (name, _) in pretrained.params.iter() {
        let is_adapted = adapted.iter().any(|layer| [1, 4].iter().any(|i| name == format!("blocks.{i}.{layer}")));
        assert_eq!(bits(&exported, name) != bits(&pretrained, name), is_adapted, "{name}");
    }
}

#[test]
fn zero_shot_runs_go_to_onnx() {
    let workspace = Workspace::new();
    for name in ["hf_clip", "hf_siglip"] {
        let backbone = format!("model.backbone={}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
        workspace.make("zeroshot", name, &[&backbone]);
        let output = workspace.export(name, "onnx", &format!("{name}.onnx"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for format in ["timm", "transformers"] {
            let output = workspace.export(name, format, "refused");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains("a head that compares directions of embeddings"), "{stderr}");
        }
    }
}

#[test]
fn probes_export_unless_images_vote() {
    let workspace = Workspace::new();
    workspace.make("probe", "linear", &["probe.features=both"]);
    let output = workspace.export("linear", "onnx", "linear.onnx");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    workspace.make("probe", "votes", &["probe.method=knn"]);
    let output = workspace.export("votes", "onnx", "votes.onnx");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("kNN probe") && stderr.contains("probe.method"), "{stderr}");
}
