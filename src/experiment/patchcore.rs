//! A probe that knows sound parts alone: patches of sound training images are remembered, and held-out sound images say how
//! far from them a part may be.

use super::doubts::write_first;
use super::images::{CheckedImages, check_images};
use super::page::PageInputs;
use super::record::{Completed, conclude, recorded, start_run};
use super::score::{Calibration, SplitScore, foremost, inspection, of, score, score_splits};
use super::session::Session;
use crate::backbone::{Activations, PatchReadout, Readout, Segment};
use crate::cache::CacheUse;
use crate::config::{BandGoal, InspectionSettings, PoolChoice, ProbeMethod, Settings, StrategySettings};
use crate::data::transform::{Bag, Normalization};
use crate::data::{Dataset, Labels, Split};
use crate::error::{DataError, Error, Result};
use crate::features::{Images, TiledImages, passing_distance};
use crate::hub::Wanted;
use crate::linalg::Matrix;
use crate::metrics::{Rules, Scores};
use crate::model::{BatchSource, HeadKind, Model, PatchHead, ScoreRule, Scored};
use crate::probe::{Projection, coreset, draw, first_point};
use crate::report::{Console, PatchcoreResult, ProbeRecord, Run, RunRecord, RunResult, Status, percent, thousands};
use crate::train::checkpoint::Checkpoints;
use crate::train::progress::Progress;
use candle_core::{Device, Tensor};
use std::sync::Arc;
use std::time::Instant;

/// Images whose patches are in memory at a time.
const CHUNK: usize = 32;
/// Bytes of the patches that are chosen among.
const ROOM: usize = 512 << 20;
/// The overkill that is aimed at where none is stated.
const OVERKILL: f64 = 0.01;
/// The least spread of the logarithms of scores, and that of too few images to tell.
const SPREADS: [f64; 2] = [0.01, 0.1];

/// Fits, scores and saves a probe with `probe.method = "patchcore"`.
///
/// # Errors
/// Usage, data and weights errors, all before anything is computed but for files that change under way; I/O errors.
pub fn patchcore(mut settings: Settings, console: &Console) -> Result<Completed> {
    let clock = Instant::now();
    let dataset = Dataset::open_as(&settings.data, Labels::of_probe(&settings))?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    let sound = sound_label(&dataset)?;
    settings.inspection.good = vec![dataset.classes[sound].clone()];
    // The backbone is as it was pretrained, and no token is pooled, whatever the settings say about training.
    (settings.strategy, settings.model.pool) = (StrategySettings::Frozen, PoolChoice::Backbone);
    let mut session = Session::open(settings, Wanted::Backbone, console)?;
    let wanted = session.settings.probe.clone();
    let readout = PatchReadout::new(&wanted.patch_blocks, wanted.neighborhood, &session.backbone.spec)?;
    let checked = check_images(&session, dataset, console)?;
    // Files that cannot be used may have been the last sound ones of a split.
    sound_label(&checked.dataset)?;
    if checked.preprocess.normalization == Normalization::Batch {
        let message = "preprocess.normalize = \"batch\" makes an image's patches depend on its neighbours";
        return Err(Error::usage_hint(message, "set preprocess.normalize to \"dataset\" or \"robust\""));
    }
    let images = checked.images(&session);
    let (run, mut record) = start_run(&session, &checked, ("probe", HeadKind::Linear), console)?;

    recorded(&run, &mut record, |record| {
        let fitted = Bank::fit(&session, (&checked, &images), (readout, sound), console)?;
        let total = session.backbone.params.counts().1;
        let mut scored = fitted.score(&mut session, &checked, &images, console)?;
        Checkpoints::of_run(run.folder()).save(
            "best",
            1,
            &fitted.params(Some(scored.rule))?.train_where(|_| true)?,
            None,
            &Progress::default(),
        )?;
        (record.status, record.cache, record.total_parameters) = (Status::Done, Some(fitted.usage), total);
        record.inspection.clone_from(&scored.rules);
        record.probe = Some(ProbeRecord {
            method: ProbeMethod::Patchcore,
            readout: Readout::POOL,
            chosen: wanted.coreset,
            alpha: None,
            patches: Some(readout),
            fitted_on: vec![Split::Train],
        });
        write_first(run.folder(), &images.dataset, record, &mut scored.scores)?;
        let result = conclude((&run, record), (&session, &checked), clock, |record| {
            RunResult::Patchcore(Box::new(result(&run, record, readout, &fitted, &scored)))
        })?;
        let page = (run.folder(), &session, &*record);
        PageInputs::of_model(page, &scored.model, (&images.dataset, &images.pipeline)).leave(console);
        Ok(Completed::new(&run, record, result, &scored.scores))
    })
}

/// The label of sound parts, of which there must be validation images.
fn sound_label(dataset: &Dataset) -> Result<usize> {
    let sound = dataset.sound.unwrap_or_default();
    if dataset.class_counts(Split::Val)[sound] == 0 {
        return Err(DataError::invalid(
            format!(
                "no validation image of {:?} says how far from the training images sound parts are",
                dataset.classes[sound]
            ),
            "set data.val to the share of the training images to hold out, such as 0.15, or put some of them into val",
        )
        .into());
    }
    Ok(sound)
}

/// Patches of sound training images.
struct Bank {
    readout: PatchReadout,
    /// Row-major (kept, width).
    values: Vec<f32>,
    width: usize,
    /// Sound training images.
    images: usize,
    /// Their patches.
    patches: usize,
    /// Those among which it was chosen.
    drawn: usize,
    /// The label of sound parts.
    sound: usize,
    usage: CacheUse,
}

impl Bank {
    /// Chooses the patches. Each image is seen once, and of its patches those are held that are drawn to choose among: all of
    /// them, unless they need more room than [`ROOM`].
    fn fit(
        session: &Session,
        (checked, images): (&CheckedImages, &Images),
        (readout, sound): (PatchReadout, usize),
        console: &Console,
    ) -> Result<Self> {
        let (settings, spec) = (&session.settings, &session.backbone.spec);
        let (stage, preprocess) = (Activations::Patches(readout), *images.pipeline.preprocess());
        let extractor = session.extractor(&session.backbone.params, stage)?;
        let identity = session.identity(stage, &preprocess);
        let (width, seed) = (readout.width(spec), settings.run.seed);
        let mut samples = images.dataset.indices(Split::Train);
        samples.retain(|&sample| images.dataset.samples[sample].label == sound);

        let of_input = spec.grid().area();
        let inputs = |&sample: &usize| preprocess.tiles.map_or(1, |tiles| tiles.count(checked.audit.sizes[sample]));
        let patches = of_input * samples.iter().map(inputs).sum::<usize>();
        let projection = Projection::new(width, seed);
        let bytes = size_of::<f32>() * (width + projection.projected());
        let share = (ROOM / bytes) as f64 / patches.max(1) as f64;
        console.info(forecast(patches, share, bytes));

        let mut usage = CacheUse::default();
        let mut values = Vec::with_capacity((patches as f64 * share.min(1.0)) as usize * width);
        let progress = console.progress(samples.len() as u64, "patches of sound parts");
        if let Some(tiles) = preprocess.tiles {
            let tiled = TiledImages { extractor: &extractor, pipeline: &images.pipeline, tiles };
            for &sample in &samples {
                let drawn_of = |bag: &Bag| -> Result<Vec<f32>> {
                    let drawn = draw(of_input * bag.windows.len(), share, seed, sample);
                    let parts = tiled.in_parts(bag, |tile, patches| {
                        let (patches, first) = (Matrix::new(patches, width), tile * of_input);
                        let start = drawn.partition_point(|&patch| patch < first);
                        let end = drawn.partition_point(|&patch| patch < first + patches.rows());
                        let here: Vec<usize> = drawn[start..end].iter().map(|patch| patch - first).collect();
                        Ok(patches.select(&here))
                    })?;
                    Ok(parts.concat())
                };
                let drawn = tiled.rows_by(&images.dataset, &[sample], drawn_of)?;
                Matrix::new(&drawn, width).check_finite(|_| images.dataset.samples[sample].name.clone())?;
                values.extend(drawn);
                usage.misses += 1;
                progress.inc(1);
            }
        } else {
            for chunk in samples.chunks(CHUNK) {
                let rows = images.rows(chunk, 0, &extractor, &identity, &session.cache(), &mut |_| Ok(()))?;
                rows.warnings.iter().for_each(|warning| console.warn(warning));
                usage += rows.usage;
                for (image, &sample) in chunk.iter().enumerate() {
                    let drawn = draw(of_input, share, seed, sample);
                    values.extend(Matrix::new(rows.row(image), width).select(&drawn));
                }
                progress.inc(chunk.len() as u64);
            }
        }
        progress.finish();

        let drawn = Matrix::new(&values, width);
        let projected = session.workers.install(|| projection.apply(drawn))?;
        let points = Matrix::new(&projected, projection.projected());
        let count = ((settings.probe.coreset * points.rows() as f64).ceil() as usize).max(1);
        let first = first_point(points.rows(), seed);
        let progress = console.progress(count as u64, "patches kept");
        let chosen = session.workers.install(|| coreset(points, count, first, |_| progress.inc(1)));
        progress.finish();
        let (values, drawn) = (drawn.select(&chosen), drawn.rows());
        Ok(Self { readout, values, width, images: samples.len(), patches, drawn, sound, usage })
    }

    fn kept(&self) -> usize {
        self.values.len() / self.width
    }

    fn params(&self, rule: Option<ScoreRule>) -> Result<crate::backbone::Params> {
        let bank = Tensor::from_slice(&self.values, (self.kept(), self.width), &Device::Cpu)?;
        Ok(PatchHead::params(bank, 1 - self.sound, rule)?)
    }

    /// Chooses the rule on validation images, then scores them and the test images by it.
    fn score(
        &self,
        session: &mut Session,
        checked: &CheckedImages,
        images: &Images,
        console: &Console,
    ) -> Result<BankScores> {
        let classes = &checked.dataset.classes;
        let head = session.head(HeadKind::Patches(self.readout), Readout::POOL, classes.len())?;
        session.backbone.params.extend(self.params(None)?);
        let start = if images.pipeline.preprocess().tiles.is_some() { Segment::Head } else { Segment::Embed };
        let model = session.model(start, &head, None)?;
        let (dataset, pipeline) = (Arc::clone(&images.dataset), Arc::clone(&images.pipeline));
        let source = BatchSource::for_scoring(dataset, pipeline, images.batch_size, images.threads);
        let mut val = score(&source, &model, Split::Val, console)?;
        let raw = |row: usize| val.logits[row * classes.len() + 1 - self.sound];
        let held_out =
            (0..val.labels.len()).filter(|&row| val.labels[row] == self.sound).map(raw).collect::<Vec<f32>>();
        let overkill = match session.settings.inspection.band {
            Some(BandGoal::Limits(limits)) => limits.max_overkill,
            Some(BandGoal::Costs(_)) | None => OVERKILL,
        };
        let chosen = Chosen::on(&held_out, overkill)?;
        for pair in val.logits.chunks_exact_mut(classes.len()) {
            pair[1 - self.sound] = chosen.rule.logit(pair[1 - self.sound]);
        }
        let mut params = model.params.clone();
        params.extend(self.params(Some(chosen.rule))?);
        let model = Model::new(model.spec().clone(), params, session.workers.clone(), session.device.clone())?
            .scored_in(session.settings.run.precision);
        let rules = Self::rules(&session.settings.inspection, classes, &val)?;
        let calibration = Calibration { temperature: None, rules };
        let (test, _) = score_splits(&source, &model, &[Split::Test], console)?;
        let evaluate =
            |(split, scored): (Split, _)| SplitScore::new(split.name(), &images.dataset, scored, &calibration);
        let scores = std::iter::once((Split::Val, val)).chain(test).map(evaluate).collect::<Result<_>>()?;
        Ok(BankScores { model, rule: chosen.rule, overkill, chosen, rules: calibration.rules, scores })
    }

    /// How parts are judged: by the rule, unless mistakes have a price.
    fn rules(settings: &InspectionSettings, classes: &[String], val: &Scored) -> Result<Option<Rules>> {
        let band = settings.band.filter(|goal| matches!(goal, BandGoal::Costs(_)));
        let settings = InspectionSettings { band, ..settings.clone() };
        Rules::choose(&settings, classes, Some((&Scores::new(&val.logits, &val.labels, classes.len())?, 1.0)))
    }
}

/// A rule, and what it was chosen on.
struct Chosen {
    rule: ScoreRule,
    /// The share of sound parts that is thereby shown to pass.
    passing: f64,
    /// Held-out sound images.
    images: usize,
}

impl Chosen {
    /// The rule by which at most a share of `overkill` of images like those with these scores is rejected.
    fn on(scores: &[f32], overkill: f64) -> Result<Self> {
        let wide: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
        let images = wide.len();
        if wide.iter().any(|score| !score.is_finite()) {
            return Err(Error::NotFinite("the scores of validation images are not finite numbers".into()));
        }
        let logs: Vec<f64> = wide.iter().map(|score| score.max(f64::from(f32::MIN_POSITIVE)).ln()).collect();
        let mean = logs.iter().sum::<f64>() / images.max(1) as f64;
        let squares: f64 = logs.iter().map(|log| (log - mean) * (log - mean)).sum();
        let [least, usual] = SPREADS;
        let spread = if images > 1 { (squares / (images - 1) as f64).sqrt().max(least) } else { usual };
        let (threshold, passing) = passing_distance(wide, 1.0 - overkill).unwrap_or((f64::MAX, 0.0));
        // What is no farther than the threshold passes, and from the rule's own on a part is defective.
        let threshold = (threshold as f32).max(f32::MIN_POSITIVE).next_up();
        Ok(Self { rule: ScoreRule { threshold, spread: spread as f32 }, passing, images })
    }
}

/// What choosing among a share of so many patches takes, in words.
fn forecast(patches: usize, share: f64, bytes: usize) -> String {
    let drawn = (patches as f64 * share.min(1.0)) as usize;
    let all = if share < 1.0 {
        format!("an even {} of {} patches", percent(share), thousands(patches))
    } else {
        format!("{} patches", thousands(patches))
    };
    format!("memory    {} MiB for {all} of sound parts", (drawn * bytes) >> 20)
}

/// What the rule makes of held-out and test images.
struct BankScores {
    model: Model,
    rule: ScoreRule,
    /// What was aimed at.
    overkill: f64,
    chosen: Chosen,
    rules: Option<Rules>,
    scores: Vec<SplitScore>,
}

/// What `probe --json` prints.
fn result(run: &Run, record: &RunRecord, readout: PatchReadout, bank: &Bank, scored: &BankScores) -> PatchcoreResult {
    let (test, val) = (of(&scored.scores, Split::Test), of(&scored.scores, Split::Val));
    PatchcoreResult {
        run: run.folder().to_path_buf(),
        strategy: record.strategy.clone(),
        method: ProbeMethod::Patchcore,
        patch_blocks: readout.distinct().to_vec(),
        neighborhood: readout.neighborhood,
        sound_images: bank.images,
        patches: bank.patches,
        drawn: bank.drawn,
        bank: bank.kept(),
        threshold: f64::from(scored.rule.threshold),
        overkill: scored.overkill,
        passing: scored.chosen.passing,
        held_out_images: scored.chosen.images,
        trainable_parameters: 0,
        total_parameters: record.total_parameters,
        val_accuracy: val.map(|val| val.accuracy),
        test_accuracy: test.map(|test| test.accuracy),
        test_accuracy_ci95: test.and_then(|test| test.accuracy_ci95),
        kinds: foremost(&scored.scores).map(|found| found.kinds.clone()).unwrap_or_default(),
        seconds: record.wall_seconds,
        peak_memory_bytes: record.peak_memory_bytes,
        cache: bank.usage,
        inspection: inspection(&scored.scores).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_scores_pass_and_what_is_beyond_them_does_not() {
        let scores: Vec<f32> = (1..=100).map(|i| 2.0 + i as f32 / 100.0).collect();
        let rejected = |overkill| {
            let rule = Chosen::on(&scores, overkill).unwrap().rule;
            scores.iter().filter(|&&score| rule.logit(score) >= 0.0).count()
        };
        assert_eq!([rejected(0.0), rejected(0.01), rejected(0.1)], [0, 0, 9]);
        let few = Chosen::on(&[1.0, 1.1, 1.2], 0.01).unwrap();
        assert!((few.passing - 0.75).abs() < 1e-12 && few.images == 3, "three images show no more");
        assert!(few.rule.logit(1.2) < 0.0 && few.rule.logit(1.21) > 0.0);
        assert!(Chosen::on(&[1.0, f32::NAN], 0.01).is_err());
        assert!(Chosen::on(&[1.0; 4], 0.01).unwrap().rule.logit(1.0) < 0.0, "equal scores have a spread too");
    }
}
