//! Which files are chosen, what is refused, and what the configs of the libraries mean.

use super::families::FAMILIES;
use super::family::{Description, Family, Header};
use super::options::{CLIP, IMAGENET};
use super::{Backbone, Pool, Source, TextTower};
use super::{hf_clip, hf_dinov2, hf_siglip};
use crate::config::PoolChoice;
use crate::data::transform::Interpolation;
use crate::nn::Activation;
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backbones").join(case)
}

fn load(folder: &Path) -> crate::error::Result<Backbone> {
    Backbone::load(folder.to_str().unwrap(), None)
}

/// A copy of a fixture that a test may spoil.
fn copy(case: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(case)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// Rewrites the tensors of a safetensors file.
fn edit(path: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let mut tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, path).unwrap();
}

/// Rewrites `config.json`.
fn edit_config(folder: &TempDir, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

fn refusal(folder: &TempDir) -> String {
    load(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_whole_clip_may_hold_its_text_tower_and_nothing_else() {
    let folder = copy("hf_clip");
    let path = folder.path().join("model.safetensors");
    assert!(load(folder.path()).is_ok());
    edit(&path, |tensors| {
        let stray = tensors["vision_model.pre_layrnorm.bias"].clone();
        tensors.insert("vision_model.extra.weight".into(), stray);
        tensors.remove("vision_model.post_layernorm.bias");
        tensors.insert("visual_projection.weight".into(), tensors["visual_projection.weight"].narrow(1, 0, 8).unwrap());
        tensors.remove("text_model.final_layer_norm.bias");
    });
    let message = refusal(&folder);
    for problem in [
        "unexpected: vision_model.extra.weight [16]",
        "missing: vision_model.post_layernorm.bias [16]",
        "wrong shape: visual_projection.weight is [12, 8], expected [12, 16]",
    ] {
        assert!(message.contains(problem), "{message}");
    }
    // The image tower does without the text tower, and the text tower misses only what is its own.
    assert_eq!(message.lines().count(), 4, "{message}");
    let message = TextTower::load(folder.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(message.contains("missing: text_model.final_layer_norm.bias [8]"), "{message}");
    assert_eq!(message.lines().count(), 2, "{message}");
}

#[test]
fn an_image_backbone_has_no_text_tower() {
    let message = TextTower::load(fixture("timm_clip").to_str().unwrap()).unwrap_err().to_string();
    assert!(message.contains("no text tower"), "{message}");
}

#[test]
fn safetensors_are_preferred_and_all_forms_give_the_same() {
    let folder = copy("open_clip_quickgelu");
    let pickled = load(folder.path()).unwrap();
    let source = Source::open(folder.path().to_str().unwrap()).unwrap();
    let tensors = source.tensors().unwrap();
    let all: HashMap<String, Tensor> =
        tensors.header().into_keys().map(|name| (name.clone(), tensors.read(&name).unwrap())).collect();
    candle_core::safetensors::save(&all, folder.path().join("open_clip_model.safetensors")).unwrap();
    let preferred = Source::open(folder.path().to_str().unwrap()).unwrap();
    assert!(preferred.path.ends_with("open_clip_model.safetensors"));
    let mapped = load(folder.path()).unwrap();
    assert_ne!(mapped.sha256, pickled.sha256);
    for (name, param) in mapped.params.iter() {
        let other = pickled.params.tensor(name).unwrap();
        let difference = (param.tensor() - other).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0, "{name}");
    }
}

#[test]
fn the_sum_of_shards_covers_all_of_them() {
    let folder = copy("hf_clip_projection");
    let before = load(folder.path()).unwrap().sha256;
    edit(&folder.path().join("model-00002-of-00002.safetensors"), |tensors| {
        tensors.values_mut().for_each(|tensor| *tensor = (tensor.clone() * 2.0).unwrap());
    });
    assert_ne!(load(folder.path()).unwrap().sha256, before);
}

#[test]
fn an_index_lists_plain_names_of_files_that_exist() {
    let folder = copy("hf_clip_projection");
    let index = folder.path().join("model.safetensors.index.json");
    for (content, problem) in [
        (json!({ "weight_map": { "a": "../model.safetensors" } }), "not a valid file name"),
        (json!({ "weight_map": { "a": "/etc/passwd" } }), "not a valid file name"),
        (json!({ "weight_map": { "a": ".." } }), "not a valid file name"),
        (json!({ "weight_map": { "a": "absent.safetensors" } }), "absent.safetensors"),
        (json!({ "weight_map": { "a": 3 } }), "not a file name"),
        (json!({ "weight_map": {} }), "no weight_map"),
        (json!([]), "no weight_map"),
    ] {
        fs::write(&index, content.to_string()).unwrap();
        let message = refusal(&folder);
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn what_is_no_pickle_of_pytorch_is_refused() {
    let folder = copy("open_clip_quickgelu");
    let path = folder.path().join("open_clip_pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    for damaged in [&b""[..], &b"not a zip"[..], &whole[..whole.len() / 2]] {
        fs::write(&path, damaged).unwrap();
        assert!(refusal(&folder).contains("not a file that PyTorch saved"));
    }
}

#[test]
fn unknown_models_are_named_with_what_is_supported() {
    let folder = copy("hf_siglip_vision");
    for (config, named) in [(json!({ "model_type": "swin" }), "swin"), (json!({}), "neither")] {
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let error = load(folder.path()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        let hint = error.hint().unwrap();
        assert!(FAMILIES.iter().all(|family| hint.contains(family.name)), "{hint}");
        assert!(hint.contains("million parameters is timm/vit_tiny_patch16_224.augreg_in21k with 5.7"), "{hint}");
    }
}

#[test]
fn impossible_sizes_are_refused_before_they_are_used() {
    for (tower, key, value) in [
        ("vision_config", "num_hidden_layers", json!(1u64 << 60)),
        ("vision_config", "num_attention_heads", json!(0)),
        ("vision_config", "patch_size", json!(0)),
        ("vision_config", "image_size", json!([16, 20])),
        ("text_config", "num_hidden_layers", json!(1 << 20)),
        ("text_config", "num_attention_heads", json!(3)),
        ("text_config", "vocab_size", json!(u64::MAX)),
    ] {
        let folder = copy("hf_clip");
        edit_config(&folder, |config| config[tower][key] = value);
        let refused = match tower {
            "text_config" => TextTower::load(folder.path().to_str().unwrap()).err(),
            _ => load(folder.path()).err(),
        };
        assert!(refused.is_some(), "{tower}.{key}");
    }
}

#[test]
fn dinov2_takes_the_images_of_its_processor_or_of_the_published_one() {
    let folder = copy("hf_dinov2");
    let side = || {
        let described = Backbone::describe(folder.path().to_str().unwrap(), None).map(|spec| spec.image_size.width);
        described.unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(side(), 24);
    let processor = folder.path().join("preprocessor_config.json");
    fs::write(&processor, json!({ "size": { "shortest_edge": 20 }, "crop_size": { "height": 16 } }).to_string())
        .unwrap();
    assert_eq!(side(), 16);
    let loaded = load(folder.path()).unwrap();
    assert!(loaded.notes.iter().any(|note| note.contains("of 16 pixels") && note.contains("says 24")));
    assert_eq!(Backbone::load(folder.path().to_str().unwrap(), Some(24)).unwrap().notes, Vec::<String>::new());
    fs::remove_file(processor).unwrap();
    edit(&folder.path().join("model.safetensors"), |tensors| {
        // Patches of 14 pixels, positions for 518 of them.
        let (width, positions) = (16, (518 / 14) * (518 / 14) + 1);
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert("embeddings.position_embeddings".into(), zeros(&[1, positions, width]));
        tensors.insert("embeddings.patch_embeddings.projection.weight".into(), zeros(&[width, 3, 14, 14]));
    });
    edit_config(&folder, |config| (config["image_size"], config["patch_size"]) = (json!(518), json!(14)));
    assert_eq!(side(), 224);
    assert!(load(folder.path()).unwrap().notes[0].contains("of 224 pixels"));
}

#[test]
fn a_model_in_transformers_wrapper_of_timm_loads_as_timms() {
    let loaded = load(&fixture("timm_wrapper")).unwrap();
    assert_eq!(loaded.family, "timm ViT");
    assert!(loaded.notes[0].contains("\"timm_model.\""), "{:?}", loaded.notes);
}

#[test]
fn impossible_usual_sizes_are_passed_over() {
    let described =
        |folder: &TempDir| Backbone::describe(folder.path().to_str().unwrap(), None).unwrap().image_size.width;
    let naflex = copy("timm_naflex");
    for (side, size) in [(1u64 << 40, 16), (u64::MAX - 15, 16), (384, 384)] {
        edit_config(&naflex, |config| {
            config["model_args"]["img_size"] = Value::Null;
            config["pretrained_cfg"]["input_size"] = json!([3, side, side]);
        });
        assert_eq!(described(&naflex), size, "{side}");
    }
    let siglip = copy("hf_siglip2");
    for (patches, patch, size) in [(1u64 << 62, 1u64 << 40, 24), (1 << 40, 4, 24), (256, 4, 64)] {
        let processor = json!({ "max_num_patches": patches, "patch_size": patch });
        fs::write(siglip.path().join("preprocessor_config.json"), processor.to_string()).unwrap();
        assert_eq!(described(&siglip), size, "{patches} of {patch}");
    }
}

#[test]
fn another_pooling_drops_what_only_the_first_one_reads() {
    let pooled = |case: &str, choice| load(&fixture(case)).unwrap().with_pool(choice, None, 0);
    let siglip = pooled("hf_siglip_vision", PoolChoice::Avg).unwrap();
    assert_eq!(siglip.spec.pooling.pool, Pool::Avg);
    assert!(siglip.params.iter().all(|(name, _)| !name.starts_with("attn_pool")));
    assert!(pooled("hf_siglip_vision", PoolChoice::Cls).is_err());
    let dinov2 = pooled("hf_dinov2", PoolChoice::Backbone).unwrap();
    assert_eq!((dinov2.spec.pooling.pool, dinov2.spec.features()), (Pool::ClsAvg, 32));
    let dinov2 = pooled("hf_dinov2", PoolChoice::Cls).unwrap();
    assert_eq!((dinov2.spec.pooling.pool, dinov2.spec.features()), (Pool::Cls, 16));
}

#[test]
fn patches_are_measured_behind_the_block_that_is_named() {
    let measured = |block| load(&fixture("timm_vit_cls")).unwrap().with_pool(PoolChoice::Mahalanobis, block, 0);
    let depth = load(&fixture("timm_vit_cls")).unwrap().spec.depth;
    assert_eq!(measured(None).unwrap().spec.depth, (2 * depth).div_ceil(3));
    for block in 1..=depth {
        let backbone = measured(Some(block)).unwrap();
        assert_eq!(backbone.spec.depth, block);
        assert!(backbone.params.iter().all(|(name, _)| !name.starts_with(&format!("blocks.{block}."))));
    }
    for block in [0, depth + 1] {
        let refused = measured(Some(block)).err().unwrap().to_string();
        assert!(
            refused.contains(&format!("model.pool_block = {block}, but the backbone has {depth} blocks")),
            "{refused}"
        );
    }
}

fn described(family: &Family, config: Value, preprocessor: Value) -> super::VitSpec {
    (family.spec)(&Description { config, preprocessor }, &Header::new()).unwrap()
}

#[test]
fn empty_configs_mean_the_defaults_of_their_class() {
    let clip = described(&hf_clip::FAMILY, json!({ "model_type": "clip", "vision_config": {} }), Value::Null);
    let numbers = |spec: &super::VitSpec| {
        (spec.width, spec.depth, spec.attention.heads, spec.mlp.hidden, spec.patch.size, spec.image_size.width)
    };
    assert_eq!(numbers(&clip), (768, 12, 12, 3072, 32, 224));
    assert_eq!((clip.mlp.activation(), clip.norms.eps), (Some(Activation::QuickGelu), 1e-5));
    let siglip = described(&hf_siglip::FAMILY, json!({ "model_type": "siglip" }), Value::Null);
    assert_eq!(numbers(&siglip), (768, 12, 12, 3072, 16, 224));
    assert_eq!((siglip.mlp.activation(), siglip.norms.eps), (Some(Activation::GeluTanh), 1e-6));
    assert_eq!(siglip.pooling.pool, Pool::Attention);
    let plain = described(&hf_dinov2::FAMILY, json!({ "model_type": "dinov2" }), Value::Null);
    assert_eq!((plain.patch.size, plain.prefix.registers, plain.mlp.hidden), (14, 0, 3072));
    let registers = described(&hf_dinov2::FAMILY, json!({ "model_type": "dinov2_with_registers" }), Value::Null);
    assert_eq!((registers.patch.size, registers.prefix.registers), (16, 4));
    let giant = json!({ "model_type": "dinov2", "hidden_size": 1536, "use_swiglu_ffn": true });
    assert_eq!(described(&hf_dinov2::FAMILY, giant, Value::Null).mlp.hidden, 4096);
    // An older key holds the config of the tower and takes precedence.
    let older = json!({ "model_type": "clip", "vision_config": { "patch_size": 14 },
        "vision_config_dict": { "patch_size": 16 } });
    assert_eq!(described(&hf_clip::FAMILY, older, Value::Null).patch.size, 16);
}

#[test]
fn image_processors_are_read_in_all_spellings() {
    let (mean, std) = CLIP;
    let statistics = json!({ "image_mean": mean, "image_std": std });
    let cases = [
        // CLIP's older and newer file.
        (json!({ "size": 224, "crop_size": 224, "do_center_crop": true, "resample": 3 }), Interpolation::Bicubic, 1.0),
        (
            json!({ "size": { "shortest_edge": 256 }, "crop_size": { "height": 224, "width": 224 }, "resample": 3 }),
            Interpolation::Bicubic,
            0.875,
        ),
        // ViT's, without a crop.
        (json!({ "size": 224, "resample": 2 }), Interpolation::Bilinear, 1.0),
        (json!({ "size": { "height": 224, "width": 224 }, "resample": 2 }), Interpolation::Bilinear, 1.0),
        (
            json!({ "size": { "height": 256, "width": 256 }, "crop_size": 224, "do_center_crop": false }),
            Interpolation::Bicubic,
            1.0,
        ),
        (json!({}), Interpolation::Bicubic, 0.875),
    ];
    for (mut settings, interpolation, crop_pct) in cases {
        settings.as_object_mut().unwrap().extend(statistics.as_object().unwrap().clone());
        let input = described(&hf_dinov2::FAMILY, json!({ "model_type": "dinov2" }), settings.clone()).input;
        assert_eq!((input.interpolation, input.crop_pct), (interpolation, crop_pct), "{settings}");
        assert_eq!((input.mean, input.std), (mean, std));
    }
    let absent = described(&hf_dinov2::FAMILY, json!({ "model_type": "dinov2" }), Value::Null).input;
    assert_eq!((absent.mean, absent.std, absent.crop_pct), (IMAGENET.0, IMAGENET.1, 0.875));
    // transformers 5 nests them in the processor's file.
    let folder = copy("hf_clip");
    let path = folder.path().join("preprocessor_config.json");
    let nested = json!({ "image_processor": { "size": { "shortest_edge": 320 }, "crop_size": { "height": 160 } } });
    fs::write(folder.path().join("processor_config.json"), nested.to_string()).unwrap();
    assert!(path.is_file(), "which counts only without the other");
    assert_eq!(load(folder.path()).unwrap().spec.input.crop_pct, 0.5);
    fs::write(folder.path().join("processor_config.json"), json!({ "processor_class": "CLIPProcessor" }).to_string())
        .unwrap();
    assert_eq!(load(folder.path()).unwrap().spec.input.crop_pct, 0.875);
}

#[test]
fn the_names_of_dinov2_itself_are_read_with_a_config_of_timm() {
    for case in ["timm_dinov2", "timm_vit_reg4", "timm_dinov2_giant"] {
        let expected = load(&fixture(case)).unwrap();
        let folder = copy(case);
        edit(&folder.path().join("model.safetensors"), |tensors| {
            let class = tensors["cls_token"].clone();
            tensors.insert("mask_token".into(), class.squeeze(0).unwrap());
            if let Some(registers) = tensors.remove("reg_token") {
                tensors.insert("register_tokens".into(), registers);
                let place = (&class * 0.5).unwrap();
                tensors.insert("cls_token".into(), place.clone());
                let table = Tensor::cat(&[&place, &tensors["pos_embed"]], 1).unwrap();
                tensors.insert("pos_embed".into(), table);
            }
            if case == "timm_dinov2_giant" {
                let renamed = |name: String| name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.");
                *tensors = std::mem::take(tensors).into_iter().map(|(name, value)| (renamed(name), value)).collect();
            }
        });
        let found = load(folder.path()).unwrap();
        assert_eq!(found.params.iter().count(), expected.params.iter().count());
        for (name, param) in expected.params.iter() {
            let other = found.params.tensor(name).unwrap();
            let difference = (param.tensor() - other).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-6, "{case}: {name}");
        }
        // What no one can tell is still refused.
        edit(&folder.path().join("model.safetensors"), |tensors| {
            tensors.insert("other_token".into(), tensors["mask_token"].clone());
        });
        assert!(refusal(&folder).contains("unexpected: other_token"));
    }
}
