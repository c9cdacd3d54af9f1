//! Texts and zero-shot against transformers and `open_clip`: tokens, embeddings, gradients and probabilities, on models and
//! tokenizers written by `fixtures/make_text_fixtures.py`.

use crate::common::training::workers;
use crate::common::{Expected, assert_close, fixture, hashed_noise, made};
use candle_core::{D, DType, Device, Tensor, Var};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use vitadapt::backbone::{Backbone, Cleaning, Params, TextEncoder, TextPreparation, TextTower, Vit};
use vitadapt::config::{PromptSettings, PromptTemplates};
use vitadapt::model::CosineHead;
use vitadapt::nn::{Mode, l2_normalize};
use vitadapt::text::{PromptEmbeddings, Prompts, TextModel, Tokenizer};

const BOUND: f64 = 1e-4;
const CASES: [&str; 6] = ["hf_clip", "open_clip", "hf_siglip", "open_clip_clipa", "open_clip_pe", "open_clip_biased"];
/// Cases with an image tower of timm, which has one size only: their weights and pixels are made, not stored.
static MADE: LazyLock<BTreeMap<&str, PathBuf>> = LazyLock::new(|| {
    let cases = CASES.into_iter().filter(|case| fixture("text").join(case).join("weights.json").exists());
    cases.map(|case| (case, made(&fixture("text").join(case), "open_clip_model.safetensors"))).collect()
});

#[derive(Deserialize)]
struct Tokens {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    #[serde(default)]
    classes: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    templates: Vec<String>,
}

fn folder(case: &str) -> PathBuf {
    MADE.get(case).cloned().unwrap_or_else(|| fixture("text").join(case))
}

/// The images of a case (N, 3, S, S), normalised, for a model of that size.
fn pixels(case: &str, side: usize) -> Tensor {
    let expected = Expected::load(&format!("text/{case}/expected.safetensors"));
    if !MADE.contains_key(case) {
        return expected.get("pixels");
    }
    let colours = expected.get("colours").to_dtype(DType::F64).unwrap();
    let shape = (colours.dim(0).unwrap(), 3, side, side);
    let noise = hashed_noise(0, shape.0 * 3 * side * side).collect();
    let noise = Tensor::from_vec::<_, f64>(noise, shape, &Device::Cpu).unwrap();
    noise.broadcast_add(&colours).unwrap().to_dtype(DType::F32).unwrap()
}

fn tokens(case: &str, file: &str) -> Tokens {
    serde_json::from_slice(&fs::read(folder(case).join(file)).unwrap()).unwrap()
}

fn tower(case: &str) -> TextTower {
    TextTower::load(folder(case).to_str().unwrap()).unwrap()
}

fn model(case: &str) -> TextModel {
    TextModel::load(folder(case).to_str().unwrap(), &Device::Cpu).unwrap()
}

/// The classes and templates of a case.
fn prompts(case: &str) -> Prompts {
    let tokens = tokens(case, "tokens.json");
    let names = |value: &serde_json::Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
    let classes: BTreeMap<String, Vec<String>> =
        tokens.classes.iter().map(|(class, value)| (class.clone(), names(value))).collect();
    let settings = PromptSettings { templates: PromptTemplates::Own(tokens.templates), classes };
    let labels: Vec<String> = tokens.classes.keys().cloned().collect();
    Prompts::new(&settings, &labels).unwrap()
}

fn assert_tokens(what: &str, tokenizer: &Tokenizer, tokens: &Tokens) {
    for (text, expected) in tokens.texts.iter().zip(&tokens.ids) {
        let found = tokenizer.batch(std::slice::from_ref(text), &Device::Cpu).unwrap().to_vec2::<u32>().unwrap();
        assert_eq!(&found[0], expected, "{what}: {text:?}");
    }
}

#[test]
fn tokens_are_those_of_the_library() {
    for case in CASES {
        let tokens = tokens(case, "tokens.json");
        assert!(tokens.texts.len() >= 10);
        assert_tokens(case, &Tokenizer::load(&folder(case), &tower(case)).unwrap(), &tokens);
    }
}

#[test]
fn open_clip_cleans_for_siglip_in_its_own_way() {
    let mut tower = tower("hf_siglip");
    tower.preparation = TextPreparation::of(Cleaning::Canonical);
    let tokenizer = Tokenizer::load(&folder("hf_siglip"), &tower).unwrap();
    assert_tokens("open_clip's SigLIP", &tokenizer, &tokens("hf_siglip", "tokens_open_clip.json"));
}

#[test]
fn vocabulary_and_merges_are_the_same_tokenizer() {
    let tower = tower("hf_clip");
    let saved = Tokenizer::load(&folder("hf_clip"), &tower).unwrap();
    let built = Tokenizer::load(&folder("open_clip"), &tower).unwrap();
    for text in &tokens("hf_clip", "tokens.json").texts {
        assert_eq!(saved.tokens(text).unwrap(), built.tokens(text).unwrap(), "{text:?}");
    }
}

#[test]
fn embeddings_of_prompts() {
    for case in CASES {
        let expected = Expected::load(&format!("text/{case}/expected.safetensors"));
        let tower = tower(case);
        let encoder = TextEncoder::new(&tower.spec, &tower.params).unwrap();
        let prompts = prompts(case);
        let texts: Vec<String> = (0..prompts.classes.len()).flat_map(|class| prompts.of(class)).collect();
        let ids = model(case).tokenizer.batch(&texts, &Device::Cpu).unwrap();
        let theirs = expected.get("ids").to_dtype(DType::U32).unwrap();
        assert_eq!(ids.to_vec2::<u32>().unwrap(), theirs.to_vec2::<u32>().unwrap(), "{case}");
        assert_close(case, &encoder.encode(&ids).unwrap(), &expected.get("text_embedding"), BOUND);
        let classes = PromptEmbeddings::new(&prompts, &model(case), &workers(2)).unwrap().ensemble().unwrap();
        assert_close(&format!("{case} classes"), &classes, &expected.get("class_embedding"), BOUND);
    }
}

#[test]
fn gradients_of_embedded_tokens() {
    for case in CASES {
        let expected = Expected::load(&format!("text/{case}/expected.safetensors"));
        let tower = tower(case);
        let encoder = TextEncoder::new(&tower.spec, &tower.params).unwrap();
        let grad = expected.get("grad_embedded");
        let texts = grad.dim(0).unwrap();
        let ids = expected.get("ids").to_dtype(DType::U32).unwrap().narrow(0, 0, texts).unwrap();
        assert_close(case, &encoder.embed(&ids).unwrap(), &expected.get("embedded"), 1e-6);
        let embedded = Var::from_tensor(&expected.get("embedded")).unwrap();
        let encoded = encoder.encode_embedded(&embedded, &encoder.ends(&ids).unwrap()).unwrap();
        let upstream = expected.get("upstream").narrow(0, 0, texts).unwrap();
        let loss = (encoded * upstream).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        assert_close(&format!("{case} gradient"), gradients.get(&embedded).unwrap(), &grad, BOUND);
    }
}

#[test]
fn padding_after_the_end_changes_nothing_in_a_causal_tower() {
    let tower = tower("hf_clip");
    let encoder = TextEncoder::new(&tower.spec, &tower.params).unwrap();
    let ids = Expected::load("text/hf_clip/expected.safetensors").get("ids").to_dtype(DType::U32).unwrap();
    let whole = encoder.encode_embedded(&encoder.embed(&ids).unwrap(), &encoder.ends(&ids).unwrap()).unwrap();
    assert_close("cut", &encoder.encode(&ids).unwrap(), &whole, 1e-6);
}

/// The logits of the fixture's images with `directions` (C, E).
fn logits(case: &str, directions: &Tensor) -> Tensor {
    let backbone = Backbone::load(folder(case).to_str().unwrap(), None).unwrap();
    let vit = Vit::new(&backbone.spec, &backbone.params, &[]).unwrap();
    let features = vit.features(&pixels(case, backbone.spec.image_size.width), Mode::Eval).unwrap();
    let text = model(case);
    let mut params: Params = backbone.outputs.clone();
    params.extend(CosineHead::params(directions, text.logit_scale, text.logit_bias.unwrap_or(0.0)).unwrap());
    let head = CosineHead::new(&params).unwrap();
    let embedding = Expected::load(&format!("text/{case}/expected.safetensors")).get("image_embedding");
    assert_eq!(embedding.dim(1).unwrap(), backbone.embedding());
    assert_close(&format!("{case} images"), &head.embed(&features).unwrap(), &embedding, BOUND);
    head.forward(&features).unwrap()
}

fn predicted(logits: &Tensor) -> Vec<u32> {
    logits.argmax(D::Minus1).unwrap().to_vec1().unwrap()
}

#[test]
fn zero_shot_probabilities() {
    for case in CASES {
        let expected = Expected::load(&format!("text/{case}/expected.safetensors"));
        // The library's own logits of images with single prompts.
        let prompts = l2_normalize(&expected.get("text_embedding")).unwrap();
        assert_close(&format!("{case} prompts"), &logits(case, &prompts), &expected.get("prompt_logits"), BOUND);
        let classes = PromptEmbeddings::new(&self::prompts(case), &model(case), &workers(2)).unwrap();
        let found = logits(case, &classes.ensemble().unwrap());
        assert_close(&format!("{case} logits"), &found, &expected.get("logits"), BOUND);
        let shifted = found.broadcast_sub(&found.max_keepdim(1).unwrap()).unwrap().exp().unwrap();
        let found = shifted.broadcast_div(&shifted.sum_keepdim(1).unwrap()).unwrap();
        assert_close(&format!("{case} probabilities"), &found, &expected.get("probabilities"), BOUND);
        assert_eq!(predicted(&found), predicted(&expected.get("logits")), "{case}");
    }
}

/// The article's sample averages the templates of all classes into one vector: every class then has the same logit. An
/// average for each class tells the images apart.
#[test]
fn classes_are_averaged_one_by_one() {
    for case in CASES.into_iter().filter(|case| !MADE.contains_key(case)) {
        let expected = Expected::load(&format!("text/{case}/expected.safetensors"));
        let prompts = l2_normalize(&expected.get("text_embedding")).unwrap();
        let one = l2_normalize(&prompts.mean_keepdim(0).unwrap()).unwrap();
        let all = logits(case, &Tensor::cat(&[&one, &one, &one], 0).unwrap());
        for row in all.to_vec2::<f32>().unwrap() {
            assert!((row[0] - row[1]).abs() < 1e-5 && (row[0] - row[2]).abs() < 1e-5, "{case}: {row:?}");
        }
        let classes = PromptEmbeddings::new(&self::prompts(case), &model(case), &workers(2)).unwrap();
        let mut found = predicted(&logits(case, &classes.ensemble().unwrap()));
        assert_eq!(found, predicted(&expected.get("logits")), "{case}");
        found.sort_unstable();
        found.dedup();
        assert!(found.len() > 1, "{case}: all images are of one class");
    }
}

#[test]
fn many_texts_are_embedded_as_each_alone() {
    let model = model("open_clip");
    let texts = tokens("open_clip", "tokens.json").texts;
    let thrice: Vec<String> = texts.iter().cycle().take(3 * texts.len()).cloned().collect();
    let rows = model.embed(&thrice, &workers(2)).unwrap();
    for (index, text) in thrice.iter().enumerate() {
        let alone = model.embed(std::slice::from_ref(text), &workers(2)).unwrap();
        assert_close(text, &rows.narrow(0, index, 1).unwrap(), &alone, 1e-5);
    }
}

#[test]
fn a_template_alone_is_its_own_ensemble() {
    let prompts = prompts("open_clip");
    let all = PromptEmbeddings::new(&prompts, &model("open_clip"), &workers(2)).unwrap();
    for (index, template) in prompts.templates.iter().enumerate() {
        let single = Prompts { templates: vec![template.clone()], ..prompts.clone() };
        let single = PromptEmbeddings::new(&single, &model("open_clip"), &workers(2)).unwrap().ensemble().unwrap();
        assert_close(template, &all.of_template(index).unwrap(), &single, 1e-6);
    }
}

#[test]
fn unusable_tokenizers_are_weights_errors() {
    let refused = |files: &[(&str, &str)], tower: &TextTower| {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let error = Tokenizer::load(folder.path(), tower).unwrap_err();
        assert_eq!(error.exit_code() as u8, 4, "{error}");
        format!("{error} / {}", error.hint().unwrap_or_default())
    };
    let clip = tower("hf_clip");
    let tokenizer = fs::read_to_string(folder("hf_clip").join("tokenizer.json")).unwrap();
    assert!(refused(&[], &clip).contains("neither tokenizer.json nor vocab.json with merges.txt"));
    assert!(refused(&[("vocab.json", "{}")], &clip).contains("copy these files"));
    assert!(refused(&[("spiece.model", "")], &clip).contains("spiece.model is not read"));
    assert!(refused(&[("tokenizer.json", "{\"model\": 1}")], &clip).contains("is not a tokenizer"));
    assert!(refused(&[("vocab.json", "{\"a\": 0}"), ("merges.txt", "")], &clip).contains("not CLIP's vocabulary"));
    assert!(refused(&[("tokenizer.json", &tokenizer), ("tokenizer_config.json", "<html>")], &clip).contains("JSON"));
    let mut other = clip.clone();
    other.spec.pool = vitadapt::backbone::TextPool::EndOfText(2);
    assert!(refused(&[("tokenizer.json", &tokenizer)], &other).contains("ends a text with token 1513"));
    other.spec.vocabulary = 100;
    assert!(refused(&[("tokenizer.json", &tokenizer)], &other).contains("the text tower has 100 tokens"));
}

#[test]
fn padding_goes_where_the_tokenizer_says() {
    let tower = tower("hf_siglip");
    let other = tempfile::tempdir().unwrap();
    fs::copy(folder("hf_siglip").join("tokenizer.json"), other.path().join("tokenizer.json")).unwrap();
    let config = r#"{"padding_side": "left", "pad_token": {"content": "<pad>"}}"#;
    fs::write(other.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = Tokenizer::load(other.path(), &tower).unwrap();
    let tokens = tokenizer.tokens("a photo").unwrap();
    let row = tokenizer.batch(&["a photo".into()], &Device::Cpu).unwrap().to_vec2::<u32>().unwrap().remove(0);
    let (padding, text) = row.split_at(64 - tokens.len());
    assert!(text == tokens && padding.iter().all(|&id| id == 0), "{row:?}");
}

#[test]
fn a_prompt_beyond_the_context_is_named_with_its_tokens() {
    let tokenizer = model("hf_clip").tokenizer;
    let long = "a ".repeat(76);
    let error = tokenizer.batch(&["a".into(), long], &Device::Cpu).unwrap_err();
    assert_eq!(error.exit_code() as u8, 2);
    assert!(error.to_string().contains("has 78 tokens, and the text tower takes 77"), "{error}");
    assert!(tokenizer.batch(&["a ".repeat(75)], &Device::Cpu).is_ok());
    let ids = tokenizer.batch(&[], &Device::Cpu).unwrap();
    assert_eq!(ids.dims(), [0, 77]);
}
