//! The most confident mistakes: the images as the model saw them, where it looked, and similar training images.

use super::RunPage;
use crate::forms::shown_as_written;
use crate::report::html::data_uri;
use crate::report::html::markup::{Html, note};
use crate::report::percent;
use crate::system::shown::{Shown, agree, are, part_of};
use serde::Serialize;
use std::path::PathBuf;

/// What a map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MapKind {
    /// What each patch adds to the class's logit, over the mean of all classes. Summed over all patches, with the bias, it
    /// is that logit.
    Evidence,
    /// How far each patch is from the nearest one of sound parts.
    Distance,
    /// Attention roll-out, which follows attention alone.
    Hint,
}

shown_as_written!(MapKind);

/// The mistakes of a split that are shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mistakes {
    /// The split.
    pub split: String,
    /// Wrong answers.
    pub wrong: usize,
    /// All answers.
    pub total: usize,
    /// The most confident wrong answers.
    pub shown: Vec<Mistake>,
    /// Flaws that were found, the surest first.
    pub finds: Vec<Mistake>,
    /// What heat maps show, where there are any.
    pub map: Option<MapKind>,
    /// Why no heat maps are drawn, if they are not.
    pub without_heat: Option<String>,
}

/// A wrong answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mistake {
    /// The file, as the data names it.
    pub path: PathBuf,
    /// The true class.
    pub class: String,
    /// The predicted class.
    pub predicted: String,
    /// Calibrated probability of the predicted class.
    pub confidence: f64,
    /// The image as the model saw it: an image file.
    pub image: Option<Vec<u8>>,
    /// Where the model looked: an image file.
    pub heat: Option<Vec<u8>>,
    /// The training images most like it, the nearest first.
    pub neighbors: Vec<Neighbor>,
}

/// A training image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Neighbor {
    /// The file, as the data names it.
    pub path: PathBuf,
    /// Its class.
    pub class: String,
    /// An image file.
    pub image: Option<Vec<u8>>,
}

/// A card for each mistake.
pub(super) fn gallery(page: &RunPage) -> Html {
    let Some(mistakes) = &page.mistakes else { return Html::default() };
    [wrong(mistakes), finds(mistakes)].into_iter().collect()
}

/// The flaws that were found, with their places.
fn finds(mistakes: &Mistakes) -> Html {
    if mistakes.finds.is_empty() {
        return Html::default();
    }
    let shown = match mistakes.map {
        Some(MapKind::Distance) => {
            "how far each patch is from the nearest one of sound parts, beyond what is usual in the image"
        }
        _ => "what each place adds to the score of its class",
    };
    let text = format!("These flaws were found, the surest first. Beside each image, from yellow to red, is {shown}.");
    [note(&text), cards(&mistakes.finds, "found as")].into_iter().collect()
}

/// The wrong answers.
fn wrong(mistakes: &Mistakes) -> Html {
    if mistakes.wrong == 0 {
        let all = match mistakes.total {
            1 => "The only image".to_owned(),
            total => format!("All {total} images"),
        };
        return note(&format!(
            "{all} of {} {} classified correctly.",
            mistakes.split,
            agree(mistakes.total, "was", "were")
        ));
    }
    let text = format!(
        "{} of {} {} classified wrongly{}",
        part_of(mistakes.wrong, mistakes.total, "image"),
        mistakes.split,
        agree(mistakes.wrong, "was", "were"),
        match mistakes.shown.len() {
            0 => ".".to_owned(),
            shown if shown < mistakes.wrong => {
                format!("; here {} the {} most confident.", are(shown), agree(shown, "one", &shown.to_string()))
            }
            _ => ", the most confident first.".to_owned(),
        }
    );
    [note(&text), explanation(mistakes), cards(&mistakes.shown, "taken for")].into_iter().collect()
}

fn explanation(mistakes: &Mistakes) -> Html {
    let has = |part: fn(&Mistake) -> bool| mistakes.shown.iter().any(part);
    let mut text = "Images are shown as the model sees them.".to_owned();
    if let Some(map) = mistakes.map.filter(|_| has(|mistake| mistake.heat.is_some())) {
        text.push_str(" Beside them, from yellow to red, ");
        text.push_str(match map {
            MapKind::Evidence => {
                "is what each place adds to the score of the predicted class: exactly, for the score is the sum over all \
                 places. Colours are stretched for each image."
            }
            MapKind::Distance => {
                "is how far each patch is from the nearest one of sound parts, beyond what is usual in the image. The score \
                 of an image follows from its farthest patch."
            }
            MapKind::Hint => {
                "is where it looked most: attention roll-out (Abnar and Zuidema 2020), stretched for each image. It follows \
                 attention alone, so it is a hint, not proof."
            }
        });
    }
    if has(|mistake| !mistake.neighbors.is_empty()) {
        text.push_str(
            " Below are the training images with the most similar features, the nearest first; those of the true \
             class are set off.",
        );
    }
    let without = mistakes.without_heat.as_ref().map_or(Html::default(), |reason| note(reason));
    [note(&text), without].into_iter().collect()
}

fn cards(mistakes: &[Mistake], verb: &str) -> Html {
    let cards: Html = mistakes.iter().map(|mistake| card(mistake, verb)).collect();
    Html::markup(format!("<div class=\"gallery\">\n{cards}</div>"))
}

fn card(mistake: &Mistake, verb: &str) -> Html {
    let path = mistake.path.shown();
    let pictures = [(&mistake.image, "image"), (&mistake.heat, "where the model found its answer")];
    let pictures: Html =
        pictures.into_iter().filter_map(|(file, what)| picture(file.as_deref()?, &format!("{path}: {what}"))).collect();
    let words = format!(
        "<p>{} <span class=\"taken\">{verb}</span> {} <span class=\"taken\">({})</span></p>",
        Html::name(&mistake.class),
        Html::name(&mistake.predicted),
        percent(mistake.confidence)
    );
    let neighbors: Html = mistake.neighbors.iter().map(|near| neighbor(near, &mistake.class)).collect();
    let neighbors = if neighbors.is_empty() { String::new() } else { format!("<ul>\n{neighbors}</ul>") };
    Html::markup(format!(
        "<article class=\"mistake\"><div class=\"pictures\">{pictures}</div>{words}\
         <p class=\"path\">{}</p>{neighbors}</article>",
        Html::name(&path)
    ))
}

/// A neighbour; of the true class it speaks against the answer, which the style shows.
fn neighbor(neighbor: &Neighbor, truth: &str) -> Html {
    let path = neighbor.path.shown();
    let image = neighbor.image.as_deref().and_then(|file| picture(file, &path)).unwrap_or_default();
    let class = if neighbor.class == truth { " class=\"same\"" } else { "" };
    Html::markup(format!("<li{class} title=\"{}\">{image}{}</li>", Html::text(&path), Html::name(&neighbor.class)))
}

fn picture(file: &[u8], described: &str) -> Option<Html> {
    let address = data_uri(file)?;
    Some(Html::markup(format!("<img src=\"{address}\" alt=\"{}\" loading=\"lazy\">", Html::text(described))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_map_is_explained() {
        for (map, said) in [
            (MapKind::Evidence, "the score is the sum over all places"),
            (MapKind::Distance, "beyond what is usual in the image"),
            (MapKind::Hint, "attention roll-out"),
        ] {
            let shown = vec![Mistake { heat: Some(Vec::new()), ..Mistake::default() }];
            let mistakes = Mistakes { shown, map: Some(map), ..Mistakes::default() };
            let text = explanation(&mistakes).to_string();
            assert!(text.contains("from yellow to red") && text.contains(said), "{text}");
            let bare = Mistakes { shown: vec![Mistake::default()], ..mistakes };
            assert!(!explanation(&bare).to_string().contains("from yellow to red"), "no map, no colours");
        }
    }
}
