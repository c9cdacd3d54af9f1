//! A block, whole optimiser steps of each strategy, and the way of an image from its file to pixels.
//!
//! `cargo bench -p benches --bench steps`: vit-mini (ViT-Ti/16 with 6 blocks) at 224 px on textile images. Blocks and images
//! in one thread, as each worker runs them; steps on two workers.
#![allow(missing_docs, clippy::unwrap_used)] // a bench stops at the first surprise

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::PathBuf;
use vitadapt::backbone::{Backbone, Readout, Segment, Vit};
use vitadapt::config::{BlockChoice, ResizeMode, StrategySettings};
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::loader::Batch;
use vitadapt::data::transform::{Geometry, Normalization, Pipeline, Preprocess, View};
use vitadapt::model::{HeadKind, Model, ModelSpec};
use vitadapt::nn::Mode;
use vitadapt::nn::workers::Workers;
use vitadapt::strategy::Plan;
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::step_options::StepOptions;
use vitadapt::train::trainer::{Computation, Objective, Trainer};

const SIDE: usize = 224;
const BATCH: usize = 8;
const SHARD: usize = 4;
const CLASSES: usize = 3;

fn backbone() -> Backbone {
    Backbone::load("builtin:vit-mini", Some(SIDE)).unwrap()
}

fn pipeline() -> Pipeline {
    let input = backbone().spec.input;
    let geometry = Geometry {
        image_size: SIDE.into(),
        resize: ResizeMode::Squash,
        interpolation: input.interpolation,
        crop_pct: 1.0,
    };
    let normalization = Normalization::PerChannel { mean: input.mean, std: input.std };
    Pipeline::evaluation(Preprocess { geometry, normalization, tiles: None }, DecodeOptions::default())
}

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/textile/train/local");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn batch() -> Batch {
    let (pipeline, files) = (pipeline(), files());
    let pixels = |file: &PathBuf| pipeline.load(file, View { epoch: 0, sample: 0 }).unwrap();
    Batch {
        inputs: files[..BATCH].iter().flat_map(pixels).collect(),
        labels: (0..BATCH).map(|image| image % CLASSES).collect(),
        indices: (0..BATCH).collect(),
        ..Batch::default()
    }
}

fn blocks(criterion: &mut Criterion) {
    vitadapt::system::threads::leave_cores_to_workers();
    let Backbone { spec, params, .. } = backbone();
    let vit = Vit::new(&spec, &params.train_where(|_| true).unwrap(), &[]).unwrap();
    let x = Tensor::randn(0f32, 0.5, (SHARD, 1 + (SIDE / 16).pow(2), spec.width), &Device::Cpu).unwrap();
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Elements(SHARD as u64)).sample_size(20);
    for (name, index) in [("whole", 0), ("of the class row", spec.depth - 1)] {
        let block = vit.plain_block(Segment::Block(index), &x).unwrap().unwrap();
        group.bench_function(format!("{name}, forward"), |b| {
            b.iter(|| black_box(block.forward(&x, Mode::Eval).unwrap()));
        });
        let dy = block.forward(&x, Mode::Eval).unwrap().0.ones_like().unwrap();
        let backward = |kept| block.backward(kept, &dy, true, &mut GradStore::default()).unwrap();
        let run = || block.forward(&x, Mode::Eval).unwrap().1;
        group.bench_function(format!("{name}, backward"), |b| b.iter_batched(run, backward, BatchSize::PerIteration));
    }
}

fn steps(criterion: &mut Criterion) {
    vitadapt::system::threads::leave_cores_to_workers();
    let batch = batch();
    let strategies = [
        ("frozen", StrategySettings::Frozen),
        ("last three blocks", StrategySettings::Partial { blocks: BlockChoice::Last(3) }),
        ("full", StrategySettings::Full),
    ];
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    for (name, strategy) in strategies {
        let Backbone { spec: vit, mut params, .. } = backbone();
        let head = HeadKind::Linear;
        let mut shapes = vit.shapes();
        shapes.extend(head.shapes(vit.width, CLASSES));
        let plan = Plan::new(&strategy, 1.0, vit.depth, &shapes).unwrap();
        params.extend(head.fresh(vit.width, CLASSES, 1, &Device::Cpu).unwrap());
        let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
        let workers = Workers::new(2, &Device::Cpu).unwrap();
        let (start, readout) = (Segment::Embed, Readout::POOL);
        let spec = ModelSpec { vit, lora: None, start, readout, head, classes: CLASSES };
        let model = Model::new(spec, params, workers, Device::Cpu).unwrap();
        let (objective, computation) = (Objective::default(), Computation::default());
        let trainer = Trainer { model: &model, plan: &plan, objective: &objective, computation };
        let phase = trainer.whole();
        let mut optimizer = AdamW::new(plan.clone(), &model.params).unwrap();
        let rates = Rates { lr: 1e-5, head_lr: 1e-5, weight_decay: 0.05 };
        let gradients = || trainer.step(&phase, &batch, StepOptions::new(0, 0)).unwrap().unwrap().gradients;
        group.bench_function(format!("{name}, gradients"), |b| b.iter(|| black_box(gradients())));
        let found = gradients();
        group.bench_function(format!("{name}, AdamW"), |b| {
            b.iter(|| optimizer.step(&model.params, &found, rates, &model.workers).unwrap());
        });
    }
}

fn images(criterion: &mut Criterion) {
    let files = files();
    let mut group = criterion.benchmark_group("image");
    group.throughput(Throughput::Elements(files.len() as u64)).sample_size(10);
    group.bench_function("decode", |b| {
        b.iter(|| {
            for file in &files {
                black_box(vitadapt::data::decode::decode_file(file, DecodeOptions::default()).unwrap());
            }
        });
    });
    // A pipeline keeps the resized images, so each turn has a new one.
    let load = |pipeline: Pipeline| {
        for file in &files {
            black_box(pipeline.load(file, View { epoch: 0, sample: 0 }).unwrap());
        }
    };
    group.bench_function("decode, resize and standardise", |b| {
        b.iter_batched(pipeline, load, BatchSize::PerIteration);
    });
}

criterion_group!(benches, blocks, steps, images);
criterion_main!(benches);
