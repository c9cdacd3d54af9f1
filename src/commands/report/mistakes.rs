//! The pictures of a page: images that were classified wrongly, and where the model looked.

use super::Subject;
use crate::backbone::Stage;
use crate::data::Sample;
use crate::data::decode;
use crate::data::transform::View;
use crate::report::Console;
use crate::report::html::{Mistake, Mistakes, heat_map, thumbnail};
use crate::report::predictions::{Predicted, Predictions};
use image::RgbImage;
use std::collections::HashMap;

/// The longer side of a picture, in pixels: sharp at the size it has on a page.
const SIDE: u32 = 224;

/// An image as the model sees it.
struct Seen {
    square: RgbImage,
    pixels: Vec<f32>,
}

impl Subject<'_> {
    /// The surest wrong answers on a split, at most so many; none when it is not known what was answered.
    pub(super) fn mistakes(&self, split: &str, most: usize, console: &Console) -> Option<Mistakes> {
        let predictions = Predictions::read(&self.folder.join(format!("predictions-{split}.csv"))).ok()?;
        let wrong = predictions.mistakes();
        let shown = &wrong[..most.min(wrong.len())];
        let seen = self.seen(shown);
        let lost = seen.iter().filter(|seen| seen.is_none()).count();
        if lost > 0 {
            console
                .warn(format!("{lost} of the images that were classified wrongly cannot be shown: they have changed"));
        }
        let (heat, without_heat) = match self.heat(&seen) {
            Ok(heat) => (heat, None),
            Err(error) => (HashMap::new(), Some(format!("Where the model looked cannot be told: {error}"))),
        };
        let class = |label: usize| predictions.classes.get(label).cloned().unwrap_or_default();
        let mistake = |(number, (row, seen)): (usize, (&&Predicted, &Option<Seen>))| Mistake {
            path: row.path.clone().into(),
            class: class(row.label),
            predicted: class(row.predicted),
            confidence: row.confidence,
            image: seen.as_ref().and_then(|seen| thumbnail(&seen.square, SIDE)),
            heat: heat.get(&number).and_then(|heat| thumbnail(heat, SIDE)),
            neighbors: Vec::new(),
        };
        Some(Mistakes {
            split: split.to_owned(),
            wrong: wrong.len(),
            total: predictions.rows.len(),
            shown: shown.iter().zip(&seen).enumerate().map(mistake).collect(),
            without_heat,
        })
    }

    /// Reads images again; none of those that cannot be read.
    fn seen(&self, rows: &[&Predicted]) -> Vec<Option<Seen>> {
        let samples: HashMap<&str, &Sample> =
            self.dataset.samples.iter().map(|sample| (sample.name.as_str(), sample)).collect();
        let see = |row: &&Predicted| {
            let image = decode::decode_file(&samples.get(row.path.as_str())?.path, self.session.decode()).ok()?;
            let square = self.pipeline.square_view(&image, VIEW).ok()?;
            let pixels = self.pipeline.preprocess().normalization.standardize(&square);
            Some(Seen { square, pixels })
        };
        self.session.workers.map(rows.iter().collect(), |row| Ok(see(row))).unwrap_or_default()
    }

    /// Heat maps by number, of the images that could be read.
    fn heat(&self, seen: &[Option<Seen>]) -> candle_core::Result<HashMap<usize, RgbImage>> {
        let found: Vec<(usize, &Seen)> =
            seen.iter().enumerate().filter_map(|(number, seen)| Some((number, seen.as_ref()?))).collect();
        let mut pixels: Vec<f32> = found.iter().flat_map(|(_, seen)| &seen.pixels).copied().collect();
        self.pipeline.finish(&mut pixels, &vec![VIEW; found.len()]);
        let extractor = self.session.extractor(self.params, Stage::Features(self.readout));
        let shares = extractor.map_err(candle_core::Error::wrap)?.rollout(self.readout, &pixels)?;
        let drawn = found.iter().zip(&shares);
        Ok(drawn.filter_map(|((number, seen), shares)| Some((*number, heat_map(&seen.square, shares)?))).collect())
    }
}

/// Without randomness, every view of an image is the same.
const VIEW: View = View { epoch: 0, sample: 0 };
