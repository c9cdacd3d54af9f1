//! A head that starts from texts, its pull back to them, and Tip-Adapter against PyTorch, as written by
//! `fixtures/make_head_fixtures.py`.

use crate::common::{Expected, assert_close};
use candle_core::{Device, Tensor};
use vitadapt::backbone::Params;
use vitadapt::linalg::Matrix;
use vitadapt::model::CosineHead;
use vitadapt::nn::{Criterion, Targets};
use vitadapt::probe::{LinearHead, Samples, Tip, TipGrid, ValidationSamples};
use vitadapt::train::accumulator::gradients_of;
use vitadapt::train::regulariser::{Regulariser, multipliers};

const BOUND: f64 = 1e-5;

fn expected() -> Expected {
    Expected::load("heads.safetensors")
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

/// The parameters of the cosine head of a part, with some of its directions.
fn head(expected: &Expected, directions: &str) -> Params {
    Params::from_iter([
        ("projection.weight", expected.get("pull.projection")),
        ("head.weight", expected.get(directions)),
        ("head.logit_scale", expected.get("pull.scale")),
        ("head.bias", expected.get("pull.bias")),
    ])
}

#[test]
fn multipliers_are_those_of_the_texts() {
    let expected = expected();
    let mut texts = head(&expected, "pull.texts");
    texts.insert("head.bias", expected.get("pull.bias").zeros_like().unwrap());
    let logits = CosineHead::new(&texts).unwrap().forward(&expected.get("pull.features")).unwrap();
    let found = multipliers(&floats(&logits), &expected.labels("pull.labels"), 3);
    assert_close("multipliers", &tensor(&found), &expected.get("pull.multipliers"), BOUND);
}

#[test]
fn the_gradient_of_a_pulled_head() {
    let expected = expected();
    let labels = expected.labels("pull.labels");
    let adaptive = floats(&expected.get("pull.multipliers"));
    for (variant, strengths) in [("constant", vec![0.7; 3]), ("adaptive", adaptive)] {
        let params = head(&expected, "pull.directions").train_where(|_| true).unwrap();
        let logits = CosineHead::new(&params).unwrap().forward(&expected.get("pull.features")).unwrap();
        let loss = Criterion::default().forward(&logits, &Targets::Hard(&labels), 9.0).unwrap();
        let mut gradients = gradients_of(&loss, &params).unwrap();
        let regulariser = Regulariser::new(expected.get("pull.texts"), 1.2, &strengths).unwrap();
        let penalty = regulariser.add_penalty(&params, &mut gradients).unwrap().unwrap();
        let total = f64::from((loss + penalty).unwrap().to_scalar::<f32>().unwrap());
        let theirs = expected.scalar(&format!("pull.{variant}.loss"));
        assert!((total - theirs).abs() < 1e-5 * theirs, "{variant}: {total} and {theirs}");
        let roles = [
            ("projection.weight", "projection"),
            ("head.weight", "directions"),
            ("head.logit_scale", "scale"),
            ("head.bias", "bias"),
        ];
        for (name, role) in roles {
            let theirs = expected.get(&format!("pull.{variant}.grad.{role}"));
            assert_close(&format!("{variant} {role}"), &gradients.get(name).unwrap(), &theirs, BOUND);
        }
    }
}

#[test]
fn tip_adapter() {
    let expected = expected();
    let names = ["a", "b", "c"].map(str::to_owned);
    let read = |role: &str| floats(&expected.get(&format!("tip.{role}")));
    let scale = read("scale")[0];
    let texts = LinearHead { weight: read("texts").iter().map(|x| x * scale.exp()).collect(), bias: vec![0.0; 3] };
    let doubles = |role: &str| read(role).into_iter().map(f64::from).collect::<Vec<_>>();
    let grid = TipGrid { alphas: doubles("alphas"), betas: doubles("betas") };
    let (cache, queries) = (read("cache"), read("queries"));
    let (cache_labels, query_labels) = (expected.labels("tip.cache_labels"), expected.labels("tip.query_labels"));
    let cache = Samples::new(Matrix::new(&cache, 5), &cache_labels, &names).unwrap();
    let held_out = Samples::new(Matrix::new(&queries, 5), &query_labels, &names).unwrap();

    let tip = Tip { texts: texts.clone(), alpha: grid.alphas[1], beta: grid.betas[2] };
    let logits = tensor(&tip.logits(&cache, held_out.features()).unwrap()).reshape((20, 3)).unwrap();
    assert_close("logits", &logits, &expected.get("tip.logits"), BOUND);

    // The head that `eval` and `predict` run is the same function.
    let mut params = CosineHead::params(&expected.get("tip.texts"), scale, 0.0).unwrap();
    let keys = expected.get("tip.cache");
    params.extend(CosineHead::cache(keys, &cache_labels, 3, [tip.alpha, tip.beta]).unwrap());
    let logits = CosineHead::new(&params).unwrap().forward(&expected.get("tip.queries")).unwrap();
    assert_close("head", &logits, &expected.get("tip.logits"), BOUND);

    // The choice: the most accurate, among equals the least loss.
    let (accuracy, loss) = (doubles("accuracy"), doubles("loss"));
    let rank = |i: usize| (accuracy[i], -loss[i]);
    let best = (1..accuracy.len()).fold(0, |best, i| if rank(i) > rank(best) { i } else { best });
    let (selection, tip) =
        Tip::select(&texts, &cache, &ValidationSamples::HeldOut(&held_out), &grid, &mut |_, _| ()).unwrap();
    assert_eq!((tip.beta, tip.alpha), (grid.betas[best / 4], grid.alphas[best % 4]));
    for (point, row) in selection.path.iter().zip(accuracy.chunks(4)) {
        let best = row.iter().copied().fold(0.0, f64::max);
        assert!((point.validation_accuracy - best).abs() < 1e-6, "{point:?}");
    }
}
