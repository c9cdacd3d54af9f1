//! The hub and its cache against a server on this machine that behaves, and one that does not.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod faults;
mod server;

use server::{COMMIT, Reply, Repo, Request, Server, git_sum, sha256};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use vitadapt::backbone::Backbone;
use vitadapt::error::{Error, HubError, Result};
use vitadapt::hub::{Hub, RepoId, RetryLimits, Snapshot, Wanted};

const TOKEN: &str = "hf_VerySecret";
const WEIGHTS: &str = "model.safetensors";

/// A cache, and the variables that lead to it.
struct Setting {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
    attempts: u32,
}

impl Setting {
    fn new(endpoint: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().display().to_string();
        Self { folder, variables: vec![("HF_ENDPOINT", endpoint.into()), ("HF_HOME", home)], attempts: 3 }
    }

    fn set(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.variables.retain(|(name, _)| *name != variable);
        self.variables.push((variable, value.into()));
        self
    }

    fn hub(&self) -> Hub {
        let value = |name: &str| {
            self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let ms = Duration::from_millis;
        Hub::from_environment(value).unwrap().with_limits(RetryLimits {
            attempts: self.attempts,
            first_wait: ms(5),
            longest_wait: ms(1500),
            etag_timeout: ms(200),
            download_timeout: ms(200),
        })
    }

    fn fetch(&self, id: &str) -> Result<Snapshot> {
        self.hub().fetch(&RepoId::parse(id).unwrap(), Wanted::Backbone, &mut |_| {})
    }

    /// The failure of a fetch that must have published no weights, nor shown a secret.
    fn failure(&self) -> HubError {
        let Err(error) = self.fetch("acme/vit") else { panic!("the fetch succeeded") };
        let shown = format!("{error} {error:?} {:?} {:?}", error.hint(), self.hub());
        assert!(!shown.contains("VerySecret") && !shown.contains("s3cret"), "{shown}");
        assert!(!self.blobs().iter().any(|name| name.len() == 64), "{:?}", self.blobs());
        match error {
            Error::Hub(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("hub/models--acme--vit").join(below)
    }

    /// The names in the blobs folder.
    fn blobs(&self) -> Vec<String> {
        let entries = self.path("blobs").read_dir().into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn fixture(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backbones/timm_vit_cls").join(file)).unwrap()
}

/// A small timm model, with files that nobody asks for.
fn repo() -> Repo {
    Repo::default()
        .file("config.json", fixture("config.json"))
        .file(WEIGHTS, fixture(WEIGHTS))
        .file("pytorch_model.bin", "a pickle")
        .file("README.md", "# ViT")
        .file("vocab.json", "{}")
}

/// A server that answers some requests by `fault`, and all others as the hub would.
fn faulty(fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let repo = repo();
    Server::start(move |request, earlier| fault(request, earlier).unwrap_or_else(|| repo.answer(request)))
}

/// The first bytes asked for in the requests for the weights.
fn starts(server: &Server) -> Vec<Option<usize>> {
    server.seen().iter().filter(|request| request.gets(WEIGHTS)).map(Request::start).collect()
}

fn is_the_model(snapshot: &Snapshot) {
    for file in ["config.json", WEIGHTS] {
        assert_eq!(fs::read(snapshot.folder.join(file)).unwrap(), repo().contents(file), "{file}");
    }
}

#[test]
fn a_model_lies_in_the_cache_as_huggingface_hub_puts_it() {
    let server = Server::of(&repo());
    let setting = Setting::new(&server.url);
    let mut told = Vec::new();
    let snapshot = setting
        .hub()
        .fetch(&RepoId::parse("acme/vit").unwrap(), Wanted::Backbone, &mut |at| {
            told.push((at.file.to_owned(), at.done, at.total));
        })
        .unwrap();
    is_the_model(&snapshot);
    assert_eq!((snapshot.commit.as_str(), snapshot.warnings.len()), (COMMIT, 0));
    assert_eq!(snapshot.folder, setting.path("snapshots").join(COMMIT));
    let size = repo().contents(WEIGHTS).len() as u64;
    assert_eq!(told.last(), Some(&(WEIGHTS.to_owned(), size, Some(size))));

    let (config, weights) = (git_sum(repo().contents("config.json")), sha256(repo().contents(WEIGHTS)));
    let mut expected = vec![config, weights.clone()];
    expected.sort();
    assert_eq!(setting.blobs(), expected);
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.folder.join(WEIGHTS)).unwrap(),
        Path::new("../../blobs").join(&weights),
        "links are relative"
    );
    assert_eq!(fs::read_to_string(setting.path("refs/main")).unwrap(), COMMIT);
    assert!(setting.path(".no_exist").join(COMMIT).join("preprocessor_config.json").is_file());
    assert!(setting.folder.path().join(format!("hub/.locks/models--acme--vit/{weights}.lock")).is_file());
    let asked = server.seen();
    assert!(!["README.md", "pytorch_model.bin", "vocab.json"].iter().any(|file| asked.iter().any(|r| r.names(file))));
}

#[test]
fn what_is_cached_is_not_fetched_again() {
    let server = Server::of(&repo());
    let setting = Setting::new(&server.url);
    setting.fetch("acme/vit").unwrap();
    let before = server.connections();
    is_the_model(&setting.fetch("acme/vit").unwrap());
    assert_eq!(server.connections() - before, 1, "a branch is looked up");
    is_the_model(&setting.fetch(&format!("acme/vit@{COMMIT}")).unwrap());
    let setting = setting.set("HF_HUB_OFFLINE", "1");
    is_the_model(&setting.fetch("acme/vit").unwrap());
    is_the_model(&setting.fetch(&format!("acme/vit@{COMMIT}")).unwrap());
    assert_eq!(server.connections() - before, 1, "a full commit and an offline cache need no connection");
}

#[test]
fn offline_without_a_cached_copy_is_an_error_without_a_connection() {
    let server = Server::of(&repo());
    for variable in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        let error = Setting::new(&server.url).set(variable, "1").failure();
        assert!(matches!(error, HubError::NotCached { .. }), "{error}");
        assert_eq!(error.exit_code() as u8, 5);
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_server_that_is_gone_is_replaced_by_the_cache_with_a_warning() {
    let server = Server::of(&repo());
    let setting = Setting::new(&server.url);
    setting.fetch("acme/vit").unwrap();
    let setting = setting.set("HF_ENDPOINT", "http://127.0.0.1:1");
    let snapshot = setting.fetch("acme/vit").unwrap();
    is_the_model(&snapshot);
    assert!(snapshot.warnings[0].contains("127.0.0.1:1") && snapshot.warnings[0].contains(COMMIT));
    assert!(matches!(setting.fetch("acme/other").unwrap_err(), Error::Hub(HubError::Unreachable { attempts: 3, .. })));
}

#[test]
fn files_that_are_missing_are_named() {
    let failure = |repo: Repo| Setting::new(&Server::of(&repo).url).failure();
    let error = failure(Repo::default().file(WEIGHTS, "x"));
    assert!(matches!(&error, HubError::NoFile { file, .. } if file == "config.json"), "{error}");
    let error = failure(Repo::default().file("config.json", "{}"));
    assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
    assert_eq!(error.exit_code() as u8, 4);
}

#[test]
fn shards_are_fetched_by_their_index() {
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let sharded = Repo::default()
        .file("config.json", "{}")
        .file("model.safetensors.index.json", index)
        .file("model-1.safetensors", "one")
        .file("model-2.safetensors", "two")
        .file("model-3.safetensors", "three");
    let server = Server::of(&sharded);
    let setting = Setting::new(&server.url);
    let snapshot = setting.fetch("acme/vit").unwrap();
    assert_eq!(fs::read(snapshot.folder.join("model-2.safetensors")).unwrap(), b"two");
    assert!(!snapshot.folder.join("model-3.safetensors").exists());

    let hostile = Repo::default()
        .file("config.json", "{}")
        .file("model.safetensors.index.json", index.replace("model-2", "../../x"));
    let server = Server::of(&hostile);
    let error = Setting::new(&server.url).fetch("acme/vit").unwrap_err();
    assert_eq!(error.exit_code() as u8, 4);
    assert!(!server.seen().iter().any(|r| r.path.contains('x') && r.path.contains("..")), "{error}");
}

#[test]
fn two_processes_download_a_file_once() {
    let server =
        faulty(|r, _| r.gets(WEIGHTS).then(|| Reply { stall: Some(Duration::from_millis(80)), ..repo().answer(r) }));
    let setting = Setting::new(&server.url);
    // A lock belongs to an open file, so two hubs in one process are as strange to each other as two processes.
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..4).map(|_| scope.spawn(|| setting.fetch("acme/vit").unwrap())).collect();
        fetches.into_iter().for_each(|fetch| is_the_model(&fetch.join().unwrap()));
    });
    assert_eq!(starts(&server).len(), 1);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = Server::of(&repo());
    let setting = Setting::new(&server.url);
    fs::write(setting.folder.path().join("hub"), "a file").unwrap();
    let error = setting.failure();
    assert!(matches!(&error, HubError::Cache { .. }) && error.to_string().contains("hub"), "{error}");
    assert_eq!(error.exit_code() as u8, 5);
}

/// Names the model for the process that [`load_in_a_process`] starts.
const MODEL: &str = "VITADAPT_TEST_MODEL";

/// Loads a model in a process of its own, where the variables are those of the setting; gives what it printed.
fn load_in_a_process(setting: &Setting, model: &str) -> std::result::Result<String, String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "loads_the_model_that_the_environment_names", "--nocapture"]);
    for variable in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HTTP_PROXY", "ALL_PROXY"] {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    let variables = setting.variables.iter().map(|(name, value)| (*name, value.as_str()));
    let output = command.envs(variables).env(MODEL, model).output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(printed) } else { Err(printed) }
}

/// What the others start; `fixtures/check_hub_cache.py` does as well.
#[test]
#[ignore = "needs a model in VITADAPT_TEST_MODEL"]
fn loads_the_model_that_the_environment_names() {
    let backbone = Backbone::load(&std::env::var(MODEL).unwrap(), None).unwrap_or_else(|error| panic!("{error}"));
    println!("sha256 {}", backbone.sha256);
}

#[test]
fn a_backbone_is_loaded_from_the_hub_and_again_without_it() {
    let server = Server::of(&repo());
    let setting = Setting::new(&server.url).set("HF_TOKEN", TOKEN);
    let expected = format!("sha256 {}", sha256(&fixture(WEIGHTS)));
    let printed = load_in_a_process(&setting, "acme/vit@main").unwrap();
    assert!(printed.contains(&expected), "{printed}");
    let connections = server.connections();
    assert!(connections > 0);
    let setting = setting.set("HF_HUB_OFFLINE", "1");
    assert!(load_in_a_process(&setting, "acme/vit").unwrap().contains(&expected));
    let printed = load_in_a_process(&setting, "acme/other").unwrap_err();
    assert!(printed.contains("acme/other") && !printed.contains("VerySecret"), "{printed}");
    assert_eq!(server.connections(), connections);
}
