//! A probe's path along 45 values of C: seconds and objectives, as one JSON line.
//!
//! `cargo bench -p benches --bench probe_path -- [FEATURES.safetensors] [--svm] [--threads N] [--repeats R]
//! [--tolerance T]`. The file has `features` (n, d) in f32 and `labels` (n) in i64; without one, features are drawn.
//! `compare_probe.py` runs this and scikit-learn in turn.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a bench stops at the first surprise

use safetensors::SafeTensors;
use std::time::Instant;
use vitadapt::config::log_grid;
use vitadapt::linalg::Matrix;
use vitadapt::probe::{LinearFit, Samples, Stopping, logistic_path, svm_path};
use vitadapt::rng::{Purpose, Stream};

struct Data {
    features: Vec<f32>,
    cols: usize,
    labels: Vec<usize>,
}

impl Data {
    fn read(path: &str) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let (features, labels) = (tensors.tensor("features").unwrap(), tensors.tensor("labels").unwrap());
        Self {
            features: features.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            cols: features.shape()[1],
            labels: labels.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect(),
        }
    }

    /// Three overlapping classes with a decaying spectrum, as features of images have.
    fn drawn() -> Self {
        let (rows, cols, classes) = (300, 192, 3);
        let mut stream = Stream::new(0, Purpose::Init, &[]);
        let spectrum: Vec<f64> = (1..=cols).map(|j| (j as f64).powf(-0.6)).collect();
        let mut row = || -> Vec<f64> { spectrum.iter().map(|s| s * stream.normal()).collect() };
        let means: Vec<Vec<f64>> = (0..classes).map(|_| row()).collect();
        let labels: Vec<usize> = (0..rows).map(|i| i % classes).collect();
        let features = labels.iter().flat_map(|&c| {
            row().into_iter().zip(&means[c]).map(|(x, m)| (3.0 * x + 2.0 * m) as f32).collect::<Vec<_>>()
        });
        Self { features: features.collect(), cols, labels }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut path, mut svm, mut threads, mut repeats, mut stopping) = (None, false, 0, 5, Stopping::default());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--svm" => svm = true,
            "--threads" => threads = arguments.next().unwrap().parse().unwrap(),
            "--repeats" => repeats = arguments.next().unwrap().parse().unwrap(),
            "--tolerance" => stopping.tolerance = arguments.next().unwrap().parse().unwrap(),
            _ => path = Some(argument),
        }
    }
    let data = path.as_deref().map_or_else(Data::drawn, Data::read);
    let names: Vec<String> = (0..=data.labels.iter().copied().max().unwrap()).map(|c| format!("class {c}")).collect();
    let samples = Samples::new(Matrix::new(&data.features, data.cols), &data.labels, &names).unwrap();
    let grid = log_grid(1e-6, 1e5, 45);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let run = || -> (f64, Vec<LinearFit>) {
        let (clock, mut fits) = (Instant::now(), Vec::new());
        let each = &mut |fit| {
            fits.push(fit);
            Ok(())
        };
        let solved = pool.install(|| {
            let path = if svm { svm_path } else { logistic_path };
            path(&samples, &grid, stopping, each)
        });
        solved.unwrap();
        (clock.elapsed().as_secs_f64(), fits)
    };
    let mut runs: Vec<(f64, Vec<LinearFit>)> = (0..repeats.max(1)).map(|_| run()).collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (seconds, fits) = &runs[runs.len() / 2];
    let line = serde_json::json!({
        "seconds": seconds,
        "fastest": runs[0].0,
        "threads": pool.current_num_threads(),
        "c": grid,
        "objectives": fits.iter().map(|fit| fit.objective).collect::<Vec<_>>(),
        "iterations": fits.iter().map(|fit| fit.iterations).collect::<Vec<_>>(),
        "products": fits.iter().map(|fit| fit.products).sum::<usize>(),
        "converged": fits.iter().all(|fit| fit.converged),
        "heads": fits.iter().map(|fit| (&fit.head.weight, &fit.head.bias)).collect::<Vec<_>>(),
    });
    println!("{line}");
}
