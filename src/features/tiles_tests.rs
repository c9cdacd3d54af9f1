use super::*;
use crate::backbone::Backbone;
use crate::config::{FeatureChoice, PoolChoice, TilePool};
use crate::data::decode::DecodeOptions;
use crate::data::transform::{Geometry, Interpolation, Normalization};
use crate::nn::workers::Workers;
use image::{Rgb, RgbImage};

const SIDE: usize = 32;
const POOLS: [TilePool; 7] =
    [TilePool::Avg, TilePool::Max, TilePool::Lse, TilePool::Topk, TilePool::Gem, TilePool::Stats, TilePool::Attention];

fn backbone(pool: PoolChoice, tiles: TilePool) -> Backbone {
    let backbone = Backbone::load("builtin:vit-mini", Some(SIDE)).unwrap().with_pool(pool, None, 1).unwrap();
    backbone.with_tile_pool(tiles, 1).unwrap()
}

fn extractor(backbone: &Backbone, threads: usize) -> Extractor {
    let workers = Workers::new(threads, &Device::Cpu).unwrap();
    Extractor::new(&backbone.spec, &backbone.params, Activations::Features(Readout::POOL), workers, &Device::Cpu)
        .unwrap()
}

fn pipeline(tiles: Tiles) -> Pipeline {
    let geometry = Geometry::squash(SIDE, Interpolation::Bicubic);
    let normalization = Normalization::PerChannel { mean: [0.5; 3], std: [0.25; 3] };
    Pipeline::evaluation(Preprocess { geometry, normalization, tiles: Some(tiles) }, DecodeOptions::default())
}

/// A picture of 5 x 4 tiles of 32 pixels that overlap by 8, the last of each row and column by more.
fn bag(tiles: Tiles) -> Bag {
    let image = RgbImage::from_fn(120, 90, |x, y| Rgb([(x * 7 + y) as u8, (x ^ y) as u8, (y * 13) as u8]));
    Bag { windows: tiles.windows((120, 90)).unwrap(), image }
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-4 * y.abs().max(1.0))
}

#[test]
fn a_bag_is_what_its_tiles_are_one_by_one_whatever_their_order_and_the_workers() {
    for pool in POOLS {
        let backbone = backbone(PoolChoice::Max, pool);
        let single = extractor(&backbone, 1);
        let tiles = Tiles { side: SIDE as u32, overlap: 8, staggered: false, second_look: 0 };
        let (pipeline, bag) = (pipeline(tiles), bag(tiles));
        assert_eq!(bag.windows.len(), 20);
        let images = |extractor| TiledImages { extractor, pipeline: &pipeline, tiles };
        let whole = images(&single).pooled(&bag).unwrap();
        let many = extractor(&backbone, 3);
        assert_eq!(whole, images(&many).pooled(&bag).unwrap(), "three workers, {pool:?}");

        let alone = |&window| {
            let bag = Bag { image: bag.image.clone(), windows: vec![window] };
            images(&single).of_tiles(&bag, Activations::Features(Readout::POOL)).unwrap()
        };
        let rows: Vec<Tensor> = bag.windows.iter().map(alone).collect();
        let of_single = pooled(&single, &Tensor::cat(&rows, 0).unwrap()).unwrap();
        assert!(near(&whole, &of_single), "single passes, {pool:?}");

        let mut windows = bag.windows.clone();
        windows.reverse();
        windows.swap(3, 11);
        let other = images(&single).pooled(&Bag { image: bag.image.clone(), windows }).unwrap();
        assert!(near(&whole, &other), "another order, {pool:?}");
    }
}

#[test]
fn the_evidence_of_all_places_is_the_logit_for_every_pooling_of_tiles_and_tokens() {
    for (tokens, exact) in [(PoolChoice::Max, true), (PoolChoice::Avg, true), (PoolChoice::Cls, false)] {
        for pool in POOLS {
            let backbone = backbone(tokens, pool);
            let extractor = extractor(&backbone, 2);
            let width = extractor.width();
            let weights: Vec<f32> = (0..3 * width).map(|i| (i as f32 * 0.37).sin()).collect();
            let weights = Tensor::from_vec(weights, (3, width), &Device::Cpu).unwrap();
            let tiles = Tiles { side: SIDE as u32, overlap: 8, staggered: false, second_look: 0 };
            let (pipeline, bag) = (pipeline(tiles), bag(tiles));
            let images = TiledImages { extractor: &extractor, pipeline: &pipeline, tiles };
            let looked = images.look(Readout::POOL, &bag).unwrap();
            let (features, grid) = (looked.pooled().unwrap(), looked.evidence(&weights, 1).unwrap());
            assert_eq!(features, images.pooled(&bag).unwrap());
            // Tiles whose tokens are not kept run again, to the same end.
            let few = LookedBag { summands: looked.summands.iter().take(7).cloned().collect(), ..looked };
            assert_eq!(few.evidence(&weights, 1).unwrap(), grid);
            let logits: Vec<f64> = (0..3)
                .map(|class| {
                    let row: Vec<f32> = weights.get(class).unwrap().to_vec1().unwrap();
                    row.iter().zip(&features).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
                })
                .collect();
            let logit = logits[1] - logits.iter().sum::<f64>() / 3.0;
            let sum: f64 = grid.values.iter().map(|&value| f64::from(value)).sum();
            assert!((sum - logit).abs() < 1e-3 * logit.abs().max(1.0), "{tokens:?} {pool:?}: {sum} for {logit}");
            // A patch of vit-mini has 16 pixels; tiles without known patches are drawn in places of 16.
            assert_eq!((grid.columns, grid.rows()), (8, 6), "{tokens:?} {exact}");
        }
    }
}

#[test]
fn the_evidence_of_a_change_lies_where_the_change_is() {
    let backbone = backbone(PoolChoice::Max, TilePool::Max);
    let extractor = extractor(&backbone, 2);
    let tiles = Tiles { side: SIDE as u32, overlap: 8, staggered: false, second_look: 0 };
    let pipeline = pipeline(tiles);
    let images = TiledImages { extractor: &extractor, pipeline: &pipeline, tiles };
    let plain = RgbImage::from_pixel(120, 90, Rgb([120, 120, 120]));
    let mut flawed = plain.clone();
    // Within columns 5 and 6 and rows 3 and 4 of the map.
    for (x, y) in (88..104).flat_map(|x| (56..68).map(move |y| (x, y))) {
        flawed.put_pixel(x, y, if (x + y) % 2 == 0 { Rgb([255; 3]) } else { Rgb([0; 3]) });
    }
    let bag = |image: RgbImage| Bag { windows: tiles.windows((120, 90)).unwrap(), image };
    let (sound, odd) = (bag(plain), bag(flawed));
    let rows = [images.pooled(&sound).unwrap(), images.pooled(&odd).unwrap()];
    // A head that asks for what the flaw has changed.
    let weights: Vec<f32> = rows[1].iter().zip(&rows[0]).map(|(odd, sound)| (odd - sound).max(0.0)).collect();
    let width = weights.len();
    let weights = Tensor::from_vec([weights, vec![0.0; width]].concat(), (2, width), &Device::Cpu).unwrap();
    let grid = images.look(Readout::POOL, &odd).unwrap().evidence(&weights, 0).unwrap();
    let place = grid.strongest().unwrap();
    assert!(place.columns.start >= 4 && place.columns.end <= 8, "{place:?}");
    assert!(place.rows.start >= 2 && place.rows.end <= 6, "{place:?}");
}

#[test]
fn a_readout_of_several_blocks_has_its_places_too() {
    let backbone = backbone(PoolChoice::Backbone, TilePool::Avg);
    let readout = Readout { features: FeatureChoice::Avg, blocks: 2 };
    let workers = Workers::new(2, &Device::Cpu).unwrap();
    let extractor =
        Extractor::new(&backbone.spec, &backbone.params, Activations::Features(readout), workers, &Device::Cpu)
            .unwrap();
    let tiles = Tiles { side: 48, overlap: 6, staggered: false, second_look: 0 };
    let (pipeline, bag) = (pipeline(tiles), bag(tiles));
    let images = TiledImages { extractor: &extractor, pipeline: &pipeline, tiles };
    let weights = Tensor::ones((2, extractor.width()), DType::F32, &Device::Cpu).unwrap();
    let looked = images.look(readout, &bag).unwrap();
    let (features, grid) = (looked.pooled().unwrap(), looked.evidence(&weights, 0).unwrap());
    assert_eq!(features.len(), 2 * backbone.spec.width);
    // Two classes of equal weights: nothing speaks for either.
    assert!(
        grid.values.iter().all(|value| value.abs() < 1e-4)
            && grid.strongest().is_none_or(|place| place.evidence < 1e-3)
    );
}

#[test]
fn a_second_look_finds_the_largest_distance_of_all_tiles_around_the_first_s() {
    let backbone = backbone(PoolChoice::Mahalanobis, TilePool::Max);
    let extractor = extractor(&backbone, 2);
    let plain = Tiles { side: SIDE as u32, overlap: 8, staggered: false, second_look: 0 };
    let (pipeline, bag) = (pipeline(plain), bag(plain));
    let images = |tiles| TiledImages { extractor: &extractor, pipeline: &pipeline, tiles };
    let distance = |tiles, bag: &Bag| images(tiles).pooled(bag).unwrap()[0];
    let once = distance(plain, &bag);
    // The tiles of a second look, and the one that it followed.
    let twice = Tiles { second_look: 3, ..plain };
    let closer = images(twice).closer(&bag).unwrap();
    assert!(closer.windows.len() > 16 && closer.windows.len() <= 3 * 16 + 1, "{}", closer.windows.len());
    assert_eq!(distance(twice, &bag), distance(plain, &closer));
    assert!(distance(twice, &bag) > once, "shifted tiles see no more");
    // What is said of the place is of the same tiles.
    let weights = Tensor::new(&[[1f32], [-1.0]], &Device::Cpu).unwrap();
    let (once, twice) = (images(plain), images(twice));
    let places = [&once, &twice].map(|images| images.look(Readout::POOL, &bag).unwrap());
    let maps = places.each_ref().map(|place| place.evidence(&weights, 0).unwrap());
    assert_eq!(places[1].pooled().unwrap(), images(Tiles { second_look: 3, ..plain }).pooled(&bag).unwrap());
    for (place, map) in places.iter().zip(&maps) {
        let sum: f32 = map.values.iter().sum();
        assert!((sum - place.pooled().unwrap()[0]).abs() < 1e-3 * sum, "{sum}");
    }
}
