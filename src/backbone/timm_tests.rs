//! Our reading of timm's architectures against the modules that timm builds from them.

use super::families::FAMILIES;
use super::family::{Description, Header};
use super::spec::{MlpKind, OutputSpec, Pool, VitSpec};
use crate::nn::Activation;
use crate::system::digest::sha256;
use serde_json::{Value, json};

/// Written by `tests/fixtures/make_timm_table.py`.
fn facts() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/timm_models.json")).unwrap()
}

fn read(config: Value) -> Result<VitSpec, String> {
    let family = FAMILIES.iter().find(|family| (family.recognises)(&config)).unwrap();
    (family.spec)(&Description { config, preprocessor: Value::Null }, &Header::new())
}

/// The sum over all names and shapes, the classifier included.
fn parameters(spec: &VitSpec, classes: usize) -> String {
    let spec = VitSpec { outputs: OutputSpec { classes, ..OutputSpec::default() }, ..spec.clone() };
    let mut lines: Vec<String> = spec
        .shapes()
        .into_iter()
        .chain(spec.output_shapes())
        .map(|(name, shape)| format!("{name} {shape:?}\n"))
        .collect();
    lines.sort();
    sha256(lines.concat().as_bytes())
}

#[test]
fn weights_saved_without_pooling_get_one() {
    let spec = |pool: &str| read(json!({"architecture": "vit_tiny_patch16_224", "global_pool": pool})).unwrap().pooling;
    assert_eq!(spec(""), spec("token"));
    let without = json!({"architecture": "vit_tiny_patch16_224", "global_pool": "",
                         "model_args": {"class_token": false, "fc_norm": false}});
    assert_eq!(read(without).unwrap().pooling.pool, Pool::Avg);
    // timm's norm behind the pooling comes with "avg" alone.
    let eva = |pool: &str| {
        let args = json!({"class_token": false, "global_pool": pool});
        read(json!({"architecture": "eva02_tiny_patch14_224", "model_args": args})).unwrap().pooling
    };
    assert_eq!((eva("avg").pool, eva("avg").norm, eva("avg").fc_norm), (Pool::Avg, false, true));
    assert_eq!((eva("").pool, eva("").norm, eva("").fc_norm), (Pool::Avg, true, false));
}

#[test]
fn every_supported_architecture_is_what_timm_builds() {
    let facts = facts();
    let models = facts["models"].as_object().unwrap();
    assert!(models.len() > 200);
    for (name, model) in models {
        let config = model["config"].clone();
        let spec = read(config.clone()).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        let num_classes = config["num_classes"].as_u64().unwrap() as usize;
        assert_eq!(parameters(&spec, num_classes), model["parameters"].as_str().unwrap(), "{name}");
        assert_eq!(
            f64::from(spec.norms.eps).to_string(),
            (model["eps"].as_f64().unwrap() as f32 as f64).to_string(),
            "{name}"
        );
        let activation = match spec.mlp.kind {
            MlpKind::SwiGlu => "swiglu",
            MlpKind::Plain(Activation::Gelu) => "GELU",
            MlpKind::Plain(Activation::GeluTanh) => "GELUTanh",
            MlpKind::Plain(Activation::QuickGelu) => "QuickGELU",
        };
        let expected = model["activation"].as_str().unwrap().split(' ').next();
        assert_eq!(Some(activation), expected, "{name}");
        let pool = match spec.pooling.pool {
            Pool::Cls => "token",
            Pool::Avg => "avg",
            Pool::Attention => "map",
            Pool::Distilled => "distilled",
            _ => "none of timm's",
        };
        assert_eq!(pool, model["pool"], "{name}");
        assert_eq!(
            spec.image_size.height as u64,
            config["pretrained_cfg"]["input_size"][1].as_u64().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn other_architectures_are_refused_by_name() {
    let facts = facts();
    let others = facts["others"].as_array().unwrap();
    assert!(!others.is_empty());
    for name in others.iter().map(|name| name.as_str().unwrap()) {
        let refused = read(json!({ "architecture": name })).unwrap_err();
        assert!(refused.contains(name), "{refused}");
    }
    for (name, reason) in [
        ("vit_base_patch16_xp_224", "block_fn"),
        ("vit_base_r50_s16_224", "embed_layer"),
        ("vit_pwee_patch16_reg1_gap_256", "block_fn"),
        ("vit_dwee_patch16_reg1_gap_256", "attn_layer"),
    ] {
        let refused = read(json!({ "architecture": name })).unwrap_err();
        assert!(refused.contains(name) && refused.contains(reason), "{refused}");
    }
}

#[test]
fn weights_trained_with_quick_gelu_run_with_it() {
    let activation = |architecture: &str, tag: &str, args: Value| {
        let config = json!({ "architecture": architecture, "model_args": args, "pretrained_cfg": { "tag": tag } });
        read(config).unwrap().mlp.activation().unwrap()
    };
    let base = "vit_base_patch16_clip_224";
    assert_eq!(activation(base, "openai", json!({})), Activation::QuickGelu);
    assert_eq!(activation(base, "metaclip_400m", json!({})), Activation::QuickGelu);
    assert_eq!(activation(base, "laion2b", json!({})), Activation::Gelu);
    assert_eq!(activation(base, "openai_ft_in1k", json!({})), Activation::Gelu);
    assert_eq!(activation(base, "openai", json!({ "act_layer": "gelu" })), Activation::Gelu);
    assert_eq!(activation("vit_base_patch16_clip_quickgelu_224", "openai", json!({})), Activation::QuickGelu);
}

#[test]
fn options_whose_effect_is_unknown_are_refused() {
    let (vit, naflex) = ("vit_base_patch16_224", "naflexvit_base_patch16_gap");
    let dinov3 = "vit_small_patch16_dinov3";
    for (architecture, args) in [
        (vit, json!({ "attn_layer": "diff" })),
        (vit, json!({ "norm_layer": "rmsnorm" })),
        (vit, json!({ "in_chans": 1 })),
        // True by default.
        (naflex, json!({ "patchify_channels_last": false })),
        (dinov3, json!({ "rope_grid_indexing": "xy" })),
    ] {
        let refused = read(json!({ "architecture": architecture, "model_args": args })).unwrap_err();
        assert!(refused.contains(args.as_object().unwrap().keys().next().unwrap()), "{refused}");
    }
    for (architecture, args) in [
        (vit, json!({ "qk_norm": false })),
        (naflex, json!({ "enable_patch_interpolator": false })),
        (dinov3, json!({ "rope_grid_indexing": "ij" })),
    ] {
        let unsaid = read(json!({ "architecture": architecture })).unwrap();
        assert_eq!(read(json!({ "architecture": architecture, "model_args": args })).unwrap(), unsaid);
    }
}
