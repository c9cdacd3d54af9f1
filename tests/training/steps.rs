//! The trainer on the real backbone and images, without the command line.

use crate::common::relative_error;
use crate::common::training::{Training, plan, shallow, shapes};
use candle_core::{Device, Tensor};
use std::path::PathBuf;
use vitadapt::backbone::Backbone;
use vitadapt::config::{BlockChoice, LoraSettings, LoraTarget, Precision, StrategySettings};
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::loader::Batch;
use vitadapt::data::transform::{Geometry, Normalization, Pipeline, Preprocess, View};
use vitadapt::model::{CosineHead, DropRates, HeadKind, Model};
use vitadapt::nn::Criterion;
use vitadapt::strategy::Plan;
use vitadapt::train::adamw::Rates;
use vitadapt::train::regulariser::Regulariser;
use vitadapt::train::step_options::StepOptions;
use vitadapt::train::trainer::{Computation, Objective, Step, Trainer};

const SIZE: usize = 64;
const EVERY_TARGET: [LoraTarget; 6] =
    [LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::O, LoraTarget::Fc1, LoraTarget::Fc2];

/// The first images of each class of the textile set.
fn batch(per_class: usize) -> Batch {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/textile/train");
    let backbone = Backbone::load("builtin:vit-mini", Some(SIZE)).unwrap();
    let input = backbone.spec.input;
    let preprocess = Preprocess {
        geometry: Geometry {
            image_size: SIZE.into(),
            resize: vitadapt::config::ResizeMode::Squash,
            interpolation: input.interpolation,
            crop_pct: 1.0,
        },
        normalization: Normalization::PerChannel { mean: input.mean, std: input.std },
        tiles: None,
    };
    let pipeline = Pipeline::evaluation(preprocess, DecodeOptions::default());
    let mut batch = Batch::default();
    for (label, class) in ["global", "local", "nominal"].iter().enumerate() {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(root.join(class)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in &files[..per_class] {
            batch.inputs.extend(pipeline.load(file, View { epoch: 0, sample: 0 }).unwrap());
            batch.labels.push(label);
            batch.indices.push(batch.indices.len());
        }
    }
    batch
}

/// The small backbone with three classes.
fn training(strategy: &StrategySettings, threads: usize) -> Training {
    Training::new(Backbone::load("builtin:vit-mini", Some(SIZE)).unwrap(), strategy, 3, threads)
}

fn last(blocks: usize) -> StrategySettings {
    StrategySettings::Partial { blocks: BlockChoice::Last(blocks) }
}

fn listed(blocks: &[usize]) -> StrategySettings {
    StrategySettings::Partial { blocks: BlockChoice::Listed(blocks.to_vec()) }
}

fn lora(blocks: BlockChoice, targets: &[LoraTarget]) -> StrategySettings {
    StrategySettings::Lora(LoraSettings { blocks, targets: targets.to_vec(), rank: 4, alpha: 8.0, dropout: 0.0 })
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn every_learning_parameter_gets_a_gradient_and_no_other() {
    let batch = batch(2);
    let head_and_norm = 2 + 2;
    let per_block = 12;
    let strategies = [
        (StrategySettings::Frozen, 2),
        (last(2), 2 * per_block + head_and_norm),
        // A frozen block between learning ones.
        (listed(&[0, 2]), 2 * per_block + head_and_norm),
        (StrategySettings::Full, 6 * per_block + head_and_norm + 4),
        (lora(BlockChoice::All, &EVERY_TARGET), 6 * 2 * EVERY_TARGET.len() + 2),
        (lora(BlockChoice::Listed(vec![1, 4]), &[LoraTarget::K, LoraTarget::Fc2]), 2 * 2 * 2 + 2),
    ];
    for (strategy, count) in strategies {
        let training = training(&strategy, 2);
        // B starts from zero, where A has no gradient.
        for (_, var) in training.model.params.trained().filter(|(name, _)| name.ends_with("lora_b")) {
            var.set(&(var.ones_like().unwrap() * 0.01).unwrap()).unwrap();
        }
        let step = training.step(&batch, StepOptions::new(0, 0));
        let names: Vec<&str> = step.gradients.names().collect();
        assert_eq!(names.len(), count, "{strategy:?}: {names:?}");
        for name in step.gradients.names() {
            assert!(training.plan.get(name).is_some(), "{name}");
            let largest = largest(&step.gradients.get(name).unwrap());
            assert!(largest.is_finite() && largest > 0.0, "{strategy:?}: the gradient of {name} is {largest}");
        }
    }
}

#[test]
fn micro_batches_and_workers_change_gradients_by_rounding_only() {
    let batch = batch(3);
    let criterion = Criterion { label_smoothing: 0.1, class_weights: vec![0.5, 1.0, 2.0], ..Criterion::default() };
    let objective = Objective { criterion, regulariser: None, drop: DropRates { path: 0.2, head: 0.3 } };
    let gradients = |threads: usize, parts: usize| {
        let options = StepOptions { micro_batches: parts, ..StepOptions::new(3, 5) };
        let objective = objective.clone();
        Training { objective, ..training(&StrategySettings::Full, threads) }.step(&batch, options)
    };
    let whole = gradients(1, 1);
    for (threads, parts) in [(1, 3), (2, 1), (3, 2), (2, 9)] {
        let cut = gradients(threads, parts);
        assert!((cut.loss - whole.loss).abs() < 1e-5);
        assert_eq!(cut.correct, whole.correct);
        for name in whole.gradients.names() {
            let [cut, whole] = [&cut, &whole].map(|step| step.gradients.get(name).unwrap());
            let error = relative_error(&cut, &whole);
            assert!(error < 2e-4, "{name} with {threads} threads and {parts} parts: {error:.1e}");
        }
    }
}

#[test]
fn gradient_checkpointing_changes_nothing() {
    let batch = batch(2);
    for strategy in [
        StrategySettings::Full,
        last(2),
        listed(&[1, 3]),
        lora(BlockChoice::All, &EVERY_TARGET),
        StrategySettings::Frozen,
    ] {
        let step = |checkpoint_blocks| {
            let computation = Computation { checkpoint_blocks, ..Computation::default() };
            let objective = Objective { drop: DropRates { path: 0.2, head: 0.3 }, ..Objective::default() };
            Training { objective, computation, ..training(&strategy, 2) }.step(&batch, StepOptions::new(3, 5))
        };
        let (plain, checkpointed) = (step(false), step(true));
        assert_eq!((plain.loss, plain.correct), (checkpointed.loss, checkpointed.correct));
        assert!(plain.gradients.names().eq(checkpointed.gradients.names()));
        for name in plain.gradients.names() {
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let [plain, other] = [&plain, &checkpointed].map(|step| values(&step.gradients.get(name).unwrap()));
            assert!(plain == other, "{strategy:?}: {name} is not the same to the bit");
        }
    }
}

/// Products of half precision keep 8 (bf16) or 11 (f16) significant bits: gradients agree to a few units of those. Two
/// blocks suffice; candle's own loops in half precision are slow.
#[test]
fn half_precision_follows_f32_with_gradients_in_f32() {
    let batch = batch(2);
    for strategy in [StrategySettings::Full, lora(BlockChoice::All, &EVERY_TARGET)] {
        half_precision_follows(&batch, &strategy);
    }
}

fn half_precision_follows(batch: &Batch, strategy: &StrategySettings) {
    let backbone = shallow(SIZE, 2);
    let step = |precision, checkpoint_blocks, loss_scale| {
        let computation = Computation { precision, checkpoint_blocks };
        let training = Training { computation, ..Training::new(backbone.clone(), strategy, 3, 2) };
        training.step(batch, StepOptions { loss_scale, ..StepOptions::new(3, 5) })
    };
    let exact = step(Precision::F32, false, 1.0);
    for (precision, loss_scale, bound) in
        [(Precision::Bf16, 1.0, 0.1), (Precision::F16, 1024.0, 0.02), (Precision::F32, 4096.0, 1e-6)]
    {
        for checkpoint_blocks in [false, true] {
            let half = step(precision, checkpoint_blocks, loss_scale);
            assert!((half.loss - exact.loss).abs() < bound, "{precision:?}: loss {} for {}", half.loss, exact.loss);
            for name in exact.gradients.names() {
                let [gradient, other] = [&exact, &half].map(|step| step.gradients.get(name).unwrap());
                assert_eq!(other.dtype(), candle_core::DType::F32);
                let error = relative_error(&other, &gradient);
                assert!(error < bound, "{precision:?} {strategy:?} {name}: {error:.1e}");
            }
        }
    }
}

#[test]
fn nine_images_are_learned_by_heart_and_frozen_weights_stay() {
    let batch = batch(3);
    for (strategy, lr, steps) in [
        (StrategySettings::Full, 1e-3, 25),
        (last(2), 2e-3, 40),
        (StrategySettings::Frozen, 5e-2, 120),
        (lora(BlockChoice::Last(4), &[LoraTarget::Q, LoraTarget::V, LoraTarget::O]), 5e-3, 60),
    ] {
        let training = training(&strategy, 2);
        let Training { model, plan, .. } = &training;
        let before: Vec<(String, Vec<f32>)> = frozen(model, plan);
        let mut optimizer = training.optimizer();
        let mut last = f64::INFINITY;
        for number in 0..steps {
            let rates = Rates { lr, head_lr: lr, weight_decay: 0.0 };
            last = training.update(&batch, number, &mut optimizer, rates).loss;
        }
        assert!(last < 0.1, "{strategy:?} ends at a loss of {last}");
        assert_eq!(before, frozen(model, plan), "{strategy:?} moved frozen weights");
        let logits = training.logits(&batch);
        for (row, label) in logits.chunks(3).zip(&batch.labels) {
            assert!(row.iter().all(|x| *x <= row[*label]), "the scorer does not see what the optimiser wrote");
        }
    }
}

#[test]
fn what_has_not_yet_joined_gets_no_gradient_and_stays() {
    let batch = batch(2);
    let training = training(&listed(&[1, 4]), 2);
    let training = Training { plan: training.plan.clone().unfreezing(1), ..training };
    let (trainer, model) = (training.trainer(), &training.model);
    let mut optimizer = training.optimizer();
    for (epoch, count) in [(0, 2), (1, 2 + 2 + 12), (2, 2 + 2 + 24)] {
        let phase = trainer.phase(epoch);
        let before = values(model);
        let step = trainer.step(&phase, &batch, StepOptions::new(0, epoch)).unwrap().unwrap();
        assert_eq!(step.gradients.names().count(), count, "epoch {epoch}");
        let rates = Rates { lr: 1e-2, head_lr: 1e-2, weight_decay: 0.1 };
        optimizer.step(&phase.params, &step.gradients, rates, &model.workers).unwrap();
        for ((name, before), (_, after)) in before.iter().zip(values(model)) {
            assert_eq!(*before != after, step.gradients.get(name).is_ok(), "{name} in epoch {epoch}");
        }
    }
}

/// The regulariser and the ceiling of the scale are those of the model, whichever of its blocks are trainable yet.
#[test]
fn a_regularised_head_stays_so_while_blocks_unfreeze() {
    let batch = batch(2);
    let mut backbone = Backbone::load("builtin:vit-mini", Some(SIZE)).unwrap();
    let width = backbone.spec.width;
    let directions = HeadKind::Linear.fresh(width, 3, 1, &Device::Cpu).unwrap().tensor("head.weight").unwrap();
    backbone.params.extend(CosineHead::params(&directions, 10.0, 0.0).unwrap());
    let plan = plan(&StrategySettings::Full, backbone.spec.depth, &shapes(&backbone.params)).unfreezing(1);
    let Training { model, plan, computation, .. } = Training::of(backbone, plan, HeadKind::Cosine, 3, 2);
    let start = (&directions + 1.0).unwrap();
    let without = Objective::default();
    let with = Objective { regulariser: Some(Regulariser::new(start, 0.0, &[4.0; 3]).unwrap()), ..without.clone() };
    let trainer = |objective| Trainer { model: &model, plan: &plan, objective, computation };
    for epoch in [0, 1, 99] {
        let step = |objective| {
            let trainer = trainer(objective);
            trainer.step(&trainer.phase(epoch), &batch, StepOptions::new(0, epoch)).unwrap().unwrap()
        };
        let (without, with) = (step(&without), step(&with));
        // The mean over the classes of λ |w - t|², where each of the differences is 1.
        let penalty = 4.0 * directions.dim(1).unwrap() as f64;
        assert!((with.loss - without.loss - penalty).abs() < 1e-3 * penalty, "epoch {epoch}: {}", with.loss);
        let gradient = |step: &Step| step.gradients.get("head.weight").unwrap();
        let difference = (gradient(&with) - gradient(&without)).unwrap();
        assert!(largest(&(difference + 8.0 / 3.0).unwrap()) < 1e-3, "epoch {epoch}");
    }
    trainer(&with).constrain().unwrap();
    let scale = model.params.tensor("head.logit_scale").unwrap().to_vec1::<f32>().unwrap();
    assert!((scale[0] - 100f32.ln()).abs() < 1e-6, "{scale:?}");
}

fn values(model: &Model) -> Vec<(String, Vec<f32>)> {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    model.params.iter().map(|(name, param)| (name.to_owned(), flat(param.tensor()))).collect()
}

fn frozen(model: &Model, plan: &Plan) -> Vec<(String, Vec<f32>)> {
    let frozen = model.params.iter().filter(|(name, _)| plan.get(name).is_none());
    frozen.map(|(name, param)| (name.to_owned(), param.tensor().flatten_all().unwrap().to_vec1().unwrap())).collect()
}

#[test]
fn a_frozen_vit_large_with_five_classes_learns_5125_parameters() {
    let width = 1024;
    let shapes = [("norm.weight", vec![width]), ("head.weight", vec![5, width]), ("head.bias", vec![5])];
    let named = shapes.iter().map(|(name, shape)| (name.parse().unwrap(), shape.clone())).collect();
    let plan = Plan::new(&StrategySettings::Frozen, 1.0, 24, &named).unwrap();
    let count: usize =
        shapes.iter().filter(|(name, _)| plan.get(name).is_some()).map(|(_, s)| s.iter().product::<usize>()).sum();
    assert_eq!(count, 5125);
}
