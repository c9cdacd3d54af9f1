//! Resolved settings, written and loaded, are what they were.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;

prop_compose! {
    fn pair(low: f64, high: f64)(a in low..=high, b in low..=high) -> [f64; 2] { [a.min(b), a.max(b)] }
}

fn any_run() -> impl Strategy<Value = RunSettings> {
    let device =
        prop_oneof![Just(DeviceChoice::Auto), Just(DeviceChoice::Cpu), (0..9usize).prop_map(DeviceChoice::Cuda)];
    ("[^/\\\\\\p{Cc}.]{1,40}", 0..=i64::MAX as u64, device, 0..64usize).prop_map(|(name, seed, device, threads)| {
        RunSettings {
            out: format!("/runs/{name}").into(),
            name,
            seed,
            device,
            precision: Precision::F32,
            threads,
            decode_threads: threads / 2,
        }
    })
}

fn any_data() -> impl Strategy<Value = DataSettings> {
    let source = ("/[a-z\"' ü]{1,9}", any::<bool>()).prop_map(|(path, root)| {
        let path = PathBuf::from(path);
        if root { DataSource::Root(path) } else { DataSource::Manifest(path) }
    });
    let fold = prop::option::of((2..9usize, 0..9usize).prop_map(|(of, number)| Fold { number: 1 + number % of, of }));
    let fractions = (0.0..0.5, 0.0..0.5);
    // Names that are of one class only.
    let merged = prop::collection::btree_set("[a-yü\"']{0,9}z", 0..3);
    let classes = merged.prop_map(|names| names.into_iter().map(|name| (format!("{name} new"), vec![name])).collect());
    let classes = (classes, prop::collection::btree_set("[a-yü\"']{0,9}x", 0..3));
    let rest = (any::<bool>(), 9..=16u8, classes);
    (source, fractions, fold, rest).prop_map(
        |(source, (val, test), fold, (stratified, bit_depth, (classes, ignore)))| DataSettings {
            base: (stratified && matches!(source, DataSource::Manifest(_))).then(|| "/base".into()),
            source,
            columns: ColumnNames { path: stratified.then(|| "File = \"x\"".into()), ..ColumnNames::default() },
            classes,
            ignore: ignore.into_iter().collect(),
            group_by: if stratified { GroupBy::Patient } else { GroupBy::Listed },
            max_per_class: fold.map(|fold| fold.of * 100),
            allow_outside: stratified,
            val,
            test: if fold.is_some() { 0.0 } else { test },
            fold,
            split_seed: 7,
            stratified,
            on_error: if stratified { OnError::Skip } else { OnError::Fail },
            bit_depth,
        },
    )
}

fn any_preprocess() -> impl Strategy<Value = PreprocessSettings> {
    use NormalizeChoice::{Backbone, Batch, Dataset, Explicit, Imagenet, Robust, Symmetric};
    let modes = prop::sample::select(vec![Backbone, Imagenet, Symmetric, Dataset, Batch, Robust, Explicit]);
    let statistics = prop::array::uniform3(1e-6f32..100.0);
    (modes, statistics.clone(), statistics).prop_map(|(normalize, mean, std)| PreprocessSettings {
        resize: if normalize == Dataset { ResizeMode::Squash } else { ResizeMode::Letterbox },
        tiles: (normalize == Dataset).then_some(TileSettings {
            side: None,
            scale: Some(f64::from(mean[0])).filter(|scale| (0.01..=16.0).contains(scale)),
            overlap: Some(mean[1] as usize),
            pool: TilePool::Lse,
        }),
        interpolation: InterpolationChoice::Bilinear,
        normalize,
        mean: (normalize == Explicit).then_some(mean),
        std: (normalize == Explicit).then_some(std),
    })
}

/// Every operation that the schema knows, off or with values from their ranges.
fn any_augment() -> impl Strategy<Value = AugmentSettings> {
    prop::collection::vec(0.0..=1.0f64, 99).prop_map(|draws| {
        let schema = schema::schema();
        let mut draws = draws.into_iter().cycle();
        let mut written = json!({ "preset": "light" });
        for (name, inner) in layers::properties(&schema["properties"]["augment"]).filter(|(name, _)| *name != "preset")
        {
            let number = || schema::alternatives(inner).find(|form| schema::kind(form) == "number").unwrap();
            written[name] = match (draws.next().unwrap() < 0.3, layers::table_form(inner)) {
                (true, _) => json!(false),
                (false, None) => value_within(number(), &mut draws),
                (false, Some(table)) => layers::properties(table)
                    .map(|(key, inner)| (key.clone(), value_within(inner, &mut draws)))
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
            };
        }
        serde_json::from_value(written).unwrap()
    })
}

/// A value from the range of a number, or from that of both ends of a range.
fn value_within(schema: &Value, draws: &mut impl Iterator<Item = f64>) -> Value {
    let (low, high) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    let mut number = || low.unwrap_or(0.0) + draws.next().unwrap() * (high.unwrap() - low.unwrap_or(0.0));
    match schema["type"].as_str().unwrap() {
        "number" => json!(number()),
        "integer" => json!(number() as u64),
        "array" => {
            let mut ends = [0, 1].map(|_| value_within(&schema["items"], draws));
            ends.sort_by(|a, b| a.as_f64().unwrap().total_cmp(&b.as_f64().unwrap()));
            json!(ends)
        }
        other => panic!("{other}"),
    }
}

fn any_train() -> impl Strategy<Value = TrainSettings> {
    let length =
        prop_oneof![(1..1000usize).prop_map(TrainLength::Epochs), (2000..9999usize).prop_map(TrainLength::Steps)];
    let warmup = prop_oneof![0.0..1.0f64, (1..1000u32).prop_map(f64::from)];
    let rates = (1e-9..1.0f64, 1e-9..1.0f64, 0.0..1.0f64, 1e-3..=1.0f64);
    let loss = prop_oneof![
        Just(LossSettings::CrossEntropy),
        (0.0..=10.0).prop_map(|gamma| LossSettings::Focal { gamma }),
        (0.0..=10.0).prop_map(|tau| LossSettings::LogitAdjusted { tau }),
    ];
    let class_weights = prop_oneof![
        Just(LossWeights::None),
        Just(LossWeights::Balanced),
        (0.0..1.0).prop_map(|beta| LossWeights::Effective { beta }),
    ];
    let sampler = prop::sample::select(vec![Sampler::Shuffle, Sampler::Balanced]);
    let images = (loss, class_weights, sampler, 0.0..=100.0f64, 0.0..=100.0f64);
    let weights = (prop::option::of(1e-6..1.0f64), 2..=100usize, prop::option::of(1e-6..=100.0f64));
    let saving = (0..1000usize, 0.0..=1e6f64);
    (length, 1..512usize, rates, warmup, prop::option::of(1e-3..10.0f64), 0.0..1.0f64, images, weights, saving)
        .prop_map(|(length, batch_size, rates, warmup, clip_grad, label_smoothing, images, weights, saving)| {
            let (lr, head_lr, weight_decay, layer_decay) = rates;
            let ((ema, soup, sam), (checkpoint_steps, checkpoint_minutes)) = (weights, saving);
            let (loss, class_weights, sampler, mixup, cutmix) = images;
            TrainSettings {
                length,
                batch_size,
                accumulate: (batch_size > 100).then_some(batch_size.div_ceil(3)),
                lr,
                head_lr,
                weight_decay,
                layer_decay,
                warmup,
                schedule: Schedule::Constant,
                clip_grad,
                label_smoothing,
                checkpoint_blocks: batch_size % 2 == 0,
                loss,
                class_weights,
                sampler,
                mixup,
                cutmix,
                ema,
                soup,
                sam,
                head_pull: None,
                wise_ft: None,
                checkpoint_steps,
                checkpoint_minutes,
            }
        })
}

/// Adds the keys of a head that starts from texts.
fn start_from_texts(train: &mut TrainSettings) {
    let (lr, soup) = (train.lr, train.soup);
    train.head_pull = Some(if soup % 2 == 0 { HeadPull::Adaptive } else { HeadPull::Constant(lr) });
    train.wise_ft = Some(if soup % 3 == 0 { WiseFt::Chosen } else { WiseFt::Share(lr) });
}

fn any_cache() -> impl Strategy<Value = CacheSettings> {
    ("/[a-z ü]{1,9}", 0..=i64::MAX as u64, 0..=10_000usize).prop_map(|(dir, max_bytes, views)| CacheSettings {
        dir: dir.into(),
        max_bytes,
        views,
    })
}

fn any_probe() -> impl Strategy<Value = ProbeSettings> {
    let method = prop::sample::select(vec![
        ProbeMethod::Logistic,
        ProbeMethod::Svm,
        ProbeMethod::Knn,
        ProbeMethod::Tip,
        ProbeMethod::Patchcore,
    ]);
    let c = prop::collection::btree_set(1..=1_000_000u32, 1..9);
    let k = prop::collection::btree_set(1..=1000usize, 1..9);
    (method, c, k, 2..=100usize, prop::option::of(0.0..=1.0f64)).prop_map(|(method, c, k, folds, target)| {
        ProbeSettings {
            method,
            features: FeatureChoice::Both,
            blocks: folds,
            standardize: folds % 2 == 0,
            c: c.into_iter().map(|c| f64::from(c) / 128.0).collect(),
            k: k.into_iter().collect(),
            metric: if folds % 2 == 0 { MetricChoice::Auto } else { MetricChoice::AveragePrecision },
            folds,
            refit: Refit::Train,
            class_weights: ClassWeights::Balanced,
            patch_blocks: if method == ProbeMethod::Patchcore { vec![2, 3 + folds] } else { Vec::new() },
            neighborhood: if method == ProbeMethod::Patchcore { 3 } else { 1 },
            coreset: if method == ProbeMethod::Patchcore { 1.0 / folds as f64 } else { 0.01 },
            target,
        }
    })
}

fn any_tsne() -> impl Strategy<Value = TsneSettings> {
    (1.0..1000.0f64, 250..2000usize, prop::option::of(1e-3..1e5f64)).prop_map(
        |(perplexity, iterations, learning_rate)| TsneSettings {
            features: FeatureChoice::Avg,
            blocks: 2,
            perplexity,
            iterations,
            learning_rate,
            method: TsneMethod::Interpolation,
        },
    )
}

fn any_prompts() -> impl Strategy<Value = PromptSettings> {
    let names = prop::collection::vec("[a-z ü\"']{0,9}x", 1..4);
    let classes = prop::collection::btree_map("\\PC{0,9}", names, 0..4);
    let preset = prop::sample::select(vec![PromptPreset::Plain, PromptPreset::Article, PromptPreset::Inspection]);
    let templates = prop_oneof![
        preset.prop_map(PromptTemplates::Preset),
        prop::collection::vec("[a-z.'\"]{0,9}\\{\\}[a-z ]{0,5}", 1..4).prop_map(PromptTemplates::Own)
    ];
    (templates, classes).prop_map(|(templates, classes)| PromptSettings { templates, classes })
}

fn any_inspection() -> impl Strategy<Value = InspectionSettings> {
    let costs = (0.0..1e6f64, 0.0..1e6f64, 0.0..1e6f64)
        .prop_map(|(escape, overkill, look)| BandGoal::Costs(Costs { escape, overkill, look }));
    let limits = (0.0..=1.0f64, 0.0..=1.0f64)
        .prop_map(|(max_escape, max_overkill)| BandGoal::Limits(Limits { max_escape, max_overkill }));
    let good = prop::collection::btree_set("\\PC{1,9}", 1..4);
    let band = prop::option::of(prop_oneof![costs, limits]);
    let given = (good, prop::option::of(0.0..=1.0f64), band).prop_map(|(good, prevalence, band)| InspectionSettings {
        good: good.into_iter().collect(),
        prevalence,
        band,
    });
    prop_oneof![Just(InspectionSettings::default()), given]
}

fn any_unknown() -> impl Strategy<Value = UnknownSettings> {
    (0..1000usize, 1e-6..0.999f64, 1..99_999usize).prop_map(|(k, quantile, images)| UnknownSettings {
        k,
        quantile,
        images,
    })
}

fn any_blocks() -> impl Strategy<Value = BlockChoice> {
    prop_oneof![
        (1..100usize).prop_map(BlockChoice::First),
        (1..100usize).prop_map(BlockChoice::Last),
        prop::collection::btree_set(0..1000usize, 1..9).prop_map(|set| BlockChoice::Listed(set.into_iter().collect())),
    ]
}

fn any_lora() -> impl Strategy<Value = LoraSettings> {
    use LoraTarget::{Fc1, Fc2, K, O, Q, V};
    let blocks = prop_oneof![Just(BlockChoice::All), any_blocks()];
    let targets = prop::sample::subsequence(vec![Q, K, V, O, Fc1, Fc2], 1..=6);
    (blocks, targets, 1..=1024usize, 0.1..100.0f64, 0.0..0.99f64)
        .prop_map(|(blocks, targets, rank, alpha, dropout)| LoraSettings { blocks, targets, rank, alpha, dropout })
}

/// Settings of the modality that is not meant stay at their defaults, since they are not written.
fn any_prompt_tuning() -> impl Strategy<Value = PromptTuning> {
    use PromptModality::{Auto, Text, Visual};
    let start =
        prop_oneof![(1..=64usize).prop_map(ContextStart::Random), "[a-z ü\"']{1,9}".prop_map(ContextStart::Words),];
    let position = prop::sample::select(vec![NamePosition::End, NamePosition::Middle, NamePosition::Front]);
    let modality = prop::sample::select(vec![Auto, Text, Visual]);
    (modality, start, position, 1..=1000usize, any::<bool>()).prop_map(|(modality, start, position, tokens, flag)| {
        let context = ContextSettings { start, shared: flag, position };
        let usual = ContextSettings { start: ContextStart::Random(16), shared: true, position: NamePosition::End };
        let usual_visual = VisualPromptSettings { tokens: 10, deep: true };
        PromptTuning {
            modality,
            context: if modality == Visual { usual } else { context },
            visual: if modality == Text { usual_visual } else { VisualPromptSettings { tokens, deep: flag } },
        }
    })
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let backbone = prop::sample::select(vec!["builtin:vit-mini", "/weights/ü \"x\"", "timm/vit_base@abc"]);
    let model =
        (backbone, prop::option::of(16..=4096usize), 0.0..1.0f64).prop_map(|(backbone, image_size, drop_path)| {
            ModelSettings {
                backbone: backbone.into(),
                image_size,
                pool: PoolChoice::Avg,
                drop_path,
                head_dropout: drop_path / 2.0,
                head_init: match drop_path {
                    ..0.3 => HeadInit::Probe,
                    ..0.6 => HeadInit::Text,
                    _ => HeadInit::Random,
                },
            }
        });
    let strategy = prop_oneof![
        Just(StrategySettings::Frozen),
        Just(StrategySettings::Full),
        any_blocks().prop_map(|blocks| StrategySettings::Partial { blocks }),
        any_lora().prop_map(StrategySettings::Lora),
        any_prompt_tuning().prop_map(StrategySettings::Prompt),
    ];
    let report = (any::<bool>(), 0..=100usize).prop_map(|(html, mistakes)| ReportSettings { html, mistakes });
    let features = (any_cache(), any_probe(), any_tsne(), any_prompts(), report, any_inspection(), any_unknown());
    (any_run(), any_data(), model, any_preprocess(), any_augment(), strategy, any_train(), 0..99usize, features)
        .prop_map(|(run, data, model, preprocess, augment, strategy, mut train, patience, features)| {
            if model.head_init == HeadInit::Text {
                start_from_texts(&mut train);
            }
            let (cache, probe, tsne, prompts, report, inspection, unknown) = features;
            Settings {
                run,
                data,
                model,
                preprocess,
                augment,
                unfreeze: match strategy {
                    StrategySettings::Frozen | StrategySettings::Prompt(_) => 0,
                    _ => patience,
                },
                strategy,
                train,
                early_stop: EarlyStopSettings { metric: MetricChoice::LogLoss, patience },
                cache,
                probe,
                tsne,
                prompts,
                report,
                inspection,
                unknown,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn written_settings_load_as_they_were(settings in any_settings()) {
        let text = settings.to_toml().unwrap();
        let loaded = load_text(&text, &[]);
        prop_assert!(loaded.is_ok(), "{}\n{text}", loaded.unwrap_err());
        prop_assert_eq!(loaded.unwrap(), settings);
    }
}
