//! In which form images leave a loader: standardised, or on a GPU as bytes, which are a quarter and are standardised there.

use crate::kernels::normalize;
use crate::size::Size;
use candle_core::{Device, Result, Tensor};
use std::ops::Range;

/// Where batches go and what is done to them on the way, which decides in which form they come; see
/// [`Pipeline::left_to`](super::transform::Pipeline::left_to).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Destination {
    /// Whether they are computed with on an NVIDIA GPU.
    pub gpu: bool,
    /// Whether their images are mixed with each other before.
    pub mixed: bool,
}

impl Destination {
    /// A device, without anything on the way.
    pub fn of(device: &Device) -> Self {
        Self { gpu: device.is_cuda(), mixed: false }
    }
}

/// Resized images as bytes, to be standardised on the device that computes with them.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizedBytes {
    /// Shape (n, height, width, 3).
    pub bytes: Vec<u8>,
    /// Size of each.
    pub size: Size,
    /// Mean and standard deviation per channel, for pixels in 0..1.
    pub scale: ([f32; 3], [f32; 3]),
}

impl ResizedBytes {
    /// The shape of `n` of them.
    pub fn shape(&self, n: usize) -> [usize; 4] {
        [n, self.size.height, self.size.width, 3]
    }

    /// Some of them, standardised, on the device.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn tensor(&self, images: Range<usize>, device: &Device) -> Result<Tensor> {
        let image = self.size.values();
        let bytes = &self.bytes[images.start * image..images.end * image];
        self.standardized(&Tensor::from_slice(bytes, &self.shape(images.len()), device)?)
    }

    /// What [`ResizedBytes::tensor`] makes of bytes that are on the device already.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn standardized(&self, bytes: &Tensor) -> Result<Tensor> {
        normalize(bytes, self.scale.0, self.scale.1)
    }
}
