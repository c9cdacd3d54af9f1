//! Learnt prompts against transformers and timm, into which hooks put them: words before the text tower (`CoOp`) and tokens
//! in the image tower (VPT), as written by `fixtures/make_prompt_fixtures.py`.

use crate::common::training::{Training, plan, shapes};
use crate::common::{Expected, assert_close, fixture};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use vitadapt::backbone::{Backbone, Params, Segment};
use vitadapt::config::{
    ContextSettings, ContextStart, NamePosition, Precision, PromptSettings, PromptTemplates, StrategySettings,
    VisualPromptSettings,
};
use vitadapt::data::loader::Batch;
use vitadapt::model::HeadKind;
use vitadapt::nn::workers::Workers;
use vitadapt::text::{ContextPrompts, Prompts, TextModel};
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::checkpoint::Checkpoints;
use vitadapt::train::progress::Progress;
use vitadapt::train::step_options::StepOptions;
use vitadapt::train::trainer::Computation;

const BOUND: f64 = 1e-4;
const NAMES: [&str; 3] = ["normal", "inner race fault", "damaged outer ring"];
const LENGTH: usize = 4;

fn expected() -> Expected {
    Expected::load("prompts.safetensors")
}

fn strategy(modality: &str) -> StrategySettings {
    let sets = ["data.root=/data", "strategy.kind=prompt", &format!("strategy.modality={modality}")];
    vitadapt::config::load(None, &sets.map(str::to_owned)).unwrap().strategy
}

fn model(case: &str) -> TextModel {
    TextModel::load(fixture("text").join(case).to_str().unwrap(), &Device::Cpu).unwrap()
}

fn context_prompts(case: &str, start: ContextStart, shared: bool, position: NamePosition) -> ContextPrompts {
    let settings = PromptSettings { templates: PromptTemplates::Own(vec!["{}".into()]), classes: BTreeMap::new() };
    let prompts = Prompts::new(&settings, &NAMES.map(str::to_owned)).unwrap();
    let settings = ContextSettings { start, shared, position };
    ContextPrompts::new(model(case), &prompts, &settings, 1, &Device::Cpu).unwrap()
}

/// The words before the text tower of `text/CASE` in training.
fn text_training(case: &str, prompts: ContextPrompts, threads: usize) -> Training {
    let mut backbone = Backbone::load(fixture("text").join(case).to_str().unwrap(), None).unwrap();
    let mut shapes = backbone.spec.shapes();
    shapes.extend(HeadKind::Cosine.shapes(backbone.embedding(), NAMES.len()));
    shapes.insert("prompt.context".parse().unwrap(), prompts.start().dims().to_vec());
    let plan = plan(&strategy("text"), backbone.spec.depth, &shapes);
    backbone.params.extend(backbone.outputs.clone());
    Training::prompted(backbone, plan, prompts, threads)
}

fn text_batch(case: &str) -> Batch {
    let pixels = Expected::load(&format!("text/{case}/expected.safetensors")).get("pixels");
    batch(&pixels, expected().labels("text.labels"))
}

fn batch(pixels: &Tensor, labels: Vec<usize>) -> Batch {
    let inputs = pixels.flatten_all().unwrap().to_vec1().unwrap();
    Batch { inputs, indices: (0..labels.len()).collect(), labels, ..Batch::default() }
}

/// The bytes of all parameters but those that a prefix selects.
fn bits(params: &Params, but: &[&str]) -> BTreeMap<String, Vec<u32>> {
    let others = params.iter().filter(|(name, _)| !but.iter().any(|prefix| name.starts_with(prefix)));
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    others
        .map(|(name, param)| (name.to_owned(), values(param.tensor()).into_iter().map(f32::to_bits).collect()))
        .collect()
}

#[test]
fn words_before_the_text_tower() {
    let expected = expected();
    let forms = expected.names().into_iter().filter_map(|name| name.strip_prefix("text.")?.strip_suffix(".grad"));
    let forms: Vec<(&str, &str)> = forms.filter_map(|name| name.split_once('.')).collect();
    assert_eq!(forms.len(), 8);
    for (case, form) in forms {
        let read = |role: &str| expected.get(&format!("text.{case}.{form}.{role}"));
        let what = |role: &str| format!("{case} {form} {role}");
        let position = match form.trim_end_matches("_each") {
            "end" => NamePosition::End,
            "middle" => NamePosition::Middle,
            _ => NamePosition::Front,
        };
        for threads in [1, 2, 5] {
            let shared = !form.ends_with("_each");
            let prompts = context_prompts(case, ContextStart::Random(LENGTH), shared, position);
            let training = text_training(case, prompts, threads);
            training.set("prompt.context", &read("context"));
            let batch = text_batch(case);
            let logits = training.logits(&batch);
            let saved = training.model.saved().unwrap();
            let learning: Vec<&str> = saved.trained().map(|(name, _)| name).collect();
            assert_eq!(learning, ["head.bias", "head.logit_scale", "head.weight", "prompt.context"]);
            assert_close(&what("directions"), &saved.tensor("head.weight").unwrap(), &read("directions"), BOUND);
            let step = training.step(&batch, StepOptions::new(0, 0));
            let loss = Tensor::new(step.loss as f32, &Device::Cpu).unwrap();
            assert_close(&what("loss"), &loss, &read("loss"), BOUND);
            let gradients: Vec<&str> = step.gradients.names().collect();
            assert_eq!(gradients, ["prompt.context"]);
            assert_close(&what("grad"), &step.gradients.get("prompt.context").unwrap(), &read("grad"), BOUND);
            assert_eq!(training.logits(&batch), logits, "a step leaves the directions as they were");
            // Micro-batches and a loss scale go through the text tower once as well.
            let options = StepOptions { micro_batches: 3, loss_scale: 8.0, ..StepOptions::new(0, 0) };
            let cut = training.step(&batch, options);
            assert_close(&what("cut"), &cut.gradients.get("prompt.context").unwrap(), &read("grad"), BOUND);
            let finished = training.model.merged().unwrap();
            assert_eq!(finished.run(&batch).unwrap().logits, logits, "the directions stand without the text tower");
            assert!(finished.directions().is_none());
        }
    }
}

#[test]
fn words_start_from_words_or_from_small_numbers() {
    let start = |start: ContextStart, shared: bool| {
        context_prompts("hf_clip", start, shared, NamePosition::End).start().clone()
    };
    let words = || ContextStart::Words("a photo of a".into());
    assert_close("words", &start(words(), true), &expected().get("text.hf_clip.words"), 1e-6);
    let each = start(words(), false);
    assert_eq!(each.dims(), [3, 4, 16]);
    assert_close("of a class", &each.get(2).unwrap(), &start(words(), true), 1e-9);
    let random = start(ContextStart::Random(64), true).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let deviation = (random.iter().map(|x| x * x).sum::<f32>() / random.len() as f32).sqrt();
    assert!((deviation - 0.02).abs() < 0.002, "{deviation}");
    // A prompt that starts from a sentence is that sentence.
    let prompts = context_prompts("hf_clip", words(), true, NamePosition::End);
    let directions = prompts.directions(prompts.start(), 0..3).unwrap();
    let sentences = NAMES.map(|name| format!("a photo of a {name}."));
    let embedded = model("hf_clip").embed(&sentences, &Workers::new(1, &Device::Cpu).unwrap()).unwrap();
    assert_close("sentences", &directions, &embedded, 1e-5);
}

#[test]
fn prompts_that_are_too_long_name_their_class() {
    let settings = PromptSettings { templates: PromptTemplates::Own(vec!["{}".into()]), classes: BTreeMap::new() };
    let classes = ["fine", "scratch"].map(str::to_owned);
    let prompts = Prompts::new(&settings, &classes).unwrap();
    let refused = |start| {
        let settings = ContextSettings { start, shared: true, position: NamePosition::End };
        ContextPrompts::new(model("hf_clip"), &prompts, &settings, 1, &Device::Cpu).map(|_| ()).unwrap_err().to_string()
    };
    // Of 77 tokens, start, end and the full stop take three.
    let name = model("hf_clip").tokenizer.tokens("fine").unwrap().len() - 2;
    let message = refused(ContextStart::Random(77 - 3 - name));
    assert!(message.contains("\"scratch\"") && message.contains("takes 77"), "{message}");
    let message = refused(ContextStart::Words("  ".into()));
    assert!(message.contains("strategy.init"), "{message}");
}

#[test]
fn words_learn_and_nothing_else_changes() {
    for (case, precision) in [("hf_clip", Precision::F32), ("hf_siglip", Precision::F32), ("hf_clip", Precision::Bf16)]
    {
        let prompts = context_prompts(case, ContextStart::Random(LENGTH), false, NamePosition::End);
        let computation = Computation { precision, checkpoint_blocks: true };
        let training = Training { computation, ..text_training(case, prompts, 2) };
        let batch = text_batch(case);
        let params = &training.model.params;
        let before = bits(params, &["prompt.", "head.weight"]);
        let mut optimizer = training.optimizer();
        let rates = Rates { lr: 0.05, head_lr: 0.0, weight_decay: 0.1 };
        let losses: Vec<f64> = (0..60).map(|step| training.update(&batch, step, &mut optimizer, rates).loss).collect();
        assert!(losses[59] < 0.6 * losses[0], "{case}: {} to {}", losses[0], losses[59]);
        assert_eq!(bits(params, &["prompt.", "head.weight"]), before, "{case}");
    }
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_bits() {
    let fresh = || {
        let prompts = context_prompts("hf_clip", ContextStart::Random(LENGTH), false, NamePosition::Middle);
        let training = text_training("hf_clip", prompts, 2);
        let optimizer = training.optimizer();
        (training, optimizer)
    };
    let batch = text_batch("hf_clip");
    let train = |(training, optimizer): &mut (Training, AdamW), steps: Range<usize>| {
        let rates = Rates { lr: 0.01, head_lr: 0.0, weight_decay: 0.0 };
        steps.for_each(|step| drop(training.update(&batch, step, optimizer, rates)));
    };
    let run = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::of_run(run.path());
    let mut whole = fresh();
    train(&mut whole, 0..3);
    let optimizer = whole.1.tensors().unwrap();
    checkpoints.save("last", 3, &whole.0.model.saved().unwrap(), Some(&optimizer), &Progress::default()).unwrap();
    train(&mut whole, 3..6);
    let mut resumed = fresh();
    let saved = checkpoints.load::<Progress>("last").unwrap().unwrap();
    resumed.0.set("prompt.context", &saved.params["prompt.context"]);
    resumed.1.restore(saved.optimizer.unwrap(), 3).unwrap();
    train(&mut resumed, 3..6);
    assert_eq!(bits(&resumed.0.model.saved().unwrap(), &[]), bits(&whole.0.model.saved().unwrap(), &[]));
    assert_eq!(resumed.0.logits(&batch), whole.0.logits(&batch));
    assert_ne!(
        bits(&whole.0.model.params, &[])["prompt.context"],
        bits(&fresh().0.model.params, &[])["prompt.context"]
    );
}

/// Tokens in `backbones/CASE` in training, with the library's classifier.
fn visual_training(case: &str, visual: VisualPromptSettings, threads: usize) -> Training {
    let mut backbone = Backbone::load(fixture("backbones").join(case).to_str().unwrap(), None).unwrap();
    backbone.params.extend(backbone.outputs.clone());
    visual.insert(&backbone.spec, &mut backbone.params, 1).unwrap();
    let plan = plan(&strategy("visual"), backbone.spec.depth, &shapes(&backbone.params));
    let classes = backbone.params.tensor("head.weight").unwrap().dim(0).unwrap();
    Training::of(backbone, plan, HeadKind::Linear, classes, threads)
}

fn visual_batch(case: &str) -> Batch {
    let expected = Expected::load(&format!("backbones/{case}/expected.safetensors"));
    batch(&expected.get("pixels.native"), expected.labels("labels"))
}

#[test]
fn tokens_in_the_image_tower() {
    let expected = expected();
    for case in ["timm_vit_cls", "timm_vit_reg4_gap", "timm_vit_gap", "hf_vit"] {
        for deep in [false, true] {
            let depth = if deep { "deep" } else { "shallow" };
            let read = |role: &str| expected.get(&format!("visual.{case}.{depth}.{role}"));
            let what = |role: &str| format!("{case} {depth} {role}");
            let prompts = read("prompts");
            for (threads, checkpoint_blocks) in [(1, false), (2, true)] {
                let computation = Computation { checkpoint_blocks, ..Computation::default() };
                let visual = VisualPromptSettings { tokens: 3, deep };
                let training = Training { computation, ..visual_training(case, visual, threads) };
                assert_eq!(training.plan.lowest, Segment::Block(0));
                let count = prompts.dim(0).unwrap();
                for block in 0..count {
                    training.set(&format!("blocks.{block}.prompt"), &prompts.get(block).unwrap());
                }
                let batch = visual_batch(case);
                let shape = read("logits").dims().to_vec();
                let logits = Tensor::from_vec(training.logits(&batch), shape, &Device::Cpu).unwrap();
                assert_close(&what("logits"), &logits, &read("logits"), BOUND);
                let step = training.step(&batch, StepOptions::new(0, 0));
                assert_close(
                    &what("loss"),
                    &Tensor::new(step.loss as f32, &Device::Cpu).unwrap(),
                    &read("loss"),
                    BOUND,
                );
                assert_eq!(
                    step.gradients.names().count(),
                    count + 2,
                    "{case}: the prompts, weight and bias of the head"
                );
                for block in 0..count {
                    let gradient = step.gradients.get(format!("blocks.{block}.prompt")).unwrap();
                    assert_close(&what("grad"), &gradient, &read("grad").get(block).unwrap(), BOUND);
                }
                assert_close(&what("head"), &step.gradients.get("head.weight").unwrap(), &read("grad_head"), BOUND);
            }
        }
    }
}

#[test]
fn tokens_learn_and_the_tower_does_not_change() {
    for deep in [false, true] {
        let training = visual_training("timm_vit_cls", VisualPromptSettings { tokens: 5, deep }, 2);
        let params = &training.model.params;
        let bound = (6.0f32 / (3.0 * 16.0 + 16.0)).sqrt();
        let drawn = params.tensor("blocks.0.prompt").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let largest = drawn.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(largest <= bound && largest > 0.9 * bound, "{largest} of {bound}");
        let learning = ["blocks.0.prompt", "blocks.1.prompt", "blocks.2.prompt", "head."];
        let before = bits(params, &learning);
        let batch = visual_batch("timm_vit_cls");
        let mut optimizer = training.optimizer();
        let rates = Rates { lr: 0.02, head_lr: 0.01, weight_decay: 0.1 };
        let losses: Vec<f64> = (0..60).map(|step| training.update(&batch, step, &mut optimizer, rates).loss).collect();
        assert!(losses[59] < 0.1 * losses[0], "{} to {}", losses[0], losses[59]);
        assert_eq!(bits(params, &learning), before);
    }
}

#[test]
fn tokens_learn_eight_images_by_heart() {
    let visual = VisualPromptSettings { tokens: 10, deep: true };
    let mut backbone = Backbone::load("builtin:vit-mini", Some(32)).unwrap();
    visual.insert(&backbone.spec, &mut backbone.params, 1).unwrap();
    let training = Training::new(backbone, &strategy("visual"), 4, 2);
    let noise = (0..8 * 3 * 32 * 32).map(|i| ((f64::from(i) * 12.9898).sin() * 43_758.547).fract() as f32).collect();
    let batch =
        Batch { inputs: noise, labels: (0..8).map(|i| i % 4).collect(), indices: (0..8).collect(), ..Batch::default() };
    let mut optimizer = training.optimizer();
    // The rates of the defaults.
    let rates = Rates { lr: 2e-3, head_lr: 1e-3, weight_decay: 0.0 };
    let right = (0..150).any(|step| training.update(&batch, step, &mut optimizer, rates).correct == 8);
    assert!(right, "eight images are not learnt");
}
