//! Single layers at the shapes of ViT-B/16 with 4 images of 224 px: the forward pass, and forward with backward.
//!
//! `cargo bench -p benches --bench layers`. One thread, as each worker runs them.
#![allow(missing_docs, clippy::unwrap_used)] // a bench stops at the first surprise

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use vitadapt::nn::{Activation, LayerNorm, Linear, softmax_attention};

const TOKENS: usize = 4 * 197;
const WIDTH: usize = 768;

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 0.5, shape, &Device::Cpu).unwrap()
}

fn bench(
    criterion: &mut Criterion,
    name: &str,
    inputs: &[Tensor],
    flops: usize,
    layer: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(flops as u64));
    group.sample_size(20);
    group.bench_function("forward", |b| b.iter(|| black_box(layer(inputs).unwrap())));
    let vars: Vec<Tensor> = inputs.iter().map(|input| Var::from_tensor(input).unwrap().into_inner()).collect();
    let upstream = layer(inputs).unwrap().ones_like().unwrap();
    group.bench_function("forward and backward", |b| {
        b.iter(|| {
            let loss = (layer(&vars).unwrap() * &upstream).unwrap().sum_all().unwrap();
            black_box(loss.backward().unwrap())
        });
    });
    group.finish();
}

fn layers(criterion: &mut Criterion) {
    vitadapt::system::threads::leave_cores_to_workers();
    let x = random(&[4, 197, WIDTH]);
    let linear = [x.clone(), random(&[4 * WIDTH, WIDTH]), random(&[4 * WIDTH])];
    bench(criterion, "linear 768 to 3072", &linear, 2 * TOKENS * WIDTH * 4 * WIDTH, |t| {
        Linear::new(t[1].clone(), Some(t[2].clone())).forward(&t[0])
    });
    let norm = [x, random(&[WIDTH]), random(&[WIDTH])];
    bench(criterion, "layer norm 768", &norm, TOKENS * WIDTH, |t| {
        LayerNorm::new(t[1].clone(), t[2].clone(), 1e-6).forward(&t[0])
    });
    let hidden = [random(&[4, 197, 4 * WIDTH])];
    bench(criterion, "gelu 3072", &hidden, TOKENS * 4 * WIDTH, |t| Activation::Gelu.forward(&t[0]));
    let packed = [random(&[4, 197, 3 * WIDTH]).to_dtype(DType::F32).unwrap()];
    bench(criterion, "attention 12 x 64", &packed, 4 * TOKENS * 197 * WIDTH, |t| softmax_attention(&t[0], 12));
}

criterion_group!(benches, layers);
criterion_main!(benches);
