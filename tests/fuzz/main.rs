//! The functions of `fuzz/` on changed seeds, a few seconds each, without any tool: the same numbers give the same bytes on
//! every machine. `VITADAPT_FUZZ_SECONDS=600 cargo test --test fuzz` goes on for longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test stops at the first surprise

#[path = "../../fuzz/src/lib.rs"]
mod entries;
mod mutate;

use mutate::Mutator;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No input may take longer, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// The files of a target's corpus, sorted.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn fuzz(target: &str, run: fn(&[u8])) {
    let seconds = std::env::var("VITADAPT_FUZZ_SECONDS").map_or(1.0, |text| text.parse().unwrap());
    let seeds = corpus(target);
    assert!(!seeds.is_empty());
    let mut mutator = Mutator::new(target, &seeds);
    let start = Instant::now();
    let mut count = 0;
    let mut next = seeds.clone().into_iter();
    // Every seed as it is, then changed ones.
    while let Some(bytes) = next.next().or_else(|| (start.elapsed().as_secs_f64() < seconds).then(|| mutator.next())) {
        let begun = Instant::now();
        let outcome = catch_unwind(|| run(&bytes));
        if outcome.is_err() || begun.elapsed() > PATIENCE {
            let file = std::env::temp_dir().join(format!("vitadapt-crash-{target}-{count}"));
            fs::write(&file, &bytes).unwrap();
            panic!("input {count} of {target} took {:?} or panicked: {}", begun.elapsed(), file.display());
        }
        count += 1;
    }
    #[expect(clippy::print_stderr, reason = "how many inputs were tried is what one wants to see")]
    {
        eprintln!("{target}: {count} inputs in {:.0} s", start.elapsed().as_secs_f64());
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name), entries::$name);
            }
        )*
    };
}

targets!(decode manifest config safetensors pickle tokenizer run_record hub);
