//! Patch embedding (Dosovitskiy et al. 2020): the strided convolution of a `ViT` as unfold and one product.

use super::linear::Linear;
use candle_core::{Result, Tensor};

/// Cuts an image into square patches and maps each to a token: weight (d, 3, p, p), optional bias (d).
#[derive(Debug, Clone)]
pub struct PatchEmbed {
    proj: Linear,
    patch: usize,
}

impl PatchEmbed {
    /// A layer over an existing convolution kernel.
    ///
    /// # Errors
    /// When the kernel is not square.
    pub fn new(weight: &Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (width, channels, patch, patch_width) = weight.dims4()?;
        if patch != patch_width {
            candle_core::bail!("patch embedding needs a square kernel, got {patch}x{patch_width}");
        }
        Ok(Self { proj: Linear::new(weight.reshape((width, channels * patch * patch))?, bias), patch })
    }

    /// pixels (B, 3, H, W) to tokens (B, H/p · W/p, d), row by row.
    ///
    /// The pixels carry no graph, so no image gradient is computed, unlike a convolution's.
    ///
    /// # Errors
    /// When the sides are not multiples of the patch.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = pixels.dims4()?;
        let p = self.patch;
        if !height.is_multiple_of(p) || !width.is_multiple_of(p) {
            candle_core::bail!("an image of {width}x{height} cannot be cut into patches of {p}");
        }
        let (rows, cols) = (height / p, width / p);
        let patches = pixels
            .reshape((batch, channels, rows, p, cols, p))?
            .permute((0, 2, 4, 1, 3, 5))? // (B, rows, cols, 3, p, p)
            .reshape((batch, rows * cols, channels * p * p))?;
        self.proj.forward(&patches)
    }
}
