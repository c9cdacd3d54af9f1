//! `model.pool = "auto"`: the pooling is chosen on the images that the probe's own number is chosen on. One forward pass gives
//! the features of all but the most unusual patch, which is measured in passes of its own.

use super::features::FeatureSet;
use super::fit_probe::fit;
use super::mahalanobis;
use super::session::Session;
use crate::backbone::{Activations, Readout};
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
}

/// Chooses the best score on held-out images, among equals the lowest cross-entropy, and then the one that comes first: the
/// backbone's own. From then on the session pools so.
///
/// # Errors
/// Those of [`FeatureSet::at`], [`mahalanobis::measure`] and [`fit`].
pub fn choose(session: &mut Session, images: &Images, console: &Console) -> Result<ChosenPooling> {
    let all = FeatureSet::at(session, session.pretrained(), Activations::Poolings, images, console)?;
    let (own, mut usage) = (session.backbone.clone(), all.usage);
    let (mut start, mut candidates) = (0, Vec::new());
    for (choice, pool) in own.spec.poolings() {
        let width = pool.features(own.spec.width);
        candidates.push((choice, all.mapped(|rows| Ok((rows.columns(start..start + width), width)))?));
        start += width;
    }
    session.set_pool(PoolChoice::Mahalanobis)?;
    if let Some(weights) = mahalanobis::measured(session, images, console)? {
        let backbone = (&session.backbone.params, weights.as_str());
        let features = FeatureSet::compute(session, backbone, Readout::POOL, images, console)?;
        usage += features.usage;
        candidates.push((PoolChoice::Mahalanobis, features));
    }

    let (mut scores, mut ranks) = (Vec::new(), Vec::new());
    for (choice, features) in &candidates {
        let fitted = fit(features, session, Refit::Train, console)?;
        let point = &fitted.selection.path[fitted.selection.chosen];
        scores.push(PoolScore {
            pool: *choice,
            val_accuracy: point.validation_accuracy,
            val_score: point.validation_score,
        });
        ranks.push((point.validation_score, -point.validation_loss));
    }
    let best = (1..ranks.len()).fold(0, |best, at| if ranks[at] > ranks[best] { at } else { best });
    let (choice, features) = candidates.swap_remove(best);
    if choice != PoolChoice::Mahalanobis {
        session.backbone = own;
        session.set_pool(choice)?;
    }
    Ok(ChosenPooling { features: features.used(usage), scores })
}
