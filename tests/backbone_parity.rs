//! Every weight format against its own library: tokens, features, logits, loss and the gradient of every parameter, at
//! the native and at another resolution, on weights written by `fixtures/make_backbone_fixtures.py`.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod common;

use candle_core::{Device, Tensor};
use common::{Expected, assert_close, fixture};
use vitadapt::backbone::{Backbone, FAMILIES, Header, Origin, Params, Vit};
use vitadapt::nn::{Criterion, Linear, Mode, Targets};
use vitadapt::train::gradients::Gradients;

const BOUND: f64 = 1e-4;

fn load(case: &str, size: Option<usize>) -> Backbone {
    Backbone::load(fixture("backbones").join(case).to_str().unwrap(), size).unwrap()
}

/// All parameters trainable, the pretrained head among them.
fn trainable(backbone: &Backbone) -> Params {
    let mut params = backbone.params.clone();
    if let Some((weight, bias)) = &backbone.head {
        params.insert("head.weight", weight.clone());
        params.insert("head.bias", bias.clone());
    }
    params.train_where(|_| true).unwrap()
}

/// The library's gradient of one of our parameters, stacked where we stack.
fn expected_gradient(case: &str, backbone: &Backbone, expected: &Expected, name: &str, at: &str) -> Tensor {
    let family = FAMILIES.iter().find(|family| family.name() == backbone.family).unwrap();
    let weights = Expected::load(&format!("backbones/{case}/model.safetensors"));
    let header: Header = weights.names().iter().map(|n| ((*n).to_owned(), weights.get(n).dims().to_vec())).collect();
    let origin: Origin = family.origin(name, &header);
    let parts: Vec<Tensor> = origin.names().iter().map(|part| expected.get(&format!("grad.{at}.{part}"))).collect();
    Tensor::cat(&parts, 0).unwrap()
}

fn check(case: &str, at: &str, size: Option<usize>) {
    let expected = Expected::load(&format!("backbones/{case}/expected.safetensors"));
    let read = |name: &str| expected.get(&format!("{name}.{at}"));
    let backbone = load(case, size);
    let params = trainable(&backbone);
    let vit = Vit::new(&backbone.spec, &params, &[]).unwrap();
    let pixels = read("pixels");
    let what = |part: &str| format!("{case} {at} {part}");
    assert_close(&what("tokens"), &vit.tokens(&pixels, Mode::Eval).unwrap(), &read("tokens"), BOUND);
    let features = vit.features(&pixels, Mode::Eval).unwrap();
    assert_close(&what("features"), &features, &read("features"), BOUND);
    let loss = if backbone.head.is_some() {
        let head = Linear::new(params.tensor("head.weight").unwrap(), params.get("head.bias"));
        let logits = head.forward(&features).unwrap();
        assert_close(&what("logits"), &logits, &read("logits"), BOUND);
        let labels = expected.labels("labels");
        let criterion = Criterion { label_smoothing: 0.0, class_weights: vec![] };
        criterion.forward(&logits, &Targets::Hard(&labels), labels.len() as f32).unwrap()
    } else {
        (&features * read("upstream")).unwrap().sum_all().unwrap()
    };
    assert_close(&what("loss"), &loss, &read("loss"), BOUND);
    let gradients = Gradients::of(&loss, &params).unwrap();
    for (name, gradient) in gradients.iter() {
        let expected = expected_gradient(case, &backbone, &expected, name, at);
        assert_close(&what(&format!("gradient of {name}")), gradient, &expected, BOUND);
        assert!(gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0, "{name} is zero");
    }
    assert_eq!(gradients.iter().count(), params.iter().count());
}

fn cases() -> Vec<String> {
    let mut cases: Vec<String> = std::fs::read_dir(fixture("backbones"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 14, "{cases:?}");
    cases
}

#[test]
fn native_resolution() {
    cases().iter().for_each(|case| check(case, "native", None));
}

#[test]
fn another_resolution() {
    for case in cases() {
        let pixels = Expected::load(&format!("backbones/{case}/expected.safetensors")).get("pixels.other");
        check(&case, "other", Some(pixels.dims()[3]));
    }
}

#[test]
fn a_batch_equals_its_images_one_by_one() {
    for case in cases() {
        let pixels = Expected::load(&format!("backbones/{case}/expected.safetensors")).get("pixels.native");
        let backbone = load(&case, None);
        let vit = Vit::new(&backbone.spec, &backbone.params, &[]).unwrap();
        let batch = vit.features(&pixels, Mode::Eval).unwrap();
        for image in 0..pixels.dims()[0] {
            let single = vit.features(&pixels.narrow(0, image, 1).unwrap(), Mode::Eval).unwrap();
            assert_close(&case, &single, &batch.narrow(0, image, 1).unwrap(), 1e-5);
        }
    }
}

#[test]
fn a_frozen_prefix_keeps_no_graph() {
    let backbone = load("timm_vit_cls", None);
    let vit = Vit::new(&backbone.spec, &backbone.params, &[]).unwrap();
    let pixels = Tensor::zeros((1, 3, 16, 16), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(!vit.features(&pixels, Mode::Eval).unwrap().track_op());
}
