//! The trainer on the real backbone and images, without the command line.

use crate::common::relative_error;
use candle_core::{Device, Tensor};
use std::path::PathBuf;
use vitadapt::backbone::Backbone;
use vitadapt::config::{BlockChoice, LoraSettings, LoraTarget, Precision, StrategySettings};
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::loader::Batch;
use vitadapt::data::transform::{Geometry, Normalization, Pipeline, Preprocess, View};
use vitadapt::nn::Criterion;
use vitadapt::strategy::Plan;
use vitadapt::system::workers::Workers;
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::classifier::{Regularisation, all_shapes, assemble};
use vitadapt::train::trainer::{Computation, Step, StepOptions, Trainer};

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
    let mut params = assemble(backbone.params, backbone.spec.width, 3, 1, &Device::Cpu).unwrap();
    if let Some(lora) = &plan.lora {
        lora.insert(&mut params, 1).unwrap();
    }
    let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
    let workers = Workers::new(threads, &Device::Cpu).unwrap();
    (Trainer::new(&backbone.spec, params, &plan, rates.into(), workers, Device::Cpu).unwrap(), plan)
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

fn plain() -> Criterion {
    Criterion::default()
}

/// One step that nothing stops.
fn step(trainer: &Trainer, batch: &Batch, criterion: &Criterion, options: StepOptions<'_>) -> Step {
    trainer.step(batch, criterion, options).unwrap().unwrap()
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
        let (trainer, plan) = trainer(&strategy, 2, Regularisation::default());
        // B starts from zero, where A has no gradient.
        for (_, var) in trainer.params.trained().filter(|(name, _)| name.ends_with("lora_b")) {
            var.set(&(var.ones_like().unwrap() * 0.01).unwrap()).unwrap();
        }
        let step = step(&trainer, &batch, &plain(), StepOptions::new(0, 0));
        let names: Vec<&str> = step.gradients.names().collect();
        assert_eq!(names.len(), count, "{strategy:?}: {names:?}");
        for name in step.gradients.names() {
            assert!(plan.get(name).is_some(), "{name}");
            let largest = largest(&step.gradients.get(name).unwrap());
            assert!(largest.is_finite() && largest > 0.0, "{strategy:?}: the gradient of {name} is {largest}");
        }
    }
}

#[test]
fn micro_batches_and_workers_change_gradients_by_rounding_only() {
    let batch = batch(3);
    let rates = Regularisation { drop_path: 0.2, head_dropout: 0.3 };
    let criterion = Criterion { label_smoothing: 0.1, class_weights: vec![0.5, 1.0, 2.0], ..Criterion::default() };
    let gradients = |threads: usize, parts: usize| {
        let options = StepOptions { micro_batches: parts, ..StepOptions::new(3, 5) };
        step(&trainer(&StrategySettings::Full, threads, rates).0, &batch, &criterion, options)
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
    let rates = Regularisation { drop_path: 0.2, head_dropout: 0.3 };
    for strategy in [
        StrategySettings::Full,
        last(2),
        listed(&[1, 3]),
        lora(BlockChoice::All, &EVERY_TARGET),
        StrategySettings::Frozen,
    ] {
        let step = |checkpoint_blocks| {
            let computation = Computation { checkpoint_blocks, ..Computation::default() };
            let trainer = trainer(&strategy, 2, rates).0.computed(computation);
            step(&trainer, &batch, &plain(), StepOptions::new(3, 5))
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

/// Products of half precision keep 8 (bf16) or 11 (f16) significant bits: gradients agree to a few units of those.
#[test]
fn half_precision_follows_f32_with_gradients_in_f32() {
    let batch = batch(2);
    for strategy in [StrategySettings::Full, lora(BlockChoice::All, &EVERY_TARGET)] {
        half_precision_follows(&batch, &strategy);
    }
}

fn half_precision_follows(batch: &Batch, strategy: &StrategySettings) {
    let step = |precision, checkpoint_blocks, loss_scale| {
        let computation = Computation { precision, checkpoint_blocks };
        let trainer = trainer(strategy, 2, Regularisation::default()).0.computed(computation);
        step(&trainer, batch, &plain(), StepOptions { loss_scale, ..StepOptions::new(3, 5) })
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
        let (trainer, plan) = trainer(&strategy, 2, Regularisation::default());
        let before: Vec<(String, Vec<f32>)> = frozen(&trainer, &plan);
        let mut optimizer = AdamW::new(plan.clone(), &trainer.params).unwrap();
        let mut last = f64::INFINITY;
        for number in 0..steps {
            let result = step(&trainer, &batch, &plain(), StepOptions::new(0, number));
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

#[test]
fn what_has_not_yet_joined_gets_no_gradient_and_stays() {
    let batch = batch(2);
    let (trainer, plan) = trainer(&listed(&[1, 4]), 2, Regularisation::default());
    let plan = plan.unfreezing(1);
    let backbone = Backbone::load("builtin:vit-mini", Some(SIZE)).unwrap();
    let form = Regularisation::default().into();
    let workers = Workers::new(2, &Device::Cpu).unwrap();
    let trainer = Trainer::new(&backbone.spec, trainer.params, &plan, form, workers, Device::Cpu).unwrap();
    let mut optimizer = AdamW::new(plan, &trainer.params).unwrap();
    for (epoch, count) in [(0, 2), (1, 2 + 2 + 12), (2, 2 + 2 + 24)] {
        let phase = trainer.learning(epoch).unwrap();
        assert_eq!(phase.is_none(), epoch == 2);
        let phase = phase.as_ref().unwrap_or(&trainer);
        let before = values(&trainer);
        let step = step(phase, &batch, &plain(), StepOptions::new(0, epoch));
        assert_eq!(step.gradients.names().count(), count, "epoch {epoch}");
        let rates = Rates { lr: 1e-2, head_lr: 1e-2, weight_decay: 0.1 };
        optimizer.step(&phase.params, &step.gradients, rates, &phase.workers).unwrap();
        for ((name, before), (_, after)) in before.iter().zip(values(&trainer)) {
            assert_eq!(*before != after, step.gradients.get(name).is_ok(), "{name} in epoch {epoch}");
        }
    }
}

fn values(trainer: &Trainer) -> Vec<(String, Vec<f32>)> {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    trainer.params.iter().map(|(name, param)| (name.to_owned(), flat(param.tensor()))).collect()
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
