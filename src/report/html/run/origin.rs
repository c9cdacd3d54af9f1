//! Data, settings and provenance.

use super::RunPage;
use crate::config::{self, Settings};
use crate::report::forecast::elapsed;
use crate::report::html::markup::{Html, TableCell, facts, folded, note, table};
use crate::report::run::flatten;
use crate::report::{mebibytes, thousands};
use crate::system::shown::{agree, counted};

/// Counts by class and split.
pub(super) fn data(page: &RunPage) -> Html {
    let splits = page.counts.iter().map(|(split, _)| Html::text(split));
    let header: Vec<Html> = std::iter::once(Html::text("class")).chain(splits).chain([Html::text("all")]).collect();
    let line = |name: Html, count: &dyn Fn(&[usize]) -> usize| -> Vec<TableCell> {
        let counts: Vec<usize> = page.counts.iter().map(|(_, counts)| count(counts)).collect();
        let all = counts.iter().sum();
        let numbers = counts.into_iter().chain([all]).map(|count| TableCell::from(thousands(count)));
        std::iter::once(TableCell::from(name)).chain(numbers).collect()
    };
    let of_class = |(label, class): (usize, &String)| {
        line(Html::name(class), &|counts| counts.get(label).copied().unwrap_or_default())
    };
    let mut lines: Vec<Vec<TableCell>> = page.record.classes.iter().enumerate().map(of_class).collect();
    lines.push(line(Html::text("all classes"), &|counts| counts.iter().sum()));
    let skipped = match page.skipped {
        0 => Html::default(),
        n => note(&format!(
            "{} could not be used and {} left out; see skipped.csv.",
            counted(n, "file"),
            agree(n, "was", "were")
        )),
    };
    [table("numbers totals", &header, lines), skipped].into_iter().collect()
}

/// The settings that are not the defaults, and all of them folded away.
pub(super) fn settings(page: &RunPage) -> Html {
    let chosen = chosen(&page.settings);
    let rows: Vec<(&str, Html)> = chosen.iter().map(|(key, value)| (key.as_str(), Html::name(value))).collect();
    // Line by line, since line breaks are not control characters here.
    let lines: String = page.config.lines().map(|line| format!("{}\n", Html::text(line))).collect();
    let all = Html::markup(format!("<pre class=\"scrolls\" tabindex=\"0\">{lines}</pre>\n"));
    [note("What differs from the defaults:"), facts(&rows), folded("The whole config.toml", &all)].into_iter().collect()
}

/// The keys whose values are not the defaults, but for those that say where things are.
fn chosen(settings: &Settings) -> Vec<(String, String)> {
    let of_choices = |choices: &[String]| {
        // Nothing is opened here: any root will do.
        let sets = [&["data.root=images".to_owned()], choices].concat();
        config::load(None, &sets).map(|usual| flatten(&usual)).unwrap_or_default()
    };
    // What a choice brings along was not set by the user; the choice itself was.
    let choices = config::choices(settings);
    let (default, usual) = (of_choices(&[]), of_choices(&choices));
    let chosen = |row: &(String, String)| {
        let key = row.0.as_str();
        let is_choice = choices.iter().any(|set| set.split('=').next() == Some(key));
        !usual.contains(row) || is_choice && !default.contains(row)
    };
    let place = ["run.name", "run.out", "data.root", "data.manifest", "cache.dir"];
    let rows = flatten(settings).into_iter();
    rows.filter(|row| chosen(row) && !place.contains(&row.0.as_str()))
        .map(|(key, value)| (key, value.trim_matches('"').to_owned()))
        .collect()
}

/// Where the numbers come from, so that they can be reproduced.
pub(super) fn provenance(page: &RunPage) -> Html {
    let record = &page.record;
    let text = |value: String| Html::text(&value);
    let memory = record.peak_memory_bytes.map_or("unknown".to_owned(), mebibytes);
    let cache = record.cache.map_or("not used".to_owned(), |usage| {
        let rows = agree(usage.hits, "row", "rows");
        format!("{} {rows} found, {} computed", thousands(usage.hits), thousands(usage.misses))
    });
    let mut rows = vec![
        ("vitadapt", Html::text(&record.version)),
        ("seed", text(record.seed.to_string())),
        ("device", text(format!("{}, {}", record.device, counted(record.threads, "thread")))),
        ("wall time", text(elapsed(record.wall_seconds))),
        ("peak memory", Html::text(&memory)),
        ("feature cache", Html::text(&cache)),
        ("backbone", Html::name(&record.backbone.name)),
        ("architecture", text(format!("{} ({})", record.backbone.architecture, record.backbone.family))),
        ("weights, SHA-256", Html::name(&record.backbone.sha256)),
        ("data, SHA-256", Html::name(&record.data.sha256)),
    ];
    if let Some(forecast) = &record.forecast {
        rows.insert(5, ("forecast", Html::text(&forecast.sentence())));
    }
    rows.extend(record.soup.as_ref().map(|soup| ("soup", text(soup.sentence()))));
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_choice_brings_along_is_not_what_differs() {
        let rows = |sets: &[&str]| {
            let rows = chosen(&config::testing::settings(sets));
            rows.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert!(rows(&[]).is_empty());
        assert_eq!(rows(&["strategy.kind=lora"]), ["strategy.kind=lora"]);
        let full = rows(&["strategy.kind=full", "train.lr=1e-5", "augment.preset=light"]);
        assert_eq!(full, ["augment.preset=light", "strategy.kind=full", "train.lr=0.00001"]);
        assert_eq!(rows(&["train.loss=focal"]), ["train.loss=focal"]);
    }
}
