//! A process that is killed at any moment, inside a save too, and resumed ends in the same bits as one that was not.
//!
//! `cargo test --test cli kill -- --ignored --nocapture` is the long version, with a count of what was hit.

use crate::common::workspace::{Workspace, files, json};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;
use vitadapt::rng::{Purpose, Stream};

/// Twenty steps, a save after each of them, with all that is saved: most moments are inside a save.
const SETS: [&str; 8] = [
    "strategy.blocks=3", "train.epochs=4", "early_stop.patience=0", "train.checkpoint_steps=1", "train.ema=0.9",
    "train.soup=2", "train.sampler=balanced", "train.mixup=true",
];

/// How long a process lives at most, as a share of a whole run.
const LONGEST_LIFE: f64 = 0.4;

/// What the kills hit.
#[derive(Debug, Default)]
struct Hits {
    kills: usize,
    /// Kills that left a checkpoint half written or half exchanged.
    inside_a_save: usize,
    /// Runs that were finished in spite of them.
    runs: usize,
}

#[test]
fn a_killed_run_ends_in_the_same_bits() {
    let hits = kill_and_resume(6);
    assert!(hits.kills >= 6 && hits.runs >= 1, "{hits:?}");
}

#[test]
#[ignore = "minutes; the short version runs always"]
fn fifty_kills() {
    let hits = kill_and_resume(50);
    assert!(hits.kills >= 50 && hits.inside_a_save >= 5, "{hits:?}");
    eprintln!("{hits:?}");
}

/// Kills runs at random moments and resumes them until all have ended and `kills` are done.
fn kill_and_resume(kills: usize) -> Hits {
    let workspace = Workspace::new();
    let clock = Instant::now();
    json(&command(&workspace, "whole", false).output().unwrap());
    let whole = clock.elapsed();
    let expected = outcome(&workspace, "whole");
    let mut moments = Stream::new(2, Purpose::Bootstrap, &[kills as u64]);
    let mut hits = Hits::default();
    while hits.kills < kills {
        hits.runs += 1;
        let name = format!("killed-{}", hits.runs);
        loop {
            let mut child = command(&workspace, &name, true).spawn().unwrap();
            std::thread::sleep(whole.mul_f64(moments.range(0.0, LONGEST_LIFE)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{:?}", child.wait_with_output().unwrap());
                break;
            }
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.code(), None, "not killed, but failed: {output:?}");
            hits.kills += 1;
            hits.inside_a_save += usize::from(is_half_saved(&workspace, &name));
        }
        let (tensors, epochs, checkpoints) = outcome(&workspace, &name);
        assert_eq!((&epochs, &checkpoints), (&expected.1, &expected.2), "{name}, after {hits:?}");
        assert!(tensors == expected.0, "{name} has other tensors after {hits:?}");
        fs::remove_dir_all(workspace.path(&format!("runs/{name}"))).unwrap();
    }
    hits
}

fn command(workspace: &Workspace, name: &str, resume: bool) -> Command {
    let name = format!("run.name={name}");
    let mut args = vec!["finetune", "--config", "small.toml", "--json", "-q", "--set", &name];
    SETS.iter().for_each(|set| args.extend(["--set", set]));
    if resume {
        args.push("--resume");
    }
    let mut command = workspace.command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether a kill left something under a temporary name.
fn is_half_saved(workspace: &Workspace, run: &str) -> bool {
    let Ok(folder) = fs::read_dir(workspace.path(&format!("runs/{run}/checkpoints"))) else { return false };
    folder.into_iter().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with('.'))
}

/// All that a run leaves behind and the clock has no part in.
fn outcome(workspace: &Workspace, run: &str) -> (Vec<Vec<u8>>, Vec<Value>, Vec<String>) {
    let folder = workspace.path(&format!("runs/{run}"));
    let kept = [
        "checkpoints/last/model.safetensors", "checkpoints/last/optimizer.safetensors",
        "checkpoints/best/model.safetensors", "eval-val.json", "eval-test.json",
    ];
    let bytes = kept.map(|file| fs::read(folder.join(file)).unwrap()).to_vec();
    let metrics = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let epochs = metrics.lines().map(|line| {
        let mut epoch: Value = serde_json::from_str(line).unwrap();
        for key in ["images_per_second", "seconds", "peak_memory_bytes"] {
            epoch.as_object_mut().unwrap().remove(key);
        }
        epoch
    });
    (bytes, epochs.collect(), files(&folder.join("checkpoints")))
}
