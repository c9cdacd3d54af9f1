//! Tables for people: aligned columns, one rule under the header, nothing else.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use crate::metrics::{ClassReport, Doubt, Evaluation, Places, Robustness};
use crate::system::shown::{counted, printable};

/// Classes that are listed in full.
const MANY_CLASSES: usize = 20;

const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// An accuracy or another share from 0 to 1 as in `91.1 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// An interval of shares in per cent, as in `58.8 to 87.3`.
pub(super) fn within([low, high]: [f64; 2]) -> String {
    format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high)
}

/// Names on the left, values on the right, one pair per line.
pub fn key_value_table<K: AsRef<str>, V: AsRef<str>>(rows: &[(K, V)]) -> String {
    listing_table(2, &[], rows.iter().map(|(key, value)| [key.as_ref(), value.as_ref()]))
}

/// The scores of a split: the accuracy in words, the overall numbers, then one row per class.
pub fn evaluation_table(evaluation: &Evaluation) -> String {
    let overall = key_value_table(&overall_rows(evaluation));
    format!("{}\n\n{overall}\n\n{}", headline(evaluation), class_table(&evaluation.per_class))
}

/// What speaks against scores, one sentence a line, before the tables with them.
pub fn doubts_first(doubts: &[Doubt], tables: String) -> String {
    if doubts.is_empty() {
        return tables;
    }
    let lines = doubts.iter().map(|doubt| format!("doubtful: {}\n", printable(&doubt.sentence)));
    format!("{}\n{tables}", lines.collect::<String>())
}

/// The recall of each class; of many classes only those with the lowest.
pub fn recall_table(evaluation: &Evaluation) -> String {
    let mut classes = evaluation.per_class.clone();
    let all = classes.len();
    if all > MANY_CLASSES {
        classes.retain(|class| class.support > 0);
        classes.sort_by(|a, b| a.recall.total_cmp(&b.recall));
        classes.truncate(MANY_CLASSES);
    }
    let which = if classes.len() == all {
        format!("{} images by class", printable(&evaluation.split))
    } else {
        format!(
            "{} images, the {} of {all} classes with the lowest recall",
            printable(&evaluation.split),
            classes.len()
        )
    };
    format!("{which}\n\n{}", class_table(&classes))
}

/// The confusion matrix: one row per true class, one column per predicted class.
pub fn confusion_table(evaluation: &Evaluation) -> String {
    let names: Vec<String> = evaluation.per_class.iter().map(|class| printable(&class.class)).collect();
    let header: Vec<&str> = std::iter::once("true \\ predicted").chain(names.iter().map(String::as_str)).collect();
    let rows = evaluation.per_class.iter().zip(&evaluation.confusion);
    let row = |(class, counts): (&ClassReport, &Vec<u64>)| {
        std::iter::once(class.class.clone()).chain(counts.iter().map(u64::to_string)).collect::<Vec<_>>()
    };
    listing_table(1, &header, rows.map(row))
}

/// Accuracies on validation and test images, one row per template.
pub fn template_table(rows: &[(&str, Option<f64>, Option<f64>)]) -> String {
    let rows =
        rows.iter().map(|&(template, val, test)| [template.to_owned(), optional_percent(val), optional_percent(test)]);
    listing_table(1, &["template", "validation", "test"], rows)
}

/// Accuracies in per cent, one row per flaw, one column per strength, from the images as they are to the strongest flaw.
pub fn robustness_table(robustness: &Robustness) -> String {
    let r = robustness;
    let number = |share: f64| format!("{:.1}", 100.0 * share);
    let relative = |share: Option<f64>| share.map_or("-".to_owned(), number);
    let row = |name: &str, accuracies: &[f64], mean: f64, share: Option<f64>| {
        let mut cells = vec![name.to_owned(), number(r.clean_accuracy)];
        cells.extend(accuracies.iter().map(|&accuracy| number(accuracy)));
        cells.extend([number(mean), relative(share)]);
        cells
    };
    let mut header: Vec<String> = vec!["flaw".into(), "none".into()];
    header.extend(r.strengths.iter().map(|strength| format!("{strength:.2}")));
    header.extend(["mean".into(), "of clean".into()]);
    let mut rows: Vec<Vec<String>> = r
        .kinds
        .iter()
        .map(|kind| row(&kind.kind, &kind.accuracy, kind.mean_accuracy, kind.relative_accuracy))
        .collect();
    rows.push(row("mean", &r.mean_by_strength, r.mean_accuracy, r.relative_accuracy));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let split = printable(&r.split);
    let images = counted(r.n, "image");
    format!("{split}, {images}: accuracy in % by strength of the flaw\n\n{}", listing_table(1, &header, &rows))
}

/// How well maps find flaws.
pub fn places_table(places: &Places) -> String {
    let regions = counted(places.regions, "region");
    key_value_table(&[
        ("images with a mask", format!("{} of {}, {regions}", places.masked, places.images)),
        ("most evidence lies in the flaw", optional_percent(places.pointing_game)),
        ("the box holds half of a flaw", optional_percent(places.box_holds)),
        ("the same where the flaw is found", optional_percent(places.box_holds_in_finds)),
        ("AUROC of pixels", optional(places.pixel_auroc)),
        ("overlap with regions (PRO)", optional(places.pro)),
    ])
}

fn headline(evaluation: &Evaluation) -> String {
    let e = evaluation;
    let interval = e.accuracy_ci95.map(|bounds| format!("95 % interval {}", within(bounds)));
    let interval = interval.unwrap_or("no interval: all images are of one group".into());
    let baseline = e.majority_class().map_or(String::new(), |class| {
        format!("\nalways answering '{}' scores {}", printable(class), percent(e.majority_baseline))
    });
    let (split, accuracy) = (printable(&e.split), percent(e.accuracy));
    format!("{split}, {}: accuracy {accuracy} ({interval}){baseline}", counted(e.n, "image"))
}

fn overall_rows(evaluation: &Evaluation) -> Vec<(&'static str, String)> {
    let e = evaluation;
    let calibrated = |before, after| match e.temperature {
        1.0 => optional(before),
        t => format!("{}, {} at temperature {t:.2}", optional(before), optional(after)),
    };
    vec![
        ("balanced accuracy", percent(e.balanced_accuracy)),
        ("macro F1", decimal(e.macro_f1)),
        ("weighted F1", decimal(e.weighted_f1)),
        ("macro AUROC", optional(e.auroc_macro)),
        ("MCC", decimal(e.mcc)),
        ("Cohen's kappa", optional(e.kappa)),
        ("NLL", calibrated(e.nll, e.nll_calibrated)),
        ("ECE", calibrated(e.ece, e.ece_calibrated)),
    ]
}

fn class_table(classes: &[ClassReport]) -> String {
    let row = |class: &ClassReport| {
        [
            class.class.clone(),
            class.support.to_string(),
            percent(class.precision),
            percent(class.recall),
            decimal(class.f1),
            optional(class.auroc),
            optional(class.average_precision),
        ]
    };
    listing_table(1, &["class", "images", "precision", "recall", "F1", "AUROC", "AP"], classes.iter().map(row))
}

/// One row per line below a header, if there is one; the first `words` columns on the left, the numbers after them on the
/// right, two spaces apart (one is the style's own), without spaces at the ends of lines.
pub fn listing_table<C: AsRef<str>, R: IntoIterator<Item = C>>(
    words: usize,
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut table = Table::new();
    table.load_style(STYLE);
    if !header.is_empty() {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable(cell.as_ref())));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if i == 0 { (0, 0) } else { (1, 0) });
        column.set_cell_alignment(if i < words { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.trim_fmt()
}

pub(super) fn decimal(value: f64) -> String {
    format!("{value:.3}")
}

/// Three decimals; a dash for what is undefined.
pub(super) fn optional(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), decimal)
}

pub(super) fn optional_percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), percent)
}

/// 5125 as `5,125`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::evaluate;

    fn evaluation(temperature: f64) -> Evaluation {
        let classes = ["crack", "ge\nsund", "日本語"].map(str::to_owned);
        let logits = [3.0_f32, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 2.0, 0.0];
        evaluate("test", &logits, &[0, 1, 0], &classes, temperature, &[]).unwrap()
    }

    #[test]
    fn evaluation_reads_well() {
        insta::assert_snapshot!(evaluation_table(&evaluation(2.0)), @r"
        test, 3 images: accuracy 66.7 % (95 % interval 9.4 to 99.2)
        always answering 'crack' scores 66.7 %

        balanced accuracy  75.0 %
        macro F1           0.667
        weighted F1        0.667
        macro AUROC        1.000
        MCC                0.500
        Cohen's kappa      0.400
        NLL                0.581, 0.700 at temperature 2.00
        ECE                0.323, 0.413 at temperature 2.00

        class     images  precision   recall     F1  AUROC     AP
        ─────────────────────────────────────────────────────────
        crack          2    100.0 %   50.0 %  0.667  1.000  1.000
        ge\nsund       1     50.0 %  100.0 %  0.667  1.000  1.000
        日本語         0      0.0 %    0.0 %  0.000      -      -
        ");
    }

    #[test]
    fn confusion_reads_well() {
        insta::assert_snapshot!(confusion_table(&evaluation(1.0)), @r"
        true \ predicted  crack  ge\nsund  日本語
        ─────────────────────────────────────────
        crack                 1         1       0
        ge\nsund              0         1       0
        日本語                0         0       0
        ");
    }

    #[test]
    fn of_many_classes_the_least_recognised_are_listed() {
        let few = evaluation(1.0);
        assert!(recall_table(&few).starts_with("test images by class\n\nclass "));
        assert_eq!(recall_table(&few).lines().count(), 2 + 2 + 3);
        let class = |i: usize| ClassReport {
            class: format!("c{i}"),
            support: u64::from(i > 0),
            recall: 1.0 / (i + 1) as f64,
            ..few.per_class[0].clone()
        };
        let many = Evaluation { per_class: (0..30).map(class).collect(), ..few };
        let table = recall_table(&many);
        assert!(table.starts_with("test images, the 20 of 30 classes with the lowest recall\n"), "{table}");
        assert!(table.contains("\nc29 ") && table.contains("\nc10 ") && !table.contains("\nc9 "), "{table}");
    }

    #[test]
    fn flaws_read_well() {
        let clean = evaluation(1.0);
        let at = |accuracy| Evaluation { accuracy, ..clean.clone() };
        let kinds = [("blur", vec![at(0.6), at(0.2)]), ("noise", vec![at(0.66), at(0.5)])];
        let robustness = Robustness::new(42, vec![0.5, 1.0], &clean, &kinds);
        insta::assert_snapshot!(robustness_table(&robustness), @r"
        test, 3 images: accuracy in % by strength of the flaw

        flaw   none  0.50  1.00  mean  of clean
        ───────────────────────────────────────
        blur   66.7  60.0  20.0  40.0      60.0
        noise  66.7  66.0  50.0  58.0      87.0
        mean   66.7  63.0  35.0  49.0      73.5
        ");
    }

    #[test]
    fn one_group_has_no_interval() {
        let single = Evaluation { accuracy_ci95: None, n: 1, ..evaluation(1.0) };
        assert!(evaluation_table(&single).starts_with("test, 1 image: accuracy 66.7 % (no interval: all images"));
    }

    #[test]
    fn pairs_are_aligned_and_single_lines() {
        let table = key_value_table(&[("run", "runs/a\u{1b}[31m"), ("epochs", "10")]);
        assert_eq!(table, "run     runs/a\\u{1b}[31m\nepochs  10");
        assert_eq!(key_value_table::<&str, &str>(&[]), "");
    }
}
