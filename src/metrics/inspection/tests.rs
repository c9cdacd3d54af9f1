//! Rules and reports on small sets of parts, degenerate ones among them.

use super::*;
use crate::config::Limits;
use crate::metrics::evaluate;
use crate::metrics::evaluation::tests::assert_same;

fn classes() -> Vec<String> {
    ["crack", "good", "stain"].map(str::to_owned).to_vec()
}

fn settings(band: Option<BandGoal>) -> InspectionSettings {
    InspectionSettings { good: vec!["good".into()], prevalence: Some(0.01), band }
}

/// Logits of parts with these probabilities of a defect, the defect being a crack.
fn scores(parts: &[(f64, usize)]) -> Scores {
    let logits: Vec<f64> = parts.iter().flat_map(|(p, _)| [p.ln(), (1.0 - p).ln(), f64::NEG_INFINITY]).collect();
    let labels: Vec<usize> = parts.iter().map(|part| part.1).collect();
    Scores::new(&logits, &labels, 3).unwrap()
}

fn rules(band: Option<BandGoal>, held_out: Option<&Scores>) -> Rules {
    Rules::choose(&settings(band), &classes(), held_out.map(|scores| (scores, 1.0))).unwrap().unwrap()
}

fn inspected(parts: &[(f64, usize)], rules: &Rules) -> Inspection {
    Inspection::new(&scores(parts), 1.0, &classes(), &[], rules).unwrap()
}

const VALIDATION: [(f64, usize); 8] = [(0.9, 0), (0.8, 2), (0.7, 1), (0.6, 0), (0.4, 2), (0.3, 1), (0.2, 1), (0.1, 1)];

#[test]
fn thresholds_are_fixed_on_validation_and_applied_elsewhere() {
    let limits = Limits { max_escape: 0.0, max_overkill: 0.0 };
    let rules = rules(Some(BandGoal::Limits(limits)), Some(&scores(&VALIDATION)));
    assert_eq!((rules.chosen_on_goods, rules.chosen_on_defects, rules.doubts()), (4, 4, None));
    let found: Vec<f64> = rules.thresholds.iter().map(|threshold| threshold.threshold.unwrap()).collect();
    // Without escapes from between 0.3 and 0.4 on; without overkill from between 0.7 and 0.8 on.
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(near(found[0], 0.35) && found[1..].iter().all(|&threshold| near(threshold, 0.75)), "{found:?}");
    let band = rules.band.unwrap();
    assert!(near(band.accept_below, 0.35) && near(band.reject_from, 0.75), "{band:?}");

    // On other parts nothing is chosen anew: one escapes, one good part is rejected, two are looked at.
    let test = [(0.34, 0), (0.5, 0), (0.9, 0), (0.76, 1), (0.5, 1), (0.1, 1)];
    let report = inspected(&test, &rules);
    let outcome = report.band.unwrap().outcome;
    assert_eq!((outcome.escape.count, outcome.escape.of, outcome.overkill.count, outcome.overkill.of), (1, 3, 1, 3));
    assert_eq!(report.band.unwrap().review.count, 2);
    assert!(near(report.band.unwrap().review_in_production.unwrap(), 1.0 / 3.0));
    assert!(near(outcome.escapes_ppm.value.unwrap(), 1e6 * 0.01 / 3.0));
    assert!(near(outcome.overkill_ppm.value.unwrap(), 1e6 * 0.99 / 3.0));
    let points: Vec<(u64, u64)> =
        report.operating_points.iter().map(|p| (p.outcome.escape.count, p.outcome.overkill.count)).collect();
    // Of equal probabilities the first class counts as the largest: two good parts look like a crack.
    assert_eq!(points, [(1, 2), (1, 2), (2, 1), (2, 1), (2, 1)]);
    assert_eq!(report.decided().unwrap(), outcome);
}

#[test]
fn costs_are_those_of_the_stated_prevalence() {
    let costs = Costs { escape: 100.0, overkill: 10.0, look: 1.0 };
    let report = inspected(&VALIDATION, &rules(Some(BandGoal::Costs(costs)), Some(&scores(&VALIDATION))));
    // By the largest probability one of four defects escapes and one of four good parts is rejected.
    let largest = report.operating_points[0].outcome.cost_per_part.unwrap();
    assert!((largest - (0.01 * 25.0 + 0.99 * 2.5)).abs() < 1e-12, "{largest}");
    assert!(report.band.unwrap().outcome.cost_per_part.unwrap() < largest);
}

#[test]
fn degenerate_parts_are_undefined_and_never_a_panic() {
    let goal = Some(BandGoal::Limits(Limits { max_escape: 0.1, max_overkill: 0.1 }));
    let sets: [&[(f64, usize)]; 5] =
        [&[(0.9, 0)], &[(0.2, 1)], &[(0.5, 0), (0.5, 1), (0.5, 1)], &[(0.9, 0), (0.8, 2)], &[(0.3, 1), (0.1, 1)]];
    for chosen_on in sets.iter().map(|set| Some(*set)).chain([None]) {
        let rules = rules(goal, chosen_on.map(scores).as_ref());
        let both = rules.chosen_on_goods > 0 && rules.chosen_on_defects > 0;
        assert_eq!((rules.doubts().is_none(), rules.band.is_some()), (both, both));
        let json = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<Rules>(&json).unwrap(), rules);
        for set in sets {
            let report = inspected(set, &rules);
            let json = serde_json::to_value(&report).unwrap();
            assert_eq!(serde_json::from_value::<Inspection>(json.clone()).unwrap(), report, "{json:#}");
            let defects = set.iter().filter(|part| part.1 != 1).count();
            let largest = &json["operating_points"][0];
            assert_eq!(largest["escape"]["rate"].is_null(), defects == 0);
            assert_eq!(largest["overkill"]["rate"].is_null(), defects == set.len());
            assert_eq!(report.gaps().is_some(), defects == 0 || defects == set.len());
            assert_eq!(report.auroc.value.is_some(), report.gaps().is_none());
        }
    }
}

#[test]
fn a_score_that_is_no_number_is_never_accepted() {
    let limits = Some(BandGoal::Limits(Limits { max_escape: 0.0, max_overkill: 0.0 }));
    let rules = rules(limits, Some(&scores(&VALIDATION)));
    let broken = Scores::new(&[f64::NAN, 0.0, f64::NAN], &[0], 3).unwrap();
    let report = Inspection::new(&broken, 1.0, &classes(), &[], &rules).unwrap();
    assert_eq!(report.band.unwrap().outcome.escape.count, 0);
    assert!(report.operating_points[1..].iter().all(|point| point.outcome.escape.count == 0));
    assert_eq!(rules.decide(&[f64::NAN; 3], &classes()), Decision::Review);
}

#[test]
fn good_classes_are_checked_against_the_data() {
    let refused = |good: &[&str]| {
        let good: Vec<String> = good.iter().map(|&name| name.to_owned()).collect();
        let error = good_classes(&good, &classes()).unwrap_err();
        assert_eq!(error.exit_code() as u8, 2);
        format!("{error} / {}", error.hint().unwrap())
    };
    assert_eq!(refused(&["god"]), "inspection.good: the data has no class \"god\" / did you mean \"good\"?");
    assert!(refused(&["intact"]).ends_with("the classes are crack, good, stain"));
    assert!(refused(&["crack", "good", "stain"]).contains("no defects"));
    assert_eq!(good_classes(&[], &classes()).unwrap(), None);
    assert_eq!(good_classes(&["stain".into(), "good".into()], &classes()).unwrap(), Some(vec![false, true, true]));
}

#[test]
fn decisions_without_a_band_follow_the_largest_probability() {
    let rules = rules(None, None);
    assert_eq!(rules.decide(&[0.3, 0.4, 0.3], &classes()), Decision::Good);
    assert_eq!(rules.decide(&[0.3, 0.3, 0.4], &classes()), Decision::Defect);
    assert!((rules.score(&[0.3, 0.4, 0.3], &classes()) - 0.6).abs() < 1e-15);
}

#[test]
fn groups_widen_every_interval() {
    let rules = rules(None, Some(&scores(&VALIDATION)));
    let parts: Vec<(f64, usize)> = (0..60).map(|i| (f64::from(i * 7 % 60 + 1) / 62.0, (i / 10 % 2) as usize)).collect();
    let groups: Vec<String> = (0..60).map(|i| format!("lot {}", i / 5)).collect();
    let groups: Vec<Option<&str>> = groups.iter().map(|group| Some(group.as_str())).collect();
    let scores = scores(&parts);
    let alone = Inspection::new(&scores, 1.0, &classes(), &[], &rules).unwrap();
    let grouped = Inspection::new(&scores, 1.0, &classes(), &groups, &rules).unwrap();
    let intervals = |report: &Inspection| {
        let outcome = report.operating_points[0].outcome;
        (outcome.escape.interval.unwrap(), outcome.overkill.interval.unwrap())
    };
    assert_eq!(intervals(&alone), (Interval::Exact, Interval::Exact));
    assert_eq!(intervals(&grouped), (Interval::GroupBootstrap, Interval::GroupBootstrap));
    assert_eq!(alone.auroc.value, grouped.auroc.value);
    assert_ne!(alone.auroc.ci95, grouped.auroc.ci95);
}

#[test]
fn the_section_is_a_contract() {
    let rules = rules(None, Some(&scores(&VALIDATION)));
    let (logits, labels) = ([2.0_f32, 0.0, 0.0, 0.0, 1.0, 0.0], [0, 1]);
    let evaluation = evaluate("test", &logits, &labels, &classes(), 1.0, &[]).unwrap();
    let evaluation = evaluation.inspected(&logits, &labels, &classes(), &[], &rules).unwrap();
    let json = serde_json::to_value(&evaluation).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert!(keys(&json).ends_with(" reliability inspection doubts"));
    let section = &json["inspection"];
    assert_eq!(
        keys(section),
        "good goods defects prevalence operating_points band auroc average_precision recall_at_overkill \
         overkill_at_zero_escapes"
    );
    let names: Vec<&str> =
        section["operating_points"].as_array().unwrap().iter().map(|p| p["rule"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["largest_probability", "no_escapes", "overkill_at_most", "overkill_at_most", "overkill_at_most"]
    );
    assert_eq!(
        keys(&section["operating_points"][2]),
        "rule max_overkill threshold escape overkill escapes_ppm overkill_ppm cost_per_part"
    );
    assert_eq!(keys(&section["operating_points"][2]["escape"]), "count of rate ci95 interval");
    assert_eq!(section["operating_points"][2]["escape"]["interval"], "exact_one_sided");
}

// Printed by tests/fixtures/make_metric_fixtures.py with scikit-learn and SciPy.
const REFERENCE: &str = include_str!("../../../tests/fixtures/metrics.json");

#[derive(serde::Deserialize)]
struct ScikitReference {
    name: String,
    temperature: f64,
    good: Vec<usize>,
    prevalence: f64,
    costs: Costs,
    held_out: Logits,
    scored: Logits,
    classes: usize,
    expected: serde_json::Value,
    auroc_bootstrap: Option<[f64; 2]>,
    least_cost: Option<f64>,
}

#[derive(serde::Deserialize)]
struct Logits {
    logits: Vec<f64>,
    labels: Vec<usize>,
}

#[test]
fn equals_scikit_learn_and_scipy() {
    let all: serde_json::Value = serde_json::from_str(REFERENCE).unwrap();
    let cases: Vec<ScikitReference> = serde_json::from_value(all["inspections"].clone()).unwrap();
    assert!(cases.len() >= 8);
    for case in cases {
        let classes: Vec<String> = (0..case.classes).map(|class| format!("class {class}")).collect();
        let scores = |from: &Logits| Scores::new(&from.logits, &from.labels, case.classes).unwrap();
        let (held_out, scored) = (scores(&case.held_out), scores(&case.scored));
        let settings = InspectionSettings {
            good: case.good.iter().map(|&class| classes[class].clone()).collect(),
            prevalence: Some(case.prevalence),
            band: Some(BandGoal::Costs(case.costs)),
        };
        let rules = Rules::choose(&settings, &classes, Some((&held_out, case.temperature))).unwrap().unwrap();
        let inspect = |scores| Inspection::new(scores, case.temperature, &classes, &[], &rules).unwrap();
        let report = inspect(&scored);
        assert_same(&serde_json::to_value(&report).unwrap(), &case.expected, &case.name);
        let cost = inspect(&held_out).band.and_then(|band| band.outcome.cost_per_part);
        let agree = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(cost.is_some() == case.least_cost.is_some(), "{}", case.name);
        assert!(cost.zip(case.least_cost).is_none_or(|(a, b)| agree(a, b)), "{}: {cost:?}", case.name);
        if let (Some(ours), Some(theirs)) = (report.auroc.ci95, case.auroc_bootstrap) {
            // Two draws of thousands of resamples agree to the error of their quantiles.
            let near = ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 0.015);
            assert!(near, "{}: {ours:?}, SciPy has {theirs:?}", case.name);
        }
    }
}
