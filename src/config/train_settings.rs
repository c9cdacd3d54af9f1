//! The settings of `[train]` and `[early_stop]`.

use super::head_settings::{FoundOrGiven, read_pull};
use super::loss_settings::{LossSettings, LossWeights, Sampler};
use super::metric_choice::MetricChoice;
use crate::forms;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainSettings {
    /// How long to train.
    #[serde(flatten)]
    pub length: TrainLength,
    /// Images per optimiser step, whatever `accumulate` is.
    #[schemars(range(min = 1, max = 65_536), extend("default" = 32))]
    pub batch_size: usize,
    /// Micro-batches a step is cut into: less memory, the same result up to rounding. At most `batch_size`. `auto` = as
    /// few as the free memory allows.
    #[serde(deserialize_with = "forms::auto_or", serialize_with = "forms::write_auto_or")]
    #[schemars(range(min = 1, max = 65_536), extend("default" = "auto"), transform = forms::auto)]
    pub accumulate: Option<usize>,
    /// Peak learning rate of the backbone. Default: 1e-4 for partial, 5e-5 for full, 2e-4 for lora (its adapters), 2e-3
    /// for the prompts of prompt, 1e-3 for frozen (where only the head is trained).
    #[schemars(range(max = 1e3), extend("exclusiveMinimum" = 0.0))]
    pub lr: f64,
    /// Peak learning rate of the head. Default: 1e-3; for frozen, and for a head that starts from texts: `lr`.
    #[schemars(range(max = 1e3), extend("exclusiveMinimum" = 0.0))]
    pub head_lr: f64,
    /// Decoupled weight decay; biases, norms, the class token and positions have none. Default: 0.05; for
    /// lora: 0.01; for frozen and prompt: 0.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// Factor of the learning rate from each layer to the one below; 1 = off. Default: 0.75 for full, else 1.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub layer_decay: f64,
    /// Linear warm-up: a share of the steps (below 1) or a number of steps (from 1).
    #[schemars(range(min = 0.0, max = 1e9), extend("default" = 0.1))]
    pub warmup: f64,
    /// How the learning rate falls after the warm-up.
    #[schemars(extend("default" = "cosine"))]
    pub schedule: Schedule,
    /// Largest global gradient norm; false or 0 = no clipping, true = 1.
    #[serde(deserialize_with = "forms::positive", serialize_with = "forms::write_off_or")]
    #[schemars(range(min = 0.0, max = 1e9), extend("default" = 1.0, "x-on" = 1.0), transform = forms::switch)]
    pub clip_grad: Option<f64>,
    /// Probability mass spread evenly over the classes.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "default" = 0.0))]
    pub label_smoothing: f64,
    /// What is minimised.
    #[serde(flatten)]
    pub loss: LossSettings,
    /// Weights of the classes in the loss.
    #[serde(flatten)]
    pub class_weights: LossWeights,
    /// Which training images an epoch sees.
    #[schemars(extend("default" = "shuffle"))]
    pub sampler: Sampler,
    /// Blends pairs of images and their labels (Zhang et al. 2018): the parameter of the beta distribution of the
    /// shares; 0 or false = off, true = 0.2. With `cutmix` too, each step takes one of them.
    // The strength of its paper on ImageNet.
    #[schemars(range(min = 0.0, max = 100.0), extend("default" = 0, "x-on" = 0.2), transform = forms::switch)]
    pub mixup: f64,
    /// Pastes a rectangle of one image into another, and mixes their labels (Yun et al. 2019): likewise; true = 1.
    // The strength of its paper: every share is as likely.
    #[schemars(range(min = 0.0, max = 100.0), extend("default" = 0, "x-on" = 1.0), transform = forms::switch)]
    pub cutmix: f64,
    /// Decay of a moving average of the parameters, which is what is validated and kept; 0 or false = off, true =
    /// 0.9998. It warms up, so that short training runs can use it too.
    // The decay of FT-CLIP (Dong et al. 2022).
    #[serde(deserialize_with = "forms::positive", serialize_with = "forms::write_off_or")]
    #[schemars(
        range(min = 0.0),
        extend("exclusiveMaximum" = 1.0, "default" = false, "x-on" = 0.9998),
        transform = forms::switch
    )]
    pub ema: Option<f64>,
    /// Tries the mean of the parameters of this many best epochs, and keeps it when validation is no worse; 0 = off.
    #[schemars(range(max = 100), extend("default" = 0))]
    pub soup: usize,
    /// Sharpness-aware minimisation (Foret et al. 2021), twice the time a step: how far uphill the gradient is taken;
    /// 0 or false = off, true = 0.05.
    // The radius that Foret et al. found to do well everywhere.
    #[serde(deserialize_with = "forms::positive", serialize_with = "forms::write_off_or")]
    #[schemars(range(min = 0.0, max = 100.0), extend("default" = false, "x-on" = 0.05), transform = forms::switch)]
    pub sam: Option<f64>,
    /// Steps between checkpoints within an epoch; 0 = only after epochs, and by `checkpoint_minutes`.
    #[schemars(range(max = 1_000_000_000), extend("default" = 0))]
    pub checkpoint_steps: usize,
    /// Minutes between checkpoints within an epoch; 0 = only after epochs, and by `checkpoint_steps`.
    #[schemars(range(min = 0.0, max = 1e6), extend("default" = 10.0))]
    pub checkpoint_minutes: f64,
    /// For `model.head_init = "text"`: draws the directions of the classes to those of their texts, by this factor times
    /// the mean over the classes of the squared distance; 0 or false = off, true = a factor for each class, the mean
    /// probability that its texts give its training images (CLAP, Silva-Rodríguez et al. 2024).
    #[serde(deserialize_with = "read_pull", serialize_with = "forms::write_off_or")]
    #[schemars(
        with = "f64",
        range(min = 0.0, max = 1e6),
        extend("default" = false, "x-only" = [{ "key": "model.head_init", "values": ["text"] }]),
        transform = forms::switch
    )]
    pub head_pull: Option<FoundOrGiven>,
    /// For `model.head_init = "text"`: keeps a weighted mean of the weights before and after training (WiSE-FT, Wortsman
    /// et al. 2022). The share of those after, or true to choose it on the validation images; false = off.
    #[serde(deserialize_with = "forms::off_or", serialize_with = "forms::write_off_or")]
    #[schemars(
        with = "f64",
        range(max = 1.0),
        extend(
            "exclusiveMinimum" = 0.0,
            "default" = false,
            "x-only" = [{ "key": "model.head_init", "values": ["text"] }]
        ),
        transform = forms::switch
    )]
    pub wise_ft: Option<FoundOrGiven>,
    /// Gradient checkpointing: keep only what enters each block and run the block again in the backward pass. Much less
    /// memory, about a fifth more time, the same result.
    #[schemars(extend("default" = false))]
    pub checkpoint_blocks: bool,
}

impl TrainSettings {
    /// Whether training images are mixed with each other.
    pub fn mixes(&self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }
}

/// `train.epochs` or `train.steps`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = forms::side_by_side)]
pub enum TrainLength {
    /// Passes over the training images; excludes `steps`. For `prompt`, the default is 50.
    Epochs(#[schemars(range(min = 1, max = 1_000_000), extend("default" = 10))] usize),
    /// Optimiser steps; excludes `epochs`.
    // The last epoch may be cut short.
    Steps(#[schemars(range(min = 1, max = 1_000_000_000))] usize),
}

/// `train.schedule`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to 0.
    Cosine,
    /// No decay.
    Constant,
}

/// `[early_stop]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EarlyStopSettings {
    /// What decides which epoch is best, on the validation images; the log loss among equals.
    #[schemars(extend("default" = "auto"))]
    pub metric: MetricChoice,
    /// Epochs without improvement before stopping; 0 = never stop early.
    #[schemars(range(max = 1_000_000), extend("default" = 5))]
    pub patience: usize,
}
