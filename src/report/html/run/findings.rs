//! How the result came about and how robust it is: curves, the choice of a probe, flaws added to the images.

use super::RunPage;
use crate::metrics::{FlawScores, Robustness, SelectionMetric};
use crate::report::html::markup::{Html, TableCell, drawn, note, table};
use crate::report::plots::{Measure, SelectionPlot, curve_svg, robustness_svg, selection_svg};
use crate::report::table::optional_percent;
use crate::report::{RunResult, percent};
use crate::system::shown::counted;

/// Loss and accuracy over the epochs.
pub(super) fn curves(page: &RunPage) -> Html {
    if page.epochs.is_empty() {
        return Html::default();
    }
    let best = match &page.record.result {
        Some(RunResult::Finetune(result)) => result.best_epoch,
        _ => None,
    };
    let draw = |measure, label: &str| {
        drawn(&format!("The curve of the {label}"), label, curve_svg(&page.epochs, best, measure))
    };
    let both = [draw(Measure::Loss, "loss over the epochs"), draw(Measure::Accuracy, "accuracy over the epochs")];
    let seconds: f64 = page.epochs.iter().map(|epoch| epoch.seconds).sum();
    let text = format!(
        "{} of {:.1} s on average. Training numbers are means over an epoch while the parameters moved, with \
         augmentation if there is any.",
        counted(page.epochs.len(), "epoch"),
        seconds / page.epochs.len() as f64
    );
    Html::markup(format!("<div class=\"pair\">{}</div>{}", both.into_iter().collect::<Html>(), note(&text)))
}

/// Accuracy of a probe against the number that was chosen.
pub(super) fn selection(page: &RunPage) -> Html {
    let Some(RunResult::Probe(result)) = &page.record.result else { return Html::default() };
    let selection = SelectionPlot {
        title: String::new(),
        x_label: result.method.setting().into(),
        points: result.path.iter().map(|point| (point.setting, point.train_accuracy, point.val_accuracy)).collect(),
        chosen: result.chosen,
        metric: result.metric.unwrap_or(SelectionMetric::Accuracy),
    };
    drawn("The choice", "accuracy against the setting of the classifier", selection_svg(&selection))
}

/// Accuracy under flaws.
pub(super) fn robustness(page: &RunPage) -> Html {
    page.robustness.iter().map(flaws).collect()
}

fn flaws(scores: &Robustness) -> Html {
    let picture = drawn("The curves", "accuracy against the strength of each flaw", robustness_svg(scores));
    let header = ["flaw", "mean accuracy", "of clean", "at full strength"].map(Html::text);
    let row = |kind: &FlawScores| -> Vec<TableCell> {
        let relative = kind.relative_accuracy.unwrap_or(0.0);
        vec![
            Html::name(&kind.kind).into(),
            percent(kind.mean_accuracy).into(),
            TableCell::shaded(Html::text(&optional_percent(kind.relative_accuracy)), relative),
            optional_percent(kind.accuracy.last().copied()).into(),
        ]
    };
    let rows = scores.kinds.iter().map(row).collect();
    let text = format!(
        "{} of {}: accuracy {} as they are, {} with flaws, as a mean over {} and {}. At strength 1 \
         images are worse than any that would be used.",
        counted(scores.n, "image"),
        scores.split,
        percent(scores.clean_accuracy),
        percent(scores.mean_accuracy),
        counted(scores.kinds.len(), "kind"),
        counted(scores.strengths.len(), "strength")
    );
    [note(&text), picture, table("bars", &header, rows)].into_iter().collect()
}
