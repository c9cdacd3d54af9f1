//! How the scores of good and defective parts are spread, with the thresholds, and what any threshold would do: ROC and
//! precision-recall curves.

use super::lines::{self, XAxis};
use super::prelude::*;
use crate::metrics::Separation;
use crate::system::shown::counted;

const SIZE: (u32, u32) = (1720, 1360);
const HEADER: u32 = 130;
/// Height of the histogram with the names of the thresholds above it.
const ABOVE: u32 = 620;
/// Height of the names of the thresholds.
const NAMES: u32 = 70;
/// The size of a panel drawn by itself.
const HISTOGRAM: (u32, u32) = (1000, 640);
const CURVE: (u32, u32) = (860, 640);
const KEY: u32 = 60;
/// Bins on each side of a probability of one half, and the decades of odds that they cover.
const BINS: i32 = 16;
const DECADES: f64 = 4.0;

impl Picture for Titled<'_, Separation> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        let Separation { good, defective, .. } = self.of;
        (good.is_empty() || defective.is_empty()).then(|| "there are not parts of both kinds".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let (header, below) = area.split_vertically(HEADER);
        style::draw_title(&header, self.title)?;
        draw_key(&header, (SIZE.0 as i32 / 2, 100), self.of)?;
        let (above, curves) = below.split_vertically(ABOVE);
        draw_histogram(&above, self.of)?;
        let (left, right) = curves.split_horizontally(SIZE.0 / 2);
        draw_curve(&left, self.of, Curve::Roc)?;
        draw_curve(&right, self.of, Curve::PrecisionRecall)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    Roc,
    PrecisionRecall,
}

/// The parts of the picture as SVG texts: the histogram, then the curves.
pub(in crate::report) fn separation_svgs(separation: &Separation) -> Result<[String; 3], String> {
    let histogram = panel_svg(HISTOGRAM, |area| {
        let (key, panel) = area.split_vertically(KEY);
        draw_key(&key, (HISTOGRAM.0 as i32 / 2, KEY as i32 / 2), separation)?;
        draw_histogram(&panel, separation)
    })?;
    let curve = |curve| panel_svg(CURVE, |area| draw_curve(area, separation, curve));
    Ok([histogram, curve(Curve::Roc)?, curve(Curve::PrecisionRecall)?])
}

/// Decadic logarithm of the odds, within what is drawn: thresholds often lie near 0 or 1, where a plain axis shows nothing.
fn place(score: f64) -> f64 {
    // No score reaches some thresholds.
    let score = score.clamp(0.0, 1.0);
    (score / (1.0 - score)).log10().clamp(-DECADES, DECADES)
}

/// The probability at a place, for people.
fn probability(place: f64) -> String {
    let value = 1.0 / (1.0 + 10f64.powf(-place));
    let decimals = (place.abs().round() as usize).max(1);
    format!("{value:.decimals$}")
}

/// Share of the scores in each bin, in per cent.
fn shares(scores: &[f64]) -> Vec<f64> {
    let mut shares = vec![0.0; 2 * BINS as usize];
    for &score in scores {
        let bin = ((place(score) / DECADES + 1.0) * f64::from(BINS)) as usize;
        shares[bin.min(2 * BINS as usize - 1)] += 100.0 / scores.len() as f64;
    }
    shares
}

/// The two sides by colour, with their numbers.
fn draw_key<B: DrawingBackend>(area: &Canvas<B>, centre: (i32, i32), separation: &Separation) -> Drawn<B> {
    const SAMPLE: i32 = 36;
    let entries = vec![
        (counted(separation.good.len(), "good part"), BLUE),
        (counted(separation.defective.len(), "defective part"), VERMILION),
    ];
    lines::draw_row(area, centre, (SAMPLE, 14), entries, |color, (x, y)| {
        let corners = [(x, y - 12), (x + SAMPLE, y + 12)];
        area.draw(&Rectangle::new(corners, color.mix(0.75).filled()))
    })
}

fn draw_histogram<B: DrawingBackend>(area: &Canvas<B>, separation: &Separation) -> Drawn<B> {
    let (names, panel) = area.split_vertically(NAMES);
    let sides = [(shares(&separation.good), BLUE), (shares(&separation.defective), VERMILION)];
    let most = sides.iter().flat_map(|(shares, _)| shares).copied().fold(1.0, f64::max);
    let top = 1.08 * most;
    let axis = XAxis {
        range: -DECADES - 0.15..DECADES + 0.15, // room for the labels at both ends
        name: "probability of a defect, by its odds",
        ticks: 9,
        label: &|&place| probability(place),
    };
    let mut chart = lines::draw_axes(&panel, &axis, (0.0..top, "share of its kind, %"))?;
    let step = DECADES / f64::from(BINS);
    for (side, (shares, color)) in sides.iter().enumerate() {
        let bar = |(bin, &share): (usize, &f64)| {
            let left = -DECADES + step * (bin as f64 + 0.06 + 0.44 * side as f64);
            Rectangle::new([(left, 0.0), (left + 0.42 * step, share)], color.mix(0.75).filled())
        };
        chart.draw_series(shares.iter().enumerate().filter(|(_, share)| **share > 0.0).map(bar))?;
    }
    // Names of thresholds that lie close together would cover each other: those of the next one stand higher.
    let mut taken = [0; 2];
    for (name, threshold) in &separation.thresholds {
        let x = place(*threshold);
        chart.draw_series(DashedLineSeries::new([(x, 0.0), (x, top)], 8, 8, GREY.stroke_width(3)))?;
        let at = chart.backend_coord(&(x, top)).0 - names.get_base_pixel().0;
        let width = style::width(name, TICK);
        let room = names.dim_in_pixel().0 as i32;
        let fits = |left: i32| left <= at && left + width <= room;
        let rows = taken.iter_mut().zip([3, 1]);
        let mut free = rows.map(|(taken, quarters)| ((at - width / 2).max(*taken), taken, quarters));
        if let Some((left, taken, quarters)) = free.find(|(left, ..)| fits(*left)) {
            area.draw(&Text::new(name.as_str(), (left, NAMES as i32 * quarters / 4), style::left(TICK, GREY)))?;
            *taken = left + width + 20;
        }
    }
    Ok(())
}

fn draw_curve<B: DrawingBackend>(area: &Canvas<B>, separation: &Separation, curve: Curve) -> Drawn<B> {
    let (points, name, y_name) = match curve {
        Curve::Roc => (separation.roc(), "good parts rejected, %", "defects found, %"),
        Curve::PrecisionRecall => (separation.precision_recall(), "defects found, %", "defects among the rejected, %"),
    };
    let axis = XAxis { range: -1.5..101.5, name, ticks: 6, label: &|share| format!("{share:.0}") };
    let mut chart = lines::draw_axes(area, &axis, (0.0..101.5, y_name))?;
    let prevalence = separation.defective.len() as f64 / (separation.good.len() + separation.defective.len()) as f64;
    // What chance does.
    let chance = match curve {
        Curve::Roc => [(0.0, 0.0), (100.0, 100.0)],
        Curve::PrecisionRecall => [(0.0, 100.0 * prevalence), (100.0, 100.0 * prevalence)],
    };
    chart.draw_series(DashedLineSeries::new(chance, 8, 8, GREY.stroke_width(3)))?;
    let percent = |(x, y): (f64, f64)| (100.0 * x, 100.0 * y);
    chart.draw_series(LineSeries::new(points.into_iter().map(percent), INK.stroke_width(4)))?;
    for (_, threshold) in &separation.thresholds {
        let (rejected, found) = separation.at(*threshold);
        let (goods, defects) = (separation.good.len() as f64 * rejected, separation.defective.len() as f64 * found);
        let place = match curve {
            Curve::Roc => (rejected, found),
            Curve::PrecisionRecall if goods + defects > 0.0 => (found, defects / (goods + defects)),
            Curve::PrecisionRecall => continue,
        };
        chart.draw_series([style::disc(percent(place), 10, INK), style::disc(percent(place), 6, PAPER)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InspectionSettings;
    use crate::metrics::{Rules, Scores, evaluate};
    use crate::report::plots::tests::{assert_says, refused, saved};

    #[test]
    fn scores_of_parts_of_any_spread() {
        let classes = ["good", "scratch"].map(str::to_owned);
        for (name, gap, n) in [("apart", 4.0, 200), ("close", 0.8, 90), ("few", 2.0, 5)] {
            let logit = |i: usize| {
                let spread =
                    2.2 * ((i as f64 * 0.754_877).fract() - 0.5) + 2.2 * ((i as f64 * 0.569_840).fract() - 0.5);
                if i.is_multiple_of(3) { gap + spread } else { spread - gap }
            };
            let logits: Vec<f64> = (0..n).flat_map(|i| [0.0, logit(i)]).collect();
            let labels: Vec<usize> = (0..n).map(|i| usize::from(i % 3 == 0)).collect();
            let settings = InspectionSettings { good: vec!["good".into()], ..Default::default() };
            let held_out = Scores::new(&logits, &labels, 2).unwrap();
            let rules = Rules::choose(&settings, &classes, Some((&held_out, 1.0))).unwrap().unwrap();
            let evaluation = evaluate("test", &logits, &labels, &classes, 1.0, &[]).unwrap();
            let evaluation = evaluation.inspected(&logits, &labels, &classes, &[], &rules).unwrap();
            let inspection = evaluation.inspection.unwrap();
            let separation = inspection.separation(&logits, &labels, &classes, 1.0).unwrap().unwrap();
            assert_eq!(separation.good.len() + separation.defective.len(), n);
            // The area under the curve that is drawn is the number that is printed.
            let area: f64 =
                separation.roc().windows(2).map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0).sum();
            assert!((area - inspection.auroc.value.unwrap()).abs() < 1e-12);
            let svg = saved(&format!("separation-{name}"), &Titled { title: "test, parts", of: &separation });
            assert_says(
                &svg,
                &["defective parts", "good parts rejected, %", "defects among the rejected, %", "no escapes"],
            );
            assert!(separation_svgs(&separation).unwrap().iter().all(|svg| svg.starts_with("<svg")));
        }
        assert!(refused(&Titled { title: "", of: &Separation::default() }).contains("both kinds"));
    }

    #[test]
    fn every_score_has_a_place_and_a_share() {
        let scores = [0.0, 1e-9, 0.001, 0.5, 0.9, 1.0 - 1e-12, 1.0];
        assert!((shares(&scores).iter().sum::<f64>() - 100.0).abs() < 1e-9);
        assert!(scores.iter().all(|&score| (-DECADES..=DECADES).contains(&place(score))));
        let shown = [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0].map(probability);
        assert_eq!(shown, ["0.0001", "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "0.999"]);
    }
}
