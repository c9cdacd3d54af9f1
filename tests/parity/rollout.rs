//! Attention roll-out against what PyTorch computes from the attention weights of timm and transformers, on numbers
//! written by `fixtures/make_rollout_fixtures.py`.

use crate::common::{Expected, assert_close, fixture};
use candle_core::{DType, Device, Tensor};
use vitadapt::backbone::{Activations, Backbone, Params, Readout, Rollout, Vit};
use vitadapt::config::FeatureChoice;
use vitadapt::nn::Mode;

const BOUND: f64 = 1e-4;

fn load(case: &str) -> Backbone {
    Backbone::load(fixture("backbones").join(case).to_str().unwrap(), None).unwrap()
}

fn in_type(params: &Params, dtype: DType) -> Params {
    params.iter().map(|(name, param)| (name, param.tensor().to_dtype(dtype).unwrap())).collect()
}

/// Of the model `case` with more parameters than its own.
fn rollout(case: &str, extra: Vec<(String, Tensor)>, readout: Readout, dtype: DType) -> Tensor {
    let backbone = load(case);
    let mut params = in_type(&backbone.params, dtype);
    for (name, tensor) in extra {
        params.insert(name, tensor.to_dtype(dtype).unwrap());
    }
    let pixels = Expected::load(&format!("backbones/{case}/expected.safetensors")).get("pixels.native");
    let vit = Vit::new(&backbone.spec, &params, &[]).unwrap();
    let pixels = pixels.to_dtype(dtype).unwrap();
    let Rollout { shares, features } = vit.rollout(readout, &pixels).unwrap();
    // The features are those of a forward pass by itself.
    let read = vit.extract(Activations::Features(readout), &pixels, Mode::Eval).unwrap();
    assert_close(&format!("features of {case}"), &features, &read, 1e-5);
    shares
}

/// The learnt prompts of a form, by block.
fn prompts(case: &str, form: &str) -> Vec<(String, Tensor)> {
    let all = Expected::load("prompts.safetensors").get(&format!("visual.{case}.{form}.prompts"));
    (0..all.dims()[0]).map(|block| (format!("blocks.{block}.prompt"), all.get(block).unwrap())).collect()
}

#[test]
fn equals_the_libraries() {
    let expected = Expected::load("rollout.safetensors");
    let names = expected.names();
    assert_eq!(names.len(), 24);
    for name in names {
        for dtype in [DType::F32, DType::F64] {
            let (extra, readout, case) = match name.split('.').collect::<Vec<_>>()[..] {
                [case, form] => (prompts(case, form), Readout::POOL, case),
                [case, features, blocks] => {
                    let features = match features {
                        "pool" => FeatureChoice::Pool,
                        "cls" => FeatureChoice::Cls,
                        "avg" => FeatureChoice::Avg,
                        _ => FeatureChoice::Both,
                    };
                    (Vec::new(), Readout { features, blocks: blocks.parse().unwrap() }, case)
                }
                _ => panic!("{name}"),
            };
            let shares = rollout(case, extra, readout, dtype);
            assert_close(&format!("{name} {dtype:?}"), &shares, &expected.get(name), BOUND);
        }
    }
}

#[test]
fn shares_sum_to_one_where_there_are_patches_only() {
    // timm's SigLIP without its attention pooling: no class token, no register.
    let shares = rollout("timm_siglip_gap", Vec::new(), Readout::POOL, DType::F32);
    let sums = shares.sum(1).unwrap().to_vec1::<f32>().unwrap();
    assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "{sums:?}");
    assert!(shares.min_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
}

#[test]
fn every_family_has_one() {
    for entry in std::fs::read_dir(fixture("backbones")).unwrap() {
        let case = entry.unwrap().file_name().into_string().unwrap();
        let backbone = load(&case);
        let vit = Vit::new(&backbone.spec, &backbone.params, &[]).unwrap();
        let pixels = [&[1][..], &backbone.spec.image_size.shape()].concat();
        let pixels = Tensor::randn(0f32, 1.0, pixels, &Device::Cpu).unwrap();
        let shares = vit.rollout(Readout::POOL, &pixels).unwrap().shares;
        let shares = shares.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(shares.len(), backbone.spec.grid().area(), "{case}");
        assert!(shares.iter().sum::<f32>() <= 1.0 + 1e-5 && shares.iter().all(|share| *share >= 0.0), "{case}");
    }
}
