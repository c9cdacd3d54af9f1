//! One t-SNE as a whole, for `compare_tsne.py` and by hand; prints one JSON line.
//!
//! `cargo bench -p benches --bench tsne_run -- [FEATURES.safetensors [MAP]]`: the first tensor of the file, (points, values)
//! in f32, or made-up clusters. Coordinates go to MAP, x and y in f64 (little endian) point after point.
//! `RAYON_NUM_THREADS` chooses the threads.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a bench stops at the first surprise

use safetensors::SafeTensors;
use std::ops::ControlFlow;
use std::time::Instant;
use vitadapt::config;
use vitadapt::linalg::Matrix;
use vitadapt::rng::{Purpose, Stream};
use vitadapt::tsne::embed;
use vitadapt::tsne::quality::neighborhoods;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (values, cols) = arguments.first().map_or_else(|| clusters(2000, 768), |path| read(path));
    let features = Matrix::new(&values, cols);
    let settings = config::load(None, &["data.root=images".into()]).unwrap().tsne;
    let started = Instant::now();
    let found = embed(features, &settings, 0, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let quality = neighborhoods(features, &found.points, 12).unwrap().unwrap();
    println!(
        "{{\"points\": {}, \"seconds\": {seconds:.3}, \"kl\": {:.5}, \"trustworthiness\": {:.5}, \"threads\": {}}}",
        features.rows(),
        found.kl,
        quality.trustworthiness,
        rayon::current_num_threads()
    );
    if let Some(path) = arguments.get(1) {
        let bytes: Vec<u8> = found.points.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(path, bytes).unwrap();
    }
}

fn read(path: &str) -> (Vec<f32>, usize) {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, tensor) = tensors.iter().next().unwrap();
    let values = tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    (values, tensor.shape()[1])
}

/// Twenty Gaussian clusters.
fn clusters(n: usize, cols: usize) -> (Vec<f32>, usize) {
    let mut stream = Stream::new(0, Purpose::Init, &[]);
    let centres: Vec<f64> = (0..20 * cols).map(|_| 0.5 * stream.normal()).collect();
    let values =
        (0..n * cols).map(|at| (centres[at / cols % 20 * cols + at % cols] + stream.normal()) as f32).collect();
    (values, cols)
}
