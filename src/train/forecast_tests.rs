use super::*;
use crate::backbone::Backbone;
use crate::data::transform::Tiles;
use crate::train::work::forward;

fn workload(spec: &VitSpec, first_block: usize, start: Segment) -> Workload<'_> {
    Workload {
        spec,
        first_block,
        start,
        parameters: (2_000_000, 2_700_000),
        copies: 0,
        passes: 1,
        images: ImageCounts { train: 210, val: 60, test: 90 },
        tiles: None,
        batch_size: 24,
        epochs: 10.0,
        views: 0,
        workers: 2,
        rounds: 1,
        layers: Layers::Plain,
        prompt_tokens: 0,
        adapters: false,
        computation: Computation::default(),
        texts: None,
    }
}

fn operations(workload: &Workload<'_>) -> f64 {
    workload.work().of(workload.epochs * workload.steps_per_epoch())
}

fn spec() -> VitSpec {
    Backbone::load("builtin:vit-mini", Some(224)).unwrap().spec
}

#[test]
fn smaller_parts_and_checkpointing_take_less() {
    let spec = spec();
    let full = workload(&spec, 0, Segment::Embed);
    let activations = |workload: &Workload<'_>, parts| workload.step(parts);
    assert_eq!(activations(&full, 1), 3 * activations(&full, 3));
    let mut checkpointed = full.clone();
    checkpointed.computation.checkpoint_blocks = true;
    assert!(activations(&checkpointed, 1) * 2 < activations(&full, 1));
    assert!((1.2..1.4).contains(&(operations(&checkpointed) / operations(&full))));
    let partial = workload(&spec, 4, Segment::Block(4));
    assert!(activations(&partial, 1) < activations(&full, 1) && operations(&partial) < operations(&full) / 2.0);
    let frozen = workload(&spec, spec.depth, Segment::Head);
    assert_eq!(full.cache(), 0);
    assert_eq!(partial.cache(), 360 * (spec.tokens() * spec.width * 4) as u64);
    assert_eq!(Workload { views: 3, ..frozen.clone() }.cache(), (3 * 210 + 150) * (spec.width * 4) as u64);
    assert!(operations(&frozen) < operations(&partial) && frozen.memory(1).total() < partial.memory(1).total());
}

#[test]
fn every_tile_is_a_pass_and_few_are_in_memory() {
    let spec = spec();
    let frozen = workload(&spec, spec.depth, Segment::Head);
    let tiles = Tiles { side: 224, overlap: 24, staggered: false, second_look: 0 };
    // 4 x 3 and 15 x 10 tiles.
    let counts = TileCounts::of(&tiles, &[(800, 600), (3000, 2000)], 2);
    assert_eq!((counts.mean, counts.most, counts.image_bytes), (81.0, 150, 18_000_000));
    let tiled = Workload { tiles: Some(counts), ..frozen.clone() };
    assert!((operations(&tiled) / operations(&frozen) - 81.0).abs() < 1e-6);
    let many = Workload { tiles: Some(TileCounts { most: 15_000, ..counts }), ..frozen.clone() };
    let rows = |tiles: u64| tiles * spec.width as u64 * 4;
    assert_eq!(many.memory(1).inputs - tiled.memory(1).inputs, rows(15_000) - rows(150), "only their features");
    let large = Workload { tiles: Some(TileCounts { image_bytes: 36_000_000, ..counts }), ..frozen };
    assert_eq!(large.memory(1).inputs - tiled.memory(1).inputs, 36_000_000, "two images at a time");
}

#[test]
fn texts_come_on_top_of_the_images() {
    let spec = spec();
    let frozen = workload(&spec, spec.depth, Segment::Head);
    let texts = Some(Texts { tokens: 60, values: (1000, 2000), operations: 1e9 });
    let prompted = Workload { texts, ..frozen.clone() };
    // 210 images are nine steps of 24 an epoch.
    assert!((operations(&prompted) - operations(&frozen) - 10.0 * 9.0 * 2e9).abs() < 1e6);
    for parts in [1, 4] {
        assert_eq!(prompted.step(parts) - frozen.step(parts), 240_000);
    }
}

#[test]
fn what_is_no_step_counts_too() {
    let spec = spec();
    let full = workload(&spec, 0, Segment::Embed);
    let image = spec.image_size.values() as u64;
    let more = Workload { images: ImageCounts { test: 190, ..full.images }, ..full.clone() };
    assert_eq!(more.memory(1).total() - full.memory(1).total(), 100 * image, "images stay decoded");
    let many = Workload { images: ImageCounts { test: 1_000_000, ..full.images }, ..full.clone() };
    assert!(many.memory(1).inputs < MOST_KEPT + (MOST_KEPT >> 2));
    let frozen = workload(&spec, spec.depth, Segment::Head);
    assert_eq!(frozen.memory(1).activations, frozen.scoring().max(DRAWING_BYTES));
    let prompted = Workload { layers: Layers::Fused, prompt_tokens: 20, ..full.clone() };
    let graph = Workload { layers: Layers::Fused, ..full.clone() };
    assert!(prompted.step(1) as f64 > graph.step(1) as f64 * (spec.tokens() + 20) as f64 / spec.tokens() as f64);
    assert!(Workload { adapters: true, ..graph.clone() }.step(1) > graph.step(1));
}

#[test]
fn steps_are_cut_no_finer_than_the_memory_asks() {
    let spec = spec();
    let full = Workload { batch_size: 96, ..workload(&spec, 0, Segment::Embed) };
    assert_eq!(full.micro_batches(u64::MAX), 1);
    let needed = |parts: usize| (full.memory(parts).total() as f64 / USABLE) as u64 + 1;
    for parts in [2, 4, 8, 16] {
        assert_eq!(full.micro_batches(needed(parts)), parts);
        assert!(full.micro_batches(needed(parts) - (1 << 20)) > parts);
    }
    assert_eq!(full.micro_batches(0), 96);
    assert!(!full.fits(96, 0));
}

#[test]
fn operations_follow_the_architecture() {
    // timm's ViT-S/16 at 224 px has 4.6 GMACs; ours counts vit-mini by the same formula.
    let mut spec = spec();
    (spec.width, spec.mlp.hidden, spec.depth, spec.attention.heads) = (384, 1536, 12, 6);
    let mut once = workload(&spec, spec.depth, Segment::Head);
    (once.images, once.epochs) = (ImageCounts { train: 1, val: 0, test: 0 }, 1.0);
    assert!((operations(&once) / 2e9 - 4.6).abs() < 0.1, "{}", operations(&once));
}

#[test]
fn what_stops_early_or_trains_fewer_weights_computes_less() {
    let spec = spec();
    let full = workload(&spec, 0, Segment::Embed);
    // Nine steps an epoch: three epochs of ten, and the test images once in either case.
    let (all, some) = (full.work().of(90.0), full.work().of(27.0));
    assert!((some - full.work().once - 0.3 * (all - full.work().once)).abs() < 1e-6 * all);
    assert!((full.work().once - 150.0 * forward(&spec)).abs() < 1e-6 * all);
    let adapted = operations(&Workload { adapters: true, ..full.clone() });
    assert!((0.6..0.8).contains(&(adapted / operations(&full))), "no gradients of frozen weights");
    // Whatever is trained on what frozen layers give, these see each image once, as those of a probe do.
    let frozen = workload(&spec, spec.depth, Segment::Head);
    assert!((operations(&frozen) / (360.0 * forward(&spec)) - 1.0).abs() < 1e-12);
    assert_eq!(operations(&frozen), operations(&Workload { epochs: 50.0, ..frozen.clone() }));
}

#[test]
fn the_rate_of_products_is_measured() {
    let workers = Workers::new(1, &Device::Cpu).unwrap();
    assert!(product_rate(&workers, &Device::Cpu).unwrap() > 1e8);
}

#[test]
fn a_gpu_with_kernels_keeps_no_compositions() {
    let gpu = DeviceLocation::Cuda { gpu_id: 0 };
    assert_eq!(Layers::of(&gpu, Precision::Bf16), Layers::Fused);
    assert_eq!(Layers::of(&gpu, Precision::F32), Layers::Fused);
    assert_eq!(Layers::of(&DeviceLocation::Cpu, Precision::F32), Layers::Plain);
    assert_eq!(Layers::of(&DeviceLocation::Cpu, Precision::Bf16), Layers::Composed);
    assert_eq!(Layers::of(&DeviceLocation::Metal { gpu_id: 0 }, Precision::F32), Layers::Composed);

    let spec = spec();
    let activations = |layers, precision| {
        let mut full = Workload { layers, ..workload(&spec, 0, Segment::Embed) };
        full.computation.precision = precision;
        full.memory(1).activations
    };
    let composed = activations(Layers::Composed, Precision::Bf16);
    let (single, half) = (activations(Layers::Fused, Precision::F32), activations(Layers::Fused, Precision::Bf16));
    assert!(half < single && single < activations(Layers::Composed, Precision::F32));
    assert!(2 * half < composed, "{half} of {composed}");

    // On tensor cores the weights of attention are never stored: memory grows with the tokens, not with their square.
    let large = VitSpec { image_size: spec.image_size.map(|side| 4 * side), ..spec.clone() };
    let of = |spec: &VitSpec, precision| {
        let mut full = Workload { layers: Layers::Fused, ..workload(spec, 0, Segment::Embed) };
        full.computation.precision = precision;
        full.memory(1).activations as f64 / spec.tokens() as f64
    };
    assert!((of(&large, Precision::Bf16) / of(&spec, Precision::Bf16) - 1.0).abs() < 0.01);
    assert!(of(&large, Precision::F32) > 1.1 * of(&spec, Precision::F32));
}
