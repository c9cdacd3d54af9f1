use super::*;
use crate::metrics::Robustness;
use crate::metrics::{FlawScores, Reliability, Scores, SelectionMetric};
use crate::train::lr_finder::Sweep;
use crate::train::progress::EpochRecord;
use crate::train::wise_ft::{MeanScore, WiseFtRecord};
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

/// A fresh folder, and it or the one named by `VITADAPT_PLOTS`.
fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let fresh = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("VITADAPT_PLOTS").map_or(fresh.path().to_path_buf(), Into::into);
    (fresh, folder)
}

/// Why a picture is not drawn.
pub(super) fn refused(picture: &impl Picture) -> String {
    let error = save(picture, Path::new("nowhere/x")).unwrap_err();
    assert!(matches!(error, Error::Plot { .. }) && !Path::new("nowhere").exists(), "{error}");
    error.to_string()
}

/// What a picture says, wherever its lines break.
pub(super) fn assert_says(svg: &str, words: &[&str]) {
    let text = svg.replace('\n', "");
    words.iter().for_each(|word| assert!(text.contains(word), "{word}"));
}

fn curves<'a>(title: &'a str, epochs: &'a [EpochRecord], best_epoch: Option<usize>) -> Curves<'a> {
    Curves { title, epochs, best_epoch }
}

fn confusion<'a>(title: &'a str, classes: &'a [String], counts: &'a [Vec<u64>]) -> ConfusionPlot<'a> {
    ConfusionPlot { title, classes, counts }
}

/// Saves into a fresh folder, or into the one named by `VITADAPT_PLOTS` to look at, and returns the SVG.
pub(super) fn saved(name: &str, picture: &impl Picture) -> String {
    let (_fresh, folder) = folder();
    save(picture, &folder.join(name)).unwrap();
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
        let svg = saved(&format!("curves-{n}"), &curves("bearing-partial", &epochs(n), Some(n.div_ceil(2))));
        assert!(svg.contains("DejaVu Sans, sans-serif") && svg.trim_end().ends_with("</svg>"));
        assert_says(&svg, &["epoch", "loss", "accuracy, %", "training", "validation", "bearing-partial"]);
    }
}

#[test]
fn losses_of_a_range_test() {
    let loss = |lr: f64| 1.1 - 0.9 / (1.0 + 2e-4 / lr) + (lr / 0.02).powi(2);
    let steps: Vec<(f64, f64, f64)> =
        (0..90).map(|i| 3e-7 * 10f64.powf(f64::from(i) / 18.0)).map(|lr| (lr, lr, loss(lr))).collect();
    let sweep = Sweep::new(&steps);
    let svg = saved("lr-finder", &Titled { title: "bearing, full", of: &sweep });
    assert!(svg.contains("learning rate") && svg.contains("suggested:") && svg.contains("smoothed loss"));
    let nothing = Sweep::new(&[]);
    assert!(refused(&Titled { title: "", of: &nothing }).contains("no step"));
}

#[test]
fn gaps_and_missing_validation() {
    let mut gappy = epochs(9);
    gappy[3].train_loss = f64::NAN;
    gappy[5].val_loss = Some(f64::INFINITY);
    gappy[7].val_loss = None;
    saved("curves-gaps", &curves("gaps", &gappy, None));
    let blind: Vec<_> = epochs(6).iter().map(|e| EpochRecord { val_loss: None, val_accuracy: None, ..*e }).collect();
    let svg = saved("curves-blind", &curves("no validation", &blind, None));
    assert!(!svg.contains("validation</text>") && !svg.contains("best epoch"));
    let nothing: Vec<_> =
        blind.iter().map(|e| EpochRecord { train_loss: f64::NAN, train_accuracy: f64::NAN, ..*e }).collect();
    saved("curves-nan", &curves("all NaN", &nothing, Some(1)));
}

#[test]
fn nothing_to_draw_is_refused() {
    assert!(refused(&curves("", &[], None)).contains("no epoch"));
    assert!(refused(&confusion("", &[], &[])).contains("does not fit 0 classes"));
    assert!(refused(&confusion("", &names(2), &matrix(3, 9))).contains("does not fit 2 classes"));
    let folder = tempfile::tempdir().unwrap();
    let stem = folder.path().join("x");
    fs::write(&stem, "in the way").unwrap();
    assert!(matches!(save(&curves("", &epochs(1), None), &stem.join("curves")), Err(Error::Io { .. })));
}

#[test]
fn matrices_of_any_size() {
    for k in [1, 3, 10, 26, 50, 120] {
        saved(&format!("confusion-{k}"), &confusion("test, 90 images", &names(k), &matrix(k, 30)));
    }
}

#[test]
fn six_hundred_classes_are_a_small_file_that_names_the_commonest_confusions() {
    let mut counts = vec![vec![0; 600]; 600];
    for (class, row) in counts.iter_mut().enumerate() {
        row[class] = 9;
        row[(class * 7 + 3) % 600] += 1 + class as u64 % 4;
    }
    counts[17][400] = 40;
    let svg = saved("confusion-600", &confusion("test, 9000 images", &names(600), &counts));
    assert!(svg.len() < 400_000, "{} bytes", svg.len());
    assert!(svg.contains("40 x  18 class 17 taken for 401 class 400"), "the commonest by name");
    assert!(svg.matches("</text>").count() > 40 && svg.contains("600</text>") || svg.contains("600\n</text>"));
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
    let svg = saved("confusion-names", &confusion(title, &classes, &counts));
    assert!(svg.contains("&amp; &lt;Kratzer&gt;") && svg.contains('…') && svg.contains("ok\\n"));
}

#[test]
fn a_dot_in_the_name_is_kept() {
    saved("run-0.5", &curves("run-0.5", &epochs(3), None));
}

/// `n` points in `k` clouds, some of them taken for the next class.
fn clouds(n: usize, k: usize) -> Scatter {
    let class_names =
        ["Ölfleck & <Kratzer>", "a very long class name that nobody can read at this size", "日本", "ok\n"];
    let point = |i: usize| {
        let (class, t) = (i * k / n, i as f64);
        // Two unrelated irrational steps fill a disc evenly.
        let (angle, spread) = (class as f64 * 2.4, (t * 0.754_877).fract() * 3.0);
        let distance = 3.2 * (class as f64).sqrt();
        ScatterPoint {
            x: distance * angle.cos() + spread * (t * 3.580_1).cos(),
            y: distance * angle.sin() + spread * (t * 3.580_1).sin(),
            class,
            split: "test".into(),
            path: format!("{class}/{i}.png").into(),
            predicted: Some(if i % 29 == 28 { (class + 1) % k } else { class }),
        }
    };
    Scatter {
        title: format!("textile: features of {n} images"),
        subtitle: "t-SNE, perplexity 30, KL 0.74".into(),
        classes: (0..k).map(|c| class_names.get(c).map_or(format!("class {c}"), |&name| name.into())).collect(),
        points: (0..n).map(point).collect(),
    }
}

#[test]
fn scatters_of_any_size() {
    for (n, k) in [(1, 1), (3, 2), (200, 2), (360, 3), (1200, 12), (4000, 50), (300, 120)] {
        let svg = saved(&format!("scatter-{n}-{k}"), &clouds(n, k));
        assert!(svg.contains(&format!("misclassified: {} of {n}", n / 29)));
        assert!(svg.contains("&amp; &lt;Kratzer&gt;") && (k < 4 || svg.contains('…') && svg.contains("ok\\n")));
        assert_eq!(svg.contains("more classes"), k == 120);
    }
}

#[test]
fn points_on_one_place_and_without_predictions() {
    let mut scatter = clouds(5, 2);
    scatter.subtitle.clear();
    scatter.points.iter_mut().for_each(|point| (point.x, point.y, point.predicted) = (4.0, 4.0, None));
    let svg = saved("scatter-equal", &scatter);
    assert!(!svg.contains("misclassified"));
    scatter.points.clear();
    assert!(refused(&scatter).contains("no points"));
}

#[test]
fn twenty_thousand_points() {
    saved("scatter-20000", &clouds(20_000, 10));
}

#[test]
fn selections() {
    let accuracy = |i: f64, n: f64| (0.55 + 0.44 * (i / n).sqrt(), 0.5 + 0.4 * (1.0 - (1.5 * i / n - 0.8).powi(2)));
    let path = |n: usize, x: &dyn Fn(f64) -> f64| {
        (0..n).map(|i| (x(i as f64), accuracy(i as f64, n as f64).0, accuracy(i as f64, n as f64).1)).collect()
    };
    let c = SelectionPlot {
        title: "textile: logistic regression".into(),
        x_label: "C".into(),
        points: path(45, &|i| 10f64.powf(-6.0 + 0.25 * i)),
        chosen: 10f64.powf(-6.0 + 0.25 * 24.0),
        metric: SelectionMetric::BalancedAccuracy,
    };
    let svg = saved("selection-c", &c);
    assert_says(
        &svg,
        &["chosen: C = 1<", "1e-6", "1e0", "accuracy, %", "C, chosen by balanced accuracy", "validation"],
    );
    let k = SelectionPlot { x_label: "k".into(), points: path(10, &|i| 2.0 * i + 1.0), chosen: 9.0, ..c };
    saved("selection-k", &k);
    let one = SelectionPlot { points: vec![(0.3, 0.9, f64::NAN)], chosen: 0.3, ..k };
    saved("selection-one", &one);
    let wrong = SelectionPlot { chosen: -1.0, ..one };
    assert!(refused(&wrong).contains("-1"));
}

#[test]
fn means_between_start_and_end() {
    let mean = |i: u32| {
        let alpha = f64::from(i) / 10.0;
        let (val_loss, val_accuracy) = (0.9 - 1.2 * alpha + 0.9 * alpha * alpha, 0.71 + 0.6 * alpha * (1.3 - alpha));
        MeanScore { alpha, val_loss, val_accuracy, val_score: val_accuracy }
    };
    let record = WiseFtRecord { alpha: 0.6, curve: (0..=10).map(mean).collect() };
    let svg = saved("wise-ft", &Titled { title: "bearing-clip, full", of: &record });
    assert_says(&svg, &["kept: 0.60", "share of the fine-tuned weights", "loss", "accuracy, %", "validation"]);
    let given = WiseFtRecord { alpha: 0.25, curve: [0, 10].map(mean).to_vec() };
    saved("wise-ft-given", &Titled { title: "given", of: &given });
    let nothing = WiseFtRecord { curve: Vec::new(), ..given };
    assert!(refused(&Titled { title: "", of: &nothing }).contains("no mean"));
}

#[test]
fn strategies_close_together_and_far_apart() {
    let point = |(name, seconds, accuracy, half, recommended): (&str, f64, f64, f64, bool)| TradeoffPoint {
        name: name.into(),
        seconds,
        score: accuracy,
        interval: Some([accuracy - half, (accuracy + half).min(1.0)]),
        recommended,
    };
    let tradeoff = |rows: &[(&str, f64, f64, f64, bool)]| Tradeoff {
        title: "textile: accuracy and cost of each strategy".into(),
        subtitle: "builtin:vit-mini, 90 test images, 3 seeds".into(),
        measure: "accuracy",
        points: rows.iter().copied().map(point).collect(),
    };
    let near = [
        ("knn", 1.2, 0.644, 0.1, false),
        ("probe", 1.25, 0.70, 0.1, true),
        ("frozen", 1.3, 0.69, 0.09, false),
        ("partial", 5.2, 0.67, 0.1, false),
        ("lora", 6.1, 0.681, 0.1, false),
        ("full", 10.0, 0.66, 0.09, false),
    ];
    let svg = saved("tradeoff-near", &tradeoff(&near));
    assert_says(&svg, &["recommended", "wall time of a run", "test accuracy, %", ">lora", "10 s"]);
    let far =
        [("zeroshot", 40.0, 0.55, 0.03, false), ("probe", 300.0, 0.795, 0.02, false), ("full", 9e3, 0.99, 0.02, true)];
    saved("tradeoff-far", &tradeoff(&far));
    let same = [
        ("knn", 2.0, 0.7, 0.1, false),
        ("probe", 2.0, 0.7, 0.1, true),
        ("a <long> name of a strategy", 2.0, 0.7, 0.1, false),
    ];
    saved("tradeoff-same", &tradeoff(&same));
    let mut one = tradeoff(&near[..1]);
    one.points[0].interval = None;
    saved("tradeoff-one", &one);
    one.points[0].seconds = 0.0;
    assert!(refused(&one).contains("the time or the score of knn"));
    assert!(refused(&Tradeoff::default()).contains("no strategy"));
}

#[test]
fn reliability_of_any_shape() {
    let scores = |n: usize, k: usize, scale: f64| {
        let logits: Vec<f64> = (0..n * k).map(|i| scale * (i as f64 * 0.754_877).fract()).collect();
        let labels: Vec<usize> = (0..n).map(|i| (i * 7919) % 11 % k).collect();
        Scores::new(&logits, &labels, k).unwrap()
    };
    for (n, k, scale) in [(1, 2, 1.0), (90, 3, 8.0), (5000, 5, 6.0), (40, 2, 1e6)] {
        let reliability = Reliability::new(&scores(n, k, scale), 2.5);
        let name = format!("reliability-{n}-{k}");
        let title = "test, Ölfleck & <Kratzer>";
        let svg = saved(&name, &ReliabilityPlot { title, temperature: 2.5, reliability: &reliability });
        assert_says(&svg, &["accuracy, %", "confidence, %", "images", "at temperature 2.50", "&amp; &lt;Kratzer&gt;"]);
    }
    let nothing = Reliability { before: Vec::new(), after: Vec::new() };
    assert!(refused(&ReliabilityPlot { title: "", temperature: 1.0, reliability: &nothing }).contains("finite"));
}

#[test]
fn flaws_of_growing_strength() {
    let accuracy =
        |kind: usize, strength: f64| 0.91 - (0.05 + 0.07 * kind as f64) * strength.powf(1.0 + kind as f64 / 4.0);
    let strengths: Vec<f64> = (1..=5).map(|level| f64::from(level) / 5.0).collect();
    let names =
        ["stains", "scratches", "occlusion", "illumination", "blur", "stripes", "noise", "a <long> name of a flaw"];
    let kind = |(i, name): (usize, &&str)| FlawScores {
        kind: (*name).into(),
        accuracy: strengths.iter().map(|&strength| accuracy(i, strength)).collect(),
        ..FlawScores::default()
    };
    let scores = Robustness {
        clean_accuracy: 0.91,
        mean_by_strength: strengths.iter().map(|&strength| accuracy(3, strength)).collect(),
        kinds: names.iter().enumerate().map(kind).collect(),
        strengths: strengths.clone(),
        ..Robustness::default()
    };
    let title = "test: accuracy 91.0 %, with flaws 70.0 %";
    let svg = saved("robustness", &Titled { title, of: &scores });
    assert_says(&svg, &["strength", "accuracy, %", "mean", "stains", "a &lt;long&gt; name"]);
    assert!(robustness_svg(&scores).unwrap().contains("stripes"));
    let nothing = Robustness { kinds: Vec::new(), ..scores };
    assert!(refused(&Titled { title: "", of: &nothing }).contains("no flaw"));
}

fn thumbnail(width: u32, height: u32, shade: u8) -> Thumbnail {
    let image = image::RgbImage::from_pixel(width, height, image::Rgb([shade, 0, 200]));
    Thumbnail { image, caption: "scratch, train: a_very_long_name_of_a_file_0000017.png".into() }
}

#[test]
fn a_sheet_shows_every_thumbnail_in_its_place() {
    let row = |thumbnails| SheetRow { heading: "two of a kind\nand more".into(), thumbnails };
    let rows = vec![
        row(vec![thumbnail(10, 10, 1), thumbnail(500, 200, 2), thumbnail(1, 4000, 3)]),
        row(vec![]),
        row(vec![thumbnail(100, 100, 4)]),
    ];
    let sheet = Sheet { title: "a title that is much wider than the sheet ".repeat(4), side: 100, columns: 1, rows };
    let (_fresh, folder) = folder();
    save_sheet(&folder.join("sheets/sheet.png"), &sheet).unwrap();
    let png = image::open(folder.join("sheets/sheet.png")).unwrap().into_rgb8();
    let area = |shade: u8| png.pixels().filter(|pixel| pixel.0 == [shade, 0, 200]).count();
    // Enlarged by a whole factor, reduced, a sliver of one pixel, as it is.
    assert_eq!([1, 2, 3, 4].map(area), [80 * 80, 100 * 40, 100, 100 * 100]);
    assert!(png.enumerate_pixels().all(|(x, y, pixel)| (x > 8 && y > 8) || pixel.0 == [255; 3]));
}

#[test]
fn rows_of_a_sheet_stand_in_columns() {
    let rows = (0..10).map(|i| SheetRow { heading: format!("pair {i}"), thumbnails: vec![thumbnail(90, 90, i); 2] });
    let sheet = Sheet { title: "10 of 10 pairs".into(), side: 100, columns: 4, rows: rows.collect() };
    let (_fresh, folder) = folder();
    save_sheet(&folder.join("sheets/columns.png"), &sheet).unwrap();
    let png = image::open(folder.join("sheets/columns.png")).unwrap().into_rgb8();
    assert!(png.width() > 800 && png.height() < 600, "{:?}", png.dimensions());
    let first = |shade: u8| png.enumerate_pixels().find(|(.., pixel)| pixel.0 == [shade, 0, 200]).unwrap();
    assert!((0..10).all(|i| png.pixels().filter(|pixel| pixel.0 == [i, 0, 200]).count() == 2 * 90 * 90));
    assert!(first(0).1 == first(3).1 && first(0).0 < first(1).0 && first(4).1 > first(0).1 && first(4).0 == first(0).0);
}

#[test]
fn an_empty_sheet_is_an_error() {
    let fresh = tempfile::tempdir().unwrap();
    let sheet = Sheet { side: 100, rows: vec![SheetRow::default()], ..Sheet::default() };
    let error = save_sheet(&fresh.path().join("sheet.png"), &sheet).unwrap_err();
    assert!(error.to_string().contains("nothing to show"), "{error}");
}
