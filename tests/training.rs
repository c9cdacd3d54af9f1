//! The trainer on the real backbone and images, without the command line.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod common;

use candle_core::{Device, Tensor};
use common::relative_error;
use std::path::PathBuf;
use vitadapt::backbone::Backbone;
use vitadapt::config::{Precision, StrategySettings};
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::loader::Batch;
use vitadapt::data::transform::{Geometry, Normalization, Pipeline, Preprocess, View};
use vitadapt::nn::Criterion;
use vitadapt::strategy::Plan;
use vitadapt::system::workers::Workers;
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::classifier::{Regularisation, all_shapes, assemble};
use vitadapt::train::trainer::{Computation, StepOptions, Trainer};

const SIZE: usize = 64;

/// The first images of each class of the textile set.
fn batch(per_class: usize) -> Batch {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/textile/train");
    let backbone = Backbone::load("builtin:vit-mini", Some(SIZE)).unwrap();
    let input = backbone.spec.input;
    let preprocess = Preprocess {
        geometry: Geometry {
            image_size: SIZE,
            resize: vitadapt::config::ResizeMode::Squash,
            interpolation: input.interpolation,
            crop_pct: 1.0,
        },
        normalization: Normalization::PerChannel { mean: input.mean, std: input.std },
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

fn plan(backbone: &Backbone, strategy: &StrategySettings) -> Plan {
    let shapes = all_shapes(&backbone.spec, backbone.spec.width, 3);
    Plan::new(strategy, 1.0, backbone.spec.depth, shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice()))).unwrap()
}

fn trainer(strategy: &StrategySettings, threads: usize, rates: Regularisation) -> (Trainer, Plan) {
    let backbone = Backbone::load("builtin:vit-mini", Some(SIZE)).unwrap();
    let plan = plan(&backbone, strategy);
    let params = assemble(backbone.params, backbone.spec.width, 3, 1, &Device::Cpu).unwrap();
    let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
    let workers = Workers::new(threads, &Device::Cpu).unwrap();
    (Trainer::new(&backbone.spec, params, &plan, rates.into(), workers, Device::Cpu).unwrap(), plan)
}

fn plain() -> Criterion {
    Criterion::default()
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
        (StrategySettings::Partial { blocks: 2 }, 2 * per_block + head_and_norm),
        (StrategySettings::Full, 6 * per_block + head_and_norm + 4),
    ];
    for (strategy, count) in strategies {
        let (trainer, plan) = trainer(&strategy, 2, Regularisation::default());
        let step = trainer.step(&batch, &plain(), StepOptions::new(0, 0)).unwrap();
        let names: Vec<&str> = step.gradients.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), count, "{strategy:?}: {names:?}");
        for (name, gradient) in step.gradients.iter() {
            assert!(plan.get(name).is_some(), "{name}");
            let largest = largest(gradient);
            assert!(largest.is_finite() && largest > 0.0, "{strategy:?}: the gradient of {name} is {largest}");
        }
    }
}

#[test]
fn micro_batches_and_workers_change_gradients_by_rounding_only() {
    let batch = batch(3);
    let rates = Regularisation { drop_path: 0.2, head_dropout: 0.3 };
    let criterion = Criterion { label_smoothing: 0.1, class_weights: vec![0.5, 1.0, 2.0], ..Criterion::default() };
    let step = |threads: usize, parts: usize| {
        let options = StepOptions { micro_batches: parts, ..StepOptions::new(3, 5) };
        trainer(&StrategySettings::Full, threads, rates).0.step(&batch, &criterion, options).unwrap()
    };
    let whole = step(1, 1);
    for (threads, parts) in [(1, 3), (2, 1), (3, 2), (2, 9)] {
        let cut = step(threads, parts);
        assert!((cut.loss - whole.loss).abs() < 1e-5);
        assert_eq!(cut.correct, whole.correct);
        for (name, gradient) in whole.gradients.iter() {
            let error = relative_error(cut.gradients.get(name).unwrap(), gradient);
            assert!(error < 2e-4, "{name} with {threads} threads and {parts} parts: {error:.1e}");
        }
    }
}

#[test]
fn gradient_checkpointing_changes_nothing() {
    let batch = batch(2);
    let rates = Regularisation { drop_path: 0.2, head_dropout: 0.3 };
    for strategy in [StrategySettings::Full, StrategySettings::Partial { blocks: 2 }, StrategySettings::Frozen] {
        let step = |checkpoint_blocks| {
            let computation = Computation { checkpoint_blocks, ..Computation::default() };
            let trainer = trainer(&strategy, 2, rates).0.computed(computation);
            trainer.step(&batch, &plain(), StepOptions::new(3, 5)).unwrap()
        };
        let (plain, checkpointed) = (step(false), step(true));
        assert_eq!((plain.loss, plain.correct), (checkpointed.loss, checkpointed.correct));
        assert_eq!(plain.gradients.iter().count(), checkpointed.gradients.iter().count());
        for (name, gradient) in plain.gradients.iter() {
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let other = checkpointed.gradients.get(name).unwrap();
            assert!(values(gradient) == values(other), "{strategy:?}: {name} is not the same to the bit");
        }
    }
}

/// Products of half precision keep 8 (bf16) or 11 (f16) significant bits: gradients agree to a few units of those.
#[test]
fn half_precision_follows_f32_with_gradients_in_f32() {
    let batch = batch(2);
    let step = |precision, checkpoint_blocks, loss_scale| {
        let computation = Computation { precision, checkpoint_blocks };
        let trainer = trainer(&StrategySettings::Full, 2, Regularisation::default()).0.computed(computation);
        trainer.step(&batch, &plain(), StepOptions { loss_scale, ..StepOptions::new(3, 5) }).unwrap()
    };
    let exact = step(Precision::F32, false, 1.0);
    for (precision, loss_scale, bound) in
        [(Precision::Bf16, 1.0, 0.1), (Precision::F16, 1024.0, 0.02), (Precision::F32, 4096.0, 1e-6)]
    {
        for checkpoint_blocks in [false, true] {
            let half = step(precision, checkpoint_blocks, loss_scale);
            assert!((half.loss - exact.loss).abs() < bound, "{precision:?}: loss {} for {}", half.loss, exact.loss);
            for (name, gradient) in exact.gradients.iter() {
                let other = half.gradients.get(name).unwrap();
                assert_eq!(other.dtype(), candle_core::DType::F32);
                let error = relative_error(other, gradient);
                assert!(error < bound, "{precision:?} {name}: {error:.1e}");
            }
        }
    }
}

#[test]
fn nine_images_are_learned_by_heart_and_frozen_weights_stay() {
    let batch = batch(3);
    for (strategy, lr, steps) in [
        (StrategySettings::Full, 1e-3, 25),
        (StrategySettings::Partial { blocks: 2 }, 2e-3, 40),
        (StrategySettings::Frozen, 5e-2, 120),
    ] {
        let (trainer, plan) = trainer(&strategy, 2, Regularisation::default());
        let before: Vec<(String, Vec<f32>)> = frozen(&trainer, &plan);
        let mut optimizer = AdamW::new(plan.clone(), &trainer.params).unwrap();
        let mut last = f64::INFINITY;
        for step in 0..steps {
            let result = trainer.step(&batch, &plain(), StepOptions::new(0, step)).unwrap();
            last = result.loss;
            let rates = Rates { lr, head_lr: lr, weight_decay: 0.0 };
            optimizer.step(&trainer.params, &result.gradients, rates, &trainer.workers).unwrap();
        }
        assert!(last < 0.1, "{strategy:?} ends at a loss of {last}");
        assert_eq!(before, frozen(&trainer, &plan), "{strategy:?} moved frozen weights");
        let logits = trainer.logits(&batch).unwrap();
        for (row, label) in logits.chunks(3).zip(&batch.labels) {
            assert!(row.iter().all(|x| *x <= row[*label]), "the scorer does not see what the optimiser wrote");
        }
    }
}

fn frozen(trainer: &Trainer, plan: &Plan) -> Vec<(String, Vec<f32>)> {
    let frozen = trainer.params.iter().filter(|(name, _)| plan.get(name).is_none());
    frozen.map(|(name, param)| (name.to_owned(), param.tensor().flatten_all().unwrap().to_vec1().unwrap())).collect()
}

#[test]
fn a_frozen_vit_large_with_five_classes_learns_5125_parameters() {
    let width = 1024;
    let shapes = [("norm.weight", vec![width]), ("head.weight", vec![5, width]), ("head.bias", vec![5])];
    let named = shapes.iter().map(|(name, shape)| (*name, shape.as_slice()));
    let plan = Plan::new(&StrategySettings::Frozen, 1.0, 24, named).unwrap();
    let count: usize =
        shapes.iter().filter(|(name, _)| plan.get(name).is_some()).map(|(_, s)| s.iter().product::<usize>()).sum();
    assert_eq!(count, 5125);
}
