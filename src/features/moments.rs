//! Mean and covariance of the patch tokens of images, and what makes them 0 and 1.

use super::{Extractor, Images, TiledImages};
use crate::error::{DataError, Result};
use candle_core::{DType, Device, Tensor};

/// Share of the mean variance that is added to each: directions in which tokens hardly differ count for no more than that.
const RIDGE: f64 = 1e-3;
/// As many patches as are enough: where tiles have more, evenly spaced tiles of each image are measured.
const PATCHES: usize = 2 << 20;

/// Sums over tokens.
#[derive(Debug, Clone)]
pub struct Moments {
    count: f64,
    /// (d)
    sum: Vec<f64>,
    /// The sums of the products of all pairs of values, row-major (d, d).
    products: Vec<f64>,
}

impl Moments {
    /// The moments of no tokens, of `width` values each.
    pub fn new(width: usize) -> Self {
        Self { count: 0.0, sum: vec![0.0; width], products: vec![0.0; width * width] }
    }

    /// The moments of tokens (n, d).
    ///
    /// # Errors
    /// When the device fails.
    fn of(tokens: &Tensor) -> candle_core::Result<Self> {
        let tokens = tokens.to_dtype(DType::F32)?.contiguous()?;
        let values = |sums: Tensor| -> candle_core::Result<Vec<f64>> {
            sums.to_dtype(DType::F64)?.flatten_all()?.to_device(&Device::Cpu)?.to_vec1()
        };
        Ok(Self {
            count: tokens.dim(0)? as f64,
            sum: values(tokens.sum(0)?)?,
            products: values(tokens.t()?.matmul(&tokens)?)?,
        })
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum.iter_mut().zip(&other.sum).for_each(|(sum, more)| *sum += more);
        self.products.iter_mut().zip(&other.products).for_each(|(sum, more)| *sum += more);
    }

    /// A linear map W x + b, row-major (d, d) and (d), by which the values have mean 0 and covariance 1: W is the inverse of
    /// the Cholesky factor of the covariance. None where the sums are not finite, or of no tokens.
    pub fn whitening(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        let d = self.sum.len();
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / self.count).collect();
        let mut factor: Vec<f64> =
            (0..d * d).map(|at| self.products[at] / self.count - mean[at / d] * mean[at % d]).collect();
        let ridge = RIDGE * (0..d).map(|i| factor[i * d + i]).sum::<f64>() / d as f64;
        for row in 0..d {
            factor[row * d + row] += ridge;
            for column in 0..=row {
                let known: f64 = (0..column).map(|k| factor[row * d + k] * factor[column * d + k]).sum();
                let left = factor[row * d + column] - known;
                factor[row * d + column] = if row == column { left.sqrt() } else { left / factor[column * d + column] };
            }
        }
        // The inverse, column by column.
        let mut inverse = vec![0f64; d * d];
        for column in 0..d {
            for row in column..d {
                let known: f64 = (column..row).map(|k| factor[row * d + k] * inverse[k * d + column]).sum();
                inverse[row * d + column] = (f64::from(u8::from(row == column)) - known) / factor[row * d + row];
            }
        }
        let bias = (0..d).map(|row| -(0..=row).map(|k| inverse[row * d + k] * mean[k]).sum::<f64>() as f32).collect();
        let weight: Vec<f32> = inverse.into_iter().map(|value| value as f32).collect();
        weight.iter().all(|value| value.is_finite()).then_some((weight, bias))
    }
}

impl Images {
    /// The moments of the patch tokens (d) that follow `prefix` others, of the samples at `positions`. `extractor` leaves the
    /// tokens behind a block.
    ///
    /// # Errors
    /// Data errors of files that changed meanwhile; those of `on_batch`.
    pub fn moments(
        &self,
        positions: &[usize],
        (extractor, width, prefix): (&Extractor, usize, usize),
        on_batch: super::OnBatch<'_>,
    ) -> Result<Moments> {
        let mut all = Moments::new(width);
        let of_tokens = |tokens: &Tensor| {
            let patches = tokens.narrow(1, prefix, tokens.dim(1)? - prefix)?;
            Moments::of(&patches.reshape(((), width))?)
        };
        if let Some(tiles) = self.pipeline.preprocess().tiles {
            let images = TiledImages { extractor, pipeline: &self.pipeline, tiles };
            let patches = extractor.width() / width - prefix;
            let most = (PATCHES / (positions.len() * patches).max(1)).max(1);
            for (at, &position) in positions.iter().enumerate() {
                let path = &self.dataset.samples[position].path;
                let bag = self.pipeline.bag(&tiles, path).map_err(|error| DataError::bad_file(path, error))?;
                let tiles = spread(bag.windows.len(), most, at);
                let found = images.each(&bag, &tiles, |_, pixels| {
                    Ok(vec![of_tokens(&extractor.vit.extract(extractor.wanted, &pixels, crate::nn::Mode::Eval)?)?])
                })?;
                found.iter().for_each(|moments| all.add(moments));
                on_batch(1)?;
            }
            return Ok(all);
        }
        self.each_batch(positions.iter().copied(), 0, extractor, |batch, rows| {
            let images = batch.labels.len();
            let rows = Tensor::from_vec(rows, (images, extractor.width() / width, width), &Device::Cpu)?;
            all.add(&of_tokens(&rows)?);
            on_batch(images)
        })?;
        Ok(all)
    }
}

/// At most `most` of `count` tiles, evenly spaced; which one is the first differs from image to image.
fn spread(count: usize, most: usize, image: usize) -> Vec<usize> {
    let stride = count.div_ceil(most).max(1);
    (image % stride..count).step_by(stride).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_spread_evenly_and_no_place_is_left_out_in_all_images() {
        assert_eq!(spread(5, 5, 3), [0, 1, 2, 3, 4]);
        assert_eq!(spread(10, 4, 4), [1, 4, 7]);
        let mut seen: Vec<usize> = (0..15).flat_map(|image| spread(651, 44, image)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..651).collect::<Vec<_>>());
        assert_eq!(spread(3, 1, 4), [1]);
    }

    #[test]
    fn whitened_values_have_mean_0_and_covariance_1() {
        let tokens = Tensor::randn(0f32, 1.0, (4000, 3), &Device::Cpu).unwrap();
        let mix = Tensor::new(&[[2f32, 0.5, 0.0], [0.0, 1.0, -1.0], [0.3, 0.0, 3.0]], &Device::Cpu).unwrap();
        let tokens =
            tokens.matmul(&mix).unwrap().broadcast_add(&Tensor::new(&[5f32, -3.0, 0.5], &Device::Cpu).unwrap());
        let tokens = tokens.unwrap();
        let mut moments = Moments::of(&tokens.narrow(0, 0, 1500).unwrap()).unwrap();
        moments.add(&Moments::of(&tokens.narrow(0, 1500, 2500).unwrap()).unwrap());
        let (weight, bias) = moments.whitening().unwrap();
        let weight = Tensor::from_vec(weight, (3, 3), &Device::Cpu).unwrap();
        let bias = Tensor::from_vec(bias, 3, &Device::Cpu).unwrap();
        let white = tokens.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
        let found = Moments::of(&white).unwrap();
        assert!(found.sum.iter().all(|sum| (sum / found.count).abs() < 1e-3), "{:?}", found.sum);
        for (at, product) in found.products.iter().enumerate() {
            let expected = f64::from(u8::from(at % 4 == 0));
            assert!((product / found.count - expected).abs() < 1e-2, "{at}: {product}");
        }
        assert_eq!(Moments::new(2).whitening(), None);
    }
}
