//! Images that reach the GPU as bytes; see [`crate::kernels::normalize()`].

use super::{Argument, Grid, Module, Output, launch, ptx, with};
use candle_core::{DType, Result, Tensor};

const NORMALIZE: Module = Module { name: "normalize", ptx: ptx::NORMALIZE };

/// Bytes (n, height, width, 3) to (n, 3, height, width) in f32: `(byte / 255 - mean) / std`.
///
/// # Errors
/// When it is not that, or the device fails.
pub fn forward(bytes: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
    let (n, height, width, channels) = bytes.dims4()?;
    let (plane, count) = (height * width, n * height * width);
    with([bytes], |[bytes]| {
        let mut values = Output::new(bytes.device(), DType::F32, 3 * count)?;
        let mut arguments = vec![
            // With other channels than three there are not so many bytes.
            bytes.read(DType::U8, 3 * count)?,
            values.write()?,
            Argument::Size(count),
            Argument::Size(plane),
        ];
        arguments.extend(mean.into_iter().chain(std).map(Argument::Real));
        let blocks = Grid::Blocks(count.div_ceil(256));
        launch(bytes.device(), NORMALIZE, "normalize", DType::F32, blocks, &mut arguments)?;
        Ok(values.tensor(&(n, channels, height, width).into()))
    })
}
