//! From what was written to what it means: defaults filled in, paths made absolute, keys held against each other.
//!
//! Always yields settings; whether they may be used is for the caller to read from the findings.

mod augment;
mod context;
mod extras;
mod features;
mod inspection;
mod prompt_tuning;
mod prompts;
mod strategy;

use super::fold::Fold;
use super::loss_settings::Sampler;
use super::paths;
use super::raw::{
    GradNorm, MicroBatches, OrAuto, Raw, RawData, RawEarlyStop, RawModel, RawPreprocess, RawRun, RawTrain, Switch,
};
use super::settings::{
    DataSettings, DataSource, DeviceChoice, EarlyStopMetric, EarlyStopSettings, HeadInit, InterpolationChoice,
    ModelSettings, NormalizeChoice, OnError, PoolChoice, Precision, PreprocessSettings, ResizeMode, RunSettings,
    Schedule, Settings, TrainLength, TrainSettings,
};
use super::strategy_settings::StrategySettings;
use std::path::{Path, PathBuf};

pub(super) use context::Resolver;

impl Resolver<'_> {
    /// Resolves all sections.
    pub(super) fn resolve(&mut self, raw: Raw) -> Settings {
        let (strategy, unfreeze) = self.strategy(raw.strategy.unwrap_or_default());
        let head = raw.model.as_ref().and_then(|model| model.head_init).unwrap_or(HeadInit::Random);
        Settings {
            run: self.run(raw.run.unwrap_or_default()),
            data: self.data(raw.data.unwrap_or_default()),
            model: self.model(raw.model.unwrap_or_default()),
            preprocess: self.preprocess(&raw.preprocess.unwrap_or_default()),
            augment: self.augment(&raw.augment.unwrap_or_default()),
            train: self.train(&raw.train.unwrap_or_default(), &strategy, head),
            early_stop: early_stop(&raw.early_stop.unwrap_or_default()),
            cache: self.cache(raw.cache.unwrap_or_default()),
            probe: features::probe(raw.probe.unwrap_or_default()),
            tsne: features::tsne(&raw.tsne.unwrap_or_default()),
            report: features::report(&raw.report.unwrap_or_default()),
            prompts: self.prompts(raw.prompts.unwrap_or_default()),
            inspection: self.inspection(raw.inspection.unwrap_or_default()),
            unknown: inspection::unknown(&raw.unknown.unwrap_or_default()),
            strategy,
            unfreeze,
        }
    }

    fn run(&mut self, raw: RawRun) -> RunSettings {
        let name = raw.name.unwrap_or_else(|| self.name.clone());
        if !is_folder_name(&name) {
            self.problem(
                "run.name",
                format!("{name:?} is not a plain folder name"),
                "expected at most 200 bytes without separators and control characters, not . or ..",
            );
        }
        let device = raw.device.unwrap_or_else(|| DeviceChoice::Auto.to_string());
        let device = device.parse().unwrap_or_else(|hint: &str| {
            self.problem("run.device", format!("unknown device {device:?}"), hint);
            DeviceChoice::Auto
        });
        RunSettings {
            name,
            seed: raw.seed.unwrap_or(42),
            out: match raw.out {
                Some(out) => self.path("run.out", &out),
                None => paths::absolute(&self.bases.current, Path::new("runs")),
            },
            device,
            precision: raw.precision.unwrap_or(Precision::F32),
            threads: raw.threads.unwrap_or(0),
            decode_threads: raw.decode_threads.unwrap_or(0),
        }
    }

    fn data(&mut self, raw: RawData) -> DataSettings {
        let fold = self.fold(&raw);
        let drawn = if fold.is_some() { 0.0 } else { raw.test.unwrap_or(0.15) };
        let (val, test) = (raw.val.unwrap_or(0.15), drawn);
        if val + test >= 1.0 {
            let (key, other) = if raw.test.is_some() { ("data.test", "data.val") } else { ("data.val", "data.test") };
            let message = format!("val {val} and test {test} leave nothing for training");
            self.conflict(key, &[other], message, "their sum must be below 1");
        }
        let allow_outside = raw.allow_outside.unwrap_or(false);
        let (root, base) = match (&raw.manifest, raw.root) {
            (Some(_), Some(root)) if allow_outside => (None, Some(self.path("data.root", &root))),
            (_, root) => (root, None),
        };
        DataSettings {
            source: self.source(root, raw.manifest),
            base,
            allow_outside,
            val,
            test,
            fold,
            split_seed: raw.split_seed.unwrap_or(0),
            stratified: raw.stratified.unwrap_or(true),
            on_error: raw.on_error.unwrap_or(OnError::Fail),
            bit_depth: raw.bit_depth.unwrap_or(16),
        }
    }

    fn fold(&mut self, raw: &RawData) -> Option<Fold> {
        const FOLD: &str = "data.fold";
        const TEST: &str = "data.test";
        let text = raw.fold.as_deref()?;
        if raw.test.is_some() && !self.supersedes(FOLD, TEST) {
            self.conflict(
                TEST,
                &[FOLD],
                "has no effect with data.fold, which says what is tested",
                "leave one of them out",
            );
        }
        text.parse().map_err(|hint: &str| self.problem(FOLD, format!("{text:?} is no fold"), hint)).ok()
    }

    fn source(&mut self, root: Option<PathBuf>, manifest: Option<PathBuf>) -> DataSource {
        match self.either(("data.root", root), ("data.manifest", manifest)) {
            (_, Some(manifest)) => DataSource::Manifest(self.path("data.manifest", &manifest)),
            (Some(root), None) => DataSource::Root(self.path("data.root", &root)),
            (None, None) => {
                let hint = "name a folder of class folders, or data.manifest, a CSV with path,label";
                self.missing("data.root", &["data.manifest"], hint);
                DataSource::Root(PathBuf::new())
            }
        }
    }

    fn model(&mut self, raw: RawModel) -> ModelSettings {
        let backbone = raw.backbone.unwrap_or_else(|| "builtin:vit-mini".into());
        let backbone = paths::backbone(self.base("model.backbone"), &backbone).unwrap_or_else(|path| {
            let message = format!("{} is not valid UTF-8", path.display());
            self.problem("model.backbone", message, "rename the folder, or move the weights");
            backbone
        });
        ModelSettings {
            backbone: self.at_revision(backbone, raw.revision),
            image_size: raw.image_size,
            pool: raw.pool.unwrap_or(PoolChoice::Backbone),
            drop_path: raw.drop_path.unwrap_or(0.0),
            head_dropout: raw.head_dropout.unwrap_or(0.0),
            head_init: raw.head_init.unwrap_or(HeadInit::Random),
        }
    }

    /// A hub id with `model.revision` in it: what is loaded has one name. An override beats the revision in the file.
    fn at_revision(&mut self, backbone: String, revision: Option<String>) -> String {
        const BACKBONE: &str = "model.backbone";
        const REVISION: &str = "model.revision";
        let Some(revision) = revision.filter(|_| !self.supersedes(BACKBONE, REVISION)) else { return backbone };
        if !paths::may_be_hub_id(&backbone) {
            let message = format!("has no effect with model.backbone = {backbone:?}");
            self.conflict(REVISION, &[BACKBONE], message, "it is for models of the hub, owner/name");
            return backbone;
        }
        match backbone.split_once('@') {
            Some((_, given)) if given != revision && !self.supersedes(REVISION, BACKBONE) => {
                let message = format!("{revision:?} contradicts model.backbone = {backbone:?}");
                self.conflict(REVISION, &[BACKBONE], message, "leave one of them out");
                backbone
            }
            Some((id, _)) => format!("{id}@{revision}"),
            None => format!("{backbone}@{revision}"),
        }
    }

    fn preprocess(&mut self, raw: &RawPreprocess) -> PreprocessSettings {
        const NORMALIZE: &str = "preprocess.normalize";
        let given = |key: &str, statistics: Option<[f32; 3]>| statistics.filter(|_| !self.supersedes(NORMALIZE, key));
        let (mean, std) = (given("preprocess.mean", raw.mean), given("preprocess.std", raw.std));
        let implied = if mean.or(std).is_some() { NormalizeChoice::Explicit } else { NormalizeChoice::Backbone };
        let normalize = raw.normalize.unwrap_or(implied);
        let explicit = normalize == NormalizeChoice::Explicit;
        for (key, statistics) in [("preprocess.mean", mean), ("preprocess.std", std)] {
            if explicit && statistics.is_none() {
                self.missing(key, &[NORMALIZE], "explicit normalisation needs both mean and std");
            } else if !explicit && statistics.is_some() {
                let hint = "leave it out, or set preprocess.normalize = \"explicit\"";
                self.conflict(key, &[NORMALIZE], "has no effect with this preprocess.normalize", hint);
            }
        }
        PreprocessSettings {
            resize: raw.resize.unwrap_or(ResizeMode::Squash),
            interpolation: raw.interpolation.unwrap_or(InterpolationChoice::Backbone),
            normalize,
            mean: mean.filter(|_| explicit),
            std: std.filter(|_| explicit),
        }
    }

    fn train(&mut self, raw: &RawTrain, strategy: &StrategySettings, head: HeadInit) -> TrainSettings {
        let recipe = Recipe::of(strategy);
        let lr = raw.lr.unwrap_or(recipe.lr);
        let length = match self.either(("train.epochs", raw.epochs), ("train.steps", raw.steps)) {
            (_, Some(steps)) => TrainLength::Steps(steps),
            (epochs, None) => TrainLength::Epochs(epochs.unwrap_or(recipe.epochs)),
        };
        let batch_size = raw.batch_size.unwrap_or(32);
        let accumulate = match raw.accumulate {
            None | Some(OrAuto::Auto(_)) => None,
            Some(OrAuto::Value(MicroBatches(parts))) => Some(parts),
        };
        if let Some(accumulate) = accumulate.filter(|&parts| parts > batch_size) {
            let message = format!("cannot cut {batch_size} images into {accumulate} micro-batches");
            self.conflict("train.accumulate", &["train.batch_size"], message, "expected at most train.batch_size");
        }
        TrainSettings {
            length,
            batch_size,
            accumulate,
            lr,
            // Directions from texts are pretrained like the blocks, not a head that starts from nothing.
            head_lr: raw.head_lr.or(recipe.head_lr.filter(|_| head != HeadInit::Text)).unwrap_or(lr),
            weight_decay: raw.weight_decay.unwrap_or(recipe.weight_decay),
            layer_decay: raw.layer_decay.unwrap_or(recipe.layer_decay),
            warmup: self.warmup(raw.warmup.unwrap_or(0.1), length),
            schedule: raw.schedule.unwrap_or(Schedule::Cosine),
            clip_grad: clip_grad(raw.clip_grad.as_ref()),
            label_smoothing: raw.label_smoothing.unwrap_or(0.0),
            checkpoint_blocks: raw.checkpoint_blocks.unwrap_or(false),
            loss: self.loss(raw),
            class_weights: self.class_weights(raw),
            sampler: raw.sampler.unwrap_or(Sampler::Shuffle),
            mixup: extras::mixup(raw),
            cutmix: extras::cutmix(raw),
            ema: extras::ema(raw),
            soup: self.soup(raw),
            sam: extras::sam(raw),
            head_pull: self.head_pull(raw, head),
            wise_ft: self.wise_ft(raw, head),
            checkpoint_steps: raw.checkpoint_steps.unwrap_or(0),
            checkpoint_minutes: raw.checkpoint_minutes.unwrap_or(10.0),
        }
    }

    fn warmup(&mut self, warmup: f64, length: TrainLength) -> f64 {
        const KEY: &str = "train.warmup";
        if warmup >= 1.0 && warmup.fract() != 0.0 {
            self.problem(KEY, format!("{warmup} is no number of steps"), "expected a share below 1 or a whole number");
        } else if let TrainLength::Steps(steps) = length
            && warmup >= 1.0
            && warmup >= steps as f64
        {
            let message = format!("{warmup} steps of warm-up leave none of the {steps} steps to train at full rate");
            self.conflict(KEY, &["train.steps"], message, "expected fewer than train.steps");
        }
        warmup
    }
}

/// The defaults of `[train]` that depend on the strategy.
struct Recipe {
    epochs: usize,
    lr: f64,
    /// None = the same as `lr`.
    head_lr: Option<f64>,
    weight_decay: f64,
    layer_decay: f64,
}

impl Recipe {
    fn of(strategy: &StrategySettings) -> Self {
        match strategy {
            // A linear map of fixed features: a large rate is safe, and there is nothing pretrained to stay close
            // to. No decay, as in the linear probes of MAE (He et al. 2022).
            StrategySettings::Frozen => {
                Self { epochs: 10, lr: 1e-3, head_lr: None, weight_decay: 0.0, layer_decay: 1.0 }
            }
            // AdamW with 1e-5 to 1e-4 and decay 0.05 is usual for pretrained ViTs (MAE, FT-CLIP). The last blocks
            // alone bear the upper end; the new head starts from nothing and needs more than they do.
            StrategySettings::Partial { .. } => {
                Self { epochs: 10, lr: 1e-4, head_lr: Some(1e-3), weight_decay: 0.05, layer_decay: 1.0 }
            }
            // All blocks move: the middle of that range, and lower layers, which hold general features, move less.
            StrategySettings::Full => {
                Self { epochs: 10, lr: 5e-5, head_lr: Some(1e-3), weight_decay: 0.05, layer_decay: 0.75 }
            }
            // CLIP-LoRA (Zanella and Ben Ayed 2024): the factors start from nothing and bear more than weights do, and
            // decay pulls their product towards the pretrained weights.
            StrategySettings::Lora(_) => {
                Self { epochs: 10, lr: 2e-4, head_lr: Some(1e-3), weight_decay: 0.01, layer_decay: 1.0 }
            }
            // CoOp's epochs for one image a class and the rate of its SGD, which suits AdamW too: a prompt's entries
            // are of size 0.02, and VPT searches AdamW's rate up to 5e-3. CoOp's decay of 5e-4 takes less than 1 % of a
            // prompt away in a whole training, so there is none.
            StrategySettings::Prompt(_) => {
                Self { epochs: 50, lr: 2e-3, head_lr: Some(1e-3), weight_decay: 0.0, layer_decay: 1.0 }
            }
        }
    }
}

fn clip_grad(raw: Option<&Switch<GradNorm>>) -> Option<f64> {
    let norm = match raw {
        None | Some(Switch::OnOff(true)) => 1.0,
        Some(Switch::OnOff(false)) => 0.0,
        Some(Switch::Value(GradNorm(norm))) => *norm,
    };
    (norm > 0.0).then_some(norm)
}

fn early_stop(raw: &RawEarlyStop) -> EarlyStopSettings {
    EarlyStopSettings {
        metric: raw.metric.unwrap_or(EarlyStopMetric::ValAccuracy),
        patience: raw.patience.unwrap_or(5),
    }
}

/// Whether `name` can name one folder: nothing that leads elsewhere, that a terminal would not show, or that is too
/// long for a file system (255 bytes, less what is appended while files are written).
pub(super) fn is_folder_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 200
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control())
}
