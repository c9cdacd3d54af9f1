//! Whole configurations: defaults, problems, overrides, the round trip, the files of `configs/`.

use super::*;
use crate::error::Place;
use proptest::prelude::*;
use std::path::PathBuf;

/// Loads `text` as `<folder>/bearing.toml`.
fn load_text(text: &str, sets: &[&str]) -> Result<Settings> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bearing.toml");
    std::fs::write(&file, text).unwrap();
    load(Some(&file), &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>())
}

fn settings(text: &str) -> Settings {
    load_text(&format!("data.root = '/data'\n{text}"), &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// The problems of `text`, each as it is shown.
fn problems(text: &str, sets: &[&str]) -> Vec<String> {
    match load_text(text, sets) {
        Err(Error::Config(error)) => error.problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

/// The single problem of one key, as `message (hint)`.
fn problem(text: &str) -> String {
    let all = problems(&format!("data.root = '/data'\n{text}\n"), &[]);
    assert_eq!(all.len(), 1, "{text}: {all:#?}");
    all[0].clone()
}

#[test]
fn an_almost_empty_file_has_the_documented_defaults() {
    let settings = settings("");
    assert_eq!(settings.run.name, "bearing");
    assert_eq!(settings.run.out, std::env::current_dir().unwrap().join("runs"));
    assert_eq!(settings.data.source, DataSource::Root("/data".into()));
    assert_eq!(settings.strategy, StrategySettings::Frozen);
    assert_eq!(settings.train.length, TrainLength::Epochs(10));
    assert_eq!((settings.train.lr, settings.train.head_lr), (1e-3, 1e-3));
}

/// What editors show as a default is what resolving fills in.
#[test]
fn schema_defaults_are_the_real_ones() {
    let resolved =
        serde_json::to_value(Raw::from(&settings("augment = { crop = true, color = true, erasing = true }"))).unwrap();
    let schema = schema::schema();
    let mut seen = 0;
    compare_defaults("", &schema, &resolved, &mut seen);
    assert!(seen > 30, "only {seen} defaults found in the schema");
}

fn compare_defaults(key: &str, schema: &serde_json::Value, resolved: &serde_json::Value, seen: &mut usize) {
    if let Some(default) = schema.get("default") {
        let same = match (default.as_f64(), resolved.as_f64()) {
            (Some(default), Some(resolved)) => default == resolved,
            _ => default == resolved,
        };
        assert!(same, "{key}: the schema says {default}, resolving says {resolved}");
        *seen += 1;
    }
    for form in schema::alternatives(schema) {
        for (name, inner) in form.get("properties").and_then(serde_json::Value::as_object).into_iter().flatten() {
            compare_defaults(&document::join(key, name), inner, &resolved[name], seen);
        }
    }
}

#[test]
fn defaults_follow_the_strategy() {
    let train = |text| settings(text).train;
    let frozen = train("train.lr = 0.01");
    assert_eq!((frozen.head_lr, frozen.weight_decay, frozen.layer_decay), (0.01, 0.0, 1.0));
    let partial = train("strategy.kind = 'partial'");
    assert_eq!((partial.lr, partial.head_lr, partial.weight_decay, partial.layer_decay), (1e-4, 1e-3, 0.05, 1.0));
    let full = train("strategy.kind = 'full'");
    assert_eq!((full.lr, full.head_lr, full.weight_decay, full.layer_decay), (5e-5, 1e-3, 0.05, 0.75));
    assert_eq!(settings("strategy.kind = 'partial'").strategy, StrategySettings::Partial { blocks: 3 });
}

#[test]
fn augmentations_take_short_and_long_forms() {
    let augment = |text: &str| settings(&format!("[augment]\n{text}")).augment;
    let light = augment("preset = 'light'");
    assert_eq!((light.hflip, light.vflip), (0.5, 0.0));
    assert_eq!(light.crop, augment("crop = true").crop);
    assert_eq!(light.color, augment("color = true").color);
    assert_eq!(light.color, augment("color = 0.2").color);
    let edited =
        augment("preset = 'light'\nhflip = false\ncrop = false\ncolor = { hue = 0.1 }\nerasing = 0.25\nvflip = 0.1");
    assert_eq!((edited.hflip, edited.vflip, edited.crop), (0.0, 0.1, None));
    assert_eq!(edited.color, Some(ColorSettings { hue: 0.1, ..light.color.unwrap() }));
    assert_eq!(edited.erasing, Some(ErasingSettings { p: 0.25, area: [0.02, 0.1], ratio: [0.3, 3.3] }));
    for off in ["color = 0", "color = false", "color = { p = 0 }", "erasing = 0", "erasing.p = 0.0"] {
        let off = augment(off);
        assert_eq!((off.color, off.erasing), (None, None));
    }
}

#[test]
fn explicit_statistics_imply_their_mode() {
    let preprocess = settings("[preprocess]\nmean = [0.1, 0.2, 0.3]\nstd = [1, 1, 1]").preprocess;
    assert_eq!(preprocess.normalize, NormalizeChoice::Explicit);
    assert_eq!((preprocess.mean, preprocess.std), (Some([0.1, 0.2, 0.3]), Some([1.0; 3])));
}

#[test]
fn clipping_can_be_turned_off() {
    for (text, expected) in [("0", None), ("false", None), ("0.0", None), ("true", Some(1.0)), ("2", Some(2.0))] {
        assert_eq!(settings(&format!("train.clip_grad = {text}")).train.clip_grad, expected, "{text}");
    }
}

#[test]
fn devices_are_parsed() {
    use DeviceChoice::{Auto, Cpu, Cuda};
    for (text, expected) in [("auto", Auto), ("cpu", Cpu), ("cuda", Cuda(0)), ("cuda:3", Cuda(3))] {
        assert_eq!(settings(&format!("run.device = '{text}'")).run.device, expected);
    }
}

#[test]
fn every_problem_is_reported_in_the_order_of_lines() {
    let text = "\
[run]
sede = 1
device = \"gpu\"

[data]
val = 0.6
test = 0.5

[strategy]
kind = \"ful\"

[train]
lr = \"fast\"
batch_size = 4
accumulate = 8
patience = 3
epochs = 0
";
    let all = problems(text, &["train.warmup=-1", "augmnet.hflip=1"]);
    let expected = [
        "line 2: run.sede: unknown key (did you mean seed?)",
        "line 3: run.device: unknown device \"gpu\" (expected auto, cpu, cuda or cuda:N)",
        "line 5: data.root: is missing (name a folder of class folders, or data.manifest, a CSV with path,label)",
        "line 7: data.test: val 0.6 and test 0.5 leave nothing for training (their sum must be below 1)",
        "line 10: strategy.kind: unknown value \"ful\" (did you mean \"full\"? One of \"frozen\", \"partial\", \"full\")",
        "line 13: train.lr: \"fast\" is a string (expected a number above 0 and at most 1000)",
        "line 15: train.accumulate: cannot cut 4 images into 8 micro-batches (expected at most train.batch_size)",
        "line 16: train.patience: unknown key (did you mean early_stop.patience?)",
        "line 17: train.epochs: 0 is out of range (expected an integer from 1 to 1000000)",
        "--set augmnet.hflip=1: augmnet: unknown section (did you mean augment?)",
        "--set train.warmup=-1: train.warmup: -1 is out of range (expected a number from 0 to 1000000000)",
    ];
    assert_eq!(all, expected, "{all:#?}");
}

#[test]
fn a_typo_does_not_drag_other_problems_along() {
    assert_eq!(problems("[data]\nroot = 7\n", &[]).len(), 1, "a refused root is not missing");
    assert!(problem("strategy = { kind = 'partail', blocks = 2 }").contains("did you mean \"partial\""));
    assert!(problem("preprocess = { normalize = 'explict', mean = [0, 0, 0], std = [1, 1, 1] }").contains("explicit"));
    assert!(problem("train = { batch_size = 0, accumulate = 2 }").contains("batch_size"));
}

#[test]
fn values_outside_their_range_are_refused() {
    let table = [
        "data.val = 1.0",
        "data.val = -0.1",
        "data.test = nan",
        "data.bit_depth = 8",
        "data.bit_depth = 17",
        "data.split_seed = -1",
        "run.seed = -1",
        "run.seed = 99999999999999999999",
        "run.seed = 1.5",
        "run.threads = 99999999999999999999999999999999999999999999",
        "run.name = ''",
        "run.name = '..'",
        "run.name = 'a/b'",
        "run.device = 1.5",
        "run.name = 'a\\b'",
        "run.name = \"a\\u0007\"",
        "run.device = 'cuda:'",
        "run.device = 'cuda:+1'",
        "run.device = 'cuda:99999999999999999999999'",
        "run.out = ''",
        "model.backbone = ''",
        "model.image_size = 15",
        "model.image_size = 4097",
        "model.drop_path = 1.0",
        "model.head_dropout = -inf",
        "preprocess.mean = [0.5, 0.5, 0.5]",
        "preprocess.std = [0.5, 0.5, 0.5]",
        "preprocess = { mean = [0, 0, 0], std = [1, 1, 0] }",
        "preprocess = { mean = [0, 0], std = [1, 1, 1] }",
        "preprocess = { mean = [0, 0, 1e300], std = [1, 1, 1] }",
        "preprocess = { mean = [0, 0, '1'], std = [1, 1, 1] }",
        "augment.preset = 'heavy'",
        "augment.hflip = 1.1",
        "augment.hflip = 'yes'",
        "augment.rotate90 = nan",
        "augment.color = 2",
        "augment.color.hue = 0.6",
        "augment.color = []",
        "augment.crop = 0.5",
        "augment.crop.scale = [0.9, 0.5]",
        "augment.crop.scale = [0.0, 0.5]",
        "augment.crop.ratio = [-1, 1]",
        "augment.crop.ration = [1, 1]",
        "augment.erasing.area = [0.5]",
        "augment.erasing.ratio = [3.0, 0.3]",
        "strategy.kind = 'lora'",
        "strategy = { kind = 'partial', blocks = 0 }",
        "strategy.blocks = 3",
        "train.epochs = 0",
        "train.steps = 0",
        "train = { epochs = 3, steps = 100 }",
        "train.batch_size = 0",
        "train.accumulate = 33",
        "train.accumulate = 0",
        "train.lr = 0",
        "train.lr = inf",
        "train.head_lr = -1e-3",
        "train.weight_decay = -0.1",
        "train.layer_decay = 0.0",
        "train.layer_decay = 1.1",
        "train.warmup = 1.5",
        "train = { steps = 100, warmup = 100 }",
        "train.clip_grad = -1",
        "train.label_smoothing = 1",
        "train.mixup = 0.2",
        "early_stop.metric = 'accuracy'",
        "early_stop.patience = -1",
        "cache = { dir = 'x' }",
        "run.precision = 'f32'",
        "run.name = 1979-05-27",
        "run = 5",
        "lr = 1.0",
    ];
    let long_name = format!("run.name = '{}'", "ü".repeat(101));
    for text in table.into_iter().chain([long_name.as_str()]) {
        let problem = problem(text);
        assert!(problem.starts_with("line 2: ") && problem.ends_with(')'), "{text}: {problem}");
    }
}

#[test]
fn explicit_normalisation_misses_both_statistics() {
    let all = problems("data.root = 'x'\npreprocess.normalize = 'explicit'\n", &[]);
    assert_eq!(all.len(), 2, "{all:?}");
}

#[test]
fn root_and_manifest_exclude_each_other() {
    let all = problems("[data]\nroot = 'a'\nmanifest = 'b'\n", &[]);
    assert_eq!(all, ["line 3: data.manifest: excludes data.root, which is given too (leave one of them out)"]);
    let settings = load_text("[data]\nroot = 'a'\n", &["data.manifest=/m.csv"]).unwrap();
    assert_eq!(settings.data.source, DataSource::Manifest("/m.csv".into()));
}

#[test]
fn an_override_silences_what_it_excludes_in_the_file() {
    let text = "data.root = '/d'\ntrain.epochs = 15\nstrategy = { kind = 'partial', blocks = 2 }\n\
                preprocess = { mean = [0, 0, 0], std = [1, 1, 1] }\n";
    let sets = ["train.steps=5", "strategy.kind=full", "preprocess.normalize=imagenet"];
    let settings = load_text(text, &sets).unwrap();
    assert_eq!(settings.train.length, TrainLength::Steps(5));
    assert_eq!(settings.strategy, StrategySettings::Full);
    assert_eq!((settings.preprocess.normalize, settings.preprocess.mean), (NormalizeChoice::Imagenet, None));
    let both = problems(text, &["strategy.kind=full", "strategy.blocks=2"]);
    assert_eq!(both.len(), 1);
    assert!(both[0].starts_with("--set strategy.blocks=2: "), "{both:?}");
}

#[test]
fn overrides_alone_make_a_configuration() {
    let load = |sets: &[&str]| load(None, &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>());
    let settings = load(&["data.root=images", "augment.color.p=0.25"]).unwrap();
    assert_eq!(settings.run.name, "run");
    assert_eq!(settings.data.source, DataSource::Root(std::env::current_dir().unwrap().join("images")));
    assert_eq!(settings.augment.color.unwrap().p, 0.25);
    let error = load(&["data.root=images", "train.lr=fast"]).unwrap_err();
    assert!(error.to_string().starts_with("--set: 1 problem in the configuration\n  --set train.lr=fast: "), "{error}");
    assert!(load(&[]).unwrap_err().to_string().contains("data.root: is missing"));
    assert!(matches!(load(&["data.root"]), Err(Error::Usage { .. })));
}

#[test]
fn paths_of_the_file_are_relative_to_it_and_overrides_to_the_current_folder() {
    let folder = tempfile::tempdir().unwrap();
    let configs = folder.path().join("configs");
    std::fs::create_dir_all(configs.join("vit")).unwrap();
    let file = configs.join("a.toml");
    std::fs::write(&file, "run.out = '../out'\ndata.manifest = 'm.csv'\nmodel.backbone = 'vit'\n").unwrap();
    let settings = load(Some(&file), &[]).unwrap();
    assert_eq!(settings.run.out, folder.path().join("out"));
    assert_eq!(settings.data.source, DataSource::Manifest(configs.join("m.csv")));
    assert_eq!(settings.model.backbone, configs.join("vit").display().to_string());
    let settings = load(Some(&file), &["run.out=out".into(), "model.backbone=vit".into()]).unwrap();
    assert_eq!(settings.run.out, std::env::current_dir().unwrap().join("out"));
    assert_eq!(settings.model.backbone, "vit");
}

#[test]
fn files_that_cannot_be_read_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bearing.toml"), "").unwrap();
    let missing = load(Some(&folder.path().join("baering.toml")), &[]).unwrap_err();
    assert!(missing.to_string().contains("baering.toml") && missing.hint().unwrap().contains("bearing.toml"));
    let cases = [missing, load(Some(folder.path()), &[]).unwrap_err()];
    assert!(cases.iter().all(|error| matches!(error, Error::Usage { .. })), "{cases:?}");
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"[run]\nname = \"f\xfcr\"\n").unwrap();
    assert!(
        load(Some(&latin), &[]).unwrap_err().to_string().ends_with("line 2: not valid UTF-8 (save the file as UTF-8)")
    );
    std::fs::write(&latin, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(load(Some(&latin), &[]).unwrap_err().to_string().contains("larger than 1 MiB"));
}

#[test]
fn broken_toml_is_one_problem_with_its_line() {
    let all = problems("[run]\nseed = 1\nseed = 2\n", &[]);
    assert_eq!(all.len(), 1);
    assert!(all[0].starts_with("line 3: not valid TOML: "), "{all:?}");
    let nested = format!("a = {}", "[".repeat(10_000));
    assert_eq!(problems(&nested, &[]).len(), 1);
}

#[test]
fn every_shipped_configuration_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let files: Vec<PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(files.len() >= 4);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(text.starts_with("#:schema ./vitadapt.schema.json\n"), "{name} names no schema");
        for word in [&format!("finetune --config configs/{name}"), "Score:", "Run time:"] {
            assert!(text.contains(word), "the header of {name} lacks {word:?}");
        }
        load(Some(&file), &[]).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_published_schema_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/vitadapt.schema.json");
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(published == format!("{}\n", json_schema()), "renew it: vitadapt schema > configs/vitadapt.schema.json");
}

prop_compose! {
    fn pair(low: f64, high: f64)(a in low..=high, b in low..=high) -> [f64; 2] { [a.min(b), a.max(b)] }
}

fn any_run() -> impl Strategy<Value = RunSettings> {
    let device =
        prop_oneof![Just(DeviceChoice::Auto), Just(DeviceChoice::Cpu), (0..9usize).prop_map(DeviceChoice::Cuda)];
    ("[^/\\\\\\p{Cc}.]{1,40}", 0..=i64::MAX as u64, device, 0..64usize).prop_map(|(name, seed, device, threads)| {
        RunSettings { out: format!("/runs/{name}").into(), name, seed, device, threads, decode_threads: threads / 2 }
    })
}

fn any_data() -> impl Strategy<Value = DataSettings> {
    let source = ("/[a-z\"' ü]{1,9}", any::<bool>()).prop_map(|(path, root)| {
        let path = PathBuf::from(path);
        if root { DataSource::Root(path) } else { DataSource::Manifest(path) }
    });
    (source, 0.0..0.5, 0.0..0.5, any::<bool>(), 9..=16u8).prop_map(|(source, val, test, stratified, bit_depth)| {
        DataSettings {
            source,
            val,
            test,
            split_seed: 7,
            stratified,
            on_error: if stratified { OnError::Skip } else { OnError::Fail },
            bit_depth,
        }
    })
}

fn any_preprocess() -> impl Strategy<Value = PreprocessSettings> {
    use NormalizeChoice::{Backbone, Batch, Dataset, Explicit, Imagenet, Robust, Symmetric};
    let modes = prop::sample::select(vec![Backbone, Imagenet, Symmetric, Dataset, Batch, Robust, Explicit]);
    let statistics = prop::array::uniform3(1e-6f32..100.0);
    (modes, statistics.clone(), statistics).prop_map(|(normalize, mean, std)| PreprocessSettings {
        resize: ResizeMode::Letterbox,
        interpolation: InterpolationChoice::Bilinear,
        normalize,
        mean: (normalize == Explicit).then_some(mean),
        std: (normalize == Explicit).then_some(std),
    })
}

fn any_augment() -> impl Strategy<Value = AugmentSettings> {
    let share = 0.0..=1.0f64;
    let crop = (pair(1e-4, 1.0), pair(0.01, 100.0)).prop_map(|(scale, ratio)| CropSettings { scale, ratio });
    let color = (1e-6..=1.0f64, prop::array::uniform3(0.0..=1.0f64), 1e-9..=0.5f64).prop_map(
        |(p, [brightness, contrast, saturation], hue)| ColorSettings { p, brightness, contrast, saturation, hue },
    );
    let erasing = (1e-6..=1.0f64, pair(1e-4, 1.0), pair(0.01, 100.0)).prop_map(|(p, area, ratio)| ErasingSettings {
        p,
        area,
        ratio,
    });
    let preset = prop::sample::select(vec![AugmentPreset::None, AugmentPreset::Light]);
    let operations = (prop::option::of(crop), prop::option::of(color), prop::option::of(erasing));
    (preset, prop::array::uniform3(share), operations).prop_map(
        |(preset, [hflip, vflip, rotate90], (crop, color, erasing))| AugmentSettings {
            preset,
            hflip,
            vflip,
            rotate90,
            crop,
            color,
            erasing,
        },
    )
}

fn any_train() -> impl Strategy<Value = TrainSettings> {
    let length =
        prop_oneof![(1..1000usize).prop_map(TrainLength::Epochs), (2000..9999usize).prop_map(TrainLength::Steps)];
    let warmup = prop_oneof![0.0..1.0f64, (1..1000u32).prop_map(f64::from)];
    let rates = (1e-9..1.0f64, 1e-9..1.0f64, 0.0..1.0f64, 1e-3..=1.0f64);
    (length, 1..512usize, rates, warmup, prop::option::of(1e-3..10.0f64), 0.0..1.0f64).prop_map(
        |(length, batch_size, (lr, head_lr, weight_decay, layer_decay), warmup, clip_grad, label_smoothing)| {
            TrainSettings {
                length,
                batch_size,
                accumulate: batch_size.div_ceil(3),
                lr,
                head_lr,
                weight_decay,
                layer_decay,
                warmup,
                schedule: Schedule::Constant,
                clip_grad,
                label_smoothing,
                class_weights: ClassWeights::Balanced,
            }
        },
    )
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
            }
        });
    let strategy = prop_oneof![
        Just(StrategySettings::Frozen),
        Just(StrategySettings::Full),
        (1..100usize).prop_map(|blocks| StrategySettings::Partial { blocks })
    ];
    (any_run(), any_data(), model, any_preprocess(), any_augment(), strategy, any_train(), 0..99usize).prop_map(
        |(run, data, model, preprocess, augment, strategy, train, patience)| Settings {
            run,
            data,
            model,
            preprocess,
            augment,
            strategy,
            train,
            early_stop: EarlyStopSettings { metric: EarlyStopMetric::ValLoss, patience },
        },
    )
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

    #[test]
    fn no_text_panics(text in "\\PC{0,200}", key in "[a-z_.]{0,20}", value in "\\PC{0,20}") {
        let set = format!("{key}={value}");
        prop_assert!(load_text(&text, &[]).is_err() && (set.contains('\n') || load_text("", &[&set]).is_err()));
    }

    /// Any TOML value at any known key is either taken or a problem of that key.
    #[test]
    fn no_value_panics(section in 0..8usize, entry in 0..20usize, value in prop::sample::select(vec![
        "0", "-1", "1", "0.5", "nan", "-inf", "9223372036854775807", "-9223372036854775808", "1e308", "''", "'x'",
        "true", "false", "[]", "[1, 2]", "[[1]]", "{}", "{ p = nan }", "{ scale = [nan, 1] }", "2020-01-01",
    ])) {
        let schema = schema::schema();
        let (section, keys) = schema["properties"].as_object().unwrap().iter().nth(section).unwrap();
        let keys = keys["properties"].as_object().unwrap();
        let key = keys.keys().nth(entry % keys.len()).unwrap();
        let text = format!("{section}.{key} = {value}\n");
        if let Err(Error::Config(error)) = load_text(&text, &[]) {
            for problem in &error.problems {
                prop_assert!(problem.place == Place::Line(1) || problem.place == Place::Absent, "{problem}");
            }
        }
    }
}
