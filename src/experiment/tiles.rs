//! Where images may be cut into tiles. What takes whole images says so before anything is read.

use crate::config::Settings;
use crate::data::transform::augments;
use crate::error::{Error, Result};

/// Refuses tiles where training needs the pixels of whole images, or new views of them.
///
/// # Errors
/// A usage error.
pub fn check_training(settings: &Settings) -> Result<()> {
    let obstacle = if settings.strategy.may_learn_words() {
        "learnt words are compared with a whole image"
    } else if augments(&settings.augment) {
        "[augment] changes whole images"
    } else if settings.train.mixes() {
        "train.mixup and train.cutmix mix whole images"
    } else {
        return Ok(());
    };
    refuse_tiles(settings.preprocess.tiles.is_some(), obstacle)
}

/// Refuses tiles for something that is done with whole images, in the words of `obstacle`.
///
/// # Errors
/// A usage error.
pub fn refuse_tiles(tiled: bool, obstacle: &str) -> Result<()> {
    if !tiled {
        return Ok(());
    }
    Err(Error::usage_hint(
        format!("preprocess.tiles: {obstacle}"),
        "leave preprocess.tiles out; tiles work with probe, zeroshot, extract, tsne, eval, predict, `export --format onnx`, and \
         finetune without learnt words, [augment] and mixing",
    ))
}
