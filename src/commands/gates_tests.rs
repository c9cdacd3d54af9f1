use super::*;
use crate::config::InspectionSettings;
use crate::metrics::{Rules, evaluate};

fn evaluation() -> Evaluation {
    let classes = ["crack".to_owned(), "good".to_owned(), "never seen".to_owned()];
    let logits = [3.0_f32, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 2.0, 0.0];
    evaluate("test", &logits, &[0, 1, 0], &classes, 1.0, &[]).unwrap()
}

fn missed(gates: &Gates, evaluation: &Evaluation) -> Vec<String> {
    gates.check(evaluation, None).into_iter().filter_map(|gate| gate.failure).collect()
}

#[test]
fn gates_that_are_met_say_so_and_others_are_not_there() {
    assert!(Gates::default().check(&evaluation(), None).is_empty());
    let exact = Gates { min_accuracy: Some(0.6), min_class_recall: Some(0.5), ..Gates::default() };
    let names = ["accuracy (--min-accuracy 0.6)", "recall of 'crack' (--min-class-recall 0.5)"];
    let gates = exact.check(&evaluation(), None);
    assert_eq!(gates[..2].iter().map(|gate| gate.name.as_str()).collect::<Vec<_>>(), names);
    assert!(gates.len() == 3 && gates.iter().all(|gate| gate.failure.is_none()), "{gates:?}");
}

#[test]
fn missed_gates_name_value_flag_and_bound() {
    let gates = Gates {
        min_accuracy: Some(0.9),
        min_class_recall: Some(0.8),
        max_ece: Some(0.0001),
        min_mcc: Some(f64::NAN),
        ..Gates::default()
    };
    let lines = missed(&gates, &evaluation());
    assert_eq!(lines[0], "accuracy 0.6667 is below --min-accuracy 0.9");
    assert!(lines[1].starts_with("MCC ") && lines[1].ends_with("--min-mcc NaN"), "{lines:?}");
    assert!(lines[2].starts_with("ECE 0."), "{lines:?}");
    assert_eq!(lines[3], "recall of 'crack' 0.5 is below --min-class-recall 0.8");
    assert_eq!(lines.len(), 4);
}

#[test]
fn a_near_miss_shows_its_difference() {
    let close = Evaluation { accuracy: 0.899_999, ..evaluation() };
    let gates = Gates { min_accuracy: Some(0.9), ..Gates::default() };
    assert_eq!(missed(&gates, &close), ["accuracy 0.899999 is below --min-accuracy 0.9"]);
}

#[test]
fn parts_are_judged_by_the_decision_that_predict_makes() {
    let classes = ["crack".to_owned(), "good".to_owned()];
    let settings = InspectionSettings { good: vec!["good".into()], ..InspectionSettings::default() };
    let rules = Rules::choose(&settings, &classes, None).unwrap().unwrap();
    let (logits, labels) = ([3.0_f32, 0.0, 0.0, 2.0, 0.0, 1.0], [0, 1, 0]);
    let plain = evaluate("test", &logits, &labels, &classes, 1.0, &[]).unwrap();
    let inspected = plain.clone().inspected(&logits, &labels, &classes, &[], &rules).unwrap();
    let gates = Gates {
        max_escape: Some(0.4),
        max_escape_upper: Some(0.99),
        max_overkill: Some(0.0),
        max_review: Some(0.0),
        max_escapes_ppm: Some(100.0),
        ..Gates::default()
    };
    assert!(gates.need_inspection() && !Gates::default().need_inspection());
    assert_eq!(
        missed(&gates, &inspected),
        [
            "escape rate 0.5 is above --max-escape 0.4",
            "escapes in a million parts is undefined, which misses --max-escapes-ppm 100"
        ]
    );
    assert_eq!(missed(&gates, &plain).len(), 5);
}

#[test]
fn undefined_misses() {
    let gates = Gates { min_auroc: Some(0.5), ..Gates::default() };
    for auroc_macro in [None, Some(f64::NAN), Some(f64::INFINITY)] {
        let single = Evaluation { auroc_macro, ..evaluation() };
        assert_eq!(missed(&gates, &single), ["macro AUROC is undefined, which misses --min-auroc 0.5"]);
    }
}
