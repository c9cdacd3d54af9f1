//! The pages: as text always, and in a real browser with `cargo test --test browser -- --ignored`.
//!
//! With `VITADAPT_PLOTS` set to a folder, screenshots are left there.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod chromium;
mod run;
mod run_page;
mod sections;

use std::path::PathBuf;

use chromium::{Chromium, Screen};
use image::{Rgb, RgbImage};
use run_page::{HOSTILE, SHOWN};
use serde_json::{Value, json};
use vitadapt::pixels::thumbnail;
use vitadapt::report::html::save_scatter_page;
use vitadapt::report::plots::{Scatter, ScatterPoint};

const DESK: Screen = Screen { width: 1280, height: 900, dark: false, touch: false };
const DARK: Screen = Screen { dark: true, ..DESK };
const PHONE: Screen = Screen { width: 360, height: 740, dark: false, touch: true };
/// The first classes of [`page`].
const NAMES: [&str; 3] = [HOSTILE, "a very long name of a class that does not fit", "ok"];

/// A grid of n points in k classes, from the upper left to the lower right, every tenth one misclassified; the page's
/// folder is deleted with the value.
fn page(n: usize, k: usize) -> (tempfile::TempDir, PathBuf) {
    let side = (n as f64).sqrt().ceil() as usize;
    let point = |i: usize| ScatterPoint {
        x: (i % side) as f64,
        y: -((i / side) as f64),
        class: i % k,
        split: if i.is_multiple_of(2) { "train" } else { "test" }.into(),
        path: format!("images/{i}<&>'\".png").into(),
        predicted: Some(if i % 10 == 9 { (i + 1) % k } else { i % k }),
    };
    let scatter = Scatter {
        title: format!("Features of {n} images"),
        subtitle: HOSTILE.into(),
        classes: (0..k).map(|c| NAMES.get(c).map_or(format!("class {c}"), |&name| name.into())).collect(),
        points: (0..n).map(point).collect(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scatter.html");
    let picture = |i: usize| RgbImage::from_fn(120, 80, |x, y| Rgb([(i * 40) as u8, (x * 2) as u8, (y * 3) as u8]));
    save_scatter_page(&path, &scatter, &mut |i| thumbnail(&picture(i), 96)).unwrap();
    (folder, path)
}

/// Where point number i of [`page`] lies in the window.
fn place(browser: &mut Chromium, i: usize) -> (f64, f64) {
    let found = browser.evaluate(&format!(
        "(() => {{
            const at = place(points.find((point) => point.path.startsWith('images/{i}<')));
            const box = canvas.getBoundingClientRect();
            return [box.left + at.x, box.top + at.y];
        }})()"
    ));
    (found[0].as_f64().unwrap(), found[1].as_f64().unwrap())
}

/// The colour of the canvas in the middle of point number i, red, green, blue and alpha.
fn color(browser: &mut Chromium, i: usize) -> Value {
    let (x, y) = place(browser, i);
    browser.evaluate(&format!(
        "(() => {{
            const box = canvas.getBoundingClientRect();
            const copy = new OffscreenCanvas(1, 1).getContext('2d', {{ willReadFrequently: true }});
            copy.drawImage(canvas, box.left - {x}, box.top - {y});
            return [...copy.getImageData(0, 0, 1, 1).data];
        }})()"
    ))
}

/// The facts on the card by name; null when there is no card.
fn card(browser: &mut Chromium) -> Value {
    browser.evaluate(
        "card.hidden ? null : Object.fromEntries([...document.querySelectorAll('#card dt')]
            .map((name) => [name.textContent, name.nextSibling.textContent]))",
    )
}

fn click(browser: &mut Chromium, selector: &str) {
    browser.evaluate(&format!("document.querySelector('{selector}').click()"));
    browser.settle();
}

fn assert_faultless(browser: &mut Chromium) {
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn pointing_at_a_point_shows_its_image() {
    let (_folder, path) = page(49, 3);
    let mut browser = Chromium::start();
    for (screen, name, first) in [(DESK, "page-light", [0, 114, 178]), (DARK, "page-dark", [0, 114, 178])] {
        browser.open(&path, screen);
        let drawn = color(&mut browser, 0);
        for (channel, expected) in first.into_iter().enumerate() {
            assert!((drawn[channel].as_i64().unwrap() - expected).abs() <= 3, "{drawn}");
        }
        assert_eq!(card(&mut browser), Value::Null);
        let (x, y) = place(&mut browser, 39);
        browser.mouse("mouseMoved", x + 3.0, y + 3.0);
        let facts = card(&mut browser);
        let path = "images/39<&>'\".png";
        assert_eq!(facts, json!({"class": SHOWN, "predicted": NAMES[1], "split": "test", "path": path}));
        assert_eq!(browser.evaluate("byId('card-image').decode().then(() => byId('card-image').naturalWidth)"), 96);
        browser.settle();
        browser.screenshot(name);
        browser.mouse("mouseMoved", 5.0, 5.0);
        assert_eq!(card(&mut browser), Value::Null);
        assert_faultless(&mut browser);
    }
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn hostile_names_are_text() {
    let (_folder, path) = page(12, 3);
    let mut browser = Chromium::start();
    browser.open(&path, DESK);
    assert_eq!(browser.evaluate("document.querySelector('#legend .name').textContent"), SHOWN);
    assert_eq!(browser.evaluate("document.querySelector('header p').textContent"), SHOWN);
    assert_eq!(browser.evaluate("document.querySelectorAll('b, [onclick]').length"), 0);
    click(&mut browser, "#table summary");
    assert_eq!(browser.evaluate("document.querySelectorAll('#rows tr').length"), 12);
    assert_eq!(browser.evaluate("document.querySelector('#rows td').textContent"), SHOWN);
    assert_eq!(browser.evaluate("document.querySelectorAll('b, [onclick]').length"), 0);
    assert_faultless(&mut browser);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn classes_are_hidden_and_mistakes_are_shown_alone() {
    let (_folder, path) = page(100, 3);
    let mut browser = Chromium::start();
    browser.open(&path, DESK);
    // 0 has class 0 and is right, 1 has class 1, 39 has class 0 and is wrong.
    let mut visible = |selector: &str| {
        if !selector.is_empty() {
            click(&mut browser, selector);
        }
        [0, 1, 39].map(|i| color(&mut browser, i)[3] != 0)
    };
    assert_eq!(visible(""), [true, true, true]);
    assert_eq!(visible("#legend li button"), [false, true, false]);
    assert_eq!(visible("#legend li button"), [true, true, true]);
    assert_eq!(visible("#only-wrong"), [false, false, true]);
    assert_eq!(visible("#toggle-all"), [false, false, false]);
    assert_eq!(visible("#toggle-all"), [false, false, true]);
    assert_eq!(browser.evaluate("byId('only-wrong-text').textContent"), "only misclassified (10 of 100, ringed)");
    assert_faultless(&mut browser);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn the_keyboard_reaches_everything() {
    let (_folder, path) = page(9, 2);
    let mut browser = Chromium::start();
    browser.open(&path, DESK);
    let mut reached = Vec::new();
    for _ in 0..9 {
        browser.press("Tab");
        reached.push(browser.evaluate("document.activeElement.id || document.activeElement.textContent"));
    }
    let expected = [
        "zoom-in",
        "zoom-out",
        "reset",
        "only-wrong",
        "canvas",
        "toggle-all",
        &format!("{SHOWN}5"),
        &format!("{}4", NAMES[1]),
    ];
    for name in expected {
        assert!(reached.contains(&json!(name)), "{name} is not in {reached:?}");
    }
    browser.evaluate("canvas.focus()");
    // From the middle, 4, to the right, then down; nothing lies further.
    for (key, expected) in [("ArrowRight", 4), ("ArrowRight", 5), ("ArrowDown", 8), ("ArrowDown", 8)] {
        browser.press(key);
        assert_eq!(card(&mut browser)["path"], format!("images/{expected}<&>'\".png"), "{key}");
    }
    assert!(browser.evaluate("byId('status').textContent").as_str().unwrap().contains("images/8<"));
    let before = place(&mut browser, 8);
    browser.press("+");
    browser.press("+");
    browser.press("ArrowLeft");
    assert!(place(&mut browser, 8).0 > before.0 + 50.0, "no zoom");
    browser.press("0");
    assert_eq!(place(&mut browser, 8), before);
    browser.press("Escape");
    assert_eq!(card(&mut browser), Value::Null);
    assert_faultless(&mut browser);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn wheel_and_drag_move_the_view() {
    let (_folder, path) = page(9, 2);
    let mut browser = Chromium::start();
    browser.open(&path, DESK);
    let (kept, other) = (place(&mut browser, 4), place(&mut browser, 5));
    browser.wheel(kept.0, kept.1, -400.0);
    let near = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 1.0 && (a.1 - b.1).abs() < 1.0;
    assert!(near(place(&mut browser, 4), kept), "the place under the pointer moves");
    assert!(place(&mut browser, 5).0 > other.0 + 50.0, "no zoom");
    browser.mouse("mousePressed", kept.0, kept.1);
    for step in 1..=4 {
        browser.mouse("mouseMoved", kept.0 + 20.0 * f64::from(step), kept.1 - 10.0 * f64::from(step));
    }
    browser.mouse("mouseReleased", kept.0 + 80.0, kept.1 - 40.0);
    let moved = place(&mut browser, 4);
    assert!((moved.0 - kept.0 - 80.0).abs() < 21.0 && (moved.1 - kept.1 + 40.0).abs() < 11.0, "{kept:?} {moved:?}");
    click(&mut browser, "#reset");
    assert!(near(place(&mut browser, 5), other));
    assert_faultless(&mut browser);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_phone_shows_everything_without_scrolling_sideways() {
    let (_folder, path) = page(400, 50);
    let mut browser = Chromium::start();
    browser.open(&path, PHONE);
    assert_eq!(browser.evaluate("innerWidth"), PHONE.width);
    let within = |browser: &mut Chromium| {
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), PHONE.width);
    };
    within(&mut browser);
    let tapped = place(&mut browser, 50);
    browser.touch("touchStart", &[tapped]);
    browser.touch("touchEnd", &[]);
    assert_eq!(card(&mut browser)["path"], "images/50<&>'\".png");
    browser.evaluate("byId('card-image').decode()");
    browser.settle();
    let edges = browser.evaluate("(({ left, right }) => [left, right])(card.getBoundingClientRect())");
    assert!(edges[0].as_f64().unwrap() >= 0.0 && edges[1].as_f64().unwrap() <= f64::from(PHONE.width), "{edges}");
    browser.screenshot("page-phone");
    let apart = |browser: &mut Chromium| place(browser, 1).0 - place(browser, 0).0;
    let before = apart(&mut browser);
    let middle = browser
        .evaluate("(({ x, y, width, height }) => [x + width / 2, y + height / 2])(canvas.getBoundingClientRect())");
    let (x, y) = (middle[0].as_f64().unwrap(), middle[1].as_f64().unwrap());
    let two = |spread: f64| [(x - spread, y), (x + spread, y)];
    browser.touch("touchStart", &two(20.0));
    for spread in [30.0, 40.0, 60.0] {
        browser.touch("touchMove", &two(spread));
    }
    browser.touch("touchEnd", &[]);
    assert!(apart(&mut browser) > 2.0 * before, "pinching does not zoom");
    click(&mut browser, "#table summary");
    within(&mut browser);
    browser.evaluate("byId('legend').scrollIntoView()");
    browser.screenshot("page-phone-legend");
    assert_faultless(&mut browser);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn twenty_thousand_points_stay_fluent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scatter.html");
    let point = |i: usize| ScatterPoint {
        x: (i as f64 * 3.58).sin() * (i as f64 * 0.754_877).fract(),
        y: (i as f64 * 3.58).cos() * (i as f64 * 0.754_877).fract(),
        class: i % 10,
        ..ScatterPoint::default()
    };
    let classes = (0..10).map(|c| format!("class {c}")).collect();
    let scatter = Scatter { classes, points: (0..20_000).map(point).collect(), ..Scatter::default() };
    save_scatter_page(&path, &scatter, &mut |_| None).unwrap();
    let mut browser = Chromium::start();
    browser.open(&path, DESK);
    let median = browser.evaluate(
        "(() => {
            const copy = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
            const times = Array.from({ length: 9 }, () => {
                const start = performance.now();
                draw();
                copy.drawImage(canvas, 0, 0); // waits for the drawing
                copy.getImageData(0, 0, 1, 1);
                return performance.now() - start;
            });
            return times.sort((a, b) => a - b)[4];
        })()",
    );
    browser.screenshot("page-20000");
    println!("{median} ms to draw 20,000 points");
    assert!(median.as_f64().unwrap() < 1000.0, "{median} ms to draw");
    assert_faultless(&mut browser);
}
