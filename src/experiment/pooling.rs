//! `model.pool = "auto"`: the pooling is chosen on the images that the probe's own number is chosen on, from features that
//! one forward pass gives for all of them.

use super::features::FeatureSet;
use super::fit_probe::fit;
use super::session::Session;
use crate::backbone::Activations;
use crate::config::{PoolChoice, Refit};
use crate::error::Result;
use crate::features::Images;
use crate::report::{Console, PoolScore};

/// The features by the pooling that was chosen, and what each scored.
pub struct ChosenPooling {
    /// The features.
    pub features: FeatureSet,
    /// What each scored.
    pub scores: Vec<PoolScore>,
    /// The chosen one.
    pub choice: PoolChoice,
}

/// Chooses the best score on held-out images, among equals the lowest cross-entropy, and then the one that comes first: the
/// backbone's own.
///
/// # Errors
/// Those of [`FeatureSet::at`] and [`fit`].
pub fn choose(session: &Session, images: &Images, console: &Console) -> Result<ChosenPooling> {
    let all = FeatureSet::at(session, session.pretrained(), Activations::Poolings, images, console)?;
    let spec = &session.backbone.spec;
    let (mut start, mut scores) = (0, Vec::new());
    let mut best: Option<((f64, f64), ChosenPooling)> = None;
    for (choice, pool) in spec.poolings() {
        let width = pool.features(spec.width);
        let features = all.mapped(|rows| Ok((rows.columns(start..start + width), width)))?;
        start += width;
        let fitted = fit(&features, session, Refit::Train, console)?;
        let point = &fitted.selection.path[fitted.selection.chosen];
        scores.push(PoolScore {
            pool: choice,
            val_accuracy: point.validation_accuracy,
            val_score: point.validation_score,
        });
        let rank = (point.validation_score, -point.validation_loss);
        if best.as_ref().is_none_or(|(found, _)| rank > *found) {
            best = Some((rank, ChosenPooling { features, scores: Vec::new(), choice }));
        }
    }
    match best {
        Some((_, chosen)) => Ok(ChosenPooling { scores, ..chosen }),
        None => Ok(ChosenPooling { features: all, scores, choice: PoolChoice::Backbone }),
    }
}
