//! `model.pool = "auto"` and `model.tile_pool = "auto"`: the pooling is chosen on the images that the probe chooses C (or k)
//! on. One forward pass gives the features of every pooling but `mahalanobis`, which needs passes of its own.

use super::features::FeatureSet;
use super::fit_probe::fit;
use super::mahalanobis;
use super::session::Session;
use crate::backbone::{Activations, Readout, TILE_POOLS, tile_factor};
use crate::config::{FeatureChoice, PoolChoice, ProbeMethod, ProbeSettings, Refit, Settings, TilePool};
use crate::error::{Error, Result};
use crate::features::Images;
use crate::report::{Console, PoolScore};

/// Which poolings are still to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenChoices {
    /// That of the tokens.
    pub pool: bool,
    /// That of the tiles.
    pub tiles: bool,
}

impl OpenChoices {
    /// The choices that the settings leave open; none when both poolings are given. Until one is chosen, the backbone is opened
    /// with its own pooling.
    ///
    /// # Errors
    /// A usage error where the probe does not read pooled features.
    pub fn of(settings: &mut Settings) -> Result<Option<Self>> {
        let model = &mut settings.model;
        if settings.preprocess.tiles.is_none() && model.tile_pool == TilePool::Auto {
            model.tile_pool = TilePool::Max;
        }
        let open = Self { pool: model.pool == PoolChoice::Auto, tiles: model.tile_pool == TilePool::Auto };
        if !open.pool && !open.tiles {
            return Ok(None);
        }
        open.check(&settings.probe)?;
        if open.pool {
            model.pool = PoolChoice::Backbone;
        }
        if open.tiles {
            model.tile_pool = TilePool::Max;
        }
        Ok(Some(open))
    }

    fn check(self, settings: &ProbeSettings) -> Result<()> {
        let key = if self.pool { "model.pool" } else { "model.tile_pool" };
        if settings.method == ProbeMethod::Tip {
            return Err(Error::usage_hint(
                format!(
                    "{key} = \"auto\" chooses among poolings, but probe.method = \"tip\" needs the one that was trained with \
                     texts"
                ),
                format!("set probe.method to \"logistic\", or leave {key} out"),
            ));
        }
        if settings.features != FeatureChoice::Pool || settings.blocks != 1 {
            return Err(Error::usage_hint(
                format!(
                    "{key} = \"auto\" chooses what probe.features = \"pool\" reads of the last block, but probe.features or \
                     probe.blocks asks for other features"
                ),
                format!("leave probe.features and probe.blocks out, or {key}"),
            ));
        }
        Ok(())
    }
}

/// The features by the pooling that was chosen, and what each scored.
pub struct ChosenPooling {
    /// The features.
    pub features: FeatureSet,
    /// What each scored.
    pub scores: Vec<PoolScore>,
}

/// Chooses the pooling with the best score on held-out images; ties go to the lowest cross-entropy, then to the one that comes
/// first (the backbone's own; of tiles, the maximum). From then on the session pools so. `weights` is the content address of the
/// session's parameters.
///
/// # Errors
/// Those of [`FeatureSet::at`], [`mahalanobis::measured`] and [`fit`].
pub fn choose(
    session: &mut Session,
    (open, weights): (OpenChoices, &str),
    images: &Images,
    console: &Console,
) -> Result<ChosenPooling> {
    if open.tiles {
        // All of them, side by side.
        session.backbone.spec.pooling.tiles = TilePool::Auto;
    }
    let given = session.settings.model.pool;
    let spec = &session.backbone.spec;
    let own = |(choice, pool): (PoolChoice, crate::backbone::Pool)| (choice, pool.features(spec.width));
    let (wanted, pools) = if open.pool {
        (Activations::Poolings, spec.poolings().into_iter().map(own).collect())
    } else {
        (Activations::Features(Readout::POOL), vec![(given, spec.features())])
    };
    let all = FeatureSet::at(session, (&session.backbone.params, weights), wanted, images, console)?;
    let tiles = if open.tiles { TILE_POOLS.to_vec() } else { vec![session.settings.model.tile_pool] };
    let mut choice = Choice { best: None, scores: Vec::new(), tiles: &tiles };
    choice.among(&all, &pools, session, console)?;
    let (backbone, mut usage) = (session.backbone.clone(), all.usage);
    if open.pool {
        session.set_pool(PoolChoice::Mahalanobis)?;
        if let Some(weights) = mahalanobis::measured(session, images, console)? {
            let measured = (&session.backbone.params, weights.as_str());
            let features = FeatureSet::compute(session, measured, Readout::POOL, images, console)?;
            usage += features.usage;
            choice.among(&features, &[(PoolChoice::Mahalanobis, 1)], session, console)?;
        }
    }

    let Choice { best: Some(mut best), scores, .. } = choice else {
        return Err(Error::usage("there is no pooling to choose"));
    };
    if best.pool != PoolChoice::Mahalanobis {
        session.backbone = backbone;
        session.set_pool(best.pool)?;
    }
    session.backbone.spec.pooling.tiles = best.tiles;
    session.settings.model.tile_pool = best.tiles;
    best.features.usage = usage;
    Ok(ChosenPooling { features: best.features, scores })
}

/// A choice under way.
struct Choice<'a> {
    best: Option<Best>,
    scores: Vec<PoolScore>,
    /// The poolings of tiles to try.
    tiles: &'a [TilePool],
}

/// The best one so far.
struct Best {
    pool: PoolChoice,
    tiles: TilePool,
    features: FeatureSet,
    /// The score, then the negative cross-entropy: larger is better.
    rank: (f64, f64),
}

impl Choice<'_> {
    /// Fits a probe for each of these poolings with each pooling of tiles; their features lie side by side in the columns of
    /// `all`, as wide as is given.
    fn among(
        &mut self,
        all: &FeatureSet,
        pools: &[(PoolChoice, usize)],
        session: &Session,
        console: &Console,
    ) -> Result<()> {
        let together: usize = pools.iter().map(|(_, width)| width).sum();
        let mut first = 0;
        for &tiles in self.tiles {
            let parts = tile_factor(tiles);
            let mut start = first;
            for &(pool, width) in pools {
                let columns: Vec<usize> =
                    (0..parts).flat_map(|part| start + part * together..start + part * together + width).collect();
                let picked = |row: &[f32]| columns.iter().map(|&at| row[at]).collect::<Vec<_>>();
                let features = all
                    .mapped(|rows| Ok(((0..rows.rows()).flat_map(|i| picked(rows.row(i))).collect(), columns.len())))?;
                let fitted = fit(&features, session, Refit::Train, console)?;
                let point = &fitted.selection.path[fitted.selection.chosen];
                let rank = (point.validation_score, -point.validation_loss);
                self.scores.push(PoolScore {
                    pool,
                    tile_pool: (self.tiles.len() > 1).then_some(tiles),
                    val_accuracy: point.validation_accuracy,
                    val_score: point.validation_score,
                });
                if self.best.as_ref().is_none_or(|best| rank > best.rank) {
                    self.best = Some(Best { pool, tiles, features, rank });
                }
                start += width;
            }
            first += parts * together;
        }
        Ok(())
    }
}
