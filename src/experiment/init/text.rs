//! The configuration as text, each line with what it rests on.

use super::choose::{ChosenBackbone, ChosenTiles};
use super::options::shown;
use super::survey::{Listed, Survey};
use crate::data::Split;
use crate::system::shown::{counted, printable};
use std::path::Path;
use toml::Value;

/// The largest class has so many times the images of the smallest: then classes are weighted.
const IMBALANCED: f64 = 3.0;
/// With fewer images in the smallest class, more of it is held out, so that its scores say something.
const FEW: usize = 40;
/// Images this much longer than wide are not squashed.
const ELONGATED: f64 = 1.3;
/// Classes that are listed.
const LISTED: usize = 30;

/// The text of the file `out` for images in `data`; `manifest` is written beside it where one is.
pub(super) fn config(survey: &Survey, choice: &ChosenBackbone, (data, out, manifest): (&Path, &Path, &Path)) -> String {
    let counts = survey.counts();
    let images = survey.dataset.samples.len();
    let mut text = format!(
        "# {} of {}, written by `vitadapt init`.\n#\n",
        counted(images, "image"),
        counted(counts.len(), "class")
    );
    let typed = shown(out);
    text.push_str(&format!(
        "#   Check:  vitadapt check --config {typed}\n#   Train:  vitadapt finetune --config {typed}\n#\n"
    ));
    let widest = counts.keys().map(|class| class.chars().count()).max().unwrap_or(0).min(40);
    for (class, n) in counts.iter().take(LISTED) {
        text.push_str(&format!("#   {:widest$}  {n:>6}\n", printable(class)));
    }
    if counts.len() > LISTED {
        text.push_str(&format!("#   and {}\n", counted(counts.len() - LISTED, "more class")));
    }
    text.push_str(&section_data(survey, (data, out, manifest)));
    text.push_str(&section_model(survey, choice));
    let (least, most) = (counts.values().min().copied().unwrap_or(0), counts.values().max().copied().unwrap_or(0));
    let imbalanced = most as f64 >= IMBALANCED * least as f64;
    text.push_str(
        "\n[strategy]\nkind = \"frozen\" # only the head learns, so each image passes the backbone once; next: \"partial\"\n\
         \n[train]\nepochs = 15\nbatch_size = 16\nhead_lr = 3e-4 # of the head, which starts fitted; train.lr is left to the strategy\n",
    );
    if imbalanced {
        let why = format!(
            "the largest class has {}, the smallest {least}: look at balanced accuracy and recalls",
            counted(most, "image")
        );
        text.push_str(&format!(
            "class_weights = \"balanced\" # {why}\n\n[probe]\nclass_weights = \"balanced\" # likewise for what the head starts from\n"
        ));
    }
    text.push_str("\n[early_stop]\nmetric = \"val_loss\" # steadier than the accuracy of few images\n");
    if let Some(good) = &survey.good {
        text.push_str(&format!(
            "\n[inspection]\ngood = {} # all other classes are defects: escapes and false alarms are reported\n",
            quoted(good)
        ));
    }
    text
}

fn section_data(survey: &Survey, (data, out, manifest): (&Path, &Path, &Path)) -> String {
    let base = out.parent().unwrap_or(Path::new(""));
    let seen = |path: &Path| {
        let relative = path.strip_prefix(base).ok().filter(|rest| !rest.as_os_str().is_empty());
        quoted(&relative.unwrap_or(path).to_string_lossy())
    };
    let mut text = String::from("\n[data]\n");
    let beside = |why: &str| {
        let mut text = format!("manifest = {} # {why}\n", seen(manifest));
        if data != base {
            text.push_str(&format!("root = {} # what its paths are relative to\nallow_outside = true\n", seen(data)));
        }
        text
    };
    match &survey.listed {
        Listed::Folders => text.push_str(&format!("root = {}\n", seen(data))),
        Listed::Grouped(_) => {
            let why = format!(
                "the folders as a list: names suggest {} groups, none of which is parted where splits are drawn",
                survey.group_count().unwrap_or(0)
            );
            text.push_str(&beside(&why));
        }
        Listed::Anomalies => text.push_str(&beside(&format!(
            "train/ and test/ of the tree together, dealt anew: train/ has no defects to learn from, so scores are not those of \
             anomaly detection, for which there is `vitadapt probe --data {} --set probe.method=patchcore`",
            shown(data)
        ))),
        Listed::Table { columns, outside, root } => {
            text.push_str(&format!("manifest = {}\n", seen(data)));
            if let Some(root) = root {
                text.push_str(&format!("root = {} # what its paths are relative to\nallow_outside = true\n", seen(root)));
            } else if *outside {
                text.push_str("allow_outside = true # its paths are absolute or lead out of its folder\n");
            }
            if !columns.is_empty() {
                let pairs: Vec<String> =
                    columns.iter().map(|(ours, theirs)| format!("{ours} = {}", quoted(theirs))).collect();
                text.push_str(&format!("columns = {{ {} }} # what its columns are called\n", pairs.join(", ")));
            }
            if let Some(groups) = survey.group_count() {
                text.push_str(&format!("# {}; images of one group stay in one split\n", counted(groups, "group")));
            }
        }
    }
    if let Some(patients) = survey.patients {
        text.push_str(&format!(
            "group_by = \"patient\" # {}, each of whom stays in one split; no ID is written anywhere\n",
            counted(patients, "patient")
        ));
    }
    if !survey.ignored.is_empty() && matches!(survey.listed, Listed::Folders | Listed::Table { .. }) {
        text.push_str(&format!("ignore = {:?} # left out of the data\n", survey.ignored));
    }
    let named = &survey.dataset.named;
    let drawn: Vec<Split> = [Split::Val, Split::Test].into_iter().filter(|split| !named.contains(split)).collect();
    let names = |splits: &[Split]| splits.iter().map(|split| split.name()).collect::<Vec<_>>().join(" and ");
    match (named.as_slice(), drawn.as_slice()) {
        ([], _) => {}
        (_, []) => text.push_str("# the splits are those that the data names\n"),
        _ => text.push_str(&format!("# the data names {}, not {}:\n", names(named), names(&drawn))),
    }
    let fewest = survey.counts().values().min().copied().unwrap_or(0);
    let (share, why) = if fewest < FEW {
        (0.2, format!("the smallest class has only {}", counted(fewest, "image")))
    } else {
        (0.15, "drawn once by data.split_seed, the same share of every class".to_owned())
    };
    for (index, split) in drawn.iter().enumerate() {
        let comment = if index == 0 { format!(" # {why}") } else { String::new() };
        text.push_str(&format!("{split} = {share}{comment}\n"));
    }
    text
}

fn section_model(survey: &Survey, choice: &ChosenBackbone) -> String {
    let mut text = format!("\n[model]\nbackbone = {}", quoted(&choice.backbone));
    text.push_str(&choice.why.map_or_else(|| "\n".to_owned(), |why| format!(" # {why}\n")));
    if let Some(size) = choice.image_size {
        let images = survey.side.map_or_else(String::new, |side| format!(" # the images have about {side} pixels"));
        let time = choice.seconds.map_or_else(String::new, |seconds| match seconds {
            ..60.0 => format!("; features of all take about {:.0} s here", seconds.max(1.0)),
            _ => format!("; features of all take about {:.0} min here", seconds / 60.0),
        });
        let comment = if images.is_empty() { String::new() } else { format!("{images}{time}") };
        text.push_str(&format!("image_size = {size}{comment}\n"));
    }
    if choice.tiles.is_some() {
        text.push_str("pool = \"max\" # the most conspicuous place of a tile; with \"mahalanobis\", for `probe`, the most unusual one\n\
             tile_pool = \"max\" # one tile with a flaw is enough\n");
    }
    text.push_str("head_init = \"probe\" # the head starts as the linear probe that fits the frozen features best\n");
    if let Some(ChosenTiles { scale, count, squashed_to }) = choice.tiles {
        text.push_str(&format!(
            "\n[preprocess.tiles] # about {} an image: a small flaw would be lost in a squash to {squashed_to} pixels;\n\
             # of the formats of `export`, only ONNX has tiles\n\
             scale = {scale:?} # pixels of the input for one of the image\n",
            counted(count, "tile")
        ));
    } else if survey.elongation >= ELONGATED {
        text.push_str(&format!(
            "\n[preprocess]\nresize = \"letterbox\" # the images are {:.1} times as long as wide: \"squash\" would distort them\n",
            survey.elongation
        ));
    }
    text
}

/// As TOML.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
