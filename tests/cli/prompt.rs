//! `strategy.kind = "prompt"` as a user meets it: words before the text tower of tiny models, tokens in an image tower.

use crate::common::workspace::{Workspace, json};
use crate::heads::tensors;
use serde_json::Value;
use std::fs;

/// Two epochs of prompts on `backbone`, called `name`.
fn finetune(workspace: &Workspace, name: &str, backbone: &str, sets: &[&str]) -> Value {
    json(&workspace.command(&args(&format!("run.name={name}"), backbone, sets)).output().unwrap())
}

/// Why it is refused.
fn refused(workspace: &Workspace, backbone: &str, sets: &[&str], code: i32) -> String {
    let output = workspace.command(&args("run.name=refused", backbone, sets)).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!workspace.path("runs/refused").exists(), "a run that cannot start leaves nothing");
    stderr
}

fn args<'a>(name: &'a str, backbone: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["finetune", "--config", "prompt.toml", "--json", "-q", "--set", name, "--set", backbone];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    args
}

fn workspace() -> Workspace {
    let workspace = Workspace::with_text_models();
    workspace.write(
        "prompt.toml",
        "[run]\nout = \"runs\"\ndevice = \"cpu\"\nthreads = 2\n\n[data]\nroot = \"data\"\n\n[strategy]\nkind = \"prompt\"\n\n\
         [train]\nepochs = 2\nbatch_size = 8\n\n[prompts.classes]\nlocal = [\"a small hole\", \"a cut thread\"]\n",
    );
    workspace
}

/// Scores, predictions and the exported model are those of the training's end.
fn assert_usable(workspace: &Workspace, run: &str, result: &Value) {
    let folder = format!("runs/{run}");
    workspace.assert_scores_repeat(run, result);
    let target = format!("{run}.onnx");
    let export = ["export", "--run", &folder, "--format", "onnx", "--out", &target, "--json", "-q"];
    assert!(json(&workspace.command(&export).output().unwrap())["max_rel_diff"].as_f64().unwrap() < 1e-4);
    let export = ["export", "--run", &folder, "--format", "timm", "--out", "timm", "--json", "-q"];
    let output = workspace.command(&export).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("cannot express"), "{stderr}");
}

#[test]
fn words_learn_where_there_is_a_text_tower() {
    let workspace = workspace();
    for (case, set, learning) in [
        ("hf_clip", "run.seed=1", 16 * 16),
        ("open_clip", "strategy.init=a photo of a", 4 * 16),
        ("hf_siglip", "strategy.shared=false", 3 * 16 * 16),
    ] {
        let result = finetune(&workspace, case, &format!("model.backbone={case}"), &[set]);
        assert_eq!(result["strategy"], "prompt");
        assert_eq!(result["trainable_parameters"], learning, "{case}");
        let mut names: Vec<String> = tensors(&workspace, case, "best").into_keys().collect();
        names.sort();
        assert_eq!(names, ["head.bias", "head.logit_scale", "head.weight", "prompt.context"]);
        let config = fs::read_to_string(workspace.path(&format!("runs/{case}/config.toml"))).unwrap();
        assert!(config.contains("modality = \"text\"") && !config.contains("deep"), "{config}");
        assert_usable(&workspace, case, &result);
    }
    // Features of the frozen image tower are shared with every other command.
    let again = finetune(&workspace, "again", "model.backbone=hf_clip", &["run.seed=1"]);
    assert_eq!(again["cache"]["misses"], 0);
    assert_eq!(workspace.tensors("again", "last"), workspace.tensors("hf_clip", "last"), "one seed, one result");
    // A saved head needs no text.
    fs::remove_file(workspace.path("hf_clip/tokenizer.json")).unwrap();
    json(&workspace.command(&["eval", "--run", "runs/hf_clip", "--json", "-q"]).output().unwrap());
}

#[test]
fn a_run_that_was_stopped_goes_on() {
    let workspace = workspace();
    for (run, modality) in [("words", "strategy.modality=text"), ("tokens", "strategy.modality=visual")] {
        let result = finetune(&workspace, run, "model.backbone=open_clip", &[modality]);
        let tensors = ["last", "best"].map(|checkpoint| workspace.tensors(run, checkpoint));
        // As if a signal had come right after the last epoch.
        let path = workspace.path(&format!("runs/{run}/run.json"));
        let record = fs::read_to_string(&path).unwrap().replace("\"done\"", "\"stopped\"");
        fs::write(&path, record).unwrap();
        let name = format!("run.name={run}");
        let mut args = args(&name, "model.backbone=open_clip", &[modality]);
        args.push("--resume");
        let resumed = json(&workspace.command(&args).output().unwrap());
        for key in ["epochs", "best_epoch", "val_accuracy", "test_accuracy"] {
            assert_eq!(resumed[key], result[key], "{run} {key}");
        }
        assert!(["last", "best"].map(|checkpoint| workspace.tensors(run, checkpoint)) == tensors, "{run}");
        args.extend(["--set", "strategy.modality=auto", "--set", "train.lr=1e-5"]);
        let refused = workspace.command(&args).output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("train.lr"), "{refused:?}");
    }
}

#[test]
fn new_views_go_through_the_image_tower_every_time() {
    let workspace = workspace();
    let sets = ["augment.preset=light", "train.checkpoint_blocks=true", "train.mixup=true", "train.accumulate=2"];
    let result = finetune(&workspace, "views", "model.backbone=hf_clip", &sets);
    assert!(result["cache"].is_null());
    assert_usable(&workspace, "views", &result);
}

#[test]
fn tokens_learn_where_there_is_none_or_where_they_are_asked_for() {
    let workspace = workspace();
    let small = "model.image_size=32";
    for (name, backbone, sets, learning) in [
        ("auto", "builtin:vit-mini", [small, "train.lr=0.01"].as_slice(), 6 * 10 * 192 + 3 * 192 + 3),
        ("shallow", "hf_clip", &["strategy.tokens=5", "strategy.deep=false"], 5 * 16 + 3 * 16 + 3),
        ("probed", "hf_clip", &["strategy.modality=visual", "model.head_init=probe"], 10 * 16 + 3 * 16 + 3),
    ] {
        let result = finetune(&workspace, name, &format!("model.backbone={backbone}"), sets);
        assert_eq!(result["trainable_parameters"], learning, "{name}");
        assert!(result["cache"].is_object(), "{name}: the embedding is frozen");
        assert_usable(&workspace, name, &result);
        let run = format!("runs/{name}");
        json(
            &workspace
                .command(&["extract", "--run", &run, "--out", &format!("{name}.npy"), "--json", "-q"])
                .output()
                .unwrap(),
        );
    }
    let checkpointed = [small, "train.lr=0.01", "train.checkpoint_blocks=true"];
    finetune(&workspace, "checkpointed", "model.backbone=builtin:vit-mini", &checkpointed);
    let (plain, checkpointed) = (tensors(&workspace, "auto", "best"), tensors(&workspace, "checkpointed", "best"));
    for name in ["blocks.0.prompt", "blocks.5.prompt", "head.weight", "head.bias"] {
        let error = crate::common::relative_error(&checkpointed[name], &plain[name]);
        assert!(error < 1e-3, "{name}: {error:.1e}");
    }
}

#[test]
fn what_cannot_learn_is_refused_before_anything_runs() {
    let workspace = workspace();
    let clip = "model.backbone=hf_clip";
    let refuse = |backbone: &str, sets: &[&str], code: i32, why: &str| {
        let stderr = refused(&workspace, backbone, sets, code);
        assert!(stderr.contains(why), "{why}: {stderr}");
    };
    refuse("model.backbone=builtin:vit-mini", &["strategy.modality=text"], 4, "has no text tower");
    refuse(
        clip,
        &["strategy.context=64", "prompts.classes.local=a very very very very very very very very long name of it"],
        2,
        "class \"local\"",
    );
    refuse(clip, &["model.pool=avg"], 2, "model.pool");
    refuse(clip, &["model.head_init=probe"], 2, "says what a head starts from");
    refuse(clip, &["strategy.context=4", "strategy.tokens=5"], 2, "strategy.tokens");
    refuse(clip, &["prompts.classes.nominl=fine"], 2, "nominal");
    fs::remove_file(workspace.path("hf_clip/tokenizer.json")).unwrap();
    refuse(clip, &[], 4, "has no tokenizer");
    // The image tower alone needs none.
    finetune(&workspace, "visual", clip, &["strategy.modality=visual"]);
}

#[test]
fn tokens_learn_beside_a_head_from_texts() {
    let workspace = workspace();
    let sets = ["strategy.modality=visual", "strategy.tokens=2", "model.head_init=text"];
    let result = finetune(&workspace, "both", "model.backbone=hf_clip", &sets);
    let saved = tensors(&workspace, "both", "best");
    assert!(saved["blocks.0.prompt"].elem_count() > 0 && saved.contains_key("head.logit_scale"), "{:?}", saved.keys());
    let values: usize = saved.values().map(candle_core::Tensor::elem_count).sum();
    assert_eq!(result["trainable_parameters"].as_u64().unwrap() as usize, values);
    assert_usable(&workspace, "both", &result);
}
