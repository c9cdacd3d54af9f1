//! Losses, mixed batches and steps of training against PyTorch and timm, as written by
//! `fixtures/make_training_fixtures.py`.

use crate::common::{Expected, assert_close};
use candle_core::{DType, Device, Tensor, Var};
use vitadapt::backbone::Params;
use vitadapt::config::StrategySettings;
use vitadapt::data::class_weights::logit_offsets;
use vitadapt::data::loader::Batch;
use vitadapt::nn::workers::Workers;
use vitadapt::nn::{Criterion, Linear, Targets};
use vitadapt::strategy::Plan;
use vitadapt::train::accumulator::gradients_of;
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::ema::Average;
use vitadapt::train::mix::Mixture;
use vitadapt::train::sam::uphill;

/// In f32 by the fused kernels, in f64 by the composition that also serves the GPU.
const PATHS: [(DType, f64); 2] = [(DType::F32, 1e-5), (DType::F64, 1e-6)];

fn expected() -> Expected {
    Expected::load("training.safetensors")
}

#[test]
fn focal_loss_and_logit_adjustment() {
    let expected = expected();
    let floats = |name: &str| expected.get(name).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (labels, soft) = (expected.labels("loss.labels"), floats("loss.soft"));
    // Its row 2 counts nothing.
    let sharp: Vec<f32> = soft.iter().enumerate().map(|(i, &p)| if i / 5 == 2 { 0.0 } else { p }).collect();
    let (hard, soft, sharp) = (Targets::Hard(&labels), Targets::Soft(&soft), Targets::Soft(&sharp));
    let class_weights = floats("loss.class_weights");
    let label_smoothing = expected.scalar("loss.smoothing") as f32;
    let focal = Criterion { focal_gamma: expected.scalar("loss.gamma"), ..Criterion::default() };
    let logit_offsets = logit_offsets(expected.scalar("loss.tau"), &expected.labels("loss.counts"));
    let adjusted = Criterion { logit_offsets, ..Criterion::default() };
    let cases = [
        ("focal", &hard, focal.clone()),
        ("focal_weighted", &hard, Criterion { class_weights: class_weights.clone(), ..focal.clone() }),
        ("focal_soft", &soft, Criterion { label_smoothing, ..focal }),
        ("focal_sharp", &sharp, Criterion { focal_gamma: 0.5, ..Criterion::default() }),
        ("adjusted", &hard, adjusted.clone()),
        ("adjusted_smooth", &hard, Criterion { class_weights, label_smoothing, ..adjusted.clone() }),
        ("adjusted_soft", &soft, adjusted),
    ];
    for (variant, targets, criterion) in cases {
        for (dtype, bound) in PATHS {
            let read = |role: &str| expected.get(&format!("loss.{role}")).to_dtype(dtype).unwrap();
            let logits = Var::from_tensor(&read("logits")).unwrap();
            let loss = criterion.forward(&logits, targets, criterion.normalizer(targets, 5)).unwrap();
            assert_close(variant, &loss, &read(&format!("{variant}.loss")), bound);
            let gradients = loss.backward().unwrap();
            assert_close(variant, gradients.get(&logits).unwrap(), &read(&format!("{variant}.grad")), bound);
        }
    }
}

#[test]
fn batches_are_mixed_as_timm_mixes() {
    let expected = expected();
    let images = expected.get("mix.images").flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let labels = expected.labels("mix.labels");
    let smoothing = expected.scalar("mix.smoothing") as f32;
    for variant in ["mixup", "cutmix_0", "cutmix_1", "cutmix_2"] {
        let share = expected.scalar(&format!("mix.{variant}.share"));
        let mixture = match variant {
            "mixup" => Mixture::Blend { share },
            _ => match expected.labels(&format!("mix.{variant}.centre"))[..] {
                [row, column] => Mixture::paste(share, [row, column], 12.into()),
                _ => panic!("a centre has two coordinates"),
            },
        };
        let mut batch =
            Batch { inputs: images.clone(), labels: labels.clone(), indices: (0..5).collect(), ..Batch::default() };
        mixture.apply(&mut batch, 4, 12.into());
        let tensor = |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let mixed = tensor(batch.inputs, &[5, 3, 12, 12]);
        assert_close(variant, &mixed, &expected.get(&format!("mix.{variant}.images")), 1e-6);
        // The criterion smooths what the mixer leaves sharp.
        let smoothed = batch.soft_labels.iter().map(|p| (1.0 - smoothing) * p + smoothing / 4.0).collect();
        assert_close(variant, &tensor(smoothed, &[5, 4]), &expected.get(&format!("mix.{variant}.targets")), 1e-6);
    }
}

#[test]
fn averages_are_timms() {
    let expected = expected();
    let workers = Workers::new(2, &Device::Cpu).unwrap();
    for (dtype, bound) in [(DType::F32, 1e-6), (DType::F64, 1e-6)] {
        let read = |role: &str| expected.get(&format!("ema.{role}")).to_dtype(dtype).unwrap();
        let params = Params::from_iter([("head.weight", read("start"))]).train_where(|_| true).unwrap();
        let decay = expected.scalar("ema.decay");
        let mut average = Average::new(decay, &params).unwrap();
        for update in 1..=20 {
            let value = read(&format!("value.{update}"));
            params.trained().for_each(|(_, var)| var.set(&value).unwrap());
            // Going through saved state in the middle must change nothing.
            if update == 10 {
                let saved = average.tensors().collect();
                average = Average::new(decay, &params).unwrap();
                average.restore(&saved).unwrap();
            }
            average.update(&params, update, &workers).unwrap();
            let used = average.instead_of(&params, || Ok(params.tensor("head.weight")?.copy()?)).unwrap();
            assert_close("average", &used, &read(&format!("average.{update}")), bound);
            assert_close("value", &params.tensor("head.weight").unwrap(), &value, 0.0);
        }
    }
}

#[test]
fn sharpness_aware_steps_are_those_of_the_paper() {
    let expected = expected();
    let workers = Workers::new(1, &Device::Cpu).unwrap();
    let read = |role: &str| expected.get(&format!("sam.{role}"));
    let (input, labels) = (read("input"), expected.labels("sam.labels"));
    let params = [("head.weight", read("weight.0")), ("head.bias", read("bias.0"))];
    let params = Params::from_iter(params).train_where(|_| true).unwrap();
    let shapes = [("head.weight".parse().unwrap(), vec![4, 6]), ("head.bias".parse().unwrap(), vec![4])].into();
    let mut optimizer = AdamW::new(Plan::new(&StrategySettings::Frozen, 1.0, 0, &shapes).unwrap(), &params).unwrap();
    let (lr, weight_decay) = (expected.scalar("sam.lr"), expected.scalar("sam.weight_decay"));
    let gradients = || {
        let head = Linear::new(params.tensor("head.weight")?, params.get("head.bias"));
        let loss = Criterion::default().forward(&head.forward(&input)?, &Targets::Hard(&labels), 8.0)?;
        Ok(gradients_of(&loss, &params)?)
    };
    for step in 1..=3 {
        let here = gradients().unwrap();
        let norm = here.norm(&workers).unwrap();
        let sharp = uphill(&params, &here, norm, expected.scalar("sam.rho"), gradients).unwrap();
        optimizer.step(&params, &sharp, Rates { lr, head_lr: lr, weight_decay }, &workers).unwrap();
        for name in ["weight", "bias"] {
            let ours = params.tensor(format!("head.{name}")).unwrap();
            assert_close(&format!("{name} after step {step}"), &ours, &read(&format!("{name}.{step}")), 2e-5);
        }
    }
}
