//! Escapes, overkill and reviews as tables for people.

use super::table::{key_value_table, listing_table, optional, optional_percent, percent};
use crate::metrics::{Estimate, Evaluation, Inspection, Interval, KindScore, Rate, RuleOutcome, ThresholdRule};
use crate::system::shown::{counted, printable, significant};

/// The inspection table above everything else that a command prints; `rest` alone when no good class is named.
pub fn inspection_first(evaluation: Option<&Evaluation>, rest: String) -> String {
    let Some(evaluation) = evaluation else { return rest };
    let Some(inspection) = &evaluation.inspection else { return rest };
    let table = inspection_table(&evaluation.split, inspection);
    if evaluation.kinds.is_empty() {
        return format!("{table}\n\n{rest}");
    }
    format!("{table}\n\n{}\n\n{rest}", kind_table(&evaluation.kinds))
}

/// One line a kind of part.
fn kind_table(kinds: &[KindScore]) -> String {
    let row = |kind: &KindScore| {
        vec![printable(&kind.kind), kind.images.to_string(), kind.rejected.to_string(), optional(kind.auroc)]
    };
    listing_table(1, &["kind of part", "images", "rejected", "AUROC"], kinds.iter().map(row))
}

/// The outcome of every rule, one per line, then what the ranking alone would allow.
pub fn inspection_table(split: &str, inspection: &Inspection) -> String {
    let good = inspection.good.iter().map(|class| printable(class)).collect::<Vec<_>>().join(", ");
    let (split, goods, defects) = (printable(split), inspection.goods, inspection.defects);
    let headline = format!("{split}, {goods} good ({good}) and {}", counted(defects as usize, "defective part"));
    let (header, rows) = outcome_rows(inspection);
    // Where the ranking is undefined, a sentence.
    let ranking = inspection.gaps().unwrap_or_else(|| key_value_table(&ranking_rows(inspection)));
    format!("{headline}\n\n{}\n\n{ranking}", listing_table(2, &header, &rows))
}

/// The header, and one row per rule, its first two cells words. Columns that say nothing are left out, and so are rules that
/// led to the same threshold as the stricter one above them.
pub(super) fn outcome_rows(inspection: &Inspection) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut rows: Vec<(String, String, Option<Rate>, RuleOutcome)> = Vec::new();
    let mut last = None;
    for point in &inspection.operating_points {
        let repeats = matches!(point.rule, ThresholdRule::OverkillAtMost { .. }) && point.threshold == last;
        if !(repeats || point.threshold.is_none() && point.rule != ThresholdRule::LargestProbability) {
            let threshold = point.threshold.map_or("-".into(), short);
            rows.push((point.rule.to_string(), threshold, None, point.outcome));
        }
        last = point.threshold;
    }
    if let Some(band) = inspection.band {
        let between = format!("{} to {}", short(band.band.accept_below), short(band.band.reject_from));
        rows.push(("review between".into(), between, Some(band.review), band.outcome));
    }
    let band = inspection.band.is_some();
    let ppm = rows.iter().any(|row| row.3.escapes_ppm.value.is_some());
    let cost = rows.iter().any(|row| row.3.cost_per_part.is_some());
    let cells = |(rule, threshold, review, outcome): (String, String, Option<Rate>, RuleOutcome)| {
        let mut cells = vec![("decision", rule), ("threshold", threshold)];
        cells.extend([("escapes", share(&outcome.escape)), ("95 %", bounds(&outcome.escape))]);
        cells.extend([("overkill", share(&outcome.overkill)), ("95 %", bounds(&outcome.overkill))]);
        let (looks, ppms) = (review.as_ref().map(share), outcome.escapes_ppm.value.map(|ppm| format!("{ppm:.0}")));
        let costs = outcome.cost_per_part.map(|cost| format!("{cost:.4}"));
        let more = [("looked at", band, looks), ("escapes, ppm", ppm, ppms), ("cost a part", cost, costs)];
        let more = more.into_iter().filter(|(_, shown, _)| *shown);
        cells.extend(more.map(|(name, _, cell)| (name, cell.unwrap_or("-".into()))));
        cells.into_iter().unzip()
    };
    let (mut headers, rows): (Vec<Vec<&'static str>>, Vec<Vec<String>>) = rows.into_iter().map(cells).unzip();
    (headers.pop().unwrap_or_default(), rows)
}

/// How well the defect probability ranks parts, whatever the threshold; in hindsight, the best one for these very images.
pub(super) fn ranking_rows(inspection: &Inspection) -> Vec<(&'static str, String)> {
    let recalls = inspection
        .recall_at_overkill
        .iter()
        .map(|at| format!("{} at {} %", optional_percent(at.recall.value), 100.0 * at.max_overkill));
    vec![
        ("AUROC", estimate(inspection.auroc)),
        ("average precision", estimate(inspection.average_precision)),
        ("recall at overkill, in hindsight", recalls.collect::<Vec<_>>().join(", ")),
        ("overkill at no escape, in hindsight", optional_percent(inspection.overkill_at_zero_escapes.value)),
    ]
}

fn share(rate: &Rate) -> String {
    rate.rate.map_or("-".into(), |share| format!("{} ({})", percent(share), rate.count))
}

/// The interval; that after no case, or after nothing but cases, is bounded on one side only.
fn bounds(rate: &Rate) -> String {
    let Some([low, high]) = rate.ci95.map(|ci| ci.map(|bound| 100.0 * bound)) else { return "-".into() };
    match rate.interval {
        Some(Interval::ExactOneSided | Interval::ExactOneSidedGroups) if rate.count == 0 => format!("up to {high:.1}"),
        Some(Interval::ExactOneSided | Interval::ExactOneSidedGroups) => format!("from {low:.1}"),
        _ => format!("{low:.1} to {high:.1}"),
    }
}

fn estimate(estimate: Estimate) -> String {
    match (estimate.value, estimate.ci95) {
        (Some(value), Some([low, high])) => format!("{value:.3} (95 %: {low:.3} to {high:.3})"),
        (Some(value), None) => format!("{value:.3}"),
        (None, _) => "-".into(),
    }
}

/// No score is above 1.
fn short(threshold: f64) -> String {
    if threshold > 1.0 { "none reaches it".into() } else { significant(threshold, 4) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BandGoal, Costs, InspectionSettings};
    use crate::metrics::{Rules, Scores, evaluate};

    fn evaluation(settings: &InspectionSettings, labels: &[usize]) -> Evaluation {
        let classes = ["crack", "good"].map(str::to_owned);
        let logits: Vec<f64> = [2.0, 1.0, 0.3, -0.4, 0.2, -1.0, -2.0, -9.0].iter().flat_map(|&x| [x, 0.0]).collect();
        let truth = [0, 0, 0, 0, 1, 1, 1, 1];
        let held_out = Scores::new(&logits, &truth, 2).unwrap();
        let settings = InspectionSettings { good: vec!["good".into()], ..settings.clone() };
        let rules = Rules::choose(&settings, &classes, Some((&held_out, 1.0))).unwrap().unwrap();
        let logits = &logits[..2 * labels.len()];
        let evaluation = evaluate("test", logits, labels, &classes, 1.0, &[]).unwrap();
        evaluation.inspected(logits, labels, &classes, &[], &rules).unwrap()
    }

    #[test]
    fn a_band_with_costs_reads_well() {
        let costs = Costs { escape: 100.0, overkill: 10.0, look: 1.0 };
        let settings =
            InspectionSettings { prevalence: Some(0.01), band: Some(BandGoal::Costs(costs)), ..Default::default() };
        let evaluation = evaluation(&settings, &[0, 0, 0, 0, 1, 1, 1, 1]);
        insta::assert_snapshot!(inspection_first(Some(&evaluation), "rest".into()), @r"
        test, 4 good (good) and 4 defective parts

        decision              threshold            escapes         95 %    overkill         95 %  looked at  escapes, ppm  cost a part
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
        largest probability   -                 25.0 % (1)  0.6 to 80.6  25.0 % (1)  0.6 to 80.6          -          2500       2.7250
        no escapes            0.3351             0.0 % (0)   up to 52.7  25.0 % (1)  0.6 to 80.6          -             0       2.4750
        overkill up to 0.1 %  0.5621            25.0 % (1)  0.6 to 80.6   0.0 % (0)   up to 52.7          -          2500       0.2500
        review between        0.5621 to 0.5621  25.0 % (1)  0.6 to 80.6   0.0 % (0)   up to 52.7  0.0 % (0)          2500       0.2500

        AUROC                                0.938 (95 %: 0.667 to 1.000)
        average precision                    0.950 (95 %: 0.700 to 1.000)
        recall at overkill, in hindsight     75.0 % at 0.1 %, 75.0 % at 0.5 %, 75.0 % at 1 %
        overkill at no escape, in hindsight  25.0 %

        rest
        ");
    }

    #[test]
    fn without_defects_and_band_little_is_left() {
        let evaluation = evaluation(&InspectionSettings::default(), &[1, 1]);
        insta::assert_snapshot!(inspection_first(Some(&evaluation), "rest".into()), @r"
        test, 2 good (good) and 0 defective parts

        decision              threshold  escapes  95 %     overkill       95 %
        ──────────────────────────────────────────────────────────────────────
        largest probability   -                -     -  100.0 % (2)  from 22.4
        no escapes            0.3351           -     -  100.0 % (2)  from 22.4
        overkill up to 0.1 %  0.5621           -     -  100.0 % (2)  from 22.4

        no image shows a defective part: escapes are undefined

        rest
        ");
        let plain = Evaluation { inspection: None, ..evaluation };
        assert_eq!(inspection_first(Some(&plain), "rest".into()), "rest");
        assert_eq!(inspection_first(None, "rest".into()), "rest");
    }
}
