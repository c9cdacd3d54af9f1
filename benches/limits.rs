//! What this machine can do at most, to hold the steps of `steps.rs` and `compare_backbones.py` against: fused
//! multiply-adds from registers, matrix products of a transformer's shapes, and the way to memory; and what share of it a
//! forward pass and a step would need.
//!
//! `cargo bench -p benches --bench limits [-- THREADS]`: each thread does the same work by itself, as workers do; the best
//! of five.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)] // a bench stops at the first surprise

use pulp::{Arch, Simd, WithSimd};
use std::hint::black_box;
use std::time::Instant;
use vitadapt::kernels::gemm::{Mat, matmul};

/// Independent sums: enough to hide the latency of a multiply-add.
const SUMS: usize = 12;
const ROUNDS: usize = 4_000_000;
/// Values of a block of memory that no cache holds: 256 MB.
const LARGE: usize = 64 << 20;
/// (name, rows, inner, columns): four images of 197 tokens through the widest layer of each size.
const SHAPES: [(&str, usize, usize, usize); 3] =
    [("ViT-Ti", 788, 192, 768), ("ViT-S", 788, 384, 1536), ("ViT-B", 788, 768, 3072)];

/// Seconds of the fastest of five runs, on all threads at once.
fn best(threads: usize, work: impl Fn() + Sync) -> f64 {
    let run = || {
        let clock = Instant::now();
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(&work))));
        clock.elapsed().as_secs_f64()
    };
    (0..5).map(|_| run()).fold(f64::INFINITY, f64::min)
}

/// Chains of multiply-adds in registers; gives the operations done.
struct MultiplyAdds;

impl WithSimd for MultiplyAdds {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let (factor, term) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.001)));
        let mut sums = [simd.splat_f32s(black_box(1.0)); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, term);
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        2 * ROUNDS * SUMS * S::F32_LANES
    }
}

fn product(rows: usize, inner: usize, columns: usize, times: usize) {
    let (a, b) = (vec![0.5f32; rows * inner], vec![0.5f32; inner * columns]);
    let mut out = vec![0f32; rows * columns];
    for _ in 0..times {
        matmul(Mat::new(&a, rows, inner), Mat::new(&b, columns, inner).t(), 1.0, 0.0, &mut out, columns).unwrap();
    }
    black_box(out);
}

fn main() {
    let threads = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(2);
    let threads: usize = threads;
    let operations = (threads * Arch::new().dispatch(MultiplyAdds)) as f64;
    let seconds = best(threads, || {
        black_box(Arch::new().dispatch(MultiplyAdds));
    });
    println!("{threads} threads together");
    println!("multiply-adds from registers   {:7.1} GFLOP/s", operations / seconds / 1e9);
    for (name, rows, inner, columns) in SHAPES {
        let flops = 2 * rows * inner * columns;
        let times = (40_000_000_000 / flops).max(1);
        let seconds = best(threads, || product(rows, inner, columns, times));
        let rate = (threads * times * flops) as f64 / seconds / 1e9;
        println!("product {rows} x {inner} x {columns:<5} {name:6} {rate:7.1} GFLOP/s");
    }
    let blocks: Vec<(Vec<f32>, std::sync::Mutex<Vec<f32>>)> =
        (0..threads).map(|_| (vec![1.0; LARGE], vec![0.0; LARGE].into())).collect();
    let place = std::sync::atomic::AtomicUsize::new(0);
    let seconds = best(threads, || {
        let (from, to) = &blocks[place.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % threads];
        to.lock().unwrap().copy_from_slice(from);
    });
    println!("copy, read and written         {:7.1} GB/s", (threads * 2 * LARGE * 4) as f64 / seconds / 1e9);
}
