//! From images as bytes to the values that a model reads, on the device that they have reached.

use super::choice::stands_trial;
use candle_core::{DType, Device, Result, Tensor};

/// Bytes (n, height, width, 3) to (n, 3, height, width) in f32: `(byte / 255 - mean) / std` per channel, to the same bits by
/// the kernel and composed.
///
/// # Errors
/// When the device fails.
pub fn normalize(bytes: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
    let trial = || {
        let some = small(bytes.device())?;
        let (ours, right) = (kernel(&some, mean, std)?, composed(&small(&Device::Cpu)?, mean, std)?);
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        Ok((values(&ours)? != values(&right)?).then(|| "its output differs from the CPU's".to_owned()))
    };
    if bytes.device().is_cuda() && stands_trial("normalize", &[DType::U8], bytes.device(), trial) {
        kernel(bytes, mean, std)
    } else {
        composed(bytes, mean, std)
    }
}

#[cfg(feature = "cuda")]
use super::cuda::normalize::forward as kernel;

#[cfg(not(feature = "cuda"))]
fn kernel(_: &Tensor, _: [f32; 3], _: [f32; 3]) -> Result<Tensor> {
    candle_core::bail!("there is no GPU in this build")
}

fn composed(bytes: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
    let per_channel = |values: [f32; 3]| Tensor::new(&values, bytes.device());
    // A factor of 1 / 255 would round otherwise.
    let scaled = bytes.to_dtype(DType::F32)?.broadcast_div(&per_channel([255.0; 3])?)?;
    let values = scaled.broadcast_sub(&per_channel(mean)?)?.broadcast_div(&per_channel(std)?)?;
    values.permute((0, 3, 1, 2))?.contiguous()
}

/// More pixels than a block takes, of two images, with every value in every channel.
fn small(device: &Device) -> Result<Tensor> {
    let bytes = (0..2 * 3 * 20 * 20).map(|i: u32| (i % 256) as u8).collect();
    Tensor::from_vec(bytes, (2, 20, 20, 3), device)
}
