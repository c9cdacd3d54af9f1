//! Patches, coresets and scores against anomalib's `PatchCore`, on numbers written by
//! `fixtures/make_patchcore_fixtures.py`.

use crate::common::{Expected, assert_close, fixture};
use candle_core::{Device, Tensor};
use vitadapt::backbone::{Activations, Backbone, PatchReadout, Vit};
use vitadapt::linalg::Matrix;
use vitadapt::nn::Mode;
use vitadapt::probe::{MemoryBank, coreset};

#[test]
fn patches_are_those_of_the_library() {
    let expected = Expected::load("patchcore.safetensors");
    let names: Vec<&str> = expected.names().into_iter().filter(|name| name.starts_with("patches.")).collect();
    assert_eq!(names.len(), 4);
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let backbone = Backbone::load(fixture("backbones").join(parts[1]).to_str().unwrap(), None).unwrap();
        let pixels = Expected::load(&format!("backbones/{}/expected.safetensors", parts[1])).get("pixels.native");
        let readout = PatchReadout::new(&[1, 2], parts[2].parse().unwrap(), &backbone.spec).unwrap();
        let vit = Vit::new(&backbone.spec, &backbone.params, &[]).unwrap();
        let found = vit.extract(Activations::Patches(readout), &pixels, Mode::Eval).unwrap();
        assert_eq!(found.dims()[1..], Activations::Patches(readout).shape(&backbone.spec), "{name}");
        assert_close(name, &found, &expected.get(name), 1e-4);
    }
}

#[test]
fn the_coreset_and_the_scores_are_those_of_the_library() {
    let expected = Expected::load("patchcore.safetensors");
    let values = |name: &str| expected.get(name).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let points = values("points");
    let points = Matrix::new(&points, 12);
    let chosen = coreset(points, 40, expected.scalar("first") as usize, |_| ());
    assert_eq!(chosen, expected.labels("coreset"));

    let bank = MemoryBank::new(points.select(&chosen), 12);
    let (mut distances, mut scores) = (Vec::new(), Vec::new());
    for image in values("queries").chunks_exact(9 * 12) {
        let found = bank.compare(Matrix::new(image, 12)).unwrap();
        distances.extend(found.patches);
        scores.push(found.score);
    }
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    assert_close("distances", &tensor(&distances, &[4, 9]), &expected.get("distances"), 1e-4);
    assert_close("scores", &tensor(&scores, &[4]), &expected.get("scores"), 1e-4);
}
