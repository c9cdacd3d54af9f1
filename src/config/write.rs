//! Resolved settings written back as a configuration file.

use super::augment_settings::{
    AugmentSettings, BlurSettings, ColorSettings, CropSettings, ErasingSettings, IlluminationSettings, JpegSettings,
    NoiseSettings, OcclusionSettings, ScratchesSettings, StainsSettings, StripesSettings,
};
use super::feature_settings::{CacheSettings, ProbeSettings, TsneSettings};
use super::head_settings::{HeadPull, WiseFt};
use super::loss_settings::{LossKind, LossSettings, LossWeights, LossWeightsKind};
use super::prompt_settings::{PromptSettings, PromptTemplates};
use super::prompt_tuning::{ContextStart, PromptModality, PromptTuning};
use super::raw::{
    Alpha, Auto, ClassName, Decay, GradNorm, MicroBatches, Mix, Neighbors, OneOrMany, OrAuto, Penalty, Pull, Radius,
    Raw, RawCache, RawData, RawEarlyStop, RawModel, RawPreprocess, RawProbe, RawPrompts, RawReport, RawRun, RawTrain,
    RawTsne, Share, Shorthand, Switch,
};
use super::raw_augment::{
    RawAugment, RawBlur, RawColor, RawCrop, RawErasing, RawIllumination, RawJpeg, RawNoise, RawOcclusion, RawScratches,
    RawStains, RawStripes,
};
use super::raw_strategy::{BlockCount, BlockIndex, RawBlockEnd, RawBlocks, RawStrategy, StrategyKind};
use super::settings::{
    DataSettings, DataSource, EarlyStopSettings, ModelSettings, PreprocessSettings, RunSettings, Settings, TrainLength,
    TrainSettings,
};
use super::strategy_settings::{BlockChoice, StrategySettings};
use super::write_inspection::{inspection, unknown};
use crate::error::{Error, Result};

const HEADER: &str = "# The resolved configuration: every default is written out, every path is absolute.\n\n";

impl Settings {
    /// The settings as TOML with nothing left to defaults: loading it gives equal settings, from any folder.
    ///
    /// # Errors
    /// A usage error when a path is not valid UTF-8, which TOML demands.
    pub fn to_toml(&self) -> Result<String> {
        let body = toml::to_string(&Raw::from(self))
            .map_err(|error| Error::usage(format!("the configuration cannot be written as TOML: {error}")))?;
        Ok(format!("{HEADER}{body}"))
    }
}

impl From<&Settings> for Raw {
    fn from(settings: &Settings) -> Self {
        Self {
            run: Some(run(&settings.run)),
            data: Some(data(&settings.data)),
            model: Some(model(&settings.model)),
            preprocess: Some(preprocess(&settings.preprocess)),
            augment: Some(augment(&settings.augment)),
            strategy: Some(RawStrategy { unfreeze: Some(settings.unfreeze), ..strategy(&settings.strategy) }),
            train: Some(train(&settings.train)),
            early_stop: Some(early_stop(&settings.early_stop)),
            cache: Some(cache(&settings.cache)),
            probe: Some(probe(&settings.probe)),
            tsne: Some(tsne(&settings.tsne)),
            prompts: Some(prompts(&settings.prompts)),
            report: Some(RawReport { html: Some(settings.report.html), mistakes: Some(settings.report.mistakes) }),
            inspection: Some(inspection(&settings.inspection)),
            unknown: Some(unknown(settings.unknown)),
        }
    }
}

fn run(run: &RunSettings) -> RawRun {
    RawRun {
        name: Some(run.name.clone()),
        seed: Some(run.seed),
        out: Some(run.out.clone()),
        device: Some(run.device.to_string()),
        precision: Some(run.precision),
        threads: Some(run.threads),
        decode_threads: Some(run.decode_threads),
    }
}

fn data(data: &DataSettings) -> RawData {
    let (root, manifest) = match &data.source {
        DataSource::Root(root) => (Some(root.clone()), None),
        DataSource::Manifest(manifest) => (data.base.clone(), Some(manifest.clone())),
    };
    RawData {
        root,
        manifest,
        allow_outside: Some(data.allow_outside),
        val: Some(data.val),
        // With a fold there is no fraction to write.
        test: data.fold.is_none().then_some(data.test),
        fold: data.fold.map(|fold| fold.to_string()),
        split_seed: Some(data.split_seed),
        stratified: Some(data.stratified),
        on_error: Some(data.on_error),
        bit_depth: Some(data.bit_depth),
    }
}

fn model(model: &ModelSettings) -> RawModel {
    RawModel {
        backbone: Some(model.backbone.clone()),
        revision: None, // it is part of `backbone`
        image_size: model.image_size,
        pool: Some(model.pool),
        drop_path: Some(model.drop_path),
        head_dropout: Some(model.head_dropout),
        head_init: Some(model.head_init),
    }
}

fn preprocess(preprocess: &PreprocessSettings) -> RawPreprocess {
    RawPreprocess {
        resize: Some(preprocess.resize),
        interpolation: Some(preprocess.interpolation),
        normalize: Some(preprocess.normalize),
        mean: preprocess.mean,
        std: preprocess.std,
    }
}

/// Each operation is written, on or off, so that the preset has nothing left to say.
fn augment(augment: &AugmentSettings) -> RawAugment {
    let probability = |p| Some(Switch::Value(Share(p)));
    RawAugment {
        preset: Some(augment.preset),
        hflip: probability(augment.hflip),
        vflip: probability(augment.vflip),
        rotate90: probability(augment.rotate90),
        crop: Some(switch(augment.crop.map(crop))),
        color: Some(table(augment.color, color)),
        stains: Some(table(augment.stains, stains)),
        scratches: Some(table(augment.scratches, scratches)),
        occlusion: Some(table(augment.occlusion, occlusion)),
        illumination: Some(table(augment.illumination, illumination)),
        blur: Some(table(augment.blur, blur)),
        stripes: Some(table(augment.stripes, stripes)),
        noise: Some(table(augment.noise, noise)),
        jpeg: Some(table(augment.jpeg, jpeg)),
        erasing: Some(table(augment.erasing, erasing)),
    }
}

fn switch<T>(value: Option<T>) -> Switch<T> {
    value.map_or(Switch::OnOff(false), Switch::Value)
}

/// An operation with all its keys, or off.
fn table<S, R>(settings: Option<S>, raw: impl FnOnce(S) -> R) -> Switch<Shorthand<R>> {
    switch(settings.map(|settings| Shorthand::Table(raw(settings))))
}

fn crop(crop: CropSettings) -> RawCrop {
    RawCrop { scale: Some(crop.scale), ratio: Some(crop.ratio) }
}

fn color(color: ColorSettings) -> RawColor {
    RawColor {
        p: Some(Share(color.p)),
        brightness: Some(color.brightness),
        contrast: Some(color.contrast),
        saturation: Some(color.saturation),
        hue: Some(color.hue),
    }
}

fn stains(stains: StainsSettings) -> RawStains {
    RawStains {
        p: Some(Share(stains.p)),
        strength: Some(Share(stains.strength)),
        count: Some(stains.count),
        size: Some(stains.size),
    }
}

fn scratches(scratches: ScratchesSettings) -> RawScratches {
    RawScratches {
        p: Some(Share(scratches.p)),
        strength: Some(Share(scratches.strength)),
        count: Some(scratches.count),
        length: Some(scratches.length),
    }
}

fn occlusion(occlusion: OcclusionSettings) -> RawOcclusion {
    RawOcclusion { p: Some(Share(occlusion.p)), area: Some(occlusion.area), ratio: Some(occlusion.ratio) }
}

fn illumination(illumination: IlluminationSettings) -> RawIllumination {
    RawIllumination { p: Some(Share(illumination.p)), strength: Some(Share(illumination.strength)) }
}

fn blur(blur: BlurSettings) -> RawBlur {
    RawBlur { p: Some(Share(blur.p)), strength: Some(blur.strength) }
}

fn stripes(stripes: StripesSettings) -> RawStripes {
    RawStripes { p: Some(Share(stripes.p)), strength: Some(Share(stripes.strength)), width: Some(stripes.width) }
}

fn noise(noise: NoiseSettings) -> RawNoise {
    RawNoise { p: Some(Share(noise.p)), strength: Some(Share(noise.strength)) }
}

fn jpeg(jpeg: JpegSettings) -> RawJpeg {
    RawJpeg { p: Some(Share(jpeg.p)), quality: Some(jpeg.quality) }
}

fn erasing(erasing: ErasingSettings) -> RawErasing {
    RawErasing { p: Some(Share(erasing.p)), area: Some(erasing.area), ratio: Some(erasing.ratio) }
}

fn strategy(strategy: &StrategySettings) -> RawStrategy {
    match strategy {
        StrategySettings::Frozen => RawStrategy { kind: Some(StrategyKind::Frozen), ..RawStrategy::default() },
        StrategySettings::Full => RawStrategy { kind: Some(StrategyKind::Full), ..RawStrategy::default() },
        StrategySettings::Partial { blocks: chosen } => {
            RawStrategy { kind: Some(StrategyKind::Partial), blocks: blocks(chosen), ..RawStrategy::default() }
        }
        StrategySettings::Lora(lora) => RawStrategy {
            kind: Some(StrategyKind::Lora),
            blocks: blocks(&lora.blocks),
            targets: Some(lora.targets.clone()),
            rank: Some(lora.rank),
            alpha: Some(lora.alpha),
            dropout: Some(lora.dropout),
            ..RawStrategy::default()
        },
        StrategySettings::Prompt(prompt) => prompt_tuning(prompt),
    }
}

/// All blocks are what a strategy takes that may take all, when the key is left out.
fn blocks(choice: &BlockChoice) -> Option<RawBlocks> {
    match choice {
        BlockChoice::All => None,
        BlockChoice::First(count) => Some(RawBlocks::End(RawBlockEnd { first: Some(BlockCount(*count)), last: None })),
        BlockChoice::Last(count) => Some(RawBlocks::Count(BlockCount(*count))),
        BlockChoice::Listed(indices) => Some(RawBlocks::Listed(indices.iter().copied().map(BlockIndex).collect())),
    }
}

/// The keys of the modality; those of both when it is still open.
fn prompt_tuning(prompt: &PromptTuning) -> RawStrategy {
    let PromptTuning { modality, context, visual } = prompt;
    let mut raw = RawStrategy { kind: Some(StrategyKind::Prompt), modality: Some(*modality), ..RawStrategy::default() };
    if *modality != PromptModality::Visual {
        match &context.start {
            ContextStart::Random(count) => raw.context = Some(*count),
            ContextStart::Words(words) => raw.init = Some(words.clone()),
        }
        (raw.shared, raw.position) = (Some(context.shared), Some(context.position));
    }
    if *modality != PromptModality::Text {
        (raw.tokens, raw.deep) = (Some(visual.tokens), Some(visual.deep));
    }
    raw
}

fn train(train: &TrainSettings) -> RawTrain {
    let (epochs, steps) = match train.length {
        TrainLength::Epochs(epochs) => (Some(epochs), None),
        TrainLength::Steps(steps) => (None, Some(steps)),
    };
    let (loss, focal_gamma, tau) = match train.loss {
        LossSettings::CrossEntropy => (LossKind::CrossEntropy, None, None),
        LossSettings::Focal { gamma } => (LossKind::Focal, Some(gamma), None),
        LossSettings::LogitAdjusted { tau } => (LossKind::LogitAdjusted, None, Some(tau)),
    };
    let (class_weights, effective_beta) = match train.class_weights {
        LossWeights::None => (LossWeightsKind::None, None),
        LossWeights::Balanced => (LossWeightsKind::Balanced, None),
        LossWeights::Effective { beta } => (LossWeightsKind::Effective, Some(beta)),
    };
    RawTrain {
        epochs,
        steps,
        batch_size: Some(train.batch_size),
        accumulate: Some(train.accumulate.map_or(OrAuto::Auto(Auto::Auto), |parts| OrAuto::Value(MicroBatches(parts)))),
        lr: Some(train.lr),
        head_lr: Some(train.head_lr),
        weight_decay: Some(train.weight_decay),
        layer_decay: Some(train.layer_decay),
        warmup: Some(train.warmup),
        schedule: Some(train.schedule),
        clip_grad: Some(switch(train.clip_grad.map(GradNorm))),
        label_smoothing: Some(train.label_smoothing),
        checkpoint_blocks: Some(train.checkpoint_blocks),
        loss: Some(loss),
        focal_gamma,
        tau,
        class_weights: Some(class_weights),
        effective_beta,
        sampler: Some(train.sampler),
        mixup: Some(Switch::Value(Alpha(train.mixup))),
        cutmix: Some(Switch::Value(Alpha(train.cutmix))),
        ema: Some(switch(train.ema.map(Decay))),
        soup: Some(train.soup),
        head_pull: Some(train.head_pull.map_or(Switch::OnOff(false), head_pull)),
        wise_ft: Some(train.wise_ft.map_or(Switch::OnOff(false), wise_ft)),
        sam: Some(switch(train.sam.map(Radius))),
        checkpoint_steps: Some(train.checkpoint_steps),
        checkpoint_minutes: Some(train.checkpoint_minutes),
    }
}

fn head_pull(pull: HeadPull) -> Switch<Pull> {
    match pull {
        HeadPull::Adaptive => Switch::OnOff(true),
        HeadPull::Constant(strength) => Switch::Value(Pull(strength)),
    }
}

fn wise_ft(wise_ft: WiseFt) -> Switch<Mix> {
    match wise_ft {
        WiseFt::Chosen => Switch::OnOff(true),
        WiseFt::Share(share) => Switch::Value(Mix(share)),
    }
}

fn early_stop(early_stop: &EarlyStopSettings) -> RawEarlyStop {
    RawEarlyStop { metric: Some(early_stop.metric), patience: Some(early_stop.patience) }
}

fn cache(cache: &CacheSettings) -> RawCache {
    RawCache { dir: Some(cache.dir.clone()), max_bytes: Some(cache.max_bytes), views: Some(cache.views) }
}

fn probe(probe: &ProbeSettings) -> RawProbe {
    RawProbe {
        method: Some(probe.method),
        features: Some(probe.features),
        blocks: Some(probe.blocks),
        standardize: Some(probe.standardize),
        c: Some(OneOrMany::Many(probe.c.iter().copied().map(Penalty).collect())),
        k: Some(OneOrMany::Many(probe.k.iter().copied().map(Neighbors).collect())),
        folds: Some(probe.folds),
        refit: Some(probe.refit),
        class_weights: Some(probe.class_weights),
        target: probe.target,
    }
}

fn tsne(tsne: &TsneSettings) -> RawTsne {
    RawTsne {
        features: Some(tsne.features),
        blocks: Some(tsne.blocks),
        perplexity: Some(tsne.perplexity),
        iterations: Some(tsne.iterations),
        learning_rate: tsne.learning_rate,
        method: Some(tsne.method),
    }
}

fn prompts(prompts: &PromptSettings) -> RawPrompts {
    let (preset, templates) = match &prompts.templates {
        PromptTemplates::Preset(preset) => (Some(*preset), None),
        PromptTemplates::Own(templates) => (None, Some(templates.clone())),
    };
    let names = |names: &Vec<String>| OneOrMany::Many(names.iter().cloned().map(ClassName).collect());
    let classes = prompts.classes.iter().map(|(class, given)| (class.clone(), names(given))).collect();
    RawPrompts { preset, templates, classes: Some(classes) }
}
