//! Verdict and scores.

use super::RunPage;
use crate::metrics::{ClassReport, Doubt, DoubtKind, Evaluation, Inspection, Rate, confusions};
use crate::report::html::markup::{Html, TableCell, folded, note, table};
use crate::report::table::{decimal, optional, optional_percent, within};
use crate::report::{RunResult, percent, thousands};
use crate::system::shown::{agree, counted, part_of};

/// Classes whose confusion is shown as a matrix; of more, the commonest confusions and the worst classes are listed.
const MATRIX: usize = 30;
const LISTED: usize = 30;
/// With more classes the matrix is drawn dense: narrow cells, names upright, nothing where there is no image.
const ROOMY: usize = 10;

/// The verdict, the numbers that matter, and one row per split.
pub(super) fn headline(page: &RunPage) -> Html {
    [verdict(page), doubts(page), again(page), cards(page), splits(page)].into_iter().collect()
}

/// What speaks against the run's own scores.
fn doubts(page: &RunPage) -> Html {
    let sentences: Html = page.record.doubts.iter().map(|doubt| paragraph(&doubt.sentence)).collect();
    if sentences.is_empty() {
        sentences
    } else {
        Html::markup(format!("<div class=\"verdict doubtful\">{sentences}</div>"))
    }
}

fn paragraph(text: &str) -> Html {
    Html::markup(format!("<p>{}</p>", Html::text(text)))
}

/// What was scored later, and why it does not replace the numbers of the run.
fn again(page: &RunPage) -> Html {
    let scored = |evaluation: &Evaluation| {
        let (accuracy, n, split) = (percent(evaluation.accuracy), thousands(evaluation.n), &evaluation.split);
        let images = agree(evaluation.n, "image", "images");
        let headline = Html::text(&format!("Scored again: {accuracy} of {n} {split} {images}, which is in doubt"));
        let doubts: Html = evaluation.doubts.iter().map(|doubt| paragraph(&doubt.sentence)).collect();
        Html::markup(format!("<div class=\"verdict doubtful\"><p><strong>{headline}</strong></p>{doubts}</div>"))
    };
    page.again.iter().map(scored).collect()
}

fn verdict(page: &RunPage) -> Html {
    let (class, sentence, remedy) = match &page.record.result {
        Some(RunResult::Finetune(result)) => {
            let class = if result.verdict == "ok" { "good" } else { "doubtful" };
            (class, &result.verdict_reason, result.remedy.as_ref())
        }
        Some(RunResult::Probe(result)) => ("neutral", &result.advice, None),
        _ => return Html::default(),
    };
    let (sentence, remedy) = (Html::text(sentence), remedy.map_or(Html::default(), |remedy| paragraph(remedy)));
    Html::markup(format!("<div class=\"verdict {class}\"><p><strong>{sentence}</strong></p>{remedy}</div>"))
}

/// A number with its name and what qualifies it.
fn card(name: &str, value: &str, beside: &Html) -> Html {
    let [name, value] = [name, value].map(Html::text);
    Html::markup(format!(
        "<div class=\"card\"><dt>{name}</dt><dd><strong>{value}</strong> <span>{beside}</span></dd></div>"
    ))
}

fn cards(page: &RunPage) -> Html {
    let mut cards = Vec::new();
    if let Some(e) = page.main() {
        let interval = e.accuracy_ci95.map(|bounds| format!("95 %: {}", within(bounds)));
        let interval = interval.unwrap_or("all images are of one group".into());
        let recalls = Html::text("mean recall of the classes");
        let largest = e
            .majority_class()
            .map_or(Html::default(), |class| Html::markup(format!("always answering {}", Html::name(class))));
        cards.push(card(&format!("{} accuracy", e.split), &percent(e.accuracy), &Html::text(&interval)));
        cards.push(card("balanced accuracy", &percent(e.balanced_accuracy), &recalls));
        cards.push(card("baseline", &percent(e.majority_baseline), &largest));
        cards.extend(inspection(e));
    }
    let (learning, all) = (page.record.trainable_parameters, page.record.total_parameters);
    let all = Html::text(&format!("of {}", thousands(all)));
    cards.push(card("trainable parameters", &thousands(learning), &all));
    Html::markup(format!("<dl class=\"cards\">\n{}</dl>", cards.into_iter().collect::<Html>()))
}

/// Escapes and overkill of the decisions, when a good class is named.
fn inspection(evaluation: &Evaluation) -> Vec<Html> {
    let Some(outcome) = evaluation.inspection.as_ref().and_then(Inspection::decided) else { return Vec::new() };
    let rate = |name: &str, rate: &Rate, what: &str| {
        let counts = Html::text(&format!("{} of {} {what}", rate.count, rate.of));
        card(name, &optional_percent(rate.rate), &counts)
    };
    vec![
        rate("escapes", &outcome.escape, "defective parts accepted"),
        rate("overkill", &outcome.overkill, "good parts rejected"),
    ]
}

fn splits(page: &RunPage) -> Html {
    if page.evaluations.is_empty() {
        return note("No split has been scored.");
    }
    let header = ["split", "images", "accuracy", "balanced", "macro F1", "AUROC", "NLL", "ECE"].map(Html::text);
    let calibrated = |e: &Evaluation, before, after| if e.temperature == 1.0 { before } else { after };
    let row = |e: &Evaluation| -> Vec<TableCell> {
        vec![
            match e.doubts.as_slice() {
                [] => e.split.clone(),
                [Doubt { kind: DoubtKind::Copied, images, .. }] => {
                    format!("{} ({} seen before)", e.split, counted(*images, "image"))
                }
                _ => format!("{} (no honest estimate)", e.split),
            }
            .into(),
            thousands(e.n).into(),
            percent(e.accuracy).into(),
            percent(e.balanced_accuracy).into(),
            decimal(e.macro_f1).into(),
            optional(e.auroc_macro).into(),
            optional(calibrated(e, e.nll, e.nll_calibrated)).into(),
            optional(calibrated(e, e.ece, e.ece_calibrated)).into(),
        ]
    };
    let rows = page.evaluations.iter().map(row).collect();
    let temperature = page.record.temperature.map_or("not calibrated: there are no validation images".into(), |t| {
        format!("at temperature {t:.2}, fitted on the validation images")
    });
    let explained = note(&format!("NLL and ECE judge the probabilities, {temperature}."));
    [table("numbers", &header, rows), explained].into_iter().collect()
}

/// The matrix of a few classes, the commonest confusions of many.
pub(super) fn confusion(page: &RunPage) -> Html {
    let Some(evaluation) = page.main() else { return Html::default() };
    if evaluation.per_class.len() > MATRIX { commonest(evaluation) } else { matrix(evaluation) }
}

fn matrix(evaluation: &Evaluation) -> Html {
    let names = || evaluation.per_class.iter().map(|class| Html::name(&class.class));
    let dense = evaluation.per_class.len() > ROOMY;
    let header: Vec<Html> = std::iter::once(Html::text("true \\ predicted")).chain(names()).collect();
    let row = |(name, counts): (Html, &Vec<u64>)| {
        let total: u64 = counts.iter().sum();
        let cell = |&count: &u64| {
            let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
            let shown = if dense && count == 0 { String::new() } else { count.to_string() };
            TableCell::shaded(Html::text(&shown), share)
        };
        std::iter::once(TableCell::from(name)).chain(counts.iter().map(cell)).collect()
    };
    let rows = names().zip(&evaluation.confusion).map(row).collect();
    let (class, empty) = if dense { ("confusion dense", " An empty cell has no image.") } else { ("confusion", "") };
    let shade = format!("Images of {}; the shade is the share of the true class.{empty}", evaluation.split);
    [table(class, &header, rows), note(&shade)].into_iter().collect()
}

fn commonest(evaluation: &Evaluation) -> Html {
    let classes = &evaluation.per_class;
    let pairs = confusions(&evaluation.confusion);
    let row = |&(count, truth, predicted): &(u64, usize, usize)| -> Vec<TableCell> {
        let share = count as f64 / classes[truth].support.max(1) as f64;
        vec![
            Html::name(&classes[truth].class).into(),
            Html::name(&classes[predicted].class).into(),
            count.to_string().into(),
            TableCell::shaded(Html::text(&percent(share)), share),
        ]
    };
    let header = ["true class", "taken for", "images", "of the true class"].map(Html::text);
    let rows: Vec<_> = pairs.iter().take(LISTED).map(row).collect();
    let which = format!(
        "{} between {} classes, the commonest first.",
        part_of(rows.len(), pairs.len(), "confusion"),
        classes.len()
    );
    [table("bars", &header, rows), note(&which)].into_iter().collect()
}

/// One row per class; of many those with the lowest recall first, and all of them folded.
pub(super) fn classes(page: &RunPage) -> Html {
    let Some(evaluation) = page.main() else { return Html::default() };
    let all: Vec<&ClassReport> = evaluation.per_class.iter().collect();
    let explained = note(
        "Precision: right among those taken for the class. Recall: found among those of the class. AUROC and AP (average \
         precision) rank images by the probability of the class.",
    );
    if all.len() <= MATRIX {
        return [class_table(&all), explained].into_iter().collect();
    }
    let mut worst: Vec<&ClassReport> = all.iter().copied().filter(|class| class.support > 0).collect();
    worst.sort_by(|a, b| a.recall.total_cmp(&b.recall));
    worst.truncate(LISTED);
    let which = note(&format!("The {} of {} classes with the lowest recall.", worst.len(), all.len()));
    let folded = folded(&format!("All {} classes", all.len()), &class_table(&all));
    [class_table(&worst), which, explained, folded].into_iter().collect()
}

fn class_table(classes: &[&ClassReport]) -> Html {
    let header = ["class", "images", "precision", "recall", "F1", "AUROC", "AP"].map(Html::text);
    let rows = classes.iter().map(|class| -> Vec<TableCell> {
        vec![
            Html::name(&class.class).into(),
            class.support.to_string().into(),
            TableCell::shaded(Html::text(&percent(class.precision)), class.precision),
            TableCell::shaded(Html::text(&percent(class.recall)), class.recall),
            decimal(class.f1).into(),
            optional(class.auroc).into(),
            optional(class.average_precision).into(),
        ]
    });
    table("bars", &header, rows.collect())
}
