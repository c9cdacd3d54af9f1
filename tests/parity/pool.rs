//! Poolings of patch tokens against PyTorch, as written by `fixtures/make_pool_fixtures.py`.

use crate::common::{Expected, assert_close, fixture};
use candle_core::{Device, Tensor, Var};
use vitadapt::backbone::{Activations, Backbone, Readout};
use vitadapt::config::{FeatureChoice, PoolChoice};
use vitadapt::features::Extractor;
use vitadapt::nn::Linear;
use vitadapt::nn::pool::{GatedPool, Gem, LogSumExp, Mahalanobis, Max, Stats, TokenPool, Top};
use vitadapt::nn::workers::Workers;

const BOUND: f64 = 1e-5;

fn check(name: &str, pool: &dyn TokenPool, learnt: &[(&str, &Var)]) {
    let expected = Expected::load("pools.safetensors");
    let read = |part: &str| expected.get(&format!("{name}.{part}"));
    let tokens = Var::from_tensor(&expected.get("tokens")).unwrap();
    let features = pool.forward(tokens.as_tensor()).unwrap();
    assert_close(name, &features, &read("out"), BOUND);
    assert_eq!(features.dims()[1], pool.features(6), "{name}");
    let given = pool.contributions(tokens.as_tensor()).unwrap();
    assert_eq!(given.dims(), [2, 70, pool.features(6)], "{name}");
    assert_close(&format!("{name}: the tokens' parts"), &given.sum(1).unwrap(), &read("out"), BOUND);
    let gradients = (features * read("upstream")).unwrap().sum_all().unwrap().backward().unwrap();
    assert_close(&format!("{name} backward"), gradients.get(&tokens).unwrap(), &read("grad"), BOUND);
    for (parameter, var) in learnt {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{parameter} received no gradient"));
        assert_close(parameter, gradient, &read(&format!("grad.{parameter}")), BOUND);
    }
}

#[test]
fn poolings_are_those_of_pytorch_and_sums_over_tokens() {
    check("max", &Max, &[]);
    check("lse", &LogSumExp, &[]);
    check("topk", &Top, &[]);
    check("gem", &Gem, &[]);
    check("stats", &Stats, &[]);
}

#[test]
fn gated_attention_is_that_of_pytorch() {
    let expected = Expected::load("pools.safetensors");
    let names = ["v.weight", "v.bias", "u.weight", "u.bias", "w.weight"];
    let vars = names.map(|name| Var::from_tensor(&expected.get(&format!("gated.{name}"))).unwrap());
    let [v, v_bias, u, u_bias, w] = [0, 1, 2, 3, 4].map(|i: usize| vars[i].as_tensor().clone());
    let pool = GatedPool { v: Linear::new(v, Some(v_bias)), u: Linear::new(u, Some(u_bias)), w: Linear::new(w, None) };
    check("gated", &pool, &names.into_iter().zip(&vars).collect::<Vec<_>>());
}

#[test]
fn mahalanobis_distances_are_those_of_the_textbook() {
    let expected = Expected::load("pools.safetensors");
    let whitening = Linear::new(expected.get("mahalanobis.weight"), Some(expected.get("mahalanobis.bias")));
    check("mahalanobis", &Mahalanobis { whitening }, &[]);
}

/// Summed over the patches, the evidence for a class is its logit over the mean of all, but for the bias.
#[test]
fn evidence_sums_up_to_the_logit_where_there_is_any() {
    use PoolChoice::{Attention, Avg, Backbone as Own, Cls, Gem, Lse, Mahalanobis, Max, Stats, Topk};
    let device = Device::Cpu;
    let workers = Workers::new(2, &device).unwrap();
    for case in ["timm_vit_cls", "timm_vit_reg4_gap"] {
        for pool in [Avg, Max, Lse, Topk, Gem, Stats, Attention, Mahalanobis, Own, Cls] {
            let load = Backbone::load(fixture(&format!("backbones/{case}")).to_str().unwrap(), None).unwrap();
            let Ok(backbone) = load.with_pool(pool, None, 0) else { continue };
            let pixels = [&[3][..], &backbone.spec.image_size.shape()].concat();
            let pixels = Tensor::randn(0f32, 1.0, pixels, &device).unwrap();
            let values: Vec<f32> = pixels.flatten_all().unwrap().to_vec1().unwrap();
            let readouts = [Readout::POOL, Readout { features: FeatureChoice::Avg, blocks: 2 }];
            for readout in readouts {
                let activations = Activations::Features(readout);
                let extractor =
                    Extractor::new(&backbone.spec, &backbone.params, activations, workers.clone(), &device).unwrap();
                let head = Tensor::randn(0f32, 1.0, (4, extractor.width()), &device).unwrap();
                let classes = [2, 0, 3];
                let Some(looked) = extractor.look(readout, &values).unwrap() else {
                    let sums = readout.features == FeatureChoice::Avg || !matches!(pool, Own | Cls | Avg);
                    assert!(!sums, "{case} {pool:?} {readout:?} has no evidence");
                    continue;
                };
                let evidence = extractor.evidence(readout, &head, &looked, &classes).unwrap();
                assert!(pool != Cls || readout.features == FeatureChoice::Avg, "a class token is no sum over patches");
                let batch =
                    vitadapt::data::loader::Batch { inputs: values.clone(), labels: vec![0; 3], ..Default::default() };
                let rows = extractor.rows(&batch.into()).unwrap();
                assert_eq!(looked.features, rows, "{case} {pool:?}: the same pass");
                let features = Tensor::from_vec(rows, (3, extractor.width()), &device).unwrap();
                let logits = features.matmul(&head.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
                for ((places, &class), logits) in evidence.iter().zip(&classes).zip(&logits) {
                    let wanted = logits[class] - logits.iter().sum::<f32>() / 4.0;
                    let found: f32 = places.iter().sum();
                    assert_eq!(places.len(), backbone.spec.grid().area());
                    assert!(
                        (found - wanted).abs() < 1e-3 * wanted.abs().max(1.0),
                        "{case} {pool:?}: {found} for {wanted}"
                    );
                }
            }
        }
    }
}
