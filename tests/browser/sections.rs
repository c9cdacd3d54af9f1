//! The page about a run as text: which sections it has, and that no name becomes markup.

use crate::run_page::{HOSTILE, run_page};
use vitadapt::report::html::{RunPage, save_run_page};

fn saved(page: &RunPage) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    save_run_page(&path, page).unwrap();
    std::fs::read_to_string(path).unwrap()
}

fn sections(page: &str) -> Vec<&str> {
    page.split("<section id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn everything_has_its_section() {
    let page = saved(&run_page(3, 6));
    let expected = [
        "curves", "confusion", "classes", "decisions", "reliability", "mistakes", "robustness", "data", "settings",
        "provenance",
    ];
    assert_eq!(sections(&page), expected);
    for id in expected {
        assert!(page.contains(&format!("<a href=\"#{id}\">")), "no link to {id}");
    }
    for said in [
        "over-fits: training accuracy reaches 99.0 %",
        "try dropout",
        "train.lr",
        "0.0031",
        "258 MiB",
        "0123456789abcdef",
    ] {
        assert!(page.contains(said), "{said}");
    }
    assert_eq!(page.matches("<img ").count(), 6 * 5, "an image, its heat map and three neighbours each");
    // Two curves, two sides of the reliability, the flaws.
    assert_eq!(page.matches("<svg ").count(), 5);
}

#[test]
fn names_stay_text_and_nothing_is_loaded() {
    let page = saved(&run_page(3, 6));
    assert!(!page.contains(HOSTILE) && !page.contains("<b ") && !page.contains("<!--"));
    assert_eq!(page.matches("</script>").count(), 2);
    for attribute in ["src=\"", "href=\""] {
        let mut addresses = page.match_indices(attribute).map(|(at, found)| &page[at + found.len()..]);
        assert!(addresses.all(|address| address.starts_with("data:image/jpeg;base64,") || address.starts_with('#')));
    }
    assert!(!page.contains("url("));
}

#[test]
fn what_is_absent_leaves_no_trace() {
    let full = run_page(3, 6);
    let page = saved(&RunPage {
        epochs: Vec::new(),
        evaluations: Vec::new(),
        mistakes: None,
        robustness: Vec::new(),
        skipped: 0,
        ..full.clone()
    });
    assert_eq!(sections(&page), ["data", "settings", "provenance"]);
    assert!(page.contains("No split has been scored") && !page.contains("skipped.csv"));
    let faultless = vitadapt::report::html::Mistakes { split: "test".into(), total: 90, ..Default::default() };
    let page = saved(&RunPage { mistakes: Some(faultless), ..full });
    assert!(page.contains("All 90 images of test were classified correctly."));
}

#[test]
fn many_classes_and_mistakes_stay_moderate() {
    let page = saved(&run_page(200, 12));
    assert!(page.contains("the commonest first") && !page.contains("<table class=\"confusion\">"));
    let (shown, folded) = page.split_once("<summary>All 200 classes</summary>").unwrap();
    assert!(shown.contains("The 30 of 200 classes with the lowest recall."), "200 rows are no overview");
    assert!(!shown.contains("class 199</span></th>") && folded.contains("class 199</span></th>"));
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}
