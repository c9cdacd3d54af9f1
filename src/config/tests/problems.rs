//! What is wrong is reported: all of it, in order, with its place, and never by a panic.

use super::*;
use crate::error::Place;
use proptest::prelude::*;

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
        "line 10: strategy.kind: unknown value \"ful\" (did you mean \"full\"? One of \"frozen\", \"partial\", \"full\", \"lora\", \"prompt\")",
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
    refuses_each([
        "data.val = 1.0", "inspection.prevalence = 1.5", "inspection.good = ''", "inspection.good = []",
        "unknown.k = -1", "unknown.quantile = 1.0", "data.val = -0.1", "data.test = nan", "data.bit_depth = 8",
        "data.fold = '0/5'", "data.fold = '6/5'", "data.fold = '1/1'", "data.fold = '+1/5'", "data.fold = 2",
        "data.bit_depth = 17", "data.split_seed = -1", "run.seed = -1", "run.seed = 99999999999999999999",
        "run.seed = 1.5", "run.name = ''", "run.name = '..'", "run.name = 'a/b'", "run.device = 1.5",
        "run.name = 'a\\b'", "run.name = \"a\\u0007\"", "run.device = 'cuda:'", "run.device = 'cuda:+1'",
        "run.out = ''", "model.backbone = ''", "model.image_size = 15", "model.image_size = 4097",
        "model.image_size = [112]", "model.image_size = [15, 224]", "model.image_size = [112, 224, 3]",
        "model.drop_path = 1.0", "model.head_dropout = -inf", "preprocess.mean = [0.5, 0.5, 0.5]",
        "preprocess.std = [0.5, 0.5, 0.5]", "augment.preset = 'heavy'", "augment.hflip = 1.1", "augment.hflip = 'yes'",
        "augment.rotate90 = nan", "augment.color = 2", "augment.color.hue = 0.6", "augment.color = []",
        "augment.crop = 0.5", "augment.crop.scale = [0.9, 0.5]", "augment.crop.scale = [0.0, 0.5]",
        "augment.crop.ratio = [-1, 1]", "augment.crop.ration = [1, 1]", "augment.erasing.area = [0.5]",
        "augment.erasing.ratio = [3.0, 0.3]", "train.epochs = 0", "train.steps = 0",
        "train = { epochs = 3, steps = 100 }", "train.batch_size = 0", "train.accumulate = 33", "train.accumulate = 0",
        "train.lr = 0", "train.lr = inf", "train.head_lr = -1e-3", "train.weight_decay = -0.1",
        "train.layer_decay = 0.0", "train.layer_decay = 1.1", "train.warmup = 1.5",
        "train = { steps = 100, warmup = 100 }", "train.clip_grad = -1", "train.label_smoothing = 1",
        "early_stop.metric = 'acuracy'", "early_stop.patience = -1", "cache = { folder = 'x' }", "cache.dir = ''",
        "cache.max_bytes = -1", "cache.views = 1.5", "model.head_init = 'zero'", "probe.c = []", "probe.c = 0",
        "probe.c = [1.0, 0.0]", "probe.k = [0]", "probe.folds = 1", "probe.target = 80", "tsne.perplexity = 0.5",
        "tsne.iterations = 10", "tsne.method = 'fft'", "report.html = 'yes'", "report.mistakes = 101",
        "run.precision = 'f8'", "run.name = 1979-05-27", "run = 5", "lr = 1.0",
    ]);
    refuses_each([
        "run.threads = 99999999999999999999999999999999999999999999",
        "run.device = 'cuda:99999999999999999999999'",
        "preprocess = { mean = [0, 0, 0], std = [1, 1, 0] }",
        "preprocess = { mean = [0, 0], std = [1, 1, 1] }",
        "preprocess = { mean = [0, 0, 1e300], std = [1, 1, 1] }",
        "preprocess = { mean = [0, 0, '1'], std = [1, 1, 1] }",
        &format!("run.name = '{}'", "ü".repeat(101)),
    ]);
}

#[test]
fn keys_of_prompts_belong_to_one_kind() {
    refuses_each([
        "strategy.init = 'a photo of a'",
        "strategy = { kind = 'full', tokens = 5 }",
        "strategy = { kind = 'prompt', context = 0 }",
        "strategy = { kind = 'prompt', init = '' }",
        "strategy = { kind = 'prompt', tokens = 0 }",
        "strategy = { kind = 'prompt', context = 4, init = 'a photo of a' }",
        "strategy = { kind = 'prompt', context = 4, tokens = 5 }",
        "strategy = { kind = 'prompt', modality = 'text', deep = true }",
        "strategy = { kind = 'prompt', modality = 'visual', shared = true }",
        "strategy = { kind = 'prompt', modality = 'audio' }",
        "strategy = { kind = 'prompt', position = 'start' }",
    ]);
}

#[test]
fn values_of_the_training_outside_their_range_are_refused() {
    refuses_each([
        "train.mixup = -0.2", "train.cutmix = nan", "train.loss = 'focus'", "train.focal_gamma = 2",
        "train = { loss = 'focal', tau = 1 }", "train.class_weights = 'inversed'", "train.effective_beta = 0.9",
        "train.sampler = 'weighted'", "train.ema = 1", "train.soup = -1", "train.soup = 1", "train.sam = 'on'",
        "train.head_pull = true", "train = { head_pull = 1.5 }", "train.head_pull = -1", "train.wise_ft = 0.5",
        "train.wise_ft = 0", "train.wise_ft = 1.5", "train.checkpoint_minutes = -1",
    ]);
    refuses_each([
        "train = { loss = 'focal', focal_gamma = -1 }",
        "train = { class_weights = 'effective', effective_beta = 1 }",
    ]);
}

/// Each is one problem of its line, with a hint.
fn refuses_each<'a>(cases: impl IntoIterator<Item = &'a str>) {
    for text in cases {
        let problem = problem(text);
        assert!(problem.starts_with("line 2: ") && problem.ends_with(')'), "{text}: {problem}");
    }
}

#[test]
fn prompts_that_say_nothing_are_refused() {
    refuses_each([
        "prompts.preset = 'imagenet'", "prompts.templates = []", "prompts.templates = ['']",
        "prompts.classes = { good = [] }", "prompts.classes.good = ''", "prompts.classes.good = ['intact', ' ']",
        "prompts.classes.'an odd \"name\"' = 3", "prompts.classes = 'good'",
    ]);
    refuses_each([
        "prompts.templates = ['a photo of a {}', 'a photo']",
        "prompts = { preset = 'plain', templates = ['{}'] }",
    ]);
}

#[test]
fn strategies_that_cannot_be_are_refused() {
    refuses_each([
        "strategy.kind = 'adapter'",
        "strategy = { kind = 'partial', blocks = [] }",
        "strategy = { kind = 'partial', blocks = [1, 1] }",
        "strategy = { kind = 'partial', blocks = [-1] }",
        "strategy = { kind = 'partial', blocks = {} }",
        "strategy = { kind = 'partial', blocks = { first = 1, last = 1 } }",
        "strategy = { kind = 'partial', rank = 4 }",
        "strategy = { kind = 'lora', targets = [] }",
        "strategy = { kind = 'lora', targets = ['q', 'q'] }",
        "strategy = { kind = 'lora', targets = ['query'] }",
        "strategy = { kind = 'lora', rank = 0 }",
        "strategy = { kind = 'frozen', unfreeze = 1 }",
        "strategy = { kind = 'lora', dropout = 1.0 }",
        "strategy = { kind = 'partial', blocks = 0 }",
        "strategy.blocks = 3",
    ]);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

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
