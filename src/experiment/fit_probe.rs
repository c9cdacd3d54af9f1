//! Choosing and fitting a probe on features: what `probe` saves and what a head may start from.

use super::features::{FeatureSet, LabelledFeatures};
use super::session::Session;
use crate::config::{ClassWeights, ProbeMethod, ProbeSettings, Refit, log_grid};
use crate::data::folds::{assign_folds, group_numbers};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::linalg::Matrix;
use crate::metrics::SelectionMetric;
use crate::model::Scored;
use crate::probe::{FittedProbe, LinearHead, ProbeSpec, Samples, Selection, Stopping, Tip, TipGrid, ValidationSamples};
use crate::report::Console;
use crate::rng::{Purpose, Stream};

/// Tolerance of the fit that is kept: the path only ranks settings and may be coarser.
const EXACT: f64 = 1e-9;
/// Both numbers of Tip-Adapter are sought here: all that its authors chose for any of their data sets.
const TIP_RANGE: [f64; 2] = [0.1, 50.0];
/// So many values each, evenly in the logarithm.
const TIP_VALUES: usize = 40;

/// A probe and how it came about.
pub struct Fitted {
    /// The path of settings and the one chosen.
    pub selection: Selection,
    /// What settings were compared by.
    pub metric: SelectionMetric,
    /// At the chosen setting.
    pub model: FittedProbe,
    /// What it was fitted on in the end.
    pub rows: LabelledFeatures,
    /// The splits of those rows.
    pub splits: Vec<Split>,
    /// Scores of images that the model of that setting had not seen.
    pub held_out: HeldOut,
    classes: Vec<String>,
}

/// Logits of held-out images: those of the validation split, or of every fold.
pub struct HeldOut {
    /// Row-major.
    pub logits: Vec<f32>,
    /// The class of each row.
    pub labels: Vec<usize>,
    /// The sample of each row.
    pub samples: Vec<usize>,
    /// Folds of the cross-validation; none with validation images.
    pub folds: Option<usize>,
}

impl From<&HeldOut> for Scored {
    fn from(held_out: &HeldOut) -> Self {
        let HeldOut { logits, labels, samples, .. } = held_out;
        Self { logits: logits.clone(), labels: labels.clone(), indices: samples.clone() }
    }
}

impl Fitted {
    /// Logits of more images.
    ///
    /// # Errors
    /// When the features are of another width.
    pub fn logits(&self, queries: Matrix<'_>) -> Result<Vec<f32>> {
        let fitted_on = Samples::new(self.rows.matrix(), &self.rows.labels, &self.classes)?;
        self.model.logits(&fitted_on, queries)
    }
}

/// Chooses on validation, or by folds without it, and fits at the choice on what `refit` says.
///
/// # Errors
/// Data errors of splits that no probe can be fitted on.
pub fn fit(features: &FeatureSet, session: &Session, refit: Refit, console: &Console) -> Result<Fitted> {
    let settings = &session.settings.probe;
    let grid = grid(settings)?;
    let metric = SelectionMetric::new(settings.metric, &features.dataset.class_counts(Split::Train));
    let recipe = ProbeSpec { standardize: settings.standardize, metric, ..ProbeSpec::new(settings.method) };
    let exact = ProbeSpec { stopping: Stopping { tolerance: EXACT, ..Stopping::default() }, ..recipe.clone() };
    let choose = |samples: &Samples<'_>, validation: &ValidationSamples<'_>, watch: &mut Watch<'_>| {
        let selection = recipe.select(samples, validation, &grid, watch)?;
        let (exact, setting) = (exact.clone(), selection.setting());
        Ok(ChosenSetting { selection, fit: Box::new(move |samples| exact.fit(samples, setting)) })
    };
    session.workers.install(|| choose_and_fit(features, session, (refit, metric), &choose, console))
}

/// The same for Tip-Adapter on embeddings of unit length, with the head that compares them with texts.
///
/// # Errors
/// Data errors of splits that nothing can be chosen on.
pub fn fit_tip(
    features: &FeatureSet,
    texts: &LinearHead,
    session: &Session,
    refit: Refit,
    console: &Console,
) -> Result<Fitted> {
    let values = log_grid(TIP_RANGE[0], TIP_RANGE[1], TIP_VALUES);
    let grid = TipGrid { alphas: values.clone(), betas: values };
    let choose = |samples: &Samples<'_>, validation: &ValidationSamples<'_>, watch: &mut Watch<'_>| {
        let (selection, tip) = Tip::select(texts, samples, validation, &grid, watch)?;
        Ok(ChosenSetting { selection, fit: Box::new(move |_| Ok(FittedProbe::Tip(tip.clone()))) })
    };
    let metric = SelectionMetric::Accuracy;
    session.workers.install(|| choose_and_fit(features, session, (refit, metric), &choose, console))
}

/// What was chosen, and the fit at the choice.
struct ChosenSetting<'a> {
    selection: Selection,
    fit: Box<FitSamples<'a>>,
}

type Watch<'a> = dyn FnMut(usize, usize) + 'a;
type FitSamples<'a> = dyn Fn(&Samples<'_>) -> Result<FittedProbe> + 'a;
type Choose<'a> = dyn Fn(&Samples<'_>, &ValidationSamples<'_>, &mut Watch<'_>) -> Result<ChosenSetting<'a>> + Sync + 'a;

fn choose_and_fit(
    features: &FeatureSet,
    session: &Session,
    (refit, metric): (Refit, SelectionMetric),
    choose: &Choose<'_>,
    console: &Console,
) -> Result<Fitted> {
    let settings = &session.settings.probe;
    let classes = &features.dataset.classes;
    let (train, val) = (features.of(&[Split::Train]), features.of(&[Split::Val]));
    let samples = samples(&train, classes, settings)?;
    let progress = console.progress(100, "% of the fits");
    let mut watch = |done: usize, total: usize| progress.set((100 * done / total.max(1)) as u64);
    let (ChosenSetting { selection, fit }, held_out) = if val.labels.is_empty() {
        let folds = assign_folds(
            &train.labels,
            classes,
            groups(&features.dataset, &train.samples).as_deref(),
            settings.folds,
            Stream::new(session.settings.run.seed, Purpose::Folds, &[]),
        )?;
        let choice = choose(&samples, &ValidationSamples::Folds(&folds), &mut watch)?;
        let held_out = out_of_fold(&choice.fit, &samples, &train, &folds)?;
        (choice, HeldOut { folds: Some(settings.folds), ..held_out })
    } else {
        let held = Samples::new(val.matrix(), &val.labels, classes)?;
        let choice = choose(&samples, &ValidationSamples::HeldOut(&held), &mut watch)?;
        let logits = (choice.fit)(&samples)?.logits(&samples, val.matrix())?;
        (choice, HeldOut { logits, labels: val.labels.clone(), samples: val.samples.clone(), folds: None })
    };
    progress.finish();
    let splits = match refit {
        Refit::TrainVal if !val.labels.is_empty() => vec![Split::Train, Split::Val],
        _ => vec![Split::Train],
    };
    let rows = features.of(&splits);
    let model = fit(&self::samples(&rows, classes, settings)?)?;
    Ok(Fitted { selection, metric, model, rows, splits, held_out, classes: classes.clone() })
}

/// The settings of a method to choose from.
fn grid(settings: &ProbeSettings) -> Result<Vec<f64>> {
    match settings.method {
        ProbeMethod::Logistic | ProbeMethod::Svm => Ok(settings.c.clone()),
        ProbeMethod::Knn => Ok(settings.k.iter().map(|&k| k as f64).collect()),
        ProbeMethod::Tip => Err(Error::usage_hint(
            "probe.method = \"tip\" needs texts, and here a probe of features alone is fitted",
            "set probe.method to \"logistic\" or \"svm\"",
        )),
        ProbeMethod::Patchcore => Err(Error::usage_hint(
            "probe.method = \"patchcore\" compares patches with those of sound parts, and here a probe is fitted that tells \
             classes apart",
            "set probe.method to \"logistic\" or \"svm\"",
        )),
    }
}

fn samples<'a>(rows: &'a LabelledFeatures, classes: &'a [String], settings: &ProbeSettings) -> Result<Samples<'a>> {
    let samples = Samples::new(rows.matrix(), &rows.labels, classes)?;
    Ok(match settings.class_weights {
        ClassWeights::None => samples,
        ClassWeights::Balanced => samples.balanced(),
    })
}

fn groups(dataset: &Dataset, samples: &[usize]) -> Option<Vec<usize>> {
    group_numbers(samples.iter().map(|&sample| dataset.samples[sample].group.as_deref()))
}

/// Logits of each training sample by the model of the other folds.
fn out_of_fold(
    fit: &FitSamples<'_>,
    samples: &Samples<'_>,
    rows: &LabelledFeatures,
    folds: &[usize],
) -> Result<HeldOut> {
    let classes = samples.classes();
    let mut logits = vec![0f32; rows.labels.len() * classes];
    for fold in 0..folds.iter().max().map_or(0, |last| last + 1) {
        let (inside, outside): (Vec<usize>, Vec<usize>) = (0..rows.labels.len()).partition(|&i| folds[i] == fold);
        let mut storage = Vec::new();
        let fitted_on = samples.subset(&outside, &mut storage);
        let queries = rows.matrix().select(&inside);
        let queries = Matrix::new(&queries, rows.matrix().cols());
        let found = fit(&fitted_on)?.logits(&fitted_on, queries)?;
        for (row, &i) in found.chunks_exact(classes).zip(&inside) {
            logits[i * classes..(i + 1) * classes].copy_from_slice(row);
        }
    }
    Ok(HeldOut { logits, labels: rows.labels.clone(), samples: rows.samples.clone(), folds: None })
}
