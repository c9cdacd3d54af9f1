//! Our reading of `open_clip`'s own configurations against the names and shapes that it builds from them.

use super::family::{Description, Header};
use super::mapping::WeightMapping;
use super::open_clip::FAMILY;
use super::text_formats::TextFormat;
use crate::system::digest::sha256;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Written by `tests/fixtures/make_open_clip_models.py`.
fn facts() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/open_clip_models.json")).unwrap()
}

fn digest(parameters: impl Iterator<Item = (WeightMapping, Vec<usize>)>) -> String {
    let lines: BTreeSet<String> = parameters
        .flat_map(|(mapping, shape)| {
            let stored = mapping.stored(&shape, 0);
            mapping.names().iter().map(|name| format!("{name} {stored:?}\n")).collect::<Vec<_>>()
        })
        .collect();
    sha256(lines.into_iter().collect::<String>().as_bytes())
}

/// The names by which files of that configuration are told apart.
fn header(model: &Value) -> Header {
    let (config, mut header) = (&model["model_cfg"], Header::new());
    let embed_dim = config["embed_dim"].as_u64().unwrap() as usize;
    if config["vision_cfg"]["timm_model_name"].is_string() {
        header.insert("visual.trunk.pos_embed".into(), vec![]);
        for (name, rows) in model["block"].as_object().unwrap() {
            let rows = rows.as_u64().unwrap() as usize;
            header.extend((0..50).map(|block| (format!("visual.trunk.blocks.{block}.{name}"), vec![rows])));
        }
        let vision = &config["vision_cfg"];
        if vision["timm_proj"] == "linear" {
            header.insert("visual.head.proj.weight".into(), vec![embed_dim]);
        }
        if vision["timm_proj_bias"] == true {
            header.insert("visual.head.proj.bias".into(), vec![embed_dim]);
        }
        // Without a projection of open_clip's, timm builds its own head as one.
        if vision.get("timm_proj").is_some_and(Value::is_null) {
            for part in ["weight", "bias"] {
                header.insert(format!("visual.trunk.head.{part}"), vec![embed_dim]);
            }
        }
    }
    let prefix = if model["custom_text"] == true { "text." } else { "" };
    header.insert(format!("{prefix}token_embedding.weight"), vec![]);
    if config["text_cfg"]["proj_bias"] != true {
        header.insert(format!("{prefix}text_projection"), vec![]);
    }
    header
}

#[test]
fn both_towers_have_the_names_and_shapes_of_the_library() {
    for (name, model) in facts()["models"].as_object().unwrap() {
        let config = json!({ "model_cfg": model["model_cfg"] });
        let header = header(model);
        assert!((FAMILY.recognises)(&config));
        let description = Description { config: config.clone(), preprocessor: Value::Null };
        let spec = (FAMILY.spec)(&description, &header).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        let image = spec.shapes().into_iter().chain(spec.output_shapes());
        let image = digest(image.map(|(name, shape)| ((FAMILY.mapping)(name, &header), shape)));
        assert_eq!(image, model["image"].as_str().unwrap(), "{name}: image tower {spec:?}");
        let format = TextFormat::of(&config).unwrap();
        let spec = format.spec(&config, &header).unwrap();
        let text = digest(spec.shapes().into_iter().map(|(name, shape)| (format.mapping(name, &header), shape)));
        assert_eq!(text, model["text"].as_str().unwrap(), "{name}: text tower {spec:?}");
    }
}

#[test]
fn other_towers_are_refused_by_name() {
    for (name, model) in facts()["refused"].as_object().unwrap() {
        let config = json!({ "model_cfg": model["model_cfg"] });
        let refused = (FAMILY.spec)(&Description { config, preprocessor: Value::Null }, &Header::new()).unwrap_err();
        assert!(refused.contains(model["names"].as_str().unwrap()), "{name}: {refused}");
    }
}
