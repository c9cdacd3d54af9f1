//! The resolved settings: every default filled in, every value checked, enums instead of strings.

use super::augment_settings::AugmentSettings;
use super::feature_settings::{CacheSettings, ProbeSettings, TsneSettings};
use super::fold::Fold;
use super::head_settings::{HeadPull, WiseFt};
use super::inspection_settings::{InspectionSettings, UnknownSettings};
use super::loss_settings::{LossSettings, LossWeights, Sampler};
use super::prompt_settings::PromptSettings;
use super::report_settings::ReportSettings;
use super::strategy_settings::StrategySettings;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything a run needs to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// `[run]`
    pub run: RunSettings,
    /// `[data]`
    pub data: DataSettings,
    /// `[model]`
    pub model: ModelSettings,
    /// `[preprocess]`
    pub preprocess: PreprocessSettings,
    /// `[augment]`
    pub augment: AugmentSettings,
    /// `[strategy]`
    pub strategy: StrategySettings,
    /// `strategy.unfreeze`, the same for every kind: epochs from one block that begins to learn to the next; 0 = all
    /// learn from the start.
    #[serde(rename = "strategy.unfreeze")]
    pub unfreeze: usize,
    /// `[train]`
    pub train: TrainSettings,
    /// `[early_stop]`
    pub early_stop: EarlyStopSettings,
    /// `[cache]`
    pub cache: CacheSettings,
    /// `[probe]`
    pub probe: ProbeSettings,
    /// `[tsne]`
    pub tsne: TsneSettings,
    /// `[prompts]`
    pub prompts: PromptSettings,
    /// `[report]`
    pub report: ReportSettings,
    /// `[inspection]`
    pub inspection: InspectionSettings,
    /// `[unknown]`
    pub unknown: UnknownSettings,
}

/// `[run]`: name, place and machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSettings {
    /// Folder of the run below `out`; defaults to the config file's stem.
    pub name: String,
    /// Seed of every random draw of training (splits have their own).
    pub seed: u64,
    /// Folder that holds the runs.
    pub out: PathBuf,
    /// Where tensors live.
    pub device: DeviceChoice,
    /// Type of the products in training.
    pub precision: Precision,
    /// Worker threads for compute; 0 = one per core.
    pub threads: usize,
    /// Threads that decode images; 0 = one per core.
    pub decode_threads: usize,
}

/// `run.precision`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Products in bfloat16: the range of f32 with fewer digits. For GPUs from Ampere on.
    Bf16,
    /// Products in half precision, with a loss scale that follows the gradients. For GPUs without bfloat16.
    F16,
}

/// `run.device`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU when this binary has CUDA and one is present, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// One GPU by its number; an error when it is absent.
    Cuda(usize),
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataSettings {
    /// Where the images are listed.
    #[serde(flatten)]
    pub source: DataSource,
    /// What the manifest's paths are relative to; none = its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// The manifest's paths may lead outside its folder.
    pub allow_outside: bool,
    /// Fraction of the images drawn for validation when the data has no such split.
    pub val: f64,
    /// Fraction of the images drawn for testing when the data has no such split; 0 with a fold.
    pub test: f64,
    /// The fold whose images are the test images; none = splits as the data names them or as they are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// Seed of the drawing, apart from `run.seed` so that seeds can vary on one split.
    pub split_seed: u64,
    /// Draw the same fraction from every class.
    pub stratified: bool,
    /// What to do with images that cannot be decoded.
    pub on_error: OnError,
    /// Significant bits of 16-bit images (e.g. 12 for 12-bit sensors): 2^bits - 1 becomes white.
    pub bit_depth: u8,
}

impl DataSettings {
    /// The folder that the names of images are relative to.
    pub fn folder(&self) -> &Path {
        match (&self.source, &self.base) {
            (DataSource::Root(root), _) | (_, Some(root)) => root,
            (DataSource::Manifest(file), None) => {
                file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
        }
    }
}

/// Folder or manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSource {
    /// Class folders, or train/ val/ test/ of class folders.
    Root(PathBuf),
    /// CSV with the columns path,label and optionally split and group.
    Manifest(PathBuf),
}

/// `data.on_error`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// List every bad file and stop before training.
    Fail,
    /// Leave bad files out and list them in `skipped.csv`.
    Skip,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSettings {
    /// `builtin:NAME`, a local folder, or a hub id: `owner/name[@revision]`, with `model.revision` in it.
    pub backbone: String,
    /// Side of the square input in pixels; none = the backbone's own.
    pub image_size: Option<usize>,
    /// How tokens become one feature vector.
    pub pool: PoolChoice,
    /// Highest stochastic depth rate, reached in the last block.
    pub drop_path: f64,
    /// Dropout before the head.
    pub head_dropout: f64,
    /// What the head starts from.
    pub head_init: HeadInit,
}

/// `model.head_init`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadInit {
    /// Small random weights.
    Random,
    /// The linear probe of the training images (LP-FT, Kumar et al. 2022), with the keys of `[probe]`.
    Probe,
    /// The embeddings of texts about the classes, with the keys of `[prompts]`: zero-shot, trained on.
    Text,
}

/// `model.pool`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolChoice {
    /// What the backbone was trained with.
    Backbone,
    /// The class token.
    Cls,
    /// The mean of the patch tokens.
    Avg,
}

/// `[preprocess]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreprocessSettings {
    /// How an image of any shape becomes a square.
    pub resize: ResizeMode,
    /// Filter of the resize.
    pub interpolation: InterpolationChoice,
    /// Which statistics standardise the pixels.
    pub normalize: NormalizeChoice,
    /// Explicit statistics per channel, for pixels in 0..1; present exactly when `normalize` is `Explicit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f32; 3]>,
    /// See `mean`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f32; 3]>,
}

/// `preprocess.resize`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// The whole image, aspect ratio given up.
    Squash,
    /// The whole image, aspect ratio kept, borders filled.
    Letterbox,
    /// Short side to size / `crop_pct`, centre crop: may delete a defect at the border.
    Crop,
}

/// `preprocess.interpolation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterpolationChoice {
    /// What the backbone was trained with.
    Backbone,
    /// Triangle filter, antialiased.
    Bilinear,
    /// Cubic filter with a = -1/2, antialiased.
    Bicubic,
}

/// `preprocess.normalize`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormalizeChoice {
    /// The backbone's own mean and std.
    Backbone,
    /// `ImageNet` mean and std.
    Imagenet,
    /// Mean and std 0.5.
    Symmetric,
    /// Mean and std of the training images.
    Dataset,
    /// Mean and std of each batch.
    Batch,
    /// Median and scaled interquartile range of the training images.
    Robust,
    /// The `mean` and `std` given beside it.
    Explicit,
}

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainSettings {
    /// How long to train.
    #[serde(flatten)]
    pub length: TrainLength,
    /// Images per optimiser step, whatever `accumulate` is.
    pub batch_size: usize,
    /// Micro-batches a step is cut into: less memory, the same result up to rounding.
    pub accumulate: Option<usize>,
    /// Peak learning rate.
    pub lr: f64,
    /// Peak learning rate of the head.
    pub head_lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Factor of the learning rate from each layer to the one below; 1 = off.
    pub layer_decay: f64,
    /// Share of the steps (below 1) or number of steps (from 1) of linear warm-up.
    pub warmup: f64,
    /// How the learning rate falls after the warm-up.
    pub schedule: Schedule,
    /// Largest global gradient norm; none = no clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_grad: Option<f64>,
    /// Probability mass spread evenly over the classes.
    pub label_smoothing: f64,
    /// What is minimised.
    pub loss: LossSettings,
    /// Weights of the classes in the loss.
    pub class_weights: LossWeights,
    /// Which training images an epoch sees.
    pub sampler: Sampler,
    /// Parameter of the beta distribution that shares are drawn from when two images are blended; 0 = off.
    pub mixup: f64,
    /// Likewise when a rectangle of one image is pasted into another; 0 = off.
    pub cutmix: f64,
    /// Decay of the moving average of the parameters that is validated and kept; none = the parameters themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Of how many of the best epochs a soup is tried; 0 = none.
    pub soup: usize,
    /// How far uphill the gradient is taken (sharpness-aware minimisation); none = where the parameters are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sam: Option<f64>,
    /// Steps between checkpoints within an epoch; 0 = none.
    pub checkpoint_steps: usize,
    /// Minutes between checkpoints within an epoch; 0 = none.
    pub checkpoint_minutes: f64,
    /// How strongly a head from texts is drawn to where it started; none = not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_pull: Option<HeadPull>,
    /// Mean of the weights before and after training; none = those after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wise_ft: Option<WiseFt>,
    /// Gradient checkpointing: keep only what enters each block, and run the block again on the way back.
    pub checkpoint_blocks: bool,
}

impl TrainSettings {
    /// Whether training images are mixed with each other.
    pub fn mixes(&self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }
}

/// `train.epochs` or `train.steps`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainLength {
    /// Passes over the training images.
    Epochs(usize),
    /// Optimiser steps; the last epoch may be cut short.
    Steps(usize),
}

/// `train.schedule`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to 0.
    Cosine,
    /// No decay.
    Constant,
}

/// `probe.class_weights`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All 1.
    None,
    /// n / (classes x n of the class).
    Balanced,
}

/// `[early_stop]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EarlyStopSettings {
    /// What decides which epoch is best.
    pub metric: EarlyStopMetric,
    /// Epochs without improvement before stopping; 0 = never stop early.
    pub patience: usize,
}

/// `early_stop.metric`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopMetric {
    /// Higher is better.
    ValAccuracy,
    /// Lower is better.
    ValLoss,
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected auto, cpu, cuda or cuda:N";
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").ok_or(EXPECTED)?;
                // `parse` alone would take a sign.
                let digits = ordinal.bytes().all(|byte| byte.is_ascii_digit());
                ordinal.parse().ok().filter(|_| digits).map(Self::Cuda).ok_or(EXPECTED)
            }
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
