//! A small data set, a config and a place for runs, for tests of the command line.

use super::fixture;
use insta_cmd::get_cargo_bin;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The classes of the textile set.
pub const CLASSES: [&str; 3] = ["global", "local", "nominal"];

/// A folder with a few images of each class, a config, and room for runs.
pub struct Workspace {
    pub folder: TempDir,
}

impl Workspace {
    /// 6 training, 3 validation and 3 test images a class, 32 px, one block trained for two epochs.
    pub fn new() -> Self {
        let workspace = Self { folder: folder() };
        for (split, count) in [("train", 6), ("val", 3), ("test", 3)] {
            for class in CLASSES {
                let target = workspace.path(&format!("data/{split}/{class}"));
                fs::create_dir_all(&target).unwrap();
                for file in textile(split, class).iter().take(count) {
                    fs::copy(file, target.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        workspace.write(
            "small.toml",
            "[run]\nout = \"runs\"\ndevice = \"cpu\"\nthreads = 2\n\n[data]\nroot = \"data\"\n\n[model]\nimage_size = 32\n\n\
             [augment]\npreset = \"light\"\n\n[strategy]\nkind = \"partial\"\nblocks = 1\n\n[train]\nepochs = 2\nbatch_size = 4\n",
        );
        workspace
    }

    /// With the models of `fixtures/text` at their own size, and a config `clip.toml` for them.
    pub fn with_text_models() -> Self {
        let workspace = Self::new();
        for case in ["hf_clip", "open_clip", "hf_siglip"] {
            copy(&fixture("text").join(case), &workspace.path(case));
        }
        workspace.write(
            "clip.toml",
            "[run]\nout = \"runs\"\ndevice = \"cpu\"\nthreads = 2\n\n[data]\nroot = \"data\"\n\n[model]\n\
             backbone = \"hf_clip\"\n\n[prompts]\npreset = \"inspection\"\n\n[prompts.classes]\n\
             local = [\"a small hole\", \"a cut thread\"]\n",
        );
        workspace
    }

    /// The scores and predictions of a run are those of its end, `result`.
    pub fn assert_scores_repeat(&self, run: &str, result: &Value) {
        let folder = format!("runs/{run}");
        let then: Value =
            serde_json::from_slice(&fs::read(self.path(&folder).join("eval-test.json")).unwrap()).unwrap();
        let eval = json(&self.command(&["eval", "--run", &folder, "--json", "-q"]).output().unwrap());
        assert_eq!(eval["accuracy"], result["test_accuracy"], "{run}");
        let nll = |value: &Value| value["nll"].as_f64().unwrap();
        assert!((nll(&eval) - nll(&then)).abs() < 1e-4, "{run}: {} and {}", nll(&eval), nll(&then));
        let predict = ["predict", "--run", &folder, "data/test", "--json", "-q"];
        let rows = json(&self.command(&predict).output().unwrap());
        let rows = rows["predictions"].as_array().unwrap();
        let right = rows
            .iter()
            .filter(|row| row["path"].as_str().unwrap().contains(&format!("/{}/", row["label"].as_str().unwrap())));
        assert_eq!(right.count() as f64 / rows.len() as f64, result["test_accuracy"].as_f64().unwrap(), "{run}");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(get_cargo_bin("vitadapt"));
        command.args(args).current_dir(self.folder.path()).env_remove("RUST_BACKTRACE");
        // Each workspace has a cache of its own.
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// Trains with overrides; asserts success and gives the JSON.
    pub fn finetune(&self, name: &str, extra: &[&str]) -> Value {
        let name = format!("run.name={name}");
        let mut args = vec!["finetune", "--config", "small.toml", "--json", "-q", "--set", &name];
        args.extend_from_slice(extra);
        json(&self.command(&args).output().unwrap())
    }

    /// Runs a command that trains `run` and interrupts it once so many epochs are reported.
    pub fn interrupt(&self, args: &[&str], run: &str, epochs: usize) -> Output {
        let mut child = self.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let metrics = self.path(&format!("runs/{run}/metrics.jsonl"));
        let deadline = Instant::now() + Duration::from_mins(2);
        while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < epochs {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no epoch was finished");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        child.wait_with_output().unwrap()
    }

    /// The bytes of a saved checkpoint's tensors.
    pub fn tensors(&self, run: &str, checkpoint: &str) -> Vec<u8> {
        fs::read(self.path(&format!("runs/{run}/checkpoints/{checkpoint}/model.safetensors"))).unwrap()
    }
}

/// A folder in memory where the system has room for it there: what commands leave is synced, and a disk that is busy takes
/// many times as long over that as they compute.
fn folder() -> TempDir {
    const ROOM: u64 = 2 << 20; // KiB
    let memory = "/dev/shm";
    let free = || -> Option<u64> {
        let table = String::from_utf8(Command::new("df").args(["-Pk", memory]).output().ok()?.stdout).ok()?;
        table.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
    };
    let has_room = Path::new(memory).is_dir() && free().is_some_and(|free| free > ROOM);
    if has_room { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The files of a class of the textile set, sorted.
pub fn textile(split: &str, class: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/textile").join(split).join(class);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The JSON that a successful command printed.
pub fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The names of the files of a folder, sorted.
pub fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
