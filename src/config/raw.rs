//! The configuration file as it is written: every key optional, unknown keys refused, enums instead of strings.
//!
//! This is, with `raw_augment.rs`, `raw_inspection.rs` and `raw_strategy.rs`, the only list of keys. The published JSON schema, the types,
//! allowed values and ranges checked on reading, the suggestions for misspelt keys and the written file all come from
//! these structs. Doc comments become the descriptions that editors show; `default` is what editors show as the default,
//! and a test holds it against what resolving really fills in.

use super::feature_settings::{FeatureChoice, ProbeMethod, Refit, TsneMethod};
use super::loss_settings::{LossKind, LossWeightsKind, Sampler};
use super::prompt_settings::PromptPreset;
use super::raw_augment::RawAugment;
use super::raw_inspection::{RawInspection, RawUnknown};
use super::raw_strategy::RawStrategy;
use super::settings::{
    ClassWeights, EarlyStopMetric, HeadInit, InterpolationChoice, NormalizeChoice, OnError, PoolChoice, Precision,
    ResizeMode, Schedule,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Configuration of vitadapt. Paths are relative to this file; in `--set` overrides, to the current folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "vitadapt configuration")]
pub struct Raw {
    /// Name, place and machine of the run.
    pub run: Option<RawRun>,
    /// The images, their labels and how they are split.
    pub data: Option<RawData>,
    /// The pretrained backbone.
    pub model: Option<RawModel>,
    /// How an image becomes the backbone's input.
    pub preprocess: Option<RawPreprocess>,
    /// Random changes of the training images.
    pub augment: Option<RawAugment>,
    /// Which parameters learn.
    pub strategy: Option<RawStrategy>,
    /// Length, learning rates and regularisation of the training.
    pub train: Option<RawTrain>,
    /// When to stop before the end, and which epoch is kept as the best.
    pub early_stop: Option<RawEarlyStop>,
    /// Features and activations of frozen blocks, computed once and shared by all commands.
    pub cache: Option<RawCache>,
    /// The classifier of `vitadapt probe`.
    pub probe: Option<RawProbe>,
    /// The picture of `vitadapt tsne`.
    pub tsne: Option<RawTsne>,
    /// Classes in words, for `vitadapt zeroshot`.
    pub prompts: Option<RawPrompts>,
    /// The page about a run.
    pub report: Option<RawReport>,
    /// Which classes are good parts, and what mistakes are worth.
    pub inspection: Option<RawInspection>,
    /// How images unlike those of training are recognised.
    pub unknown: Option<RawUnknown>,
}

/// `[run]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRun {
    /// Folder of the run below `out`. Default: the name of this file without its ending.
    #[schemars(length(min = 1))]
    pub name: Option<String>,
    /// Seed of every random draw of the training; the split has its own.
    #[schemars(range(min = 0, max = i64::MAX), extend("default" = 42))]
    pub seed: Option<u64>,
    /// Folder that holds the runs. Written here, it is relative to this file; the default, `runs`, is relative to
    /// the folder in which the command is started.
    #[schemars(length(min = 1))]
    pub out: Option<PathBuf>,
    /// `auto` (the first GPU if there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.
    #[schemars(regex(pattern = r"^(auto|cpu|cuda(:[0-9]+)?)$"), extend("default" = "auto"))]
    pub device: Option<String>,
    /// Type of the products in training; parameters, norms, softmax and loss stay in f32.
    #[schemars(extend("default" = "f32"))]
    pub precision: Option<Precision>,
    /// Worker threads for compute; 0 = one per core.
    #[schemars(range(max = 1024), extend("default" = 0))]
    pub threads: Option<usize>,
    /// Threads that decode images; 0 = one per core.
    #[schemars(range(max = 1024), extend("default" = 0))]
    pub decode_threads: Option<usize>,
}

/// `[data]`: one of `root` and `manifest`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawData {
    /// Folder of class folders, or of train/ val/ test/ with class folders in each.
    #[schemars(length(min = 1))]
    pub root: Option<PathBuf>,
    /// CSV with the columns path,label and optionally split and group.
    #[schemars(length(min = 1))]
    pub manifest: Option<PathBuf>,
    /// The manifest's paths may be absolute, have `..` parts and lead elsewhere by links, for data on a read-only share;
    /// with `root`, they are relative to that folder.
    #[schemars(extend("default" = false))]
    pub allow_outside: Option<bool>,
    /// Fraction of the images drawn for validation when the data has no such split.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.15))]
    pub val: Option<f64>,
    /// Fraction of the images drawn for testing when the data has no such split.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.15))]
    pub test: Option<f64>,
    /// Cross-validation: `"2/5"` deals all images to five folds, whatever splits the data names, and tests on the
    /// second. Excludes `test`; `val` is drawn from the other folds.
    #[schemars(regex(pattern = r"^[0-9]+/[0-9]+$"))]
    pub fold: Option<String>,
    /// Seed of the split and of the folds, apart from `run.seed` so that seeds can vary on one split.
    #[schemars(range(min = 0, max = i64::MAX), extend("default" = 0))]
    pub split_seed: Option<u64>,
    /// Draw the same fraction from every class.
    #[schemars(extend("default" = true))]
    pub stratified: Option<bool>,
    /// What to do with images that cannot be decoded.
    #[schemars(extend("default" = "fail"))]
    pub on_error: Option<OnError>,
    /// Significant bits of 16-bit images: 12 for a 12-bit sensor makes 4095 white.
    #[schemars(range(min = 9, max = 16), extend("default" = 16))]
    pub bit_depth: Option<u8>,
}

/// `[model]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawModel {
    /// `builtin:NAME`, a folder with config.json and model.safetensors, or a model of the Hugging Face Hub as
    /// `owner/name` or `owner/name@revision`. A folder of that name comes first; `./owner/name` is always a folder.
    #[schemars(length(min = 1), extend("default" = "builtin:vit-mini"))]
    pub backbone: Option<String>,
    /// Branch, tag or full commit of a model of the hub, instead of `@revision`. Default: main.
    #[schemars(length(min = 1))]
    pub revision: Option<String>,
    /// Side of the square input in pixels. Default: the backbone's own.
    #[schemars(range(min = 16, max = 4096))]
    pub image_size: Option<usize>,
    /// How tokens become one feature vector.
    #[schemars(extend("default" = "backbone"))]
    pub pool: Option<PoolChoice>,
    /// Highest stochastic depth rate, reached in the last block.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.0))]
    pub drop_path: Option<f64>,
    /// Dropout before the head.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.0))]
    pub head_dropout: Option<f64>,
    /// What the head starts from: small random weights, the linear probe of the training images, or (for models with a
    /// text tower) the texts about the classes.
    #[schemars(extend("default" = "random"))]
    pub head_init: Option<HeadInit>,
}

/// `[preprocess]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPreprocess {
    /// How an image of any shape becomes a square.
    #[schemars(extend("default" = "squash"))]
    pub resize: Option<ResizeMode>,
    /// Filter of the resize.
    #[schemars(extend("default" = "backbone"))]
    pub interpolation: Option<InterpolationChoice>,
    /// Which statistics standardise the pixels. `explicit` is implied by `mean` and `std`.
    #[schemars(extend("default" = "backbone"))]
    pub normalize: Option<NormalizeChoice>,
    /// Mean of red, green and blue, for pixels in 0..1; needs `std`.
    #[schemars(inner(range(min = -100.0, max = 100.0)))]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue, for pixels in 0..1; needs `mean`.
    #[schemars(inner(range(min = 1e-6, max = 100.0)))]
    pub std: Option<[f32; 3]>,
}

/// `[train]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTrain {
    /// Passes over the training images; excludes `steps`. For `prompt`, the default is 50.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10))]
    pub epochs: Option<usize>,
    /// Optimiser steps; excludes `epochs`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub steps: Option<usize>,
    /// Images per optimiser step, whatever `accumulate` is.
    #[schemars(range(min = 1, max = 65_536), extend("default" = 32))]
    pub batch_size: Option<usize>,
    /// Micro-batches a step is cut into: less memory, the same result up to rounding. At most `batch_size`. `auto` = as
    /// few as the free memory allows.
    #[schemars(extend("default" = "auto"))]
    pub accumulate: Option<OrAuto<MicroBatches>>,
    /// Peak learning rate of the backbone. Default: 1e-4 for partial, 5e-5 for full, 2e-4 for lora (its adapters), 2e-3
    /// for the prompts of prompt, 1e-3 for frozen (where only the head learns).
    #[schemars(range(max = 1e3), extend("exclusiveMinimum" = 0.0))]
    pub lr: Option<f64>,
    /// Peak learning rate of the head. Default: 1e-3; for frozen, and for a head that starts from texts: `lr`.
    #[schemars(range(max = 1e3), extend("exclusiveMinimum" = 0.0))]
    pub head_lr: Option<f64>,
    /// Decoupled weight decay; biases, norms, the class token and positions are spared. Default: 0.05; for
    /// lora: 0.01; for frozen and prompt: 0.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: Option<f64>,
    /// Factor of the learning rate from each layer to the one below; 1 = off. Default: 0.75 for full, else 1.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub layer_decay: Option<f64>,
    /// Linear warm-up: a share of the steps (below 1) or a number of steps (from 1).
    #[schemars(range(min = 0.0, max = 1e9), extend("default" = 0.1))]
    pub warmup: Option<f64>,
    /// How the learning rate falls after the warm-up.
    #[schemars(extend("default" = "cosine"))]
    pub schedule: Option<Schedule>,
    /// Largest global gradient norm; false or 0 = no clipping, true = 1.
    #[schemars(extend("default" = 1.0))]
    pub clip_grad: Option<Switch<GradNorm>>,
    /// Probability mass spread evenly over the classes.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.0))]
    pub label_smoothing: Option<f64>,
    /// What is minimised.
    #[schemars(extend("default" = "cross_entropy"))]
    pub loss: Option<LossKind>,
    /// For `focal`: the exponent of (1 - p), larger = images that are classified well already count less. Default: 2.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub focal_gamma: Option<f64>,
    /// For `logit_adjusted`: the factor of the logarithms of the classes' shares. Default: 1.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub tau: Option<f64>,
    /// Weights of the classes in the loss.
    #[schemars(extend("default" = "none"))]
    pub class_weights: Option<LossWeightsKind>,
    /// For `effective`: from 0 (no weights) towards 1 (inverse frequency). Default: 0.999.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub effective_beta: Option<f64>,
    /// Which training images an epoch sees.
    #[schemars(extend("default" = "shuffle"))]
    pub sampler: Option<Sampler>,
    /// Blends pairs of images and their labels (Zhang et al. 2018): the parameter of the beta distribution of the
    /// shares; 0 or false = off, true = 0.2. With `cutmix` too, each step takes one of them.
    #[schemars(extend("default" = 0))]
    pub mixup: Option<Switch<Alpha>>,
    /// Pastes a rectangle of one image into another, and mixes their labels (Yun et al. 2019): likewise; true = 1.
    #[schemars(extend("default" = 0))]
    pub cutmix: Option<Switch<Alpha>>,
    /// Decay of a moving average of the parameters, which is what is validated and kept; 0 or false = off, true =
    /// 0.9998. It warms up, so that short trainings can use it too.
    #[schemars(extend("default" = false))]
    pub ema: Option<Switch<Decay>>,
    /// Tries the mean of the parameters of this many best epochs, and keeps it when validation is no worse; 0 = off.
    #[schemars(range(max = 100), extend("default" = 0))]
    pub soup: Option<usize>,
    /// Sharpness-aware minimisation (Foret et al. 2021), twice the time a step: how far uphill the gradient is taken;
    /// 0 or false = off, true = 0.05.
    #[schemars(extend("default" = false))]
    pub sam: Option<Switch<Radius>>,
    /// Steps between checkpoints within an epoch; 0 = only after epochs, and by `checkpoint_minutes`.
    #[schemars(range(max = 1_000_000_000), extend("default" = 0))]
    pub checkpoint_steps: Option<usize>,
    /// Minutes between checkpoints within an epoch; 0 = only after epochs, and by `checkpoint_steps`.
    #[schemars(range(min = 0.0, max = 1e6), extend("default" = 10.0))]
    pub checkpoint_minutes: Option<f64>,
    /// For `model.head_init = "text"`: draws the directions of the classes to those of their texts, by this factor times
    /// the mean over the classes of the squared distance; 0 or false = off, true = a factor for each class, the mean
    /// probability that its texts give its training images (CLAP, Silva-Rodríguez et al. 2024).
    #[schemars(extend("default" = false))]
    pub head_pull: Option<Switch<Pull>>,
    /// For `model.head_init = "text"`: keeps a weighted mean of the weights before and after training (WiSE-FT, Wortsman
    /// et al. 2022). The share of those after, or true to choose it on the validation images; false = off.
    #[schemars(extend("default" = false))]
    pub wise_ft: Option<Switch<Mix>>,
    /// Gradient checkpointing: keep only what enters each block and run the block again on the way back. Much less
    /// memory, about a fifth more time, the same result.
    #[schemars(extend("default" = false))]
    pub checkpoint_blocks: Option<bool>,
}

/// `[early_stop]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEarlyStop {
    /// What decides which epoch is best.
    #[schemars(extend("default" = "val_accuracy"))]
    pub metric: Option<EarlyStopMetric>,
    /// Epochs without improvement before stopping; 0 = never stop early.
    #[schemars(range(max = 1_000_000), extend("default" = 5))]
    pub patience: Option<usize>,
}

/// `[cache]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCache {
    /// Its folder. Default: `vitadapt` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`).
    #[schemars(length(min = 1))]
    pub dir: Option<PathBuf>,
    /// The most bytes it may hold, the least recently used go first; 0 = nothing is stored.
    #[schemars(range(max = i64::MAX), extend("default" = 10_737_418_240u64))]
    pub max_bytes: Option<u64>,
    /// Augmented views kept per image when blocks are frozen: epoch e trains on view e modulo this number. 0 = new
    /// views every epoch, and nothing is kept. Without augmentation there is one view, and it is always kept.
    #[schemars(range(max = 10_000), extend("default" = 0))]
    pub views: Option<usize>,
}

/// `[probe]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawProbe {
    /// The classifier on the frozen features.
    #[schemars(extend("default" = "logistic"))]
    pub method: Option<ProbeMethod>,
    /// Which tokens it reads.
    #[schemars(extend("default" = "pool"))]
    pub features: Option<FeatureChoice>,
    /// Reads them from that many last blocks, one after another.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub blocks: Option<usize>,
    /// Standardise features with the statistics of the training images.
    #[schemars(extend("default" = false))]
    pub standardize: Option<bool>,
    /// Inverse strengths of the penalty to choose from, or the one to use (logistic, svm). Default: 45 values from 1e-6
    /// to 1e5.
    pub c: Option<OneOrMany<Penalty>>,
    /// Numbers of neighbours to choose from, or the one to use (knn). Default: 5, 10, 20, 100, 200.
    pub k: Option<OneOrMany<Neighbors>>,
    /// Folds of the cross-validation when there are no validation images.
    #[schemars(range(min = 2, max = 100), extend("default" = 5))]
    pub folds: Option<usize>,
    /// What the chosen model is fitted on in the end.
    #[schemars(extend("default" = "train_val"))]
    pub refit: Option<Refit>,
    /// Weights of the classes in the objective.
    #[schemars(extend("default" = "none"))]
    pub class_weights: Option<ClassWeights>,
    /// The accuracy that is wanted, for the advice on what to try next.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub target: Option<f64>,
}

/// `[tsne]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTsne {
    /// Which tokens it reads.
    #[schemars(extend("default" = "pool"))]
    pub features: Option<FeatureChoice>,
    /// Reads them from that many last blocks, one after another.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub blocks: Option<usize>,
    /// Effective number of neighbours of a point.
    #[schemars(range(min = 1.0, max = 100_000.0), extend("default" = 30.0))]
    pub perplexity: Option<f64>,
    /// Gradient steps.
    #[schemars(range(min = 250, max = 1_000_000), extend("default" = 1000))]
    pub iterations: Option<usize>,
    /// Step size. Default: the number of points divided by 48, at least 50.
    #[schemars(range(max = 1e9), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: Option<f64>,
    /// How the repulsion is computed.
    #[schemars(extend("default" = "auto"))]
    pub method: Option<TsneMethod>,
}

/// `[report]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawReport {
    /// Write report.html into the folder of the run.
    #[schemars(extend("default" = true))]
    pub html: Option<bool>,
    /// How many of the surest wrong answers it shows with their pictures, at the most.
    #[schemars(range(max = 100), extend("default" = 12))]
    pub mistakes: Option<usize>,
}

/// `[prompts]`: at most one of `preset` and `templates`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPrompts {
    /// Sentences around the names of the classes.
    #[schemars(extend("default" = "simple"))]
    pub preset: Option<PromptPreset>,
    /// Sentences of your own, each with {} where the name goes.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1)))]
    pub templates: Option<Vec<String>>,
    /// Names of a class by its label: one, or a list of synonyms and descriptions. Default: the label, with _ and - as
    /// spaces.
    pub classes: Option<BTreeMap<String, OneOrMany<ClassName>>>,
}

/// Something that can be turned off (`false`), on with its defaults (`true`), or given.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Switch<T> {
    /// `false` = off, `true` = on with the defaults.
    OnOff(bool),
    /// On, with this.
    Value(T),
}

/// A value, or `auto`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OrAuto<T> {
    /// Found by the program.
    Auto(Auto),
    /// This.
    Value(T),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// Found by the program.
    Auto,
}

/// A number of micro-batches.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct MicroBatches(#[schemars(range(min = 1, max = 65_536))] pub usize);

/// One number for the usual case, a table for everything.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Shorthand<T> {
    /// The number that matters most; 0 = off.
    Number(Share),
    /// All of it.
    Table(T),
}

/// One value, or several to choose from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// The one to use.
    One(T),
    /// Those to choose from.
    Many(#[schemars(length(min = 1, max = 1000))] Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// The inverse strength of a penalty.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Penalty(#[schemars(range(min = 1e-10, max = 1e10))] pub f64);

/// A number of neighbours.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Neighbors(#[schemars(range(min = 1, max = 1_000_000))] pub usize);

/// What a class is called.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ClassName(#[schemars(length(min = 1))] pub String);

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Share(#[schemars(range(min = 0.0, max = 1.0))] pub f64);

/// The parameter of a beta distribution; 0 = off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Alpha(#[schemars(range(min = 0.0, max = 100.0))] pub f64);

/// The decay of a moving average; 0 = off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Decay(#[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))] pub f64);

/// A distance in the space of all parameters; 0 = off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Radius(#[schemars(range(min = 0.0, max = 100.0))] pub f64);

/// The strength of a pull; 0 = off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Pull(#[schemars(range(min = 0.0, max = 1e6))] pub f64);

/// A share above 0, up to 1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Mix(#[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))] pub f64);

/// A bound of the gradient's norm; 0 = no bound.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct GradNorm(#[schemars(range(min = 0.0, max = 1e9))] pub f64);
