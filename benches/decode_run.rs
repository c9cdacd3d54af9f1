//! Decoding, squashing and standardising the images of a folder, for `compare_decode.py` and by hand; prints one JSON line.
//!
//! `cargo bench -p benches --bench decode_run -- FOLDER [SIDE]`: every image once a turn, in one thread, nine turns, the
//! median.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a bench stops at the first surprise

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;
use vitadapt::config::ResizeMode;
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::transform::{Geometry, Interpolation, Normalization, Pipeline, Preprocess, View};

const TURNS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let textile = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/textile/test/nominal");
    let folder = arguments.first().map_or(textile, String::as_str);
    let image_size = arguments.get(1).map_or(224, |side| side.parse().unwrap());
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let geometry = Geometry {
        image_size: image_size.into(),
        resize: ResizeMode::Squash,
        interpolation: Interpolation::Bicubic,
        crop_pct: 1.0,
    };
    let normalization = Normalization::PerChannel { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    let turn = || {
        // A new pipeline each time: it keeps the resized images.
        let pipeline =
            Pipeline::evaluation(Preprocess { geometry, normalization, tiles: None }, DecodeOptions::default());
        let started = Instant::now();
        for file in &files {
            black_box(pipeline.load(file, View { epoch: 0, sample: 0 }).unwrap());
        }
        started.elapsed().as_secs_f64()
    };
    turn();
    let mut seconds: Vec<f64> = (0..TURNS).map(|_| turn()).collect();
    seconds.sort_by(f64::total_cmp);
    println!("{{\"images\": {}, \"images_per_second\": {:.1}}}", files.len(), files.len() as f64 / seconds[TURNS / 2]);
}
