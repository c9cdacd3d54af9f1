//! The resolved settings of what is done with features: `[cache]`, `[probe]`, `[tsne]`.

use super::metric_choice::MetricChoice;
use crate::forms;
use crate::forms::shown_as_written;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[cache]`: features and activations of frozen blocks, computed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheSettings {
    /// Its folder. Default: `vitadapt` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`).
    #[schemars(length(min = 1), extend("x-path" = true))]
    pub dir: PathBuf,
    /// The most bytes it may hold, the least recently used go first; 0 = nothing is stored.
    #[schemars(range(max = i64::MAX), extend("default" = 10_737_418_240u64))]
    pub max_bytes: u64,
    /// Augmented views kept per image when blocks are frozen: epoch e trains on view e modulo this number. 0 = new
    /// views every epoch, and nothing is kept. Without augmentation there is one view, and it is always kept.
    #[schemars(range(max = 10_000), extend("default" = 0))]
    pub views: usize,
}

/// `[probe]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeSettings {
    /// The classifier on the frozen features.
    #[schemars(extend("default" = "logistic"))]
    pub method: ProbeMethod,
    /// Which tokens it reads.
    #[schemars(extend("default" = "pool"))]
    pub features: FeatureChoice,
    /// Reads them from that many last blocks, one after another.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub blocks: usize,
    /// Standardise features with the statistics of the training images.
    #[schemars(extend("default" = false))]
    pub standardize: bool,
    /// Inverse strengths of the penalty to choose from, or the one to use (logistic, svm). Default: 45 values from 1e-6
    /// to 1e5.
    #[serde(deserialize_with = "forms::ascending")]
    #[schemars(length(min = 1, max = 1000), inner(range(min = 1e-10, max = 1e10)), transform = forms::one_or_many)]
    pub c: Vec<f64>,
    /// Numbers of neighbours to choose from, or the one to use (knn). Default: 5, 10, 20, 100, 200.
    #[serde(deserialize_with = "forms::ascending")]
    #[schemars(length(min = 1, max = 1000), inner(range(min = 1, max = 1_000_000)), transform = forms::one_or_many)]
    pub k: Vec<usize>,
    /// What decides which value is best, on images that were held out; the log loss among equals.
    #[schemars(extend("default" = "auto"))]
    pub metric: MetricChoice,
    /// Folds of the cross-validation when there are no validation images.
    #[schemars(range(min = 2, max = 100), extend("default" = 5))]
    pub folds: usize,
    /// What the chosen model is fitted on in the end.
    #[schemars(extend("default" = "train_val"))]
    pub refit: Refit,
    /// Weights of the classes in the objective.
    #[schemars(extend("default" = "none"))]
    pub class_weights: ClassWeights,
    /// The blocks whose patches are compared, counted from the input, one or two of them (patchcore). Default: those at half
    /// and at two thirds of the depth.
    #[serde(default, deserialize_with = "forms::ascending", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 2),
        inner(range(min = 1, max = 1000)),
        transform = forms::one_or_many,
        extend("x-only" = [{ "key": "method", "values": ["patchcore"] }])
    )]
    pub patch_blocks: Vec<usize>,
    /// Each patch is averaged over a square of so many patches a side, an odd number (patchcore): 1 = none, 3 as in the
    /// paper.
    #[schemars(
        range(min = 1, max = 31),
        extend("default" = 1, "x-only" = [{ "key": "method", "values": ["patchcore"] }])
    )]
    pub neighborhood: usize,
    /// The share of the sound images' patches that is kept to compare with (patchcore).
    #[schemars(
        range(max = 1.0),
        extend("exclusiveMinimum" = 0.0, "default" = 0.01, "x-only" = [{ "key": "method", "values": ["patchcore"] }])
    )]
    pub coreset: f64,
    /// The accuracy that is wanted, for the advice on what to try next; balanced accuracy where the probe chooses by a metric
    /// to which classes count alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub target: Option<f64>,
}

/// `probe.method`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Distances of patches to those of sound images, for which images of sound parts suffice (`PatchCore`, Roth et al. 2022).
    Patchcore,
}

shown_as_written!(ProbeMethod);

/// `probe.features`, `tsne.features`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// `model.pool`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolChoice {
    /// What the backbone was trained with.
    Backbone,
    /// The class token.
    Cls,
    /// The mean of the patch tokens.
    Avg,
    /// The class token, then the mean of the patch tokens: twice the width.
    ClsAvg,
    /// The maximum of the patch tokens, value by value: a small flaw is not averaged away.
    Max,
    /// Log-sum-exp of the patch tokens, a smooth maximum (sharpness 5).
    Lse,
    /// The mean of the largest 1 in 64 of the patch tokens' values.
    Topk,
    /// The generalised mean of the patch tokens (p = 3).
    Gem,
    /// The mean, the maximum and the standard deviation of the patch tokens, one after another: three times the width.
    Stats,
    /// Gated attention over the patch tokens, learnt in training (Ilse et al. 2018).
    Attention,
    /// How unusual the most unusual patch is: the largest Mahalanobis distance from the patches of the training images,
    /// behind the block `model.pool_block`; for `vitadapt probe`.
    Mahalanobis,
    /// The one that does best on validation, of all but `attention`; for `vitadapt probe`.
    Auto,
}

shown_as_written!(PoolChoice);

impl ProbeMethod {
    /// What its free number is called.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Logistic | Self::Svm => "C",
            Self::Knn => "k",
            Self::Tip => "β",
            Self::Patchcore => "coreset",
        }
    }
}

/// `probe.class_weights`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All 1.
    None,
    /// n / (classes x n of the class).
    Balanced,
}

/// `probe.refit`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refit {
    /// The training images.
    Train,
    /// The training and validation images; the validation scores are those from before.
    TrainVal,
}

/// `[tsne]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TsneSettings {
    /// Which tokens it reads.
    #[schemars(extend("default" = "pool"))]
    pub features: FeatureChoice,
    /// Reads them from that many last blocks, one after another.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub blocks: usize,
    /// Effective number of neighbours of a point.
    #[schemars(range(min = 1.0, max = 100_000.0), extend("default" = 30.0))]
    pub perplexity: f64,
    /// Gradient steps.
    #[schemars(range(min = 250, max = 1_000_000), extend("default" = 1000))]
    pub iterations: usize,
    /// Step size. Default: the number of points divided by 48, at least 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1e9), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: Option<f64>,
    /// How the repulsion is computed.
    #[schemars(extend("default" = "auto"))]
    pub method: TsneMethod,
}

/// `tsne.method`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TsneMethod {
    /// By the number of points.
    Auto,
    /// All pairs.
    Exact,
    /// A grid and the fast Fourier transform (Linderman et al. 2019).
    Interpolation,
}

/// `count` values from `low` to `high`, evenly in the logarithm.
pub fn log_grid(low: f64, high: f64, count: usize) -> Vec<f64> {
    let (from, to) = (low.log10(), high.log10());
    let last = count.saturating_sub(1).max(1) as f64;
    (0..count).map(|i| 10f64.powf(from + (to - from) * i as f64 / last)).collect()
}
