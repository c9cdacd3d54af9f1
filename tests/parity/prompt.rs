//! Learnt prompts against transformers and timm, into which hooks put them: words before the text tower (`CoOp`) and tokens
//! in the image tower (VPT), as written by `fixtures/make_prompt_fixtures.py`.

use crate::common::{Expected, assert_close, fixture};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use vitadapt::backbone::{Backbone, Params, Readout, Shapes, Stage};
use vitadapt::config::{
    ContextSettings, ContextStart, NamePosition, Precision, PromptSettings, PromptTemplates, StrategySettings,
    VisualPromptSettings,
};
use vitadapt::data::loader::Batch;
use vitadapt::nn::Criterion;
use vitadapt::strategy::Plan;
use vitadapt::system::workers::Workers;
use vitadapt::text::{ContextPrompts, Prompts, TextModel};
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::checkpoint::Checkpoints;
use vitadapt::train::classifier::{Form, HeadKind, Regularisation, assemble};
use vitadapt::train::cosine::CosineHead;
use vitadapt::train::progress::Progress;
use vitadapt::train::trainer::{Computation, StepOptions, Trainer};

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

fn plan(modality: &str, shapes: &Shapes, depth: usize) -> Plan {
    let shapes = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    Plan::new(&strategy(modality), 1.0, depth, shapes).unwrap()
}

fn form(head: HeadKind) -> Form {
    Form { stage: Stage::Pixels, readout: Readout::POOL, head, rates: Regularisation::default(), knn: None }
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

/// A trainer of the words before the text tower of `text/CASE`.
fn text_trainer(case: &str, prompts: ContextPrompts, threads: usize) -> (Trainer, Plan) {
    let backbone = Backbone::load(fixture("text").join(case).to_str().unwrap(), None).unwrap();
    let mut shapes = backbone.spec.shapes();
    shapes.extend(CosineHead::shapes(backbone.embedding(), NAMES.len()));
    shapes.insert("prompt.context".into(), prompts.start().dims().to_vec());
    let plan = plan("text", &shapes, backbone.spec.depth);
    let mut params = backbone.params.clone();
    params.extend(backbone.outputs.clone());
    let directions = Tensor::zeros((NAMES.len(), backbone.embedding()), candle_core::DType::F32, &Device::Cpu).unwrap();
    params.extend(CosineHead::params(&directions, 0.0, 0.0).unwrap());
    let workers = Workers::new(threads, &Device::Cpu).unwrap();
    let form = form(HeadKind::Cosine);
    let trainer = Trainer::new(&backbone.spec, params, &plan, form, workers, Device::Cpu).unwrap();
    (trainer.prompted(prompts).unwrap(), plan)
}

fn text_batch(case: &str) -> Batch {
    let pixels = Expected::load(&format!("text/{case}/expected.safetensors")).get("pixels");
    batch(&pixels, expected().labels("text.labels"))
}

fn batch(pixels: &Tensor, labels: Vec<usize>) -> Batch {
    let inputs = pixels.flatten_all().unwrap().to_vec1().unwrap();
    Batch { inputs, indices: (0..labels.len()).collect(), labels, soft_labels: Vec::new() }
}

fn set(params: &Params, name: &str, value: &Tensor) {
    params.trained().find(|(trained, _)| *trained == name).unwrap().1.set(value).unwrap();
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
            let trainer = text_trainer(case, prompts, threads).0;
            set(&trainer.params, "prompt.context", &read("context"));
            let batch = text_batch(case);
            let logits = trainer.logits(&batch).unwrap();
            let saved = trainer.saved().unwrap();
            let learning: Vec<&str> = saved.trained().map(|(name, _)| name).collect();
            assert_eq!(learning, ["head.bias", "head.logit_scale", "head.weight", "prompt.context"]);
            assert_close(&what("directions"), &saved.tensor("head.weight").unwrap(), &read("directions"), BOUND);
            let step = trainer.step(&batch, &Criterion::default(), StepOptions::new(0, 0)).unwrap().unwrap();
            let loss = Tensor::new(step.loss as f32, &Device::Cpu).unwrap();
            assert_close(&what("loss"), &loss, &read("loss"), BOUND);
            let gradients: Vec<&str> = step.gradients.names().collect();
            assert_eq!(gradients, ["prompt.context"]);
            assert_close(&what("grad"), &step.gradients.get("prompt.context").unwrap(), &read("grad"), BOUND);
            assert_eq!(trainer.logits(&batch).unwrap(), logits, "a step leaves the directions as they were");
            // Micro-batches and a loss scale go through the text tower once as well.
            let options = StepOptions { micro_batches: 3, loss_scale: 8.0, ..StepOptions::new(0, 0) };
            let cut = trainer.step(&batch, &Criterion::default(), options).unwrap().unwrap();
            assert_close(&what("cut"), &cut.gradients.get("prompt.context").unwrap(), &read("grad"), BOUND);
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
        let (trainer, plan) = text_trainer(case, prompts, 2);
        let trainer = trainer.computed(Computation { precision, checkpoint_blocks: true });
        let batch = text_batch(case);
        let before = bits(&trainer.params, &["prompt.", "head.weight"]);
        let mut optimizer = AdamW::new(plan, &trainer.params).unwrap();
        let losses: Vec<f64> = (0..60)
            .map(|step| {
                let step = trainer.step(&batch, &Criterion::default(), StepOptions::new(0, step)).unwrap().unwrap();
                let rates = Rates { lr: 0.05, head_lr: 0.0, weight_decay: 0.1 };
                optimizer.step(&trainer.params, &step.gradients, rates, &trainer.workers).unwrap();
                step.loss
            })
            .collect();
        assert!(losses[59] < 0.6 * losses[0], "{case}: {} to {}", losses[0], losses[59]);
        assert_eq!(bits(&trainer.params, &["prompt.", "head.weight"]), before, "{case}");
    }
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_bits() {
    let fresh = || {
        let prompts = context_prompts("hf_clip", ContextStart::Random(LENGTH), false, NamePosition::Middle);
        let (trainer, plan) = text_trainer("hf_clip", prompts, 2);
        let optimizer = AdamW::new(plan, &trainer.params).unwrap();
        (trainer, optimizer)
    };
    let batch = text_batch("hf_clip");
    let train = |(trainer, optimizer): &mut (Trainer, AdamW), steps: Range<usize>| {
        for step in steps {
            let step = trainer.step(&batch, &Criterion::default(), StepOptions::new(0, step)).unwrap().unwrap();
            let rates = Rates { lr: 0.01, head_lr: 0.0, weight_decay: 0.0 };
            optimizer.step(&trainer.params, &step.gradients, rates, &trainer.workers).unwrap();
        }
    };
    let run = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::of_run(run.path());
    let mut whole = fresh();
    train(&mut whole, 0..3);
    let optimizer = whole.1.tensors().unwrap();
    checkpoints.save("last", 3, &whole.0.saved().unwrap(), Some(&optimizer), &Progress::default()).unwrap();
    train(&mut whole, 3..6);
    let mut resumed = fresh();
    let saved = checkpoints.load::<Progress>("last").unwrap().unwrap();
    set(&resumed.0.params, "prompt.context", &saved.params["prompt.context"]);
    resumed.1.restore(saved.optimizer.unwrap()).unwrap();
    train(&mut resumed, 3..6);
    assert_eq!(bits(&resumed.0.saved().unwrap(), &[]), bits(&whole.0.saved().unwrap(), &[]));
    assert_eq!(resumed.0.logits(&batch).unwrap(), whole.0.logits(&batch).unwrap());
    assert_ne!(bits(&whole.0.params, &[])["prompt.context"], bits(&fresh().0.params, &[])["prompt.context"]);
}

/// A trainer of tokens in `backbones/CASE`, with the library's classifier.
fn visual_trainer(case: &str, visual: VisualPromptSettings, threads: usize) -> (Trainer, Plan) {
    let backbone = Backbone::load(fixture("backbones").join(case).to_str().unwrap(), None).unwrap();
    let mut params = backbone.params.clone();
    params.extend(backbone.outputs.clone());
    visual.insert(&backbone.spec, &mut params, 1).unwrap();
    let shapes = params.iter().map(|(name, param)| (name.to_owned(), param.tensor().dims().to_vec())).collect();
    let plan = plan("visual", &shapes, backbone.spec.depth);
    let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
    let workers = Workers::new(threads, &Device::Cpu).unwrap();
    let form = form(HeadKind::Linear);
    (Trainer::new(&backbone.spec, params, &plan, form, workers, Device::Cpu).unwrap(), plan)
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
                let (trainer, plan) = visual_trainer(case, VisualPromptSettings { tokens: 3, deep }, threads);
                let trainer = trainer.computed(Computation { checkpoint_blocks, ..Computation::default() });
                assert_eq!(plan.frozen_until, Stage::Block(0));
                let count = prompts.dim(0).unwrap();
                for block in 0..count {
                    set(&trainer.params, &format!("blocks.{block}.prompt"), &prompts.get(block).unwrap());
                }
                let batch = visual_batch(case);
                let shape = read("logits").dims().to_vec();
                let logits = Tensor::from_vec(trainer.logits(&batch).unwrap(), shape, &Device::Cpu).unwrap();
                assert_close(&what("logits"), &logits, &read("logits"), BOUND);
                let step = trainer.step(&batch, &Criterion::default(), StepOptions::new(0, 0)).unwrap().unwrap();
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
                    let gradient = step.gradients.get(&format!("blocks.{block}.prompt")).unwrap();
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
        let (trainer, plan) = visual_trainer("timm_vit_cls", VisualPromptSettings { tokens: 5, deep }, 2);
        let bound = (6.0f32 / (3.0 * 16.0 + 16.0)).sqrt();
        let drawn = trainer.params.tensor("blocks.0.prompt").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let largest = drawn.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(largest <= bound && largest > 0.9 * bound, "{largest} of {bound}");
        let learning = ["blocks.0.prompt", "blocks.1.prompt", "blocks.2.prompt", "head."];
        let before = bits(&trainer.params, &learning);
        let batch = visual_batch("timm_vit_cls");
        let mut optimizer = AdamW::new(plan, &trainer.params).unwrap();
        let mut losses = Vec::new();
        for step in 0..60 {
            let step = trainer.step(&batch, &Criterion::default(), StepOptions::new(0, step)).unwrap().unwrap();
            let rates = Rates { lr: 0.02, head_lr: 0.01, weight_decay: 0.1 };
            optimizer.step(&trainer.params, &step.gradients, rates, &trainer.workers).unwrap();
            losses.push(step.loss);
        }
        assert!(losses[59] < 0.1 * losses[0], "{} to {}", losses[0], losses[59]);
        assert_eq!(bits(&trainer.params, &learning), before);
    }
}

#[test]
fn tokens_learn_eight_images_by_heart() {
    let visual = VisualPromptSettings { tokens: 10, deep: true };
    let backbone = Backbone::load("builtin:vit-mini", Some(32)).unwrap();
    let (spec, width) = (backbone.spec, 192);
    let mut params = assemble(backbone.params, width, 4, 1, &Device::Cpu).unwrap();
    visual.insert(&spec, &mut params, 1).unwrap();
    let shapes = params.iter().map(|(name, param)| (name.to_owned(), param.tensor().dims().to_vec())).collect();
    let plan = plan("visual", &shapes, spec.depth);
    let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
    let workers = Workers::new(2, &Device::Cpu).unwrap();
    let trainer = Trainer::new(&spec, params, &plan, form(HeadKind::Linear), workers, Device::Cpu).unwrap();
    let noise = (0..8 * 3 * 32 * 32).map(|i| ((f64::from(i) * 12.9898).sin() * 43_758.547).fract() as f32).collect();
    let batch = Batch {
        inputs: noise,
        labels: (0..8).map(|i| i % 4).collect(),
        indices: (0..8).collect(),
        soft_labels: vec![],
    };
    let mut optimizer = AdamW::new(plan, &trainer.params).unwrap();
    // The rates of the defaults.
    let rates = Rates { lr: 2e-3, head_lr: 1e-3, weight_decay: 0.0 };
    let right = (0..150).any(|step| {
        let step = trainer.step(&batch, &Criterion::default(), StepOptions::new(0, step)).unwrap().unwrap();
        optimizer.step(&trainer.params, &step.gradients, rates, &trainer.workers).unwrap();
        step.correct == 8
    });
    assert!(right, "eight images are not learnt");
}
