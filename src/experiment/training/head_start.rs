//! Where a head starts, from the probe of the training images or from texts, and the mean with that start after training.

use super::Training;
use crate::backbone::{Layer, Readout, Role};
use crate::config::{FoundOrGiven, Refit, Settings};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::experiment::features::FeatureSet;
use crate::experiment::fit_probe::fit;
use crate::probe::FittedProbe;
use crate::report::{Console, percent, plots};
use crate::train::progress::Progress;
use crate::train::snapshot::snapshot;
use crate::train::validation::validate;
use crate::train::wise_ft::WeightInterpolation;
use candle_core::Tensor;

/// The best weights of training, as long as a mean with those before it is under way.
pub const FINETUNED: &str = "finetuned";

/// Refuses, before training, to choose something on no validation images after it.
///
/// # Errors
/// A usage error.
pub fn check_wise_ft(settings: &Settings, dataset: &Dataset) -> Result<()> {
    if settings.train.wise_ft == Some(FoundOrGiven::Found) && dataset.indices(Split::Val).is_empty() {
        return Err(Error::usage_hint(
            "train.wise_ft = true chooses the share of the fine-tuned weights on validation images, and there are none",
            "give the share, such as train.wise_ft = 0.5, or validation images",
        ));
    }
    Ok(())
}

impl Training {
    /// Sets the head to the linear probe of the training images: fine-tuning then starts where the features need not
    /// change for the head's sake (Kumar et al. 2022). Validation images choose its C but are not fitted, since they
    /// choose the epoch too.
    pub(super) fn start_from_probe(&self, console: &Console) -> Result<()> {
        let (session, params) = (&self.session, &self.model.params);
        let features = self.pretrained_features(console)?;
        let fitted = fit(&features, session, Refit::Train, console)?;
        let FittedProbe::Linear(found) = &fitted.model else {
            let message = "model.head_init = \"probe\" needs a linear probe, but probe.method = \"knn\"";
            return Err(Error::usage_hint(message, "set probe.method = \"logistic\" or \"svm\""));
        };
        let chosen = &fitted.selection.path[fitted.selection.chosen];
        console.info(format!(
            "head      from a probe with C = {}: {} on held-out images",
            chosen.setting,
            percent(chosen.validation_accuracy)
        ));
        let head = [(Layer::Head.weight(), &found.head.weight), (Layer::Head.bias(), &found.head.bias)];
        let values = |name: &str| head.iter().find(|(wanted, _)| name.parse() == Ok(*wanted)).map(|(_, values)| values);
        let tensor = |name: &str, now: &Tensor| {
            values(name).map(|values| Tensor::from_slice(values, now.shape(), now.device())).transpose()
        };
        Ok(params.assign(tensor)?)
    }

    /// The pooled features of all images, while the backbone is still the pretrained one.
    fn pretrained_features(&self, console: &Console) -> Result<FeatureSet> {
        let (session, params) = (&self.session, &self.model.params);
        let images = session.images(&self.source.dataset, &self.keys, &self.source.evaluation);
        // Prompts that are not trained yet would only disturb.
        let mut pretrained = params.detached();
        pretrained.retain(|name| Role::of(name) != Some(Role::Prompt));
        FeatureSet::compute(session, (&pretrained, &session.backbone.sha256), Readout::POOL, &images, console)
    }

    /// A head from texts before training: says how well it does, ties it to where it is, and keeps the parameters when
    /// they are wanted after training. They are the same ones when the run is resumed, so nothing of this is saved.
    pub(super) fn regularise_to_texts(&mut self, console: &Console) -> Result<()> {
        let Some(texts) = &self.texts else { return Ok(()) };
        let settings = &self.session.settings.train;
        let features = || self.pretrained_features(console);
        self.objective.regulariser = Some(texts.regulariser(settings.head_pull, &self.model.params, features)?);
        if settings.wise_ft.is_some() {
            self.start = Some(snapshot(&self.model.params)?);
        }
        let resumed = self.checkpoints.path("last").exists();
        if !resumed && let Some(found) = validate(&self.source, &self.model, self.metric())? {
            console.info(format!(
                "head      from texts: {} on validation images before training",
                percent(found.scores.accuracy)
            ));
        }
        Ok(())
    }

    /// Puts the mean of the weights before and after training in the place of the best, if it is wanted.
    pub(super) fn mix_with_start(&mut self, console: &Console) -> Result<()> {
        let (Some(wise_ft), Some(start)) = (self.session.settings.train.wise_ft, self.start.take()) else {
            return Ok(());
        };
        // The weights after training stay apart until the run is done: a mean of the mean would be another model.
        let tuned = match self.checkpoints.load::<Progress>(FINETUNED)? {
            Some(tuned) => tuned,
            None => match self.checkpoints.load::<Progress>("best")? {
                Some(best) => {
                    self.checkpoints.save(FINETUNED, best.state.step, &self.model.params, None, &best.state)?;
                    best
                }
                None => return Ok(()),
            },
        };
        let params = &self.model.params;
        let mut score = || Ok(validate(&self.source, &self.model, self.metric())?.map(|found| found.scores));
        let line = WeightInterpolation { start: &start, end: &tuned.params };
        let record = line.settle(params, wise_ft, &mut score)?;
        self.checkpoints.save("best", tuned.state.step, params, None, &tuned.state)?;
        console.info(format!("wise-ft   {}", record.sentence()));
        if !record.curve.is_empty() {
            let picture = plots::Titled { title: &self.title(), of: &record };
            plots::save(&picture, &self.run.path("plots/wise-ft"))?;
        }
        self.record.wise_ft = Some(record);
        Ok(())
    }
}
