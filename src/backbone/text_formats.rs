//! How each library names and configures the text towers of CLIP and `SigLIP`.
//!
//! References: transformers' `modeling_{clip,metaclip_2,siglip,siglip2}.py`, `open_clip`'s `transformer.py`.

use super::hf::{self, prefix_if_used};
use super::hf_clip;
use super::open_clip;
use super::prelude::*;
use super::text_spec::{TextPool, TextSpec};

/// The libraries that save text towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// transformers' CLIP.
    HfClip,
    /// transformers' `SigLIP`.
    HfSiglip,
    /// `open_clip`.
    OpenClip,
}

/// How a text is cleaned before its tokenizer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaning {
    /// Not at all: transformers' CLIP.
    AsIs,
    /// As transformers' `SigLIP` tokenizers do, each class in its own way.
    Siglip,
    /// `open_clip`'s `whitespace`: character references resolved, each run of white space one space.
    Whitespace,
    /// `open_clip`'s `lower`: as `Whitespace`, in lower case.
    Lower,
    /// `open_clip`'s `canonicalize`: as `Lower`, without ASCII punctuation.
    Canonical,
}

/// What a library does to a text around its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPreparation {
    /// Before it.
    pub cleaning: Cleaning,
    /// After it: whether the context is filled with zeros, or else with the tokenizer's own padding token.
    pub zero_padding: bool,
    /// Whether the separator token, which ends every text, is replaced by zero (CLIPA).
    pub strips_separator: bool,
}

impl TextPreparation {
    /// Cleaning alone.
    pub fn of(cleaning: Cleaning) -> Self {
        Self { cleaning, zero_padding: false, strips_separator: false }
    }
}

const HF_PREFIX: &str = "text_model.";

impl TextFormat {
    /// The format of a config; none when such models have no text tower.
    pub fn of(config: &Value) -> Option<Self> {
        if config["model_cfg"]["text_cfg"].is_object() {
            return Some(Self::OpenClip);
        }
        match config["model_type"].as_str()? {
            "clip" | "clip_text_model" | "metaclip_2" | "metaclip_2_text_model" => Some(Self::HfClip),
            "siglip" | "siglip_text_model" | "siglip2" | "siglip2_text_model" => Some(Self::HfSiglip),
            _ => None,
        }
    }

    /// What the text tower of a config is that has one of no format here; none when it has none.
    pub fn unsupported(config: &Value) -> Option<&'static str> {
        match config["model_type"].as_str()? {
            "chinese_clip" => Some("a BERT with a tokenizer of Chinese words"),
            "altclip" => Some("an XLM-RoBERTa"),
            _ => None,
        }
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::HfClip => "transformers CLIP",
            Self::HfSiglip => "transformers SigLIP",
            Self::OpenClip => "open_clip",
        }
    }

    /// The architecture.
    pub fn spec(self, config: &Value, header: &Header) -> Result<TextSpec, String> {
        let text = || hf_clip::tower_config(config, "text");
        match self {
            Self::HfClip => {
                let largest = !config["model_type"].as_str().is_some_and(|model| model.starts_with("metaclip_2"));
                clip(text(), header, largest)
            }
            Self::HfSiglip => siglip(text()),
            Self::OpenClip => open(&config["model_cfg"]),
        }
    }

    /// What the library does to a text around its tokenizer.
    pub fn preparation(self, config: &Value) -> Result<TextPreparation, String> {
        match self {
            Self::HfClip => Ok(TextPreparation::of(Cleaning::AsIs)),
            Self::HfSiglip => Ok(TextPreparation::of(Cleaning::Siglip)),
            Self::OpenClip => open_preparation(&config["model_cfg"]["text_cfg"]),
        }
    }

    /// Where the canonical parameter `name` lies in this file.
    pub fn mapping(self, name: ParamName, header: &Header) -> WeightMapping {
        match self {
            Self::OpenClip => open_mapping(name, header),
            Self::HfClip => hf_mapping(name, header, "text_projection"),
            Self::HfSiglip => {
                let prefix = prefix_if_used(header, HF_PREFIX);
                hf_mapping(name, header, &format!("{prefix}head"))
            }
        }
    }

    /// Whether a tensor belongs to the image tower, or compares the two.
    pub fn ignores(self, name: &str) -> bool {
        let others: &[&str] = match self {
            Self::HfClip => &["vision_model.", "visual_projection."],
            Self::HfSiglip => &["vision_model."],
            Self::OpenClip => &["visual."],
        };
        let shared = ["logit_scale", "logit_bias", "attn_mask"];
        shared.contains(&name) || others.iter().any(|other| name.starts_with(other)) || hf_clip::is_index(name)
    }
}

/// `largest`: whether a token of number 2 that ends texts stands for the largest number, as in older CLIP configs.
fn clip(config: &Value, header: &Header, largest: bool) -> Result<TextSpec, String> {
    let values = Config(config);
    Ok(TextSpec {
        vocabulary: values.integer("vocab_size", 49408)?,
        context: values.integer("max_position_embeddings", 77)?,
        width: values.integer("hidden_size", 512)?,
        depth: values.integer("num_hidden_layers", 12)?,
        attention: AttentionSpec::of(values.integer("num_attention_heads", 8)?),
        mlp: MlpSpec::plain(
            values.integer("intermediate_size", 2048)?,
            hf::activation(&values, Activation::QuickGelu)?,
        ),
        eps: values.number("layer_norm_eps", 1e-5) as f32,
        causal: true,
        // Configs written before the number was corrected say 2; the library then takes the largest.
        pool: match values.integer("eos_token_id", 49407)? {
            2 if largest => TextPool::Largest,
            id => TextPool::EndOfText(id as u32),
        },
        projection: outputs(header, "text_projection.weight"),
        projection_bias: false,
    })
}

fn siglip(config: &Value) -> Result<TextSpec, String> {
    let values = Config(config);
    let width = values.integer("hidden_size", 768)?;
    Ok(TextSpec {
        vocabulary: values.integer("vocab_size", 32000)?,
        context: values.integer("max_position_embeddings", 64)?,
        width,
        depth: values.integer("num_hidden_layers", 12)?,
        attention: AttentionSpec::of(values.integer("num_attention_heads", 12)?),
        mlp: MlpSpec::plain(values.integer("intermediate_size", 3072)?, hf::activation(&values, Activation::GeluTanh)?),
        eps: values.number("layer_norm_eps", 1e-6) as f32,
        causal: false,
        pool: TextPool::Last,
        projection: values.integer("projection_size", width)?,
        projection_bias: true,
    })
}

fn open(model: &Value) -> Result<TextSpec, String> {
    let text = &model["text_cfg"];
    let values = Config(text);
    if let Some(name) = text["hf_model_name"].as_str() {
        return Err(format!("text_cfg.hf_model_name {name:?} is not supported; supported: open_clip's own text tower"));
    }
    open_clip::refuse(text, "text_cfg", &["embed_cls", "ls_init_value"])?;
    let width = values.integer("width", 512)?;
    let projected = text["proj_type"].as_str().unwrap_or("linear") != "none";
    Ok(TextSpec {
        vocabulary: values.integer("vocab_size", 49408)?,
        context: values.integer("context_length", 77)?,
        width,
        depth: values.integer("layers", 12)?,
        attention: AttentionSpec::of(values.integer("heads", 8)?),
        mlp: MlpSpec::plain(
            (width as f64 * values.number("mlp_ratio", 4.0)) as usize,
            open_clip::activation(model, &text["act_kwargs"])?,
        ),
        eps: text["norm_kwargs"]["eps"].as_f64().unwrap_or(1e-5) as f32,
        causal: !values.flag("no_causal_mask", false),
        pool: match text["pool_type"].as_str().unwrap_or("argmax") {
            "argmax" => TextPool::Largest,
            "eos" => TextPool::EndOfText(values.integer("eos_id", 2)? as u32),
            "first" => TextPool::First,
            "last" => TextPool::Last,
            other => {
                return Err(format!(
                    "text_cfg.pool_type {other:?} is not supported; supported: argmax, eos, first, last"
                ));
            }
        },
        projection: if projected { Config(model).integer("embed_dim", 0)? } else { 0 },
        projection_bias: values.flag("proj_bias", false),
    })
}

/// `open_clip`'s `get_tokenizer`: its own byte-pair encoding, or a tokenizer of the hub, each with its cleaning.
fn open_preparation(text: &Value) -> Result<TextPreparation, String> {
    let options = &text["tokenizer_kwargs"];
    if !is_off(&options["reduction_mask"]) {
        let mask = &options["reduction_mask"];
        return Err(format!("text_cfg.tokenizer_kwargs.reduction_mask = {mask} is not supported"));
    }
    if !is_off(&text["tokenizer_mode"]) {
        return Err(format!("text_cfg.tokenizer_mode = {} is not supported", text["tokenizer_mode"]));
    }
    let own = is_off(&text["hf_tokenizer_name"]);
    let cleaning = match options["clean"].as_str().unwrap_or(if own { "lower" } else { "whitespace" }) {
        "lower" => Cleaning::Lower,
        "whitespace" => Cleaning::Whitespace,
        "canonicalize" => Cleaning::Canonical,
        other => {
            return Err(format!(
                "text_cfg.tokenizer_kwargs.clean = {other:?} is not supported; supported: lower, whitespace, \
                 canonicalize"
            ));
        }
    };
    Ok(TextPreparation { cleaning, zero_padding: own, strips_separator: !is_off(&options["strip_sep_token"]) })
}

fn is_off(value: &Value) -> bool {
    value.is_null() || value == false || value == ""
}

fn hf_mapping(name: ParamName, header: &Header, projection: &str) -> WeightMapping {
    let (prefix, part) = (prefix_if_used(header, HF_PREFIX), name.part.text());
    match name.layer {
        Layer::TokenEmbed => WeightMapping::One(format!("{prefix}embeddings.token_embedding.weight")),
        Layer::PosEmbed => WeightMapping::Table(format!("{prefix}embeddings.position_embedding.weight")),
        Layer::Norm => WeightMapping::One(format!("{prefix}final_layer_norm.{part}")),
        Layer::Projection => WeightMapping::One(format!("{projection}.{part}")),
        _ => hf_clip::block(name, prefix).unwrap_or_else(|| WeightMapping::One(name.into())),
    }
}

fn open_mapping(name: ParamName, header: &Header) -> WeightMapping {
    let (prefix, part) = (prefix_if_used(header, "text."), name.part.text());
    let matrix = format!("{prefix}text_projection");
    match name.layer {
        Layer::TokenEmbed => WeightMapping::One(format!("{prefix}token_embedding.weight")),
        Layer::PosEmbed => WeightMapping::Table(format!("{prefix}positional_embedding")),
        Layer::Norm => WeightMapping::One(format!("{prefix}ln_final.{part}")),
        // A bare matrix unless it has a bias, which makes it a linear layer.
        Layer::Projection if header.contains_key(&matrix) => WeightMapping::Transposed(matrix),
        Layer::Projection => WeightMapping::One(format!("{matrix}.{part}")),
        _ => open_clip::block(name, prefix).unwrap_or_else(|| WeightMapping::One(name.into())),
    }
}
