//! Zero-shot classification: images compared with what is said of the classes, without any training.

use super::doubts::write_first;
use super::features::FeatureSet;
use super::head;
use super::images::{CheckedImages, check_images};
use super::mahalanobis;
use super::open::Opened;
use super::page::PageInputs;
use super::record::{Completed, conclude, recorded, start_run};
use super::reference::{self, ReferenceFeatures};
use super::score::{SplitScore, evaluate_splits, inspection, of};
use super::session::Session;
use super::texts::ClassTexts;
use crate::backbone::{Params, Readout, Segment};
use crate::config::{InspectionSettings, ResizeMode, Settings, StrategySettings};
use crate::data::Split;
use crate::data::loader::Batch;
use crate::error::Result;
use crate::model::{Model, Scored};
use crate::report::{Console, Run, RunRecord, RunResult, Status, TemplateScore, ZeroshotResult};
use crate::system::shown::{are, part_of};
use crate::text::Prompts;
use crate::train::checkpoint::Checkpoints;
use crate::train::progress::Progress;
use std::time::Instant;

/// Embeds classes and images, scores and saves; `templates` scores each template alone beside the ensemble of all.
///
/// # Errors
/// Usage, data and weights errors, all before images are embedded but for files that change under way; I/O errors.
pub fn zeroshot(settings: Settings, templates: bool, console: &Console) -> Result<Completed> {
    let clock = Instant::now();
    mahalanobis::refuse(settings.model.pool, "zeroshot")?;
    // A run of the pretrained backbone with another head, whatever the settings say about fine-tuning.
    let settings = Settings { strategy: StrategySettings::Frozen, ..settings };
    let (Opened { mut session, dataset }, texts) = Opened::with_texts(settings, console)?;
    let checked = check_images(&session, dataset, console)?;
    warn_of_another_resize(&session, &checked, console);
    if session.settings.preprocess.tiles.is_some() {
        console.info(format!(
            "tiles     one feature of all tiles of an image: model.tile_pool = \"{}\" (\"avg\" or \"max\" of each value)",
            session.settings.model.tile_pool
        ));
    }
    let (run, mut record) = start_run(&session, &checked, ("zeroshot", head::kind(true)), console)?;
    recorded(&run, &mut record, |record| {
        let images = checked.images(&session);
        let features = FeatureSet::compute(&session, session.pretrained(), Readout::POOL, &images, console)?;
        let references = || Ok(ReferenceFeatures::among(&features));
        record.reference = reference::remember(run.folder(), &session, &features.dataset, references, console)?;
        let inspection = session.settings.inspection.clone();
        let zeroshot = ZeroShot::new(&mut session, &texts, &features)?;

        let templates = if templates { zeroshot.templates()? } else { Vec::new() };
        zeroshot.set_head(&texts.zero_shot()?)?;
        let scores = zeroshot.save(&run, record, &inspection, console)?;
        let result = conclude((&run, record), (&session, &checked), clock, |record| {
            RunResult::Zeroshot(Box::new(result(&run, record, &texts.prompts, &scores, templates)))
        })?;
        let page = (run.folder(), &session, &*record);
        PageInputs::of_model(page, &zeroshot.model, (&features.dataset, &images.pipeline)).leave(console);
        Ok(Completed::new(&run, record, result, &scores))
    })
}

/// Zero-shot scores are the pretrained model's own, so it is said when its library would show it images otherwise. What is
/// trained learns from whatever it is shown.
fn warn_of_another_resize(session: &Session, checked: &CheckedImages, console: &Console) {
    let (own, taken) = (session.backbone.spec.input.resize, checked.preprocess.geometry.resize);
    let oblong =
        |(width, height): &&(u32, u32)| u64::from(*width.max(height)) * 10 > u64::from(*width.min(height)) * 11;
    let count = checked.audit.sizes.iter().filter(oblong).count();
    if own != ResizeMode::Crop || taken == own || count == 0 {
        return;
    }
    console.warn(format!(
        "{} {} not square: the model's own library cuts a square from their middle, here they are {}, \
         so probabilities differ from its own; preprocess.resize = \"crop\" is as it does",
        part_of(count, checked.audit.sizes.len(), "image"),
        are(count),
        if taken == ResizeMode::Squash { "squashed" } else { "given a border" }
    ));
}

/// The features of the images and the head that compares them.
struct ZeroShot<'a> {
    features: &'a FeatureSet,
    texts: &'a ClassTexts,
    model: Model,
}

impl<'a> ZeroShot<'a> {
    fn new(session: &mut Session, texts: &'a ClassTexts, features: &'a FeatureSet) -> Result<Self> {
        let head = session.head(head::kind(true), Readout::POOL, features.dataset.classes.len())?;
        let model = session.model(Segment::Head, &head, None)?;
        Ok(Self { features, texts, model })
    }

    fn set_head(&self, head: &Params) -> Result<()> {
        Ok(self.model.params.assign(|name, _| Ok(head.get(name)))?)
    }

    /// The logits of the validation and the test images, as far as there are any.
    fn score(&self) -> Result<Vec<(Split, Scored)>> {
        let mut scored = Vec::new();
        for split in [Split::Val, Split::Test] {
            let rows = self.features.of(&[split]);
            if rows.labels.is_empty() {
                continue;
            }
            let batch = Batch { inputs: rows.values, labels: rows.labels, indices: rows.samples, ..Batch::default() };
            let logits = self.model.run(&batch)?.logits;
            scored.push((split, Scored { logits, labels: batch.labels, indices: batch.indices }));
        }
        Ok(scored)
    }

    /// Writes the scores and the head, and completes the record.
    fn save(
        &self,
        run: &Run,
        record: &mut RunRecord,
        inspection: &InspectionSettings,
        console: &Console,
    ) -> Result<Vec<SplitScore>> {
        let dataset = &self.features.dataset;
        let (calibration, mut scores) = evaluate_splits(dataset, self.score()?, inspection)?;
        calibration.record(record, console);
        write_first(run.folder(), dataset, record, &mut scores)?;
        let params = &self.model.params;
        Checkpoints::of_run(run.folder()).save("best", 1, params, None, &Progress::default())?;
        record.status = Status::Done;
        record.cache = Some(self.features.usage);
        record.total_parameters = params.counts().1;
        Ok(scores)
    }

    /// What each template scores alone.
    fn templates(&self) -> Result<Vec<TemplateScore>> {
        let ClassTexts { prompts, embeddings, .. } = self.texts;
        let score = |(index, template): (usize, &String)| {
            self.set_head(&self.texts.head(&embeddings.of_template(index)?)?)?;
            let (_, scores) = evaluate_splits(&self.features.dataset, self.score()?, &InspectionSettings::default())?;
            let accuracy = |split| of(&scores, split).map(|evaluation| evaluation.accuracy);
            let (val_accuracy, test_accuracy) = (accuracy(Split::Val), accuracy(Split::Test));
            Ok(TemplateScore { template: template.clone(), val_accuracy, test_accuracy })
        };
        prompts.templates.iter().enumerate().map(score).collect()
    }
}

/// What `zeroshot --json` prints.
fn result(
    run: &Run,
    record: &RunRecord,
    prompts: &Prompts,
    scores: &[SplitScore],
    templates: Vec<TemplateScore>,
) -> ZeroshotResult {
    let classes = prompts.classes.iter().enumerate();
    let test = of(scores, Split::Test);
    ZeroshotResult {
        run: run.folder().to_path_buf(),
        strategy: record.strategy.clone(),
        prompts: classes.map(|(index, class)| (class.class.clone(), prompts.of(index).into())).collect(),
        trainable_parameters: record.trainable_parameters,
        total_parameters: record.total_parameters,
        val_accuracy: of(scores, Split::Val).map(|val| val.accuracy),
        test_accuracy: test.map(|test| test.accuracy),
        test_accuracy_ci95: test.and_then(|test| test.accuracy_ci95),
        majority_baseline: test.map(|test| test.majority_baseline),
        temperature: record.temperature,
        seconds: record.wall_seconds,
        peak_memory_bytes: record.peak_memory_bytes,
        cache: record.cache,
        inspection: inspection(scores).cloned(),
        templates,
    }
}
