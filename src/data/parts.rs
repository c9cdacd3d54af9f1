//! Labels of parts: sound or not, whatever their class folder is called.

use super::{Dataset, Split};
use crate::config::{ProbeMethod, Settings};
use crate::error::DataError;
use crate::system::shown::quoted;

/// What the labels of a data set say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels<'a> {
    /// The class of each image, every one of which has training images.
    Classes,
    /// Whether a part is sound, of one class of sound parts; only these need training images. Without a name it is the one
    /// class that has any.
    Parts(&'a [String]),
}

impl<'a> Labels<'a> {
    /// As `probe` takes the images of these settings.
    pub fn of_probe(settings: &'a Settings) -> Self {
        match settings.probe.method {
            ProbeMethod::Patchcore => Self::Parts(&settings.inspection.good),
            _ => Self::Classes,
        }
    }

    /// The label of sound parts among the classes.
    pub(super) fn sound(self, classes: &[String]) -> Option<usize> {
        let Self::Parts([good]) = self else { return None };
        classes.iter().position(|class| class == good)
    }

    /// The label of an image of a class, and its kind where the label does not say it.
    pub(super) fn of(self, class: String) -> (String, Option<String>) {
        match self {
            Self::Parts([good]) if *good != class => (defect_class(good).to_owned(), Some(class)),
            Self::Parts(_) => (class.clone(), Some(class)),
            Self::Classes => (class, None),
        }
    }
}

/// The class of all parts that are not sound.
fn defect_class(good: &str) -> &'static str {
    if good == "defect" { "other" } else { "defect" }
}

/// The same samples labelled as sound or not, by one class of sound parts; what their classes were is their kind.
pub(super) fn label(dataset: Dataset, good: &[String]) -> Result<Dataset, DataError> {
    let train = dataset.class_counts(Split::Train);
    let trained: Vec<&String> =
        dataset.classes.iter().zip(&train).filter(|(_, count)| **count > 0).map(|(class, _)| class).collect();
    let good = match (good, trained.as_slice()) {
        ([], [only]) => (*only).clone(),
        ([], several) => {
            return Err(DataError::invalid(
                format!("there are training images of {}, and it is not said which are sound", quoted(several)),
                "name the class of sound parts with inspection.good",
            ));
        }
        ([one], _) if trained.contains(&one) => one.clone(),
        ([one], _) => {
            return Err(DataError::invalid(
                format!("no training image of {one:?}, the class of sound parts"),
                format!("inspection.good must name a class with training images; there are {}", quoted(&trained)),
            ));
        }
        (several, _) => {
            return Err(DataError::invalid(
                format!("inspection.good names {}, and patchcore knows one class of sound parts", quoted(several)),
                "put their images into one class, or use another probe.method",
            ));
        }
    };
    let Dataset { classes: kinds, mut samples, .. } = dataset;
    let mut classes = vec![defect_class(&good).to_owned(), good.clone()];
    classes.sort();
    let sound = usize::from(classes[1] == good);
    for sample in &mut samples {
        let kind = kinds[sample.label].clone();
        (sample.label, sample.kind) = (if kind == good { sound } else { 1 - sound }, Some(kind));
    }
    Ok(Dataset { classes, sound: Some(sound), samples, ..dataset })
}
