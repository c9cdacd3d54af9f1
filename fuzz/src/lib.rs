//! What reads the files and answers of others, each as a function of bytes. Whatever the bytes, it must come back, soon,
//! without a panic: an error is as good as a value.
//!
//! The targets in `fuzz_targets` and `tests/fuzz` of vitadapt drive the same functions.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use vitadapt::backbone::{Backbone, TextTower};
use vitadapt::data::Dataset;
use vitadapt::data::decode::{DecodeOptions, decode_described};
use vitadapt::hub::{Hub, RepoId, RetryLimits, Wanted};
use vitadapt::report::RunRecord;
use vitadapt::text::Tokenizer;

/// A folder of one thread, removed when the thread ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("vitadapt-fuzz-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self(folder)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("room for a temporary file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn in_scratch<T>(work: impl FnOnce(&Scratch) -> T) -> T {
    thread_local!(static SCRATCH: Scratch = Scratch::new());
    SCRATCH.with(work)
}

fn fixture(name: &str) -> PathBuf {
    // Beside the manifest of vitadapt, or above that of this crate.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places = here.ancestors().map(|folder| folder.join("tests/fixtures").join(name));
    places.find(|place| place.exists()).expect("the fixtures of vitadapt")
}

/// An image.
pub fn decode(bytes: &[u8]) {
    let _ = decode_described(bytes, DecodeOptions::default());
}

/// A manifest, in whatever encoding.
pub fn manifest(bytes: &[u8]) {
    in_scratch(|scratch| {
        let file = scratch.write("list.csv", bytes);
        for name in ["a.jpg", "b.jpg"] {
            scratch.write(name, b"");
        }
        let sets = [format!("data.manifest={}", file.display()), "data.val=0".into(), "data.test=0".into()];
        if let Ok(settings) = vitadapt::config::load(None, &sets) {
            let _ = Dataset::open(&settings.data);
        }
    });
}

/// A configuration.
pub fn config(bytes: &[u8]) {
    in_scratch(|scratch| {
        let file = scratch.write("config.toml", bytes);
        if let Ok(settings) = vitadapt::config::load(Some(&file), &[]) {
            let text = settings.to_toml().expect("settings can be written");
            let file = scratch.write("again.toml", text.as_bytes());
            vitadapt::config::load(Some(&file), &[]).expect("what was written can be read");
        }
    });
}

/// Weights beside the config of a small model, under one of the names that weights have.
fn weights(name: &str, bytes: &[u8]) {
    in_scratch(|scratch| {
        let folder = scratch.0.join("weights");
        fs::create_dir_all(&folder).expect("a folder");
        let config = fixture("backbones/timm_vit_cls/config.json");
        fs::copy(config, folder.join("config.json")).expect("the fixture of the small model");
        let file = scratch.write(&format!("weights/{name}"), bytes);
        let _ = Backbone::load(&folder.to_string_lossy(), None);
        fs::remove_file(file).expect("a file of its own");
    });
}

/// A safetensors file.
pub fn safetensors(bytes: &[u8]) {
    weights("model.safetensors", bytes);
}

/// An archive of `torch.save`, or the pickle in one.
pub fn pickle(bytes: &[u8]) {
    if bytes.starts_with(b"PK") {
        return weights("pytorch_model.bin", bytes);
    }
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("archive/data.pkl", bytes), ("archive/data/0", &[0; 64])] {
        archive.start_file(name, options).expect("an archive in memory");
        archive.write_all(content).expect("an archive in memory");
    }
    weights("pytorch_model.bin", archive.finish().expect("an archive in memory").get_ref());
}

/// A `tokenizer.json`, and what it makes of a few prompts.
pub fn tokenizer(bytes: &[u8]) {
    thread_local!(static TOWER: OnceCell<TextTower> = const { OnceCell::new() });
    let load = || TextTower::load(&fixture("text/hf_clip").to_string_lossy()).expect("the fixture of CLIP");
    in_scratch(|scratch| {
        scratch.write("tokenizer.json", bytes);
        TOWER.with(|tower| {
            if let Ok(tokenizer) = Tokenizer::load(&scratch.0, tower.get_or_init(load)) {
                for text in ["", "a photo of a bad part.", "É  \u{1F600}\n<|endoftext|>"] {
                    let _ = tokenizer.tokens(text);
                }
            }
        });
    });
}

/// A `run.json`.
pub fn run_record(bytes: &[u8]) {
    in_scratch(|scratch| {
        scratch.write("run.json", bytes);
        let _ = RunRecord::read(&scratch.0);
    });
}

/// One for all inputs: each port is taken for a minute after its use, and there are not enough of them.
static LISTENER: LazyLock<TcpListener> =
    LazyLock::new(|| TcpListener::bind("127.0.0.1:0").expect("a port of this machine"));

/// The answers of a server, in their order, apart by byte 0x1E; the last one is for all further requests.
pub fn hub(bytes: &[u8]) {
    in_scratch(|scratch| {
        let place = LISTENER.local_addr().expect("an address");
        let answers: Vec<Vec<u8>> = bytes.split(|&byte| byte == 0x1E).map(<[u8]>::to_vec).collect();
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let server = std::thread::spawn(move || {
            for (number, stream) in LISTENER.incoming().enumerate() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&answers[number.min(answers.len() - 1)]);
            }
        });
        let cache = scratch.0.join("cache");
        let get = |name: &str| match name {
            "HF_ENDPOINT" => Some(OsString::from(format!("http://{place}"))),
            "HF_HOME" => Some(cache.clone().into_os_string()),
            _ => None,
        };
        let ms = Duration::from_millis;
        let limits = RetryLimits {
            attempts: 1,
            first_wait: ms(1),
            longest_wait: ms(1),
            etag_timeout: ms(50),
            download_timeout: ms(50),
        };
        let hub = Hub::from_environment(get).expect("settings of an own making").with_limits(limits);
        let id: RepoId = RepoId::of_backbone("someone/model").ok().flatten().expect("a name of the hub");
        let _ = hub.fetch(&id, Wanted::Backbone, &mut |_| {});
        done.store(true, Ordering::Release);
        let _ = std::net::TcpStream::connect(place);
        server.join().expect("the server ends");
        let _ = fs::remove_dir_all(cache);
    });
}
