//! Low-rank adapters against peft, as written by `fixtures/make_lora_fixtures.py`.

use crate::common::{Expected, assert_close, fixture};
use candle_core::{DType, Tensor};
use vitadapt::backbone::{Backbone, Lora, Params, Vit};
use vitadapt::config::LoraTarget::{self, Fc1, Fc2, K, O, Q, V};
use vitadapt::nn::Mode;

/// In f32 by the CPU kernels, in f64 by the composition that also serves the GPU.
const TYPES: [DType; 2] = [DType::F32, DType::F64];
const BOUND: f64 = 1e-5;

fn lora(blocks: &[usize], targets: &[LoraTarget], rank: usize, alpha: f64) -> Lora {
    Lora { blocks: blocks.to_vec(), targets: targets.to_vec(), rank, alpha, dropout: 0.0 }
}

/// The backbone of the fixture with the factors of a case, which alone learn.
fn adapted(backbone: &Backbone, lora: &Lora, case: &str, dtype: DType) -> Params {
    let expected = Expected::load("lora.safetensors");
    let converted = backbone.params.iter().map(|(name, param)| (name, param.tensor().to_dtype(dtype).unwrap()));
    let mut params: Params = converted.collect();
    lora.insert(&mut params, 0).unwrap();
    for name in lora.names() {
        let factor = expected.get(&format!("{case}.{name}")).to_dtype(dtype).unwrap();
        assert_eq!(factor.dims(), params.tensor(name).unwrap().dims(), "{name}");
        params.insert(name, factor);
    }
    params.train_where(|name| name.contains(".lora_")).unwrap()
}

fn check(case: &str, lora: &Lora, dtype: DType) {
    let expected = Expected::load("lora.safetensors");
    let read = |name: &str| expected.get(name).to_dtype(dtype).unwrap();
    let backbone = Backbone::load(fixture("backbones/hf_vit").to_str().unwrap(), None).unwrap();
    let params = adapted(&backbone, lora, case, dtype);
    let vit = Vit::new(&backbone.spec, &params, &[]).unwrap().adapted(lora, &params).unwrap();
    let features = vit.features(&read("pixels"), Mode::Eval).unwrap();
    let what = |part: &str| format!("{case} {dtype:?} {part}");
    assert_close(&what("features"), &features, &read(&format!("{case}.features")), BOUND);
    let loss = (features * read("upstream")).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    for (name, var) in params.trained() {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} received no gradient"));
        assert_close(&what(name), gradient, &read(&format!("{case}.grad.{name}")), BOUND);
    }
    let merged = lora.merged(&params).unwrap();
    assert_eq!(merged.counts(), (0, backbone.params.counts().1), "the adapters are gone");
    for (name, param) in backbone.params.iter() {
        let merged = merged.tensor(name).unwrap();
        match format!("{case}.merged.{name}") {
            changed if expected.has(&changed) => assert_close(&what(name), &merged, &read(&changed), BOUND),
            _ => assert_eq!(bits(&merged), bits(&param.tensor().to_dtype(dtype).unwrap()), "{name} is another one"),
        }
    }
    let plain = Vit::new(&backbone.spec, &merged, &[]).unwrap();
    let features = plain.features(&read("pixels"), Mode::Eval).unwrap();
    assert_close(&what("merged features"), &features, &read(&format!("{case}.features")), BOUND);
}

fn bits(tensor: &Tensor) -> Vec<u64> {
    let values = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    values.into_iter().map(f64::to_bits).collect()
}

#[test]
fn outputs_gradients_and_merged_weights_are_pefts() {
    for dtype in TYPES {
        check("every_target", &lora(&[0, 1], &[Q, K, V, O, Fc1, Fc2], 3, 5.0), dtype);
        check("one_block", &lora(&[1], &[Q, V], 2, 1.0), dtype);
        check("below_a_frozen_block", &lora(&[0], &[K, Fc2], 4, 16.0), dtype);
    }
}

#[test]
fn fresh_adapters_change_nothing() {
    let backbone = Backbone::load(fixture("backbones/hf_vit").to_str().unwrap(), None).unwrap();
    let lora = lora(&[0, 1], &[Q, K, V, O, Fc1, Fc2], 3, 5.0);
    let mut params = backbone.params.clone();
    lora.insert(&mut params, 7).unwrap();
    let pixels = Expected::load("lora.safetensors").get("pixels");
    let features = |vit: Vit| vit.features(&pixels, Mode::Eval).unwrap();
    let plain = Vit::new(&backbone.spec, &params, &[]).unwrap();
    let adapted = features(plain.clone().adapted(&lora, &params).unwrap());
    assert_close("features", &adapted, &features(plain), 1e-6); // the plain blocks run without a graph
    let a = params.tensor("blocks.1.mlp.fc2.lora_a").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let bound = 1.0 / (backbone.spec.mlp.hidden as f32).sqrt();
    assert!(a.iter().all(|value| value.abs() <= bound) && a.iter().any(|value| value.abs() > 0.9 * bound));
}
