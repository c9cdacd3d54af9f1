//! Patches of another size than the pretrained ones, as `FlexiViT` was trained for (Beyer et al. 2023).
//!
//! Reference: timm's `resample_patch_embed`. Kernels are resampled by the pseudo-inverse of resizing, so that images
//! resized along with them give the same tokens as nearly as possible.

use super::name::Layer;
use super::params::Params;
use super::positions::{Resampling, weights};
use super::spec::VitSpec;
use crate::config::ModelSettings;
use crate::error::{Error, Result};
use crate::size::Size;
use candle_core::{DType, Device, Tensor};

/// The sizes that are asked for, in pixels; none means the backbone's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// Size of the input.
    pub image: Option<Size>,
    /// Side of a patch.
    pub patch: Option<usize>,
}

impl From<Option<usize>> for Sizes {
    fn from(image: Option<usize>) -> Self {
        Self { image: image.map(Size::from), patch: None }
    }
}

impl From<&ModelSettings> for Sizes {
    fn from(settings: &ModelSettings) -> Self {
        Self { image: settings.image_size, patch: settings.patch_size }
    }
}

impl Sizes {
    /// Refuses images of `size` pixels that patches of `patch` do not divide, and blames what was asked for.
    pub(super) fn check(self, size: Size, patch: usize) -> Result<()> {
        if size.sides().iter().all(|side| *side > 0 && side.is_multiple_of(patch)) {
            return Ok(());
        }
        let below = size.map(|side| (side / patch).max(1) * patch);
        let above = below.map(|side| side + patch);
        let nearest = format!("{below} or {above}");
        let of = if self.patch.is_some() { "model.patch_size =" } else { "the backbone's patch size" };
        Err(if let Self { image: None, patch: Some(_) } = self {
            Error::usage_hint(
                format!("model.patch_size = {patch} does not divide the backbone's images of {size} pixels"),
                format!("set model.image_size too, to {nearest}"),
            )
        } else {
            Error::usage_hint(
                format!("model.image_size = {size} is not a multiple of {of} {patch}"),
                format!("nearest: {nearest}"),
            )
        })
    }
}

/// The note that a backbone loses accuracy by patches of another size than its own, unless it was trained for many sizes.
pub(super) fn accuracy_note(spec: &VitSpec, patch: usize) -> Option<String> {
    (!spec.architecture.starts_with("flexivit")).then(|| {
        format!(
            "kernels of {} pixels resampled to patches of {patch} (model.patch_size), for which this backbone, unlike \
             FlexiViT, was not trained: it loses accuracy",
            spec.patch.size
        )
    })
}

/// Gives the patch embedding kernels for patches of `size` pixels, rounded to the type that the file has, `stored`. The grid
/// stays, and with it the positions: images grow or shrink.
///
/// # Errors
/// When the kernels are absent.
pub(super) fn resize_patches(spec: &mut VitSpec, params: &mut Params, size: usize, stored: DType) -> Result<()> {
    let (old, grid) = (spec.patch.size, spec.grid());
    // As timm resamples positions.
    let how = match spec.positions.table().map(|table| table.resampling) {
        Some(Resampling::Bilinear | Resampling::BilinearAligned) => Resampling::Bilinear,
        _ => Resampling::BicubicAntialiased,
    };
    let name = Layer::PatchEmbed.weight();
    let kernels = params.tensor(name)?;
    let (width, channels) = (kernels.dim(0)?, kernels.dim(1)?);
    let resampled = resample_kernels(&kernels.flatten_all()?.to_vec1()?, old, size, how);
    let resampled = Tensor::from_vec(resampled, (width, channels, size, size), &Device::Cpu)?;
    params.insert(name, resampled.to_dtype(stored)?.to_dtype(DType::F32)?);
    spec.patch.size = size;
    spec.image_size = grid.map(|side| side * size);
    Ok(())
}

/// Kernels of `old` x `old` values one behind the other, for `new` x `new`. Resizing goes along both axes alike, and so does
/// its pseudo-inverse.
fn resample_kernels(kernels: &[f32], old: usize, new: usize, how: Resampling) -> Vec<f32> {
    let moved = moved(old, new, how);
    let mut resampled = Vec::with_capacity(kernels.len() / (old * old) * new * new);
    for kernel in kernels.chunks_exact(old * old) {
        // Along the rows first: (old, old) to (old, new).
        let half: Vec<f64> = (0..old * new)
            .map(|at| {
                let row = &kernel[at / new * old..][..old];
                moved[at % new].iter().zip(row).map(|(weight, value)| weight * f64::from(*value)).sum()
            })
            .collect();
        resampled.extend((0..new * new).map(|at| {
            let column = half.iter().skip(at % new).step_by(new);
            moved[at / new].iter().zip(column).map(|(weight, value)| weight * value).sum::<f64>() as f32
        }));
    }
    resampled
}

/// The transpose of the pseudo-inverse of resizing `old` values to `new`: (`new`, `old`).
fn moved(old: usize, new: usize, how: Resampling) -> Vec<Vec<f64>> {
    let mut resize = vec![vec![0.0; old]; new];
    for (i, row) in resize.iter_mut().enumerate() {
        weights(i, old, new, how).into_iter().for_each(|(from, weight)| row[from] += weight);
    }
    // Of full rank in its shorter dimension.
    if new <= old { whitened(&resize) } else { transposed(&whitened(&transposed(&resize))) }
}

/// (M Mᵀ)⁻¹ M of a matrix M of full row rank, by elimination: M Mᵀ is positive definite, so no pivot is zero.
fn whitened(m: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let n = m.len();
    let mut rows: Vec<Vec<f64>> =
        m.iter().map(|row| m.iter().map(|other| dot(row, other)).chain(row.iter().copied()).collect()).collect();
    for pivot in 0..n {
        let factor = rows[pivot][pivot].recip();
        rows[pivot].iter_mut().for_each(|value| *value *= factor);
        let chosen = rows[pivot].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != pivot) {
            let factor = row[pivot];
            row.iter_mut().zip(&chosen).for_each(|(value, chosen)| *value -= factor * chosen);
        }
    }
    rows.into_iter().map(|row| row[n..].to_vec()).collect()
}

fn transposed(m: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..m.first().map_or(0, Vec::len)).map(|column| m.iter().map(|row| row[column]).collect()).collect()
}
