//! Whole configurations: what they resolve to; the submodules hold problems, the round trip and published files.

mod places;
mod problems;
mod published;
mod reference;
mod round_trip;

use super::*;
use crate::augment::{ColorJitter, Erasing, HorizontalFlip, Illumination, VerticalFlip};

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

#[test]
fn a_fold_takes_the_place_of_a_fraction() {
    let data = settings("data.fold = '2/5'").data;
    assert_eq!((data.fold, data.test), (Some(Fold { number: 2, of: 5 }), 0.0));
    let refused = problems("data = { root = '/data', fold = '2/5', test = 0.1 }", &[]);
    assert!(refused.len() == 1 && refused[0].contains("data.test: has no effect with data.fold"), "{refused:?}");
    let swept = load_text("data = { root = '/data', test = 0.1 }", &["data.fold=5/5"]).unwrap().data;
    assert_eq!((swept.fold, swept.test), (Some(Fold { number: 5, of: 5 }), 0.0));
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
    assert_eq!(
        settings("strategy.kind = 'partial'").strategy,
        StrategySettings::Partial { blocks: BlockChoice::Last(3) }
    );
}

#[test]
fn blocks_are_chosen_in_four_forms() {
    let blocks = |text: &str| match settings(&format!("strategy = {{ kind = 'partial', blocks = {text} }}")).strategy {
        StrategySettings::Partial { blocks } => blocks,
        other => panic!("{other:?}"),
    };
    for (text, expected, shown) in [
        ("2", BlockChoice::Last(2), "last 2 blocks"),
        ("{ last = 1 }", BlockChoice::Last(1), "last block"),
        ("{ first = 2 }", BlockChoice::First(2), "first 2 blocks"),
        ("[5, 0]", BlockChoice::Listed(vec![0, 5]), "blocks 0, 5"),
    ] {
        let found = blocks(text);
        assert_eq!((found.to_string().as_str(), found), (shown, expected), "{text}");
    }
}

#[test]
fn lora_has_defaults_and_keys_of_its_own() {
    use LoraTarget::{Fc2, K, O, Q, V};
    let lora = |text: &str| match settings(&format!("[strategy]\nkind = 'lora'\n{text}")).strategy {
        StrategySettings::Lora(lora) => lora,
        other => panic!("{other:?}"),
    };
    let targets = vec![Q, K, V, O];
    let default = LoraSettings { blocks: BlockChoice::All, targets, rank: 8, alpha: 16.0, dropout: 0.0 };
    assert_eq!(lora(""), default);
    let chosen = lora("blocks = 1\ntargets = ['fc2', 'q']\nrank = 2\nalpha = 1\ndropout = 0.25");
    let targets = vec![Q, Fc2];
    let expected = LoraSettings { blocks: BlockChoice::Last(1), targets, rank: 2, alpha: 1.0, dropout: 0.25 };
    assert_eq!(chosen, expected);
    let train = settings("strategy.kind = 'lora'").train;
    assert_eq!((train.lr, train.head_lr, train.weight_decay, train.layer_decay), (2e-4, 1e-3, 0.01, 1.0));
    let refused = problem("strategy = { kind = 'partial', rank = 2 }");
    assert!(refused.contains("strategy.rank: belongs to strategy.kind = \"lora\" only"), "{refused}");
}

#[test]
fn prompts_are_what_their_keys_are_about() {
    let prompt = |keys: &str| match settings(&format!("[strategy]\nkind = 'prompt'\n{keys}")).strategy {
        StrategySettings::Prompt(prompt) => prompt,
        other => panic!("{other:?}"),
    };
    let open = prompt("");
    assert_eq!((open.modality, &open.context.start), (PromptModality::Auto, &ContextStart::Random(16)));
    assert_eq!((open.visual.tokens, open.visual.deep, open.to_string().as_str()), (10, true, "prompt"));
    let text = prompt("init = 'a photo of a'\nshared = false\nposition = 'middle'");
    assert_eq!((text.modality, text.context.position), (PromptModality::Text, NamePosition::Middle));
    assert_eq!(text.to_string(), "prompt (words from \"a photo of a\" of each class)");
    let visual = prompt("tokens = 5\ndeep = false");
    assert_eq!(
        (visual.modality, visual.to_string().as_str()),
        (PromptModality::Visual, "prompt (5 tokens before the first block)")
    );
    assert_eq!(prompt("modality = 'visual'").to_string(), "prompt (10 tokens in every block)");
    let train = settings("strategy.kind = 'prompt'").train;
    assert_eq!((train.length, train.lr, train.head_lr, train.weight_decay), (TrainLength::Epochs(50), 2e-3, 1e-3, 0.0));
    // An override makes the keys of the other kind in the file moot.
    let file = "data.root = '/data'\n[strategy]\nkind = 'prompt'\ninit = 'a'\n";
    for set in ["strategy.kind=frozen", "strategy.modality=visual", "strategy.context=4"] {
        load_text(file, &[set]).unwrap();
    }
}

#[test]
fn augmentations_take_short_and_long_forms() {
    let augment = |text: &str| settings(&format!("[augment]\n{text}")).augment;
    let light = augment("preset = 'light'");
    assert_eq!((light.hflip, light.vflip), (Some(HorizontalFlip(0.5)), None));
    assert_eq!(light.crop, augment("crop = true").crop);
    assert_eq!(light.color, augment("color = true").color);
    assert_eq!(light.color, augment("color = 0.2").color);
    let edited =
        augment("preset = 'light'\nhflip = false\ncrop = false\ncolor = { hue = 0.1 }\nerasing = 0.25\nvflip = 0.1");
    assert_eq!((edited.hflip, edited.vflip, edited.crop), (None, Some(VerticalFlip(0.1)), None));
    assert_eq!(edited.color, Some(ColorJitter { hue: 0.1, ..light.color.unwrap() }));
    assert_eq!(edited.erasing, Some(Erasing { p: 0.25, area: [0.02, 0.1], ratio: [0.3, 3.3] }));
    for off in ["color = 0", "color = false", "color = { p = 0 }", "erasing = 0", "erasing.p = 0.0"] {
        let off = augment(off);
        assert_eq!((off.color, off.erasing), (None, None));
    }
    let industrial = augment("preset = 'industrial'\nstains = 0.9\nillumination.strength = 0.2\nnoise.strength = 0");
    assert_eq!(
        (industrial.vflip, industrial.noise, industrial.erasing),
        (Some(VerticalFlip(0.5)), None, augment("erasing = true").erasing)
    );
    assert_eq!(industrial.stains, augment("stains = { p = 0.9 }").stains);
    assert_eq!(industrial.illumination, Some(Illumination { p: 0.6, strength: 0.2 }));
    let alone: Vec<_> = augment("preset = 'light'\nblur = 0.1").alone();
    assert_eq!(alone.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["crop", "color", "blur"]);
    assert_eq!(alone[2].1, AugmentSettings { preset: AugmentPreset::None, ..augment("blur = 1.0") });
    assert_eq!(augment("blur = false\njpeg = 0\nscratches.strength = 0.0"), AugmentSettings::NONE);
}

#[test]
fn explicit_statistics_imply_their_mode() {
    let settings = settings("[preprocess]\nmean = [0.1, 0.2, 0.3]\nstd = [1, 1, 1]");
    assert!(settings.to_toml().unwrap().contains("mean = [0.1, 0.2, 0.3]"), "in as few digits as they were given");
    let preprocess = settings.preprocess;
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
fn the_extras_of_training_take_short_forms() {
    let train = |text: &str| settings(&format!("[train]\n{text}")).train;
    let plain = train("");
    assert_eq!((plain.ema, plain.sam, plain.mixes(), plain.checkpoint_minutes), (None, None, false, 10.0));
    let on = train("ema = true\nsam = true\nmixup = true\ncutmix = true");
    assert_eq!((on.ema, on.sam, on.mixup, on.cutmix), (Some(0.9998), Some(0.05), 0.2, 1.0));
    let off = train("ema = 0\nsam = false\nmixup = false\ncutmix = 0.0");
    assert_eq!((off.ema, off.sam, off.mixes()), (None, None, false));
    assert_eq!(train("class_weights = 'inverse'").class_weights, LossWeights::Balanced);
    assert_eq!(train("class_weights = 'effective'").class_weights, LossWeights::Effective { beta: 0.999 });
    assert_eq!(train("loss = 'focal'").loss, LossSettings::Focal { gamma: 2.0 });
    assert_eq!(train("loss = 'logit_adjusted'\ntau = 0.5").loss, LossSettings::LogitAdjusted { tau: 0.5 });
}

#[test]
fn a_head_from_texts_has_keys_of_its_own() {
    let text = |train: &str| settings(&format!("model.head_init = 'text'\n[train]\n{train}")).train;
    let plain = text("");
    assert_eq!((plain.head_pull, plain.wise_ft), (None, None));
    let on = text("head_pull = true\nwise_ft = true");
    assert_eq!((on.head_pull, on.wise_ft), (Some(FoundOrGiven::Found), Some(FoundOrGiven::Found)));
    let given = text("head_pull = 2\nwise_ft = 0.5");
    assert_eq!((given.head_pull, given.wise_ft), (Some(FoundOrGiven::Given(2.0)), Some(FoundOrGiven::Given(0.5))));
    let off = text("head_pull = 0\nwise_ft = false");
    assert_eq!((off.head_pull, off.wise_ft), (None, None));
    // Such a head does not start from nothing, and is trained as the blocks are.
    let full = settings("model.head_init = 'text'\nstrategy.kind = 'full'").train;
    assert_eq!((full.head_lr, settings("strategy.kind = 'full'").train.head_lr), (full.lr, 1e-3));
    // Sweeping over the start of the head does not trip over the keys of one start.
    let file = "data.root = '/data'\nmodel.head_init = 'text'\ntrain.wise_ft = true";
    let swept = load_text(file, &["model.head_init=probe"]).unwrap();
    assert_eq!(swept.train.wise_ft, None);
}

#[test]
fn inspection_weighs_costs_or_keeps_limits() {
    let inspection = |text: &str| settings(&format!("[inspection]\ngood = 'ok'\n{text}")).inspection;
    assert_eq!(settings("").inspection, InspectionSettings::default());
    assert_eq!(inspection("").band, None);
    let limits = |max_escape, max_overkill| Some(BandGoal::Limits(Limits { max_escape, max_overkill }));
    assert_eq!(inspection("max_escape = 0.01").band, limits(0.01, 0.0));
    assert_eq!(inspection("max_overkill = 0.1").band, limits(0.0, 0.1));
    let costs = Some(BandGoal::Costs(Costs { escape: 100.0, overkill: 5.0, look: 0.5 }));
    assert_eq!(inspection("costs = { escape = 100, overkill = 5, look = 0.5 }").band, costs);
    assert_eq!(settings("inspection.good = ['b', 'a', 'b']").inspection.good, ["a", "b"]);
    let refused = |text: &str| problem(&format!("[inspection]\n{text}"));
    assert!(refused("prevalence = 0.1").contains("inspection.good: is missing"));
    assert!(refused("good = 'ok'\ncosts = { escape = 1, look = 1 }").contains("inspection.costs.overkill: is missing"));
    assert!(
        refused("good = 'ok'\ncosts = { escape = 1, overkill = 1, look = 1 }\nmax_escape = 0").contains("excludes")
    );
    // An override weighs costs whatever limits the file has.
    let file = "data.root = '/data'\n[inspection]\ngood = 'ok'\nmax_escape = 0.1\n";
    let sets = ["inspection.costs={ escape = 100, overkill = 5, look = 0.5 }"];
    assert_eq!(load_text(file, &sets).unwrap().inspection.band, costs);
    assert_eq!(settings("").unknown, UnknownSettings { k: 5, quantile: 0.99, images: 10_000 });
    assert_eq!(
        settings("unknown = { k = 0, quantile = 0.5, images = 9 }").unknown,
        UnknownSettings { k: 0, quantile: 0.5, images: 9 }
    );
}

#[test]
fn devices_are_parsed() {
    use DeviceChoice::{Auto, Cpu, Cuda};
    for (text, expected) in [("auto", Auto), ("cpu", Cpu), ("cuda", Cuda(0)), ("cuda:3", Cuda(3))] {
        assert_eq!(settings(&format!("run.device = '{text}'")).run.device, expected);
    }
}

#[test]
fn classes_have_one_name_or_several() {
    let text = "[prompts]\ntemplates = ['a {}']\n[prompts.classes]\n'über' = 'too much'\n'a b' = ['x', 'y']";
    let prompts = settings(text).prompts;
    assert_eq!(prompts.templates, PromptTemplates::Own(vec!["a {}".into()]));
    assert_eq!(prompts.classes["über"], ["too much"]);
    assert_eq!(prompts.classes["a b"], ["x", "y"]);
    assert_eq!(settings("").prompts.templates, PromptTemplates::Preset(PromptPreset::Simple));
    let refused = problem("prompts.templates = ['a photo']");
    assert!(refused.contains("\"a photo\" has no place for the name of the class (write {}"), "{refused}");
    let over = load_text("data.root = '/d'\nprompts.preset = 'plain'\n", &["prompts.templates=['{}!']"]).unwrap();
    assert_eq!(over.prompts.templates, PromptTemplates::Own(vec!["{}!".into()]));
    let set = load_text("data.root = '/d'\n", &["prompts.classes.good=7"]).unwrap_err().to_string();
    assert!(set.contains("prompts.classes.good: 7 is an integer"), "{set}");
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
    assert!(
        error.to_string().starts_with("command line: 1 problem in the configuration\n  --set train.lr=fast: "),
        "{error}"
    );
    assert!(load(&[]).unwrap_err().to_string().contains("data.root: is missing"));
    assert!(matches!(load(&["data.root"]), Err(Error::Usage { .. })));
}

#[test]
fn a_revision_becomes_part_of_the_hub_id() {
    let backbone = |text: &str| settings(&format!("[model]\n{text}")).model.backbone;
    assert_eq!(backbone("backbone = 'timm/vit'\nrevision = 'v1'"), "timm/vit@v1");
    assert_eq!(backbone("backbone = 'timm/vit@v1'\nrevision = 'v1'"), "timm/vit@v1");
    let refused = problem("model = { backbone = 'timm/vit@v1', revision = 'v2' }");
    assert!(refused.contains("model.revision: \"v2\" contradicts"), "{refused}");
    for text in ["model.revision = 'v1'", "model = { backbone = './vit', revision = 'v1' }"] {
        assert!(problem(text).contains("model.revision: has no effect"), "{text}");
    }
    let text = "data.root = '/d'\nmodel = { backbone = 'timm/vit@v1' }\n";
    let over = |text: &str, set: &str| load_text(text, &[set]).unwrap().model.backbone;
    assert_eq!(over(text, "model.revision=v2"), "timm/vit@v2");
    let text = "data.root = '/d'\nmodel = { backbone = 'timm/vit', revision = 'v1' }\n";
    assert_eq!(over(text, "model.backbone=builtin:vit-mini"), "builtin:vit-mini");
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
