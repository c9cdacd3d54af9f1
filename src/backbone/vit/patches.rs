//! The patches of an image as methods read them that compare patches with patches.

use super::Vit;
use crate::backbone::readout::PatchReadout;
use crate::nn::Mode;
use crate::size::Size;
use candle_core::{DType, Result, Tensor};

impl Vit {
    /// pixels (B, 3, S, S) to patches (B, N, w), in rows from the upper left, in f32: the patch tokens behind the blocks of a
    /// readout as the blocks leave them, each averaged over its neighbourhood, one block's values after another's.
    ///
    /// # Errors
    /// When there is no such block, or the pixels do not have the size of the position embeddings.
    pub(in crate::backbone) fn patches(
        &self,
        readout: PatchReadout,
        pixels: &Tensor,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let [first, last] = readout.blocks;
        let at_first = self.prefix(pixels, first, mode)?;
        let at_last = (first..last).try_fold(at_first.clone(), |x, block| self.block(block, &x, x.dim(1)?, mode))?;
        let ends = readout.distinct().iter().map(|&block| if block == first { &at_first } else { &at_last });
        let parts = ends.map(|tokens| {
            let patches = tokens.narrow(1, self.prefix_tokens(), tokens.dim(1)? - self.prefix_tokens())?;
            averaged(&patches.to_dtype(DType::F32)?, self.grid, readout.neighborhood)
        });
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 2)
    }
}

/// Patches (B, N, d) of a grid, each to the mean of the square of `side` patches around it, with zeros beyond the
/// border as in PyTorch's `AvgPool2d(side, 1, side / 2)`.
fn averaged(patches: &Tensor, grid: Size, side: usize) -> Result<Tensor> {
    if side <= 1 {
        return patches.contiguous();
    }
    let ((batch, _, width), beyond) = (patches.dims3()?, side / 2);
    let planes = patches.transpose(1, 2)?.reshape((batch, width, grid.height, grid.width))?;
    let planes = planes.pad_with_zeros(2, beyond, beyond)?.pad_with_zeros(3, beyond, beyond)?;
    planes.avg_pool2d_with_stride((side, side), (1, 1))?.flatten_from(2)?.transpose(1, 2)?.contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn neighbourhoods_are_averaged_with_zeros_beyond_the_border() {
        let patches = Tensor::arange(0f32, 18.0, &Device::Cpu).unwrap().reshape((1, 9, 2)).unwrap();
        let found = averaged(&patches, 3.into(), 3).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(found[4], [8.0, 9.0], "the middle is the mean of all");
        let corner = [(0.0 + 2.0 + 6.0 + 8.0) / 9.0, (1.0 + 3.0 + 7.0 + 9.0) / 9.0];
        assert!(found[0].iter().zip(corner).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        assert_eq!(
            averaged(&patches, 3.into(), 1).unwrap().to_vec3::<f32>().unwrap(),
            patches.to_vec3::<f32>().unwrap()
        );
    }
}
