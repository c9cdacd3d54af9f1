//! A training run under way: what frozen layers make of the images, the loop, the scores of the best epoch.

mod find_lr;
mod head_start;

pub use head_start::{FINETUNED, check_wise_ft};

use super::doubts::write_first;
use super::frozen;
use super::images::CheckedImages;
use super::loss::criterion;
use super::page::PageInputs;
use super::record::{Completed, record_end, write_down};
use super::reference::{self, ReferenceFeatures};
use super::score::{self, SplitScore, evaluate_splits, score_splits};
use super::session::{Session, computation, load_saved};
use super::texts::ClassTexts;
use crate::cache::Key;
use crate::config::HeadInit;
use crate::data::Split;
use crate::error::{Error, Result, WeightsError};
use crate::features::ReferenceRecord;
use crate::metrics::SelectionMetric;
use crate::model::{BatchSource, DropRates, FrozenInputs, Model};
use crate::report::{
    Console, Evidence, FinetuneResult, Run, RunRecord, RunResult, Status, TrainingReport, WorstClass, plots,
};
use crate::strategy::Plan;
use crate::system::memory::peak_memory_bytes;
use crate::system::shown::counted;
use crate::system::signals::{Signal, StopRequest};
use crate::train::checkpoint::{Checkpoints, Saved};
use crate::train::fit::{Ending, Fit};
use crate::train::mix::Mixer;
use crate::train::progress::Progress;
use crate::train::safeguard::Safeguard;
use crate::train::soup::clear_ingredients;
use crate::train::state::TrainState;
use crate::train::trainer::{Objective, Trainer};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A run under way.
pub struct Training {
    session: Session,
    model: Model,
    plan: Plan,
    objective: Objective,
    source: BatchSource,
    keys: Arc<Vec<Key>>,
    checkpoints: Checkpoints,
    progress: Progress,
    run: Run,
    /// `run.json` so far.
    pub record: RunRecord,
    /// The classes in words, when the head starts from them.
    texts: Option<ClassTexts>,
    /// The trainable parameters before training, when they are wanted after it.
    start: Option<BTreeMap<String, Tensor>>,
}

impl Training {
    /// Writes down what is fixed before training: the config, the splits, the skipped files, the record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(
        session: Session,
        images: &CheckedImages,
        (model, texts): (Model, Option<ClassTexts>),
        plan: Plan,
        run: Run,
        record: RunRecord,
    ) -> Result<Self> {
        let settings = &session.settings;
        write_down(&run, settings, images, &record)?;
        let objective = Objective {
            criterion: criterion(settings, &images.dataset),
            regulariser: None,
            drop: DropRates { path: settings.model.drop_path, head: settings.model.head_dropout },
        };
        let keys = Arc::clone(&images.audit.keys);
        let evaluation = images.images(&session).pipeline;
        let source = BatchSource {
            training: Arc::new(evaluation.augmented_by(&settings.augment, settings.run.seed)),
            evaluation,
            dataset: Arc::clone(&images.dataset),
            sampler: settings.train.sampler,
            seed: settings.run.seed,
            batch_size: settings.train.batch_size,
            threads: session.decode_threads(),
            views: frozen::views(settings),
            frozen: None,
        };
        let checkpoints = Checkpoints::of_run(run.folder());
        let micro_batches = record.forecast.map_or(1, |forecast| forecast.micro_batches);
        let safeguard = Safeguard::new(micro_batches, settings.run.precision);
        let progress = Progress { safeguard, ..Progress::default() };
        let start = None;
        Ok(Self { session, model, plan, objective, source, keys, checkpoints, progress, run, record, texts, start })
    }

    /// The loop, from the start or, to `resume`, from the last checkpoint.
    ///
    /// # Errors
    /// Data errors of files that changed under way, numerical errors, I/O errors of checkpoints.
    pub fn fit(&mut self, stop: &StopRequest, console: &Console, resume: bool) -> Result<Ending> {
        if let Some(signal) = self.run_frozen_layers(stop, console)? {
            return Ok(Ending::Stopped(signal));
        }
        let mut state = self.initial_state(console, resume)?;
        let settings = &self.session.settings;
        let fit = self.ready(stop);
        fit.check(&state.progress).map_err(|reason| {
            WeightsError::invalid(
                self.checkpoints.path("last"),
                format!("not a checkpoint of this training ({reason})"),
            )
        })?;
        let images = self.source.len(Split::Train);
        let epochs = fit.total_steps().div_ceil(fit.steps_per_epoch().max(1));
        let unfreezing = self.plan.epochs_of_unfreezing();
        if unfreezing >= epochs {
            console.warn(format!(
                "training has {}, but with strategy.unfreeze = {} all blocks are trained only from epoch {}",
                counted(epochs, "epoch"),
                settings.unfreeze,
                unfreezing + 1
            ));
        }
        let mut report = TrainingReport::new(console, &self.run, self.title(), (epochs, images), &state.progress)?;
        let ending = fit.run(&mut state, &mut report)?;
        let TrainState { progress, optimizer, average } = state;
        // Before anything is scored: the largest buffers of training.
        drop((optimizer, average));
        if ending == Ending::Finished && settings.train.soup > 0 {
            self.record.soup = fit.soup(&progress)?;
            match &self.record.soup {
                Some(soup) => console.info(format!("soup      {}", soup.sentence())),
                None => console.warn("train.soup needs two epochs with validation scores: nothing is mixed"),
            }
        }
        self.progress = progress;
        Ok(ending)
    }

    /// Computes or finds what frozen layers make of the images, and holds a head from texts to its start; to be called
    /// before anything has moved. A signal when one ended it.
    fn run_frozen_layers(&mut self, stop: &StopRequest, console: &Console) -> Result<Option<Signal>> {
        let watched = (self.run.folder(), stop);
        let inputs = frozen::inputs(&self.session, &self.model, &self.source, &self.keys, watched, console);
        if let (Err(Error::Stopped { .. }), Some(signal)) = (&inputs, stop.received()) {
            return Ok(Some(signal));
        }
        self.source.frozen = inputs?;
        self.record.cache = self.source.frozen.as_ref().map(FrozenInputs::usage);
        self.regularise_to_texts(console)?;
        Ok(None)
    }

    /// The loop over what is there.
    fn ready<'a>(&'a self, stop: &'a StopRequest) -> Fit<'a> {
        let settings = &self.session.settings;
        let size = self.source.training.preprocess().geometry.image_size;
        Fit {
            settings: &settings.train,
            metric: self.metric(),
            patience: settings.early_stop.patience,
            seed: settings.run.seed,
            trainer: Trainer {
                model: &self.model,
                plan: &self.plan,
                objective: &self.objective,
                computation: computation(settings),
            },
            source: &self.source,
            mixer: Mixer::new(&settings.train, self.source.dataset.classes.len(), size, settings.run.seed),
            checkpoints: &self.checkpoints,
            stop,
        }
    }

    /// The error that a run ends with after a signal.
    pub fn stopped(&self, signal: Signal) -> Error {
        Error::Stopped { signal, run: Some(self.run.folder().to_path_buf()) }
    }

    /// Writes down which error ended the run: the one to end with.
    pub fn ended(&mut self, error: Error) -> Error {
        record_end(&self.run, &mut self.record, &error);
        error
    }

    /// From the last checkpoint, or from the start.
    fn initial_state(&self, console: &Console, resume: bool) -> Result<TrainState> {
        let settings = &self.session.settings;
        let saved = if resume { self.last_checkpoint(console)? } else { None };
        match &saved {
            Some(saved) => load_saved(&self.model.params, &saved.params, &self.checkpoints.path("last"))?,
            None if settings.model.head_init == HeadInit::Probe => self.start_from_probe(console)?,
            None => {}
        }
        let mut state =
            TrainState::new(&settings.train, self.plan.clone(), &self.model.params, self.progress.safeguard)?;
        if let Some(saved) = saved {
            let restored = state.restore(saved.state, saved.optimizer.unwrap_or_default());
            restored.map_err(|error| WeightsError::invalid(self.checkpoints.path("last"), error.to_string()))?;
            console.info(format!("resuming after epoch {}, step {}", state.progress.epoch, state.progress.step));
        }
        Ok(state)
    }

    /// The last checkpoint that verifies.
    fn last_checkpoint(&self, console: &Console) -> Result<Option<Saved<Progress>>> {
        let damage = self.checkpoints.recover()?;
        let saved = self.checkpoints.load::<Progress>("last")?;
        if let Some(saved) = &saved {
            for damage in damage {
                console.warn(format!("{damage}: continuing from the one before it, at step {}", saved.state.step));
            }
        }
        Ok(saved)
    }

    /// Scores the best epoch and writes the reports.
    ///
    /// # Errors
    /// Data errors of files that changed under way; I/O errors.
    pub fn finish(&mut self, console: &Console) -> Result<Completed> {
        if let Some(best) = self.checkpoints.load::<Progress>("best")? {
            load_saved(&self.model.params, &best.params, self.run.folder())?;
        }
        self.mix_with_start(console)?;
        self.model = self.model.merged()?;
        let (splits, inspection) = ([Split::Val, Split::Test], &self.session.settings.inspection);
        let (scored, val_features) = score_splits(&self.source, &self.model, &splits, console)?;
        let (calibration, mut scores) = evaluate_splits(&self.source.dataset, scored, inspection)?;
        calibration.record(&mut self.record, console);
        self.record.reference = self.remember(val_features, console)?;
        write_first(self.run.folder(), &self.source.dataset, &mut self.record, &mut scores)?;
        self.draw_curves()?;
        self.record.status = Status::Done;
        self.record.operations = self.record.forecast.map(|forecast| forecast.work.of(self.progress.step as f64));
        self.record.peak_memory_bytes = peak_memory_bytes().max(self.record.peak_memory_bytes);
        let result = RunResult::Finetune(Box::new(self.result(&scores)));
        self.record.result = Some(result.clone());
        self.run.write_record(&self.record)?;
        clear_ingredients(&self.checkpoints, self.record.soup.as_ref())?;
        self.checkpoints.remove(FINETUNED)?;
        self.checkpoints.finish()?;
        self.page().leave(console);
        Ok(Completed::new(&self.run, &self.record, result, &scores))
    }

    /// What decides which epoch is best.
    fn metric(&self) -> SelectionMetric {
        let choice = self.session.settings.early_stop.metric;
        SelectionMetric::new(choice, &self.source.dataset.class_counts(Split::Train))
    }

    /// What its page is made of.
    fn page(&self) -> PageInputs<'_> {
        let images = (&*self.source.dataset, &*self.source.evaluation);
        PageInputs::of_model((self.run.folder(), &self.session, &self.record), &self.model, images)
    }

    fn remember(&self, val_features: Vec<f32>, console: &Console) -> Result<Option<ReferenceRecord>> {
        let images = (&self.source, &self.keys);
        let features = || ReferenceFeatures::by(&self.model, val_features, &self.session, &self.plan, images, console);
        reference::remember(self.run.folder(), &self.session, &self.source.dataset, features, console)
    }

    fn draw_curves(&self) -> Result<()> {
        let (title, best_epoch) = (self.title(), self.progress.early_stop.best_epoch());
        let picture = plots::Curves { title: &title, epochs: &self.progress.history, best_epoch };
        plots::save(&picture, &self.run.path("plots/curves"))
    }

    /// The title of its pictures.
    fn title(&self) -> String {
        format!("{}, {}", self.session.settings.run.name, self.session.settings.strategy)
    }

    /// What `finetune --json` prints.
    fn result(&self, scores: &[SplitScore]) -> FinetuneResult {
        let (val, test) = (score::of(scores, Split::Val), score::of(scores, Split::Test));
        let foremost = score::foremost(scores);
        let history = &self.progress.history;
        let mixed = self.record.soup.as_ref().is_some_and(|soup| soup.epochs.len() > 1)
            || self.record.wise_ft.as_ref().is_some_and(|mean| mean.alpha < 1.0);
        let verdict = Evidence { mixed, ..Evidence::new(&self.progress, val, test) }.verdict();
        // Of an epoch that has no speed, its seconds are not known either.
        let images = self.record.data.train as f64;
        let seconds: Option<f64> =
            history.iter().map(|epoch| epoch.images_per_second.map(|speed| images / speed)).sum();
        let images_per_second = seconds.map(|seconds| images * history.len() as f64 / seconds);
        FinetuneResult {
            run: self.run.folder().to_path_buf(),
            strategy: self.record.strategy.clone(),
            trainable_parameters: self.record.trainable_parameters,
            total_parameters: self.record.total_parameters,
            epochs: history.len(),
            metric: Some(self.metric()),
            best_epoch: self.progress.early_stop.best_epoch(),
            val_accuracy: val.map(|val| val.accuracy),
            val_balanced_accuracy: val.map(|val| val.balanced_accuracy),
            test_accuracy: test.map(|test| test.accuracy),
            test_accuracy_ci95: test.and_then(|test| test.accuracy_ci95),
            test_balanced_accuracy: test.map(|test| test.balanced_accuracy),
            baseline: foremost.map(|foremost| foremost.majority_baseline),
            worst_class: foremost.and_then(WorstClass::of),
            seconds: self.record.wall_seconds,
            images_per_second: images_per_second.filter(|speed| speed.is_finite()),
            peak_memory_bytes: self.record.peak_memory_bytes,
            expected_memory_bytes: self.record.forecast.map(|forecast| forecast.memory.total()),
            cache: self.record.cache,
            soup: self.record.soup.clone(),
            wise_ft: self.record.wise_ft.clone(),
            inspection: score::inspection(scores).cloned(),
            verdict: verdict.kind().to_string(),
            verdict_reason: verdict.sentence(),
            remedy: verdict.remedy(&self.session.settings),
        }
    }
}
