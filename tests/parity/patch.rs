//! Patch embedding kernels resampled to another size, as timm resamples them.

use super::common::{Expected, assert_close, fixture};
use vitadapt::backbone::{Backbone, Sizes, Vit};
use vitadapt::nn::{Criterion, Linear, Mode, Targets};
use vitadapt::train::accumulator::gradients_of;

const BOUND: f64 = 1e-4;

#[test]
fn patches_of_other_sizes() {
    let expected = Expected::load("patches.safetensors");
    let mut checked = 0;
    for (case, patch, image) in [("timm_flexivit", 6, 24), ("timm_flexivit", 3, 24), ("timm_vit_cls", 6, 24)] {
        let folder = fixture("backbones").join(case);
        let sizes = Sizes { image: Some(image.into()), patch: Some(patch) };
        let backbone = Backbone::load(folder.to_str().unwrap(), sizes).unwrap();
        assert_eq!(Backbone::describe(folder.to_str().unwrap(), sizes).unwrap(), backbone.spec);
        let mut params = backbone.params.clone();
        params.extend(backbone.outputs.clone());
        let params = params.train_where(|_| true).unwrap();
        let of = |name: &str| expected.get(&format!("{case}.{patch}.{name}"));
        let what = |name: &str| format!("{case} in patches of {patch}: {name}");
        assert_close(&what("kernel"), &params.tensor("patch_embed.proj.weight").unwrap(), &of("kernel"), BOUND);
        let vit = Vit::new(&backbone.spec, &params, &[]).unwrap();
        let features = vit.features(&of("pixels"), Mode::Eval).unwrap();
        assert_close(&what("features"), &features, &of("features"), BOUND);
        let head = Linear::new(params.tensor("head.weight").unwrap(), params.get("head.bias"));
        let logits = head.forward(&features).unwrap();
        assert_close(&what("logits"), &logits, &of("logits"), BOUND);
        let loss = Criterion::default().forward(&logits, &Targets::Hard(&[3, 1]), 2.0).unwrap();
        let gradients = gradients_of(&loss, &params).unwrap();
        for name in gradients.names() {
            // The positions' own gradient is that of what they were resampled to, there and here.
            assert_close(&what(name), &gradients.get(name).unwrap(), &of(&format!("grad.{name}")), BOUND);
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn only_flexivit_takes_other_patches_without_a_warning() {
    let load = |case: &str, patch| {
        let sizes = Sizes { image: Some(24.into()), patch: Some(patch) };
        Backbone::load(fixture("backbones").join(case).to_str().unwrap(), sizes).unwrap().notes
    };
    assert_eq!(load("timm_flexivit", 6), load("timm_flexivit", 4));
    let warned = load("timm_vit_cls", 6).into_iter().filter(|note| !load("timm_vit_cls", 4).contains(note));
    let warned: Vec<String> = warned.collect();
    assert!(warned.len() == 1 && warned[0].contains("it loses accuracy"), "{warned:?}");
}

#[test]
fn a_size_of_patches_that_does_not_fit_is_blamed_itself() {
    let folder = fixture("backbones").join("timm_vit_cls");
    for (image, patch, message) in [
        (None, 7, "model.patch_size = 7 does not divide the backbone's images of 16 pixels"),
        (Some(24), 7, "model.image_size = 24 is not a multiple of model.patch_size = 7"),
        (Some(18), 4, "model.image_size = 18 is not a multiple of model.patch_size = 4"),
    ] {
        let sizes = Sizes { image: image.map(usize::into), patch: Some(patch) };
        let loaded = Backbone::load(folder.to_str().unwrap(), sizes).unwrap_err();
        let described = Backbone::describe(folder.to_str().unwrap(), sizes).unwrap_err();
        assert_eq!((loaded.to_string(), described.to_string()), (message.to_owned(), message.to_owned()));
    }
}
