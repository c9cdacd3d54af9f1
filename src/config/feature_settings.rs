//! The resolved settings of what is done with features: `[cache]`, `[probe]`, `[tsne]`.

use super::settings::ClassWeights;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[cache]`: features and activations of frozen blocks, computed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheSettings {
    /// The folder, shared by all runs.
    pub dir: PathBuf,
    /// The most it may hold; 0 = nothing is stored.
    pub max_bytes: u64,
    /// Augmented views kept per image when blocks are frozen; 0 = every epoch has new views, and nothing is kept.
    pub views: usize,
}

/// `[probe]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeSettings {
    /// The classifier on the frozen features.
    pub method: ProbeMethod,
    /// Which tokens it reads.
    pub features: FeatureChoice,
    /// The last blocks it reads them from.
    pub blocks: usize,
    /// Whether features are standardised with the statistics of the training images.
    pub standardize: bool,
    /// Inverse strengths of the penalty to choose from, ascending.
    pub c: Vec<f64>,
    /// Numbers of neighbours to choose from, ascending.
    pub k: Vec<usize>,
    /// Folds of the cross-validation when there are no validation images.
    pub folds: usize,
    /// What the chosen model is fitted on in the end.
    pub refit: Refit,
    /// Weights of the classes in the objective.
    pub class_weights: ClassWeights,
    /// The accuracy that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
}

/// `probe.method`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeMethod {
    /// Multinomial logistic regression.
    Logistic,
    /// Linear support vector machines, one class against the rest.
    Svm,
    /// Votes of the nearest training images by cosine similarity.
    Knn,
    /// Texts about the classes, and beside them the votes of all training images, the nearer the stronger (Tip-Adapter,
    /// Zhang et al. 2022); for models with a text tower, with the keys of `[prompts]`.
    Tip,
}

/// `probe.features`, `tsne.features`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureChoice {
    /// What `model.pool` feeds to a head.
    Pool,
    /// The class token.
    Cls,
    /// The mean of the patch tokens.
    Avg,
    /// The class token, then the mean of the patch tokens.
    Both,
}

impl ProbeMethod {
    /// What its free number is called.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Logistic | Self::Svm => "C",
            Self::Knn => "k",
            Self::Tip => "β",
        }
    }
}

/// `probe.refit`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refit {
    /// The training images.
    Train,
    /// The training and validation images; the validation scores are those from before.
    TrainVal,
}

/// `[tsne]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TsneSettings {
    /// Which tokens it reads.
    pub features: FeatureChoice,
    /// The last blocks it reads them from.
    pub blocks: usize,
    /// Effective number of neighbours of a point.
    pub perplexity: f64,
    /// Gradient steps.
    pub iterations: usize,
    /// Step size; none = from the number of points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// How the repulsion is computed.
    pub method: TsneMethod,
}

/// `tsne.method`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TsneMethod {
    /// By the number of points.
    Auto,
    /// All pairs.
    Exact,
    /// A tree of far cells (van der Maaten 2014).
    BarnesHut,
    /// A grid and the fast Fourier transform (Linderman et al. 2019).
    Interpolation,
}

/// `count` values from `low` to `high`, evenly in the logarithm.
pub fn log_grid(low: f64, high: f64, count: usize) -> Vec<f64> {
    let (from, to) = (low.log10(), high.log10());
    let last = count.saturating_sub(1).max(1) as f64;
    (0..count).map(|i| 10f64.powf(from + (to - from) * i as f64 / last)).collect()
}
