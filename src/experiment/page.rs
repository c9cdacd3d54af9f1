//! The page about a run, which every command that makes or scores a run leaves in its directory.

mod mistakes;

use super::saved::SavedRun;
use super::score::{read_again, read_evaluation};
use super::session::Session;
use crate::backbone::{Params, Readout};
use crate::data::transform::Pipeline;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::metrics::{Evaluation, Robustness, Separation};
use crate::model::{Model, PatchHead};
use crate::report::html::{RunPage, save_run_page};
use crate::report::predictions::Predictions;
use crate::report::{Console, RunRecord, read_epochs};
use crate::system::files::read_regular;
use crate::system::json::read_json;
use crate::system::shown::Shown;
use candle_core::Tensor;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the page about a finished run is made of.
pub struct PageInputs<'a> {
    /// Its directory.
    pub folder: &'a Path,
    /// Its settings on a device.
    pub session: &'a Session,
    /// Its `run.json`.
    pub record: &'a RunRecord,
    /// The parameters of its model.
    pub params: &'a Params,
    /// The features that its head reads.
    pub readout: Readout,
    /// The weights (C, w) of its head, where that is an affine map.
    pub head: Option<Tensor>,
    /// What its head compares patches with, where it does.
    pub patches: Option<Arc<PatchHead>>,
    /// Its images.
    pub dataset: &'a Dataset,
    /// From file to pixels, without randomness.
    pub pipeline: &'a Pipeline,
}

impl<'a> PageInputs<'a> {
    /// The page of a run, from its directory, session, record and model.
    pub fn of_model(
        (folder, session, record): (&'a Path, &'a Session, &'a RunRecord),
        model: &'a Model,
        (dataset, pipeline): (&'a Dataset, &'a Pipeline),
    ) -> Self {
        let (params, readout) = (&model.params, model.spec().readout);
        let (head, patches) = (model.linear_head(), model.patch_head());
        Self { folder, session, record, params, readout, head, patches, dataset, pipeline }
    }

    /// A run that was opened again.
    pub fn of_run(run: &'a SavedRun, dataset: &'a Dataset, pipeline: &'a Pipeline) -> Self {
        Self::of_model((&run.folder, &run.session, &run.record), &run.model, (dataset, pipeline))
    }

    /// Writes the page if the settings want one. What goes wrong is a warning: a run is never lost for its page.
    pub fn leave(&self, console: &Console) {
        let settings = &self.session.settings.report;
        if !settings.html {
            return;
        }
        match self.write(settings.mistakes, console) {
            Ok(path) => console.info(format!("report    {}", path.shown())),
            Err(error) => console.warn(format!("report.html could not be written: {error}")),
        }
    }

    /// Writes `report.html` with so many mistakes at the most.
    ///
    /// # Errors
    /// I/O errors; data errors of images that can no longer be read.
    pub fn write(&self, mistakes: usize, console: &Console) -> Result<PathBuf> {
        for path in self.damaged() {
            console.warn(format!("{} is damaged: the page goes without it", path.shown()));
        }
        let evaluations: Vec<Evaluation> = [Split::Test, Split::Val, Split::Train]
            .into_iter()
            .filter_map(|split| read_evaluation(self.folder, split))
            .collect();
        let config = self.folder.join("config.toml");
        let counts = |split: Split| (split.name().to_owned(), self.dataset.class_counts(split));
        let robustness = |split| read_json(&self.folder.join(format!("robustness-{split}.json"))).ok();
        let page = RunPage {
            name: self.session.settings.run.name.clone(),
            record: self.record.clone(),
            config: fs::read_to_string(&config).map_err(Error::io("read", &config))?,
            settings: self.session.settings.clone(),
            epochs: read_epochs(self.folder),
            mistakes: evaluations.first().and_then(|main| self.mistakes(&main.split, mistakes, console)),
            separation: evaluations.first().and_then(|main| self.separation(main)),
            evaluations,
            again: [Split::Test, Split::Val].into_iter().filter_map(|split| read_again(self.folder, split)).collect(),
            counts: Split::ALL.into_iter().map(counts).filter(|(_, counts)| counts.iter().any(|&n| n > 0)).collect(),
            skipped: skipped(self.folder),
            robustness: [Split::Test, Split::Val, Split::Train].into_iter().filter_map(robustness).collect(),
        };
        let path = self.folder.join("report.html");
        save_run_page(&path, &page)?;
        Ok(path)
    }
}

impl PageInputs<'_> {
    /// What the page is made of and cannot be read, of the files that are there.
    fn damaged(&self) -> Vec<PathBuf> {
        let folder = self.folder;
        let whole = |path: &Path| {
            let lines = read_regular(path).map(|bytes| bytes.split_inclusive(|&byte| byte == b'\n').count());
            lines.is_ok_and(|lines| lines > 0 && lines == read_epochs(folder).len())
        };
        let found = |name: String, sound: &dyn Fn(&Path) -> bool| {
            Some(folder.join(name)).filter(|path| path.exists() && !sound(path))
        };
        let of_split = |split: Split| {
            [
                found(format!("eval-{split}.json"), &|_| read_evaluation(folder, split).is_some()),
                found(format!("eval-{split}-again.json"), &|_| read_again(folder, split).is_some()),
                found(format!("predictions-{split}.csv"), &|path| Predictions::read(path).is_ok()),
                found(format!("robustness-{split}.json"), &|path| read_json::<Robustness>(path).is_ok()),
            ]
        };
        let of_splits = Split::ALL.into_iter().flat_map(of_split);
        of_splits.chain([found("metrics.jsonl".into(), &whole)]).flatten().collect()
    }

    /// The separation shown by the predictions that the run has kept; none where they show nothing.
    fn separation(&self, evaluation: &Evaluation) -> Option<Separation> {
        let inspection = evaluation.inspection.as_ref()?;
        let found = Predictions::of_run(self.folder, &evaluation.split).ok()?;
        let (logits, labels) = found.columns();
        inspection.separation(&logits, &labels, &found.classes, evaluation.temperature).ok()?
    }
}

/// How many files a run left out.
fn skipped(folder: &Path) -> usize {
    let rows = read_regular(&folder.join("skipped.csv")).unwrap_or_default();
    csv::Reader::from_reader(rows.as_slice()).records().count()
}
