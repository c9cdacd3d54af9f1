//! How reliable probabilities are, and what is decided by them.

use super::RunPage;
use crate::metrics::ReliabilityBin;
use crate::report::html::markup::{Html, TableCell, drawn, facts, note, plot, table};
use crate::report::inspection::{outcome_rows, ranking_rows};
use crate::report::plots::{reliability_svg, separation_svgs};
use crate::system::shown::counted;

/// Escapes and overkill under each rule, when a good class is named.
pub(super) fn operating_points(page: &RunPage) -> Html {
    let Some((evaluation, inspection)) = page.main().and_then(|main| Some((main, main.inspection.as_ref()?))) else {
        return Html::default();
    };
    let (header, rows) = outcome_rows(inspection);
    let header: Vec<Html> = header.into_iter().map(Html::text).collect();
    let rows = rows.into_iter().map(|row| row.into_iter().map(TableCell::from).collect()).collect();
    let names: Vec<String> = inspection.good.iter().map(|class| Html::name(class).to_string()).collect();
    let parts = Html::markup(format!(
        "<p class=\"note\">{} good ({}) and {} of {}. Thresholds of the probability of a defect were chosen \
         on the validation images.</p>\n",
        inspection.goods,
        names.join(", "),
        counted(inspection.defects as usize, "defective part"),
        Html::text(&evaluation.split)
    ));
    let ranking = if let Some(gaps) = inspection.gaps() {
        note(&gaps)
    } else {
        let rows = ranking_rows(inspection);
        facts(&rows.iter().map(|(name, value)| (*name, Html::text(value))).collect::<Vec<_>>())
    };
    [parts, table("numbers", &header, rows), ranking, separation(page)].into_iter().collect()
}

/// How the scores are spread, and the curves of all thresholds.
fn separation(page: &RunPage) -> Html {
    let Some(separation) = &page.separation else { return Html::default() };
    match separation_svgs(separation) {
        Ok([histogram, roc, precision]) => {
            let histogram = plot("scores of good and defective parts, with the thresholds", &histogram);
            let curves: Html =
                [plot("ROC curve", &roc), plot("precision against recall", &precision)].into_iter().collect();
            let text = "Dashed: thresholds; dashed in the curves: what chance would do. Rings: what the thresholds do.";
            Html::markup(format!("{histogram}{}<div class=\"pair\">{curves}</div>", note(text)))
        }
        Err(reason) => note(&format!("The scores cannot be drawn: {reason}")),
    }
}

/// Confidence against accuracy, before and after calibration.
pub(super) fn reliability(page: &RunPage) -> Html {
    let Some((main, reliability)) = page.main().and_then(|main| Some((main, main.reliability.as_ref()?))) else {
        return Html::default();
    };
    let calibrated = format!("at temperature {:.2}", main.temperature);
    let sides = [("as the model gives it", &reliability.before), (&calibrated, &reliability.after)];
    let side = |(name, bins): (&str, &Vec<ReliabilityBin>)| {
        let label = format!("accuracy against confidence, {name}");
        (!bins.is_empty()).then(|| drawn("The diagram", &label, reliability_svg(name, bins)))
    };
    let drawn: Html = sides.into_iter().filter_map(side).collect();
    if drawn.is_empty() {
        return note("The model gives no finite numbers, so there are no probabilities to assess.");
    }
    let text = "Bars: the share of answers that is right, with its 95 % interval, by the probability that the model gives them. \
                Ring: the mean probability. On the dashed line the two agree. Hatched: no images.";
    Html::markup(format!("{}<div class=\"pair\">{drawn}</div>", note(text)))
}
