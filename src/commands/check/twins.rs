//! Images that are the same or nearly so, by their pixels and, if asked for, by the backbone's features.

use super::Section;
use crate::data::audit::{Examination, Resemblances, Twins};
use crate::experiment::image_neighbors::{ImageNeighbors, NEIGHBORS};
use crate::report::{Console, listing_table, percent, thousands};
use crate::system::shown::{agree, counted};
use serde_json::{Value, json};

/// Rows of a table: with what stands around it, a screenful.
const LISTED: usize = 20;

/// The pairs as tables: those by pixels and, with features, the nearest images of different splits. A quiet console gets
/// their number alone.
pub fn sections(
    found: &Examination,
    alike: &Resemblances,
    features: Option<&ImageNeighbors>,
    console: &Console,
) -> Vec<Section> {
    let pairs = &alike.twins;
    let cosines: Vec<Option<f64>> =
        pairs.iter().map(|pair| features.map(|features| features.cosine(pair.first, pair.second))).collect();
    let confirmed: Vec<Option<bool>> = pairs.iter().map(|pair| features.map(|features| features.agree(pair))).collect();
    let mut text = summary(alike, &confirmed);
    // The problems name those that are in two splits.
    if !pairs.iter().all(|pair| found.is_leak(pair)) && !console.is_quiet() {
        text.push_str(&explanation(pairs));
        text = format!("{text}\n\n{}", table(found, pairs, &cosines));
    }
    let judged = pairs.iter().zip(cosines.iter().zip(&confirmed));
    let json = judged.map(|(pair, (cosine, confirmed))| pair_json(found, pair, *cosine, *confirmed)).collect();
    let duplicates = Section { name: "duplicates", text, json };
    std::iter::once(duplicates).chain(features.map(|features| neighbors(found, features))).collect()
}

/// An image by its name, class and split.
fn place(found: &Examination, index: usize) -> String {
    let sample = &found.dataset.samples[index];
    format!("{} ({}, {})", sample.name, found.dataset.classes[sample.label], sample.split)
}

fn table(found: &Examination, pairs: &[Twins], cosines: &[Option<f64>]) -> String {
    let header = ["image", "is like", "correlation", "distance", "cosine"];
    // Without features the last column would be empty.
    let columns = if cosines.iter().any(Option::is_some) { 5 } else { 4 };
    let row = |(pair, cosine): (&Twins, &Option<f64>)| {
        let (correlation, distance) = match pair.likeness {
            None => ("same file".into(), String::new()),
            Some(likeness) => {
                let relative = likeness.relative_distance.map_or(String::new(), percent);
                (format!("{:.3}", likeness.correlation), relative)
            }
        };
        let cosine = cosine.map_or(String::new(), |cosine| format!("{cosine:.4}"));
        let mut cells = vec![place(found, pair.first), place(found, pair.second), correlation, distance, cosine];
        cells.truncate(columns);
        cells
    };
    let rows = pairs.iter().zip(cosines).filter(|(pair, _)| !found.is_leak(pair));
    listing_table(2, &header[..columns], rows.take(LISTED).map(row))
}

fn pair_json(found: &Examination, pair: &Twins, cosine: Option<f64>, confirmed: Option<bool>) -> Value {
    let [first, second] = [pair.first, pair.second].map(|index| &found.dataset.samples[index]);
    json!({
        "first": first.name,
        "second": second.name,
        "kind": if pair.likeness.is_none() { "same" } else { "near" },
        "splits": [first.split, second.split],
        "classes": [found.dataset.classes[first.label], found.dataset.classes[second.label]],
        "likeness": pair.likeness,
        "cosine": cosine,
        "confirmed_by_features": confirmed,
    })
}

/// The images of different splits that the features find most alike.
fn neighbors(found: &Examination, features: &ImageNeighbors) -> Section {
    let samples = &found.dataset.samples;
    let mut nearest = features.across_splits(samples);
    nearest.truncate(LISTED);
    let row = |&(first, second, cosine): &(usize, usize, f64)| {
        vec![place(found, first), place(found, second), format!("{cosine:.4}")]
    };
    let text = if nearest.is_empty() {
        "no image has a near neighbour in another split".into()
    } else {
        listing_table(2, &["image", "nearest by features", "cosine"], nearest.iter().map(row))
    };
    let json = nearest.iter().map(|&(first, second, cosine)| {
        json!({"first": samples[first].name, "second": samples[second].name, "cosine": cosine})
    });
    Section { name: "neighbours across splits", text, json: json.collect() }
}

/// The numbers of pairs in sentences.
fn summary(alike: &Resemblances, confirmed: &[Option<bool>]) -> String {
    let pairs = &alike.twins;
    let same = pairs.iter().filter(|pair| pair.likeness.is_none()).count();
    let near = pairs.len() - same;
    let by_features = pairs.iter().zip(confirmed).filter(|(pair, _)| pair.likeness.is_some());
    let by_features = by_features.filter(|(_, confirmed)| **confirmed == Some(true)).count();
    let confirmed = if near > 0 && confirmed.iter().any(Option::is_some) {
        format!(" ({by_features} of them among each other's {NEIGHBORS} nearest by features)")
    } else {
        String::new()
    };
    let (copies, what) = (counted(same, "copy"), counted(near, "pair"));
    let mut text = format!("{copies} of a file, {what} of strikingly similar images{confirmed}");
    if alike.look_alikes > 0 {
        let others = thousands(alike.look_alikes);
        text.push_str(&format!(
            "\n{others} more {}, but no more than different images of this set do",
            agree(alike.look_alikes, "pair looks alike", "pairs look alike")
        ));
    }
    text
}

/// What stands in the table of the pairs.
fn explanation(pairs: &[Twins]) -> String {
    let mut text = String::new();
    if pairs.iter().any(|pair| pair.likeness.is_some_and(|likeness| likeness.relative_distance.is_some())) {
        text.push_str("\ndistance: as a share of that to the 20th nearest image");
    }
    if pairs.len() > LISTED {
        text.push_str(&format!(
            "\nthe first {LISTED}, those in two splits before others and the surest first; --json lists all"
        ));
    }
    text
}
