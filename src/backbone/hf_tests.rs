//! What configs of transformers say that no fixture shows: refusals, and how inputs are prepared.

use super::families::FAMILIES;
use super::family::{Description, Header};
use super::load::Backbone;
use super::spec::VitSpec;
use crate::config::ResizeMode;
use crate::data::transform::Interpolation;
use candle_core::Device;
use serde_json::{Value, json};
use std::path::Path;

fn read(config: Value, preprocessor: Value) -> Result<VitSpec, String> {
    let family = FAMILIES.iter().find(|family| (family.recognises)(&config)).unwrap();
    (family.spec)(&Description { config, preprocessor }, &Header::new())
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    let both =
        json!({"model_type": "beit", "use_relative_position_bias": true, "use_shared_relative_position_bias": true});
    for (config, words) in [
        (json!({"model_type": "beit"}), "one of absolute_position_embeddings"),
        (both, "not [relative_position_bias, shared_relative_position_bias]"),
        (json!({"model_type": "aimv2_vision_model"}), "use_head = true"),
        (json!({"model_type": "aimv2_vision_model", "use_head": false, "is_native": true}), "is_native = true"),
        (json!({"model_type": "aimv2", "vision_config": {"use_head": false, "hidden_act": "gelu"}}), "supported: silu"),
        (json!({"model_type": "internvl_vision", "use_qk_norm": true}), "use_qk_norm = true"),
        (json!({"model_type": "internvl_vision", "norm_type": "rms_norm"}), "norm_type \"rms_norm\""),
        (json!({"model_type": "dinov3_vit", "use_gated_mlp": true}), "supported: silu"),
    ] {
        let refused = read(config.clone(), Value::Null).unwrap_err();
        assert!(refused.contains(words), "{config}: {refused}");
    }
}

/// `BeitModel(config, add_pooling_layer=False)` and its like: where patches are averaged, nothing normalises them.
#[test]
fn a_model_without_its_pooler_is_read() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backbones/hf_data2vec");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
    let mut tensors = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    assert!(tensors.keys().any(|name| name.contains("pooler.")));
    tensors.retain(|name, _| !name.contains("pooler.") && !name.starts_with("classifier."));
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    let loaded = Backbone::load(&folder.path().to_string_lossy(), None).unwrap();
    assert!(!loaded.spec.pooling.norm && !loaded.spec.pooling.fc_norm);
}

/// As the image processors of the published weights say.
#[test]
fn inputs_are_prepared_as_published_weights_were_trained() {
    let input = |config: Value, preprocessor: Value| {
        let input = read(config, preprocessor).unwrap().input;
        (input.mean[0], input.std[0], input.resize, input.interpolation)
    };
    let beit = json!({"model_type": "beit", "use_relative_position_bias": true});
    assert_eq!(input(beit.clone(), Value::Null), (0.5, 0.5, ResizeMode::Squash, Interpolation::Bilinear));
    let published = json!({"crop_size": 224, "do_center_crop": false, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "BeitFeatureExtractor", "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "resample": 3, "size": 224});
    assert_eq!(input(beit, published), (0.5, 0.5, ResizeMode::Squash, Interpolation::Bicubic));
    let tips = json!({"model_type": "tipsv2_vision_model"});
    assert_eq!(input(tips, Value::Null), (0.0, 1.0, ResizeMode::Squash, Interpolation::Bilinear));
    // RADIO normalises what its image processor made.
    let radio = json!({"model_type": "radio", "norm_mean": [0.4, 0.4, 0.4], "norm_std": [0.2, 0.2, 0.2]});
    assert_eq!(input(radio.clone(), Value::Null), (0.4, 0.2, ResizeMode::Crop, Interpolation::Bicubic));
    let scaled = json!({"do_normalize": true, "image_mean": [0.1, 0.1, 0.1], "image_std": [0.5, 0.5, 0.5], "size": 224,
        "do_center_crop": false});
    let (mean, std, ..) = input(radio, scaled);
    assert!((mean - 0.3).abs() < 1e-6 && (std - 0.1).abs() < 1e-6, "{mean} {std}");
}

/// RADIO's positions are stored for the largest images; it is given smaller ones.
#[test]
fn radio_takes_the_images_that_its_config_names() {
    let config = json!({"model_type": "radio", "image_size": 432});
    let family = FAMILIES.iter().find(|family| (family.recognises)(&config)).unwrap();
    let description = Description { config, preprocessor: Value::Null };
    assert_eq!((family.usual_size)(&description), Some(432.into()));
    assert_eq!((family.spec)(&description, &Header::new()).unwrap().image_size, 2048.into());
}
