//! Positions of patches: learnt embeddings resampled to another grid, and the angles of rotary ones. On the host, once at
//! loading.
//!
//! Resampling is equal to `torch.nn.functional.interpolate(align_corners=False)` in the mode that each library asks for.

use crate::nn::{Pairs, Rotary};
use candle_core::{Device, Result, Tensor};
use std::f64::consts::TAU;

/// How a library resamples position embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resampling {
    /// Cubic with a = -1/2, the kernel widened when shrinking, as Pillow's (timm, `open_clip`, `DINOv2` with registers).
    BicubicAntialiased,
    /// Cubic with a = -3/4 at four taps (transformers).
    Bicubic,
    /// Linear at two taps (timm's `FlexiViT`).
    Bilinear,
    /// Linear at two taps, the corners of both grids on each other (RADIO).
    BilinearAligned,
    /// Linear, the kernel widened when shrinking (`SigLIP` 2).
    BilinearAntialiased,
}

/// Resamples `old` x `old` positions of `width` values, row-major, to `new` x `new`.
pub fn resample(positions: &[f32], width: usize, old: usize, new: usize, how: Resampling) -> Vec<f32> {
    if old == new {
        return positions.to_vec();
    }
    let taps: Vec<Vec<(usize, f64)>> = (0..new).map(|i| weights(i, old, new, how)).collect();
    // Along the columns first: (old, old, width) to (old, new, width).
    let mut half = vec![0f64; old * new * width];
    for row in 0..old {
        for (col, taps) in taps.iter().enumerate() {
            let out = &mut half[(row * new + col) * width..][..width];
            for &(from, weight) in taps {
                let values = &positions[(row * old + from) * width..][..width];
                out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * f64::from(*value));
            }
        }
    }
    let mut whole = vec![0f64; new * new * width];
    for (row, taps) in taps.iter().enumerate() {
        let out = &mut whole[row * new * width..][..new * width];
        for &(from, weight) in taps {
            let values = &half[from * new * width..][..new * width];
            out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
        }
    }
    whole.into_iter().map(|value| value as f32).collect()
}

/// The source positions and weights of output `i`.
fn weights(i: usize, old: usize, new: usize, how: Resampling) -> Vec<(usize, f64)> {
    let scale = old as f64 / new as f64;
    let centre = match how {
        Resampling::BilinearAligned => 0.5 + (i * (old - 1)) as f64 / new.saturating_sub(1).max(1) as f64,
        _ => (i as f64 + 0.5) * scale,
    };
    // Taps beyond the border repeat the border.
    let tap = |at: f64, weight: f64| ((at.max(0.0) as usize).min(old - 1), weight);
    let start = (centre - 0.5).floor();
    match how {
        Resampling::BicubicAntialiased => antialiased(centre, scale.max(1.0), old, 2.0, |x| cubic(x, -0.5)),
        Resampling::BilinearAntialiased => antialiased(centre, scale.max(1.0), old, 1.0, |x| (1.0 - x.abs()).max(0.0)),
        Resampling::Bicubic => {
            (-1..=2).map(|i| start + f64::from(i)).map(|at| tap(at, cubic(centre - 0.5 - at, -0.75))).collect()
        }
        Resampling::Bilinear | Resampling::BilinearAligned => {
            let fraction = centre - 0.5 - start;
            vec![tap(start, 1.0 - fraction), tap(start + 1.0, fraction)]
        }
    }
}

/// Weights of a kernel of half width `reach`, `stretch` times as wide, over the positions inside the grid.
fn antialiased(centre: f64, stretch: f64, old: usize, reach: f64, kernel: impl Fn(f64) -> f64) -> Vec<(usize, f64)> {
    let support = reach * stretch;
    let first = (centre - support + 0.5).floor().max(0.0) as usize;
    let end = ((centre + support + 0.5).floor() as usize).min(old);
    let raw: Vec<(usize, f64)> = (first..end).map(|at| (at, kernel((at as f64 + 0.5 - centre) / stretch))).collect();
    let total: f64 = raw.iter().map(|(_, weight)| weight).sum();
    raw.into_iter().map(|(at, weight)| (at, weight / total)).collect()
}

/// The cubic convolution kernel (Keys 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Rotary positions along both axes (`DINOv3`): a patch's channels are turned by 2π times its coordinate and a frequency, a
/// quarter of a head's width along y and as many along x. Coordinates are those of patch centres, from -1 to 1 over the
/// image whatever its size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxialRotary {
    /// Frequency k of n is its power -k / n.
    pub temperature: f64,
}

impl AxialRotary {
    /// What turns queries and keys of a square grid of patches behind `before` tokens that have no place.
    ///
    /// # Errors
    /// When four does not divide the channels of a head.
    pub fn rotary(self, grid: usize, before: usize, head_dim: usize) -> Result<Rotary> {
        Rotary::new(&self.angles(grid, before, head_dim)?, Pairs::Halves)
    }

    /// The angles (1, before + grid², `head_dim` / 2) of [`AxialRotary::rotary`], for heads of `head_dim` channels.
    ///
    /// # Errors
    /// When four does not divide the channels of a head.
    pub fn angles(self, grid: usize, before: usize, head_dim: usize) -> Result<Tensor> {
        if !head_dim.is_multiple_of(4) {
            candle_core::bail!("rotary positions need heads of a multiple of 4 channels, not {head_dim}");
        }
        let count = head_dim / 4;
        let coordinate = |i: usize| 2.0 * (i as f64 + 0.5) / grid as f64 - 1.0;
        let frequency = |k: usize| self.temperature.powf(-(k as f64) / count as f64);
        let mut angles = vec![0f32; before * 2 * count];
        for (y, x) in (0..grid).flat_map(|y| (0..grid).map(move |x| (y, x))) {
            let along = |at: usize| (0..count).map(move |k| (TAU * coordinate(at) * frequency(k)) as f32);
            angles.extend(along(y).chain(along(x)));
        }
        let shape = (1, before + grid * grid, 2 * count);
        Tensor::from_vec(angles, shape, &Device::Cpu)
    }
}
