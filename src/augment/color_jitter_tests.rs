use super::*;
use crate::rng::Purpose;
use proptest::prelude::*;

fn picture(name: &str) -> RgbImage {
    image::open(format!("{}/tests/fixtures/images/color/{name}.png", env!("CARGO_MANIFEST_DIR"))).unwrap().into_rgb8()
}

#[test]
fn steps_follow_torchvision() {
    let mut cases = Vec::new();
    for factor in [0.0, 0.6, 1.4] {
        cases.push((format!("brightness_{factor:?}"), Adjustment::Brightness(factor)));
        cases.push((format!("contrast_{factor:?}"), Adjustment::Contrast(factor)));
        cases.push((format!("saturation_{factor:?}"), Adjustment::Saturation(factor)));
    }
    cases.extend([-0.3, -0.1, 0.05, 0.5].map(|turn| (format!("hue_{turn:?}"), Adjustment::Hue(turn))));
    for (name, step) in cases {
        let mut ours = picture("source");
        step.apply(&mut ours);
        let theirs = picture(&name);
        let max = ours.as_raw().iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(max <= 1, "{name}: {max}");
    }
}

#[test]
fn strengths_of_zero_change_nothing() {
    let jitter = ColorJitter { p: 1.0, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
    let source = picture("source");
    assert_eq!(jitter.apply(source.clone(), &mut Stream::new(1, Purpose::Augment, &[])), source);
}

proptest! {
    #[test]
    fn a_whole_turn_of_hue_is_none(r: u8, g: u8, b: u8, turn in -0.5f32..0.5) {
        let pixel = Rgb([r, g, b]);
        prop_assert_eq!(turn_hue(pixel, 1.0), pixel);
        let turned = turn_hue(pixel, turn).0;
        prop_assert_eq!(turned.iter().max(), pixel.0.iter().max(), "the value stays");
        prop_assert_eq!(turned.iter().min(), pixel.0.iter().min(), "the chroma stays");
    }
}
