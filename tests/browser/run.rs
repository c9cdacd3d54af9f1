//! The page about a run.

use super::chromium::{Chromium, Screen};
use super::run_page::{SHOWN, run_page};
use super::{DARK, DESK, assert_faultless, click};
use serde_json::{Value, json};
use std::path::PathBuf;
use vitadapt::report::html::save_run_page;

/// The narrowest of common phones, and a wider one.
const PHONES: [Screen; 2] = [
    Screen { width: 360, height: 740, dark: false, touch: true },
    Screen { width: 390, height: 844, dark: true, touch: true },
];

fn page(k: usize, n: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    save_run_page(&path, &run_page(k, n)).unwrap();
    (folder, path)
}

/// Makes every image load, also those far below.
fn all_images(browser: &mut Chromium) -> Value {
    browser.evaluate(
        "Promise.all([...document.images].map((image) => { image.loading = 'eager'; return image.decode(); }))
            .then(() => [...document.images].map((image) => image.naturalWidth))",
    )
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn pictures_and_plots_are_there_in_both_schemes() {
    let (_folder, path) = page(3, 6);
    let mut browser = Chromium::start();
    for (screen, name) in [(DESK, "report-light"), (DARK, "report-dark")] {
        // As high as the page, for the screenshot.
        browser.open(&path, Screen { height: 5600, ..screen });
        let widths = all_images(&mut browser);
        let widths = widths.as_array().unwrap();
        assert_eq!(widths.len(), 6 * 5);
        assert!(widths.iter().all(|width| *width == 112 || *width == 96), "{widths:?}");
        let plots = browser.evaluate(
            "[...document.querySelectorAll('.plot svg')].map((svg) => [svg.getBoundingClientRect().height > 200,
                svg.querySelectorAll('text').length > 8])",
        );
        assert_eq!(plots, json!(vec![[true, true]; 5]));
        browser.settle();
        browser.screenshot(name);
        assert_faultless(&mut browser);
    }
}

/// The relative luminances (WCAG 2.1) of a text and of what lies behind it, as their contrast.
const CONTRAST: &str = "(element, property) => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = (color) => channels(color).slice(0, 3)
        .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const [a, b] = [getComputedStyle(element)[property], getComputedStyle(document.body).backgroundColor]
        .map(luminance).sort((a, b) => b - a);
    return (a + 0.05) / (b + 0.05);
}";

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn plots_are_readable_on_dark_and_light_paper() {
    let (_folder, path) = page(3, 1);
    let mut browser = Chromium::start();
    for screen in [DESK, DARK] {
        browser.open(&path, screen);
        let worst = browser.evaluate(&format!(
            "Math.min(...[...document.querySelectorAll('.plot text')].map((text) => ({CONTRAST})(text, 'fill')))"
        ));
        assert!(worst.as_f64().unwrap() >= 4.5, "text {worst}");
        let worst = browser.evaluate(&format!(
            "Math.min(...[...document.querySelectorAll('.plot polyline[stroke-width=\"3\"]')]
                .map((line) => ({CONTRAST})(line, 'stroke')))"
        ));
        assert!(worst.as_f64().unwrap() >= 3.0, "curves {worst}");
        let paper = browser.evaluate("getComputedStyle(document.querySelector('.plot rect')).fill");
        assert_eq!(paper, browser.evaluate("getComputedStyle(document.body).backgroundColor"));
    }
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn hostile_names_are_text() {
    let (_folder, path) = page(3, 3);
    let mut browser = Chromium::start();
    browser.open(&path, DESK);
    assert_eq!(browser.evaluate("document.querySelector('h1').textContent"), SHOWN);
    assert_eq!(browser.evaluate("document.querySelector('#classes tbody .name').textContent"), SHOWN);
    assert_eq!(browser.evaluate("document.querySelector('.mistake .name').textContent"), SHOWN);
    assert!(browser.evaluate("document.querySelector('pre').textContent").as_str().unwrap().contains(SHOWN));
    assert_eq!(browser.evaluate("document.querySelectorAll('b, [onclick]').length"), 0);
    assert_faultless(&mut browser);
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn a_phone_shows_everything_without_scrolling_sideways() {
    for (k, screen) in [3, 12, 40].into_iter().flat_map(|k| PHONES.map(|screen| (k, screen))) {
        let (_folder, path) = page(k, 4);
        let mut browser = Chromium::start();
        browser.open(&path, screen);
        click(&mut browser, "summary");
        assert_eq!(browser.evaluate("innerWidth"), screen.width);
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), screen.width, "{k} classes");
        let smallest = browser.evaluate(
            "Math.min(...[...document.querySelectorAll('.plot text')].map((text) => text.getBoundingClientRect().height))",
        );
        assert!(smallest.as_f64().unwrap() >= 9.0, "text {smallest} px high");
        if k == 3 {
            browser.open(&path, Screen { height: 6800, ..screen });
            all_images(&mut browser);
            browser.settle();
            browser.screenshot(&format!("report-phone-{}", screen.width));
        }
        assert_faultless(&mut browser);
    }
}

#[test]
#[ignore = "needs Chromium: .ci/run installs it"]
fn links_lead_to_their_sections() {
    let (_folder, path) = page(3, 2);
    let mut browser = Chromium::start();
    browser.open(&path, DESK);
    click(&mut browser, "nav a[href=\"#mistakes\"]");
    let top = browser.evaluate("document.querySelector('#mistakes h2').getBoundingClientRect().top");
    let bar = browser.evaluate("document.querySelector('nav').getBoundingClientRect().bottom");
    assert!(top.as_f64() >= bar.as_f64() && top.as_f64().unwrap() < 200.0, "{top} below {bar}");
    assert_faultless(&mut browser);
}
