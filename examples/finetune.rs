//! Fine-tunes a backbone on class folders, says how it does on images it has not seen, and labels an image with it.

use std::path::Path;
use vitadapt::config;
use vitadapt::error::Result;
use vitadapt::experiment::finetune::finetune;
use vitadapt::experiment::predict::Predictor;
use vitadapt::report::{Console, Verbosity};

fn main() -> Result<()> {
    run(Path::new("data/textile"), Path::new("runs"))
}

/// Fine-tunes on the class folders in `images`; all that it writes lies in `out`.
///
/// # Errors
/// Those of the settings, the images and the training.
pub fn run(images: &Path, out: &Path) -> Result<()> {
    // Any keys of the config file, instead of one or over one.
    let keys = [
        format!("data.root={}", images.display()),
        format!("run.out={}", out.display()),
        format!("cache.dir={}", out.join("cache").display()),
        "model.backbone=builtin:vit-mini".into(),
        "strategy.kind=frozen".into(),
        "train.epochs=5".into(),
    ];
    let console = Console::new(Verbosity::Normal, false);
    let completed = finetune(config::load(None, &keys)?, false, &console)?;
    console.result(&completed.result.table())?;

    let predictor = Predictor::open(&completed.folder, None, 3, &console)?;
    let image = predictor.run.dataset()?.samples[0].path.clone();
    for found in predictor.predict(&[image])? {
        let (label, probability) = (found.label.unwrap_or_default(), found.probability.unwrap_or_default());
        console.result(&format!("{} is {label}: {:.0} %", found.path, 100.0 * probability))?;
    }
    Ok(())
}
