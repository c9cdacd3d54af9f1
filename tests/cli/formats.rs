//! Models in every export format: written, opened again, compared with their own logits; and what is refused.

use crate::common::workspace::{CLASSES, files};
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use vitadapt::backbone::{Backbone, Pool, Readout, Sizes, TILE_POOLS, Vit};
use vitadapt::config::{FeatureChoice, PoolChoice, ResizeMode, TilePool, VisualPromptSettings};
use vitadapt::data::transform::{Geometry, Interpolation, Normalization, Preprocess, Tiles};
use vitadapt::error::{Error, ExitCode};
use vitadapt::export::{Check, ExportModel, Exported, FORMATS, Format, TOLERANCE, export};
use vitadapt::nn::{Linear, Mode};

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
fn model(backbone: &str, sizes: impl Into<Sizes>, pool: PoolChoice) -> (ExportModel, Check) {
    let backbone = Backbone::load(backbone, sizes).unwrap().with_pool(pool, None, 0).unwrap();
    let mut params = backbone.params.clone();
    params.insert("head.weight", noise(&[3, backbone.spec.features()], 0.5));
    params.insert("head.bias", noise(&[3], 0.1));
    let image_size = backbone.spec.image_size;
    let geometry =
        Geometry { image_size, resize: ResizeMode::Squash, interpolation: Interpolation::Bicubic, crop_pct: 1.0 };
    let normalization = Normalization::PerChannel { mean: [0.5; 3], std: [0.5; 3] };
    let pixels = noise(&[&[2][..], &image_size.shape()].concat(), 1.0);
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
    let logits = logits(&model, |vit| vit.features(&pixels, Mode::Eval).unwrap());
    (model, Check { inputs: vec![pixels], logits })
}

/// What the head of a model makes of features of its backbone.
fn logits(model: &ExportModel, features: impl FnOnce(&Vit) -> Tensor) -> Vec<f32> {
    let vit = Vit::new(&model.spec, &model.params, &[]).unwrap();
    let head = Linear::new(model.params.tensor("head.weight").unwrap(), model.params.get("head.bias"));
    head.forward(&features(&vit)).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// ONNX has every pooling of tiles, for any number of them; what else libraries have takes one square.
#[test]
fn tiles_are_pooled_in_the_file() {
    for pool in [PoolChoice::Max, PoolChoice::Backbone] {
        for tile_pool in TILE_POOLS.into_iter().chain([TilePool::Attention]) {
            let (mut model, _) = model(&fixture("timm_vit_cls"), None, pool);
            let backbone = Backbone::load(&fixture("timm_vit_cls"), None).unwrap().with_pool(pool, None, 0).unwrap();
            let backbone = backbone.with_tile_pool(tile_pool, 3).unwrap();
            model.params.extend(backbone.params);
            (model.spec, model.preprocess.tiles) =
                (backbone.spec, Some(Tiles { side: 32, overlap: 4, staggered: false, second_look: 0 }));
            let width = Readout::POOL.width(&model.spec);
            model.params.insert("head.weight", noise(&[3, width], 0.5));
            let shape = model.spec.image_size.shape();
            let mut check = Check { inputs: Vec::new(), logits: Vec::new() };
            for tiles in [1, 70] {
                let pixels = noise(&[&[tiles][..], &shape].concat(), 1.0);
                check.logits.extend(logits(&model, |vit| {
                    let features = vit.features(&pixels, Mode::Eval).unwrap().unsqueeze(0).unwrap();
                    vit.tile_pool().forward(&features).unwrap()
                }));
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
    let names = files(&folder);
    for (name, wide) in names.iter().flat_map(|name| [(name, false), (name, true)]) {
        // As it is, and with two rows of five patches.
        let patch = Backbone::describe(&fixture(name), None).unwrap().patch.size;
        let image = wide.then(|| [2 * patch, 5 * patch].into());
        let (model, check) = model(&fixture(name), Sizes { image, patch: None }, PoolChoice::Backbone);
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
                        classes.insert((name.as_str(), wide), class);
                    }
                }
                // timm's layer norms cannot have the epsilon of transformers' ViT, and these tokens are tiny.
                Err(error) if error.exit_code() == ExitCode::Weights => {
                    let why = "timm's layer norms add 0.000001 to the variance, the model's add 0.000000000001";
                    assert!(error.to_string().contains(why), "{name} as {}: {error}", format.name);
                    refused.extend((!wide).then_some((format.name, name.as_str())));
                }
                Err(error) => {
                    assert_eq!(error.exit_code(), ExitCode::Usage, "{name} as {}: {error}", format.name);
                    assert!(error.to_string().contains("cannot express"), "{error}");
                    assert_ne!(format.name, "onnx", "{name}: {error}");
                    refused.extend((!wide).then_some((format.name, name.as_str())));
                }
            }
        }
    }
    assert!(names.len() > 30);
    assert!(!refused.iter().any(|(format, _)| *format == "onnx"), "ONNX can express all: {refused:?}");
    assert!(
        !refused.iter().any(|(format, name)| *format == "transformers"
            && !["hf_pixio", "hf_mlcd"].iter().any(|only| name.starts_with(only))),
        "the wrapper expresses all but several class tokens, and one that turns: {refused:?}"
    );
    for (format, name) in [("timm", "hf_dinov2"), ("timm", "hf_deit"), ("transformers", "hf_pixio")] {
        assert!(refused.contains(&(format, name)), "{name} as {format} is not refused: {refused:?}");
    }
    let refused = |format: &str, name: &str| refused.contains(&(format, name));
    let theirs = names.iter().filter(|name| !refused("timm", name)).filter(|name| name.starts_with("timm"));
    assert_eq!(theirs.count(), names.iter().filter(|name| name.starts_with("timm")).count());
    for (name, class) in CLASSES_OF_TRANSFORMERS {
        assert_eq!(classes[&(*name, false)], *class, "{name}");
        let of_squares = ["CLIP", "MetaClip2", "Siglip", "Dinov2"].iter().any(|model| class.starts_with(model));
        let wide = classes.get(&(*name, true)).map(String::as_str);
        if of_squares || ["hf_beit_v5_names", "timm_vit_avg"].contains(name) {
            assert_ne!(wide, Some(*class), "{name}");
        } else {
            assert_eq!(wide, Some(*class), "{name}");
        }
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

/// The formats named are those that can express the model.
#[test]
fn a_refusal_leads_to_every_format_that_can() {
    let hint = |case: &str, pool: PoolChoice| {
        let (model, check) = model(&fixture(case), None, pool);
        exported("timm", &model, &check).unwrap_err().hint().unwrap().clone()
    };
    let both = "use --format transformers or --format onnx, which can";
    assert_eq!(hint("hf_dinov2", PoolChoice::ClsAvg), both);
    assert_eq!(hint("hf_deit", PoolChoice::Backbone), both);
    assert_eq!(hint("timm_vit_cls", PoolChoice::Max), "use --format onnx, which can");
    assert_eq!(hint("timm_qk_norm", PoolChoice::ClsAvg), "use --format onnx, which can");
}

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
            check.logits = logits(&model, |vit| vit.features(&check.inputs[0], Mode::Eval).unwrap());
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
