//! One t-SNE, for `compare_tsne.py` and by hand.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a bench stops at the first surprise
use std::ops::ControlFlow;
use std::time::Instant;
use vitadapt::linalg::Matrix;
use vitadapt::tsne::{Method, TsneOptions, embed};
fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let bytes = std::fs::read(&args[0]).unwrap();
    let st = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let t = st.tensor("features").unwrap();
    let n: usize = args[1].parse().unwrap();
    let cols = t.shape()[1];
    let values: Vec<f32> =
        t.data().chunks_exact(4).take(n * cols).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    let start = Instant::now();
    let method = match args.get(2).map(String::as_str) {
        Some("exact") => Method::Exact,
        Some("fft") => Method::Interpolation,
        _ => Method::Auto,
    };
    let e = embed(Matrix::new(&values, cols), &TsneOptions { method, ..Default::default() }, &mut |i, _, kl| {
        if i % 250 == 0 {
            eprintln!("{i} {kl}");
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    println!("{} s, kl {} it {}", start.elapsed().as_secs_f64(), e.kl, e.iterations);
    let bytes: Vec<u8> = e.points.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    if let Some(out) = args.get(3) {
        std::fs::write(out, bytes).unwrap();
    }
}
