//! Where images may be cut into tiles: everywhere that features are computed once. What takes whole squares says so before
//! anything is read.

use crate::backbone::Segment;
use crate::config::Settings;
use crate::data::transform::{Preprocess, augments};
use crate::error::{Error, Result};
use crate::strategy::Plan;

/// Refuses tiles where training needs the pixels of an image, or new views of it.
///
/// # Errors
/// A usage error.
pub fn check_training(settings: &Settings, plan: &Plan) -> Result<()> {
    let obstacle = if plan.lowest != Segment::Head {
        format!("{} trains layers that see one square at a time", settings.strategy)
    } else if augments(&settings.augment) {
        "[augment] changes squares".to_owned()
    } else if settings.train.mixes() {
        "train.mixup and train.cutmix mix squares".to_owned()
    } else {
        return Ok(());
    };
    refuse(settings.preprocess.tiles.is_some(), &obstacle)
}

/// Refuses tiles for something that is done with squares, in the words of `obstacle`.
///
/// # Errors
/// A usage error.
pub fn refuse_tiles(preprocess: &Preprocess, obstacle: &str) -> Result<()> {
    refuse(preprocess.tiles.is_some(), obstacle)
}

fn refuse(tiled: bool, obstacle: &str) -> Result<()> {
    if !tiled {
        return Ok(());
    }
    Err(Error::usage_hint(
        format!("preprocess.tiles: {obstacle}"),
        "tiles work with probe, zeroshot, extract, tsne, eval and predict, and with finetune where strategy.kind = \"frozen\" \
         and [augment] is off; or leave preprocess.tiles out",
    ))
}
