use super::*;
use std::fs;

fn epochs(n: usize) -> Vec<EpochRecord> {
    let record = |epoch: usize| {
        let x = epoch as f64;
        EpochRecord {
            epoch,
            train_loss: 1.1 * (-0.35 * x).exp() + 0.03,
            train_accuracy: 1.0 - 0.6 * (-0.4 * x).exp(),
            val_loss: Some(0.9 * (-0.3 * x).exp() + 0.12 + 0.012 * x),
            val_accuracy: Some(0.93 - 0.5 * (-0.45 * x).exp()),
            ..EpochRecord::default()
        }
    };
    (1..=n).map(record).collect()
}

fn matrix(k: usize, diagonal: u64) -> Vec<Vec<u64>> {
    let count = |t: usize, p: usize| if t == p { diagonal - (t as u64 % 7) } else { (t * 7 + p * 3) as u64 % 11 / 9 };
    (0..k).map(|t| (0..k).map(|p| count(t, p)).collect()).collect()
}

fn names(k: usize) -> Vec<String> {
    (0..k).map(|c| format!("class {c}")).collect()
}

/// Saves into a fresh folder, or into the one named by `VITADAPT_PLOTS` to look at, and returns the SVG.
fn saved(name: &str, save: impl FnOnce(&Path) -> Result<()>) -> String {
    let fresh = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("VITADAPT_PLOTS").map_or(fresh.path().to_path_buf(), Into::into);
    save(&folder.join(name)).unwrap();
    let png = image::open(folder.join(format!("{name}.png"))).unwrap().into_rgb8();
    assert!(png.pixels().any(|pixel| pixel.0 != [255; 3]), "an empty picture");
    let border =
        png.enumerate_pixels().filter(|(x, y, _)| *x < 8 || *y < 8 || x + 8 >= png.width() || y + 8 >= png.height());
    assert!(border.map(|(_, _, pixel)| pixel.0).all(|pixel| pixel == [255; 3]), "{name} is clipped");
    fs::read_to_string(folder.join(format!("{name}.svg"))).unwrap()
}

#[test]
fn curves_of_any_length() {
    for n in [1, 2, 5, 10, 100] {
        let svg =
            saved(&format!("curves-{n}"), |stem| save_curves(stem, "bearing-partial", &epochs(n), Some(n.div_ceil(2))));
        assert!(svg.contains("DejaVu Sans, sans-serif") && svg.trim_end().ends_with("</svg>"));
        for word in ["epoch", "loss", "accuracy, %", "training", "validation", "bearing-partial"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}

#[test]
fn gaps_and_missing_validation() {
    let mut gappy = epochs(9);
    gappy[3].train_loss = f64::NAN;
    gappy[5].val_loss = Some(f64::INFINITY);
    gappy[7].val_loss = None;
    saved("curves-gaps", |stem| save_curves(stem, "gaps", &gappy, None));
    let blind: Vec<_> = epochs(6).iter().map(|e| EpochRecord { val_loss: None, val_accuracy: None, ..*e }).collect();
    let svg = saved("curves-blind", |stem| save_curves(stem, "no validation", &blind, None));
    assert!(!svg.contains("validation</text>") && !svg.contains("best epoch"));
    let nothing: Vec<_> =
        blind.iter().map(|e| EpochRecord { train_loss: f64::NAN, train_accuracy: f64::NAN, ..*e }).collect();
    saved("curves-nan", |stem| save_curves(stem, "all NaN", &nothing, Some(1)));
}

#[test]
fn nothing_to_draw_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stem = folder.path().join("x");
    assert!(matches!(save_curves(&stem, "", &[], None), Err(Error::Plot { .. })));
    assert!(matches!(save_confusion(&stem, "", &[], &[]), Err(Error::Plot { .. })));
    assert!(matches!(save_confusion(&stem, "", &names(2), &matrix(3, 9)), Err(Error::Plot { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fs::write(&stem, "in the way").unwrap();
    assert!(matches!(save_curves(&stem.join("curves"), "", &epochs(1), None), Err(Error::Io { .. })));
}

#[test]
fn matrices_of_any_size() {
    for k in [1, 3, 10, 50, 120] {
        saved(&format!("confusion-{k}"), |stem| save_confusion(stem, "test, 90 images", &names(k), &matrix(k, 30)));
    }
}

#[test]
fn names_and_counts_of_any_length() {
    let classes =
        ["Ölfleck & <Kratzer> \"groß\"", "a very long class name that nobody can read at this size", "日本", "ok\n"];
    let classes = classes.map(str::to_owned);
    let mut counts = matrix(4, 30);
    counts[1] = vec![0; 4];
    counts[2][2] = 123_456_789;
    let title = "a long title: validation split of the run bearing-partial-3-blocks, 123456789 images";
    let svg = saved("confusion-names", |stem| save_confusion(stem, title, &classes, &counts));
    assert!(svg.contains("&amp; &lt;Kratzer&gt;") && svg.contains('…') && svg.contains("ok\\n"));
}

#[test]
fn a_dot_in_the_name_is_kept() {
    saved("run-0.5", |stem| save_curves(stem, "run-0.5", &epochs(3), None));
}
