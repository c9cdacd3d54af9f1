//! Training on images that are cut into tiles: the gradients of bags that are computed a few tiles at a time are those of one
//! pass over all tiles.

use crate::common::relative_error;
use crate::common::training::{Training, shallow};
use candle_core::{DType, Device, Tensor};
use image::{Rgb, RgbImage};
use std::path::PathBuf;
use vitadapt::config::{BlockChoice, LoraSettings, LoraTarget, PoolChoice, ResizeMode, StrategySettings, TilePool};
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::loader::Batch;
use vitadapt::data::transform::{Bags, Geometry, Interpolation, Normalization, Pipeline, Preprocess, Tiles};
use vitadapt::model::{Classifier, DropRates};
use vitadapt::nn::{Mode, Targets};
use vitadapt::optim::gradients::Gradients;
use vitadapt::train::accumulator::gradients_of;
use vitadapt::train::step_options::StepOptions;

const SIDE: usize = 32;
const POOLS: [TilePool; 7] =
    [TilePool::Avg, TilePool::Max, TilePool::Attention, TilePool::Stats, TilePool::Lse, TilePool::Topk, TilePool::Gem];

/// Two pictures of 20 and 6 tiles, of the classes 0 and 2.
fn batch() -> Batch {
    let folder = tempfile::tempdir().unwrap();
    let tiles = Tiles { side: SIDE as u32, overlap: 8, staggered: false, second_look: 0 };
    let geometry = Geometry {
        image_size: SIDE.into(),
        resize: ResizeMode::Squash,
        interpolation: Interpolation::Bicubic,
        crop_pct: 1.0,
    };
    let normalization = Normalization::PerChannel { mean: [0.5; 3], std: [0.25; 3] };
    let pipeline =
        Pipeline::evaluation(Preprocess { geometry, normalization, tiles: Some(tiles) }, DecodeOptions::default());
    let files = [(120, 90), (80, 50)].map(|(width, height)| {
        let path = folder.path().join(format!("{width}.png"));
        let pixel = |x, y| Rgb([(x * 7 + y) as u8, (x ^ y) as u8, (y * 13) as u8]);
        RgbImage::from_fn(width, height, pixel).save(&path).unwrap();
        path
    });
    let bags = Bags::decode(&pipeline, &tiles, files.iter().map(PathBuf::as_path)).unwrap();
    assert_eq!((bags.tiles(0), bags.tiles(1), bags.most()), (20, 6, 20));
    Batch { labels: vec![0, 2], indices: vec![4, 1], bags: Some(bags), ..Batch::default() }
}

fn training(strategy: &StrategySettings, pool: TilePool, threads: usize) -> Training {
    pooled(PoolChoice::Max, strategy, pool, threads)
}

fn pooled(tokens: PoolChoice, strategy: &StrategySettings, pool: TilePool, threads: usize) -> Training {
    let backbone = shallow(SIDE, 3).with_pool(tokens, None, 0).unwrap();
    let backbone = backbone.with_tile_pool(pool, 0).unwrap();
    Training::new(backbone, strategy, 3, threads)
}

/// Loss and gradients by one graph over all tiles.
fn in_one_pass(training: &Training, batch: &Batch) -> (f64, Gradients) {
    let model = &training.model;
    let layers = Classifier::new(model.spec(), &model.params, DropRates::default(), 0).unwrap();
    let headless = layers.clone().without_head();
    let bags = batch.bags.as_ref().unwrap();
    let pooled: Vec<Tensor> = (0..bags.len())
        .map(|image| {
            let all: Vec<usize> = (0..bags.tiles(image)).collect();
            let pixels = bags.pixels(image, &all).unwrap();
            let pixels = Tensor::from_vec(pixels, (all.len(), 3, SIDE, SIDE), &Device::Cpu).unwrap();
            let features = headless.features(&pixels, Mode::Eval).unwrap();
            layers.of_tiles(&features.unsqueeze(0).unwrap()).unwrap()
        })
        .collect();
    let logits = layers.classify(&Tensor::cat(&pooled, 0).unwrap(), Mode::Eval).unwrap();
    let loss = training.objective.criterion.forward(&logits, &Targets::Hard(&batch.labels), 2.0).unwrap();
    let value = loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
    (value, gradients_of(&loss, &model.params).unwrap())
}

/// The largest difference between gradients, relative to the largest value of each.
fn error(a: &Gradients, b: &Gradients) -> f64 {
    assert!(a.names().eq(b.names()));
    let error = |name: &str| relative_error(&a.get(name).unwrap(), &b.get(name).unwrap());
    a.names().map(error).fold(0.0, f64::max)
}

#[test]
fn bags_in_parts_have_the_gradients_of_one_pass_over_all_tiles() {
    let lora = StrategySettings::Lora(LoraSettings {
        blocks: BlockChoice::default(),
        targets: vec![LoraTarget::Q, LoraTarget::Fc1],
        rank: 2,
        alpha: 4.0,
        dropout: 0.0,
    });
    let partial = StrategySettings::Partial { blocks: BlockChoice::Last(2) };
    for (strategy, pools) in [(StrategySettings::Full, &POOLS[..]), (partial, &POOLS[1..3]), (lora, &POOLS[..3])] {
        for &pool in pools {
            let (training, batch) = (training(&strategy, pool, 2), batch());
            let (loss, whole) = in_one_pass(&training, &batch);
            for micro_batches in [1, 7] {
                let step = training.step(&batch, StepOptions { micro_batches, ..StepOptions::new(0, 0) });
                assert!((step.loss - loss).abs() < 1e-5, "{strategy} {pool:?}: loss {} for {loss}", step.loss);
                let found = error(&step.gradients, &whole);
                assert!(found < 1e-4, "{strategy} {pool:?} in {micro_batches}: {found}");
            }
        }
    }
}

#[test]
fn attention_over_patches_learns_beside_attention_over_tiles() {
    let (training, batch) = (pooled(PoolChoice::Attention, &StrategySettings::Frozen, TilePool::Attention, 2), batch());
    let (_, whole) = in_one_pass(&training, &batch);
    let step = training.step(&batch, StepOptions::new(0, 0));
    assert!(error(&step.gradients, &whole) < 1e-4);
    let learnt: Vec<&str> = step.gradients.names().collect();
    assert!(learnt.contains(&"gated_pool.v.weight") && learnt.contains(&"tile_pool.v.weight"), "{learnt:?}");
}

#[test]
fn steps_of_bags_repeat_bit_for_bit_and_random_layers_draw_the_same_in_any_parts() {
    let strategy = StrategySettings::Full;
    let mut training = training(&strategy, TilePool::Max, 2);
    training.objective.drop = DropRates { path: 0.3, head: 0.2 };
    let batch = batch();
    let step = |micro_batches| training.step(&batch, StepOptions { micro_batches, ..StepOptions::new(5, 3) });
    let (once, again, cut) = (step(1), step(1), step(5));
    assert_eq!((once.loss, once.norm), (again.loss, again.norm));
    assert!(error(&once.gradients, &cut.gradients) < 1e-4);
    let other = training.step(&batch, StepOptions::new(5, 4));
    assert_ne!(once.loss, other.loss, "another step has other masks");
}
