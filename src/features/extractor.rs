//! Runs batches through the frozen layers, sharded over the workers.

use super::evidence::EvidenceGrid;
use crate::backbone::{Activations, Params, Readout, Rollout, Vit, VitSpec};
use crate::data::upload::Sent;
use crate::nn::Mode;
use crate::nn::workers::Workers;
use crate::size::Size;
use candle_core::{DType, Device, Result, Tensor};

/// The layers up to the activations that are wanted.
pub struct Extractor {
    pub(super) vit: Vit,
    /// What is taken out.
    pub(super) wanted: Activations,
    shape: Vec<usize>,
    image_size: Size,
    grid: Size,
    /// Who computes.
    pub workers: Workers,
    /// Where tensors live.
    pub(super) device: Device,
}

impl Extractor {
    /// Builds the layers over `params`, which must lie on `device`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(
        spec: &VitSpec,
        params: &Params,
        wanted: Activations,
        workers: Workers,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            vit: Vit::new(spec, &params.detached(), &[])?,
            wanted,
            shape: wanted.shape(spec),
            image_size: spec.image_size,
            grid: spec.grid(),
            workers,
            device: device.clone(),
        })
    }

    /// Values per image.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// The rows of a batch of pixels, which may be on the device already, row-major (n, width).
    ///
    /// # Errors
    /// When the device fails.
    pub fn rows(&self, sent: &Sent) -> Result<Vec<f32>> {
        let rows = self.workers.map(self.workers.scoring_shards(sent.batch.labels.len()), |shard| {
            let pixels = sent.tensor(shard, &self.input_shape(), &self.device)?;
            on_host(&self.vit.extract(self.wanted, &pixels, Mode::Eval)?)?.to_vec1::<f32>()
        })?;
        Ok(rows.concat())
    }

    /// Shape of the pixels of an image.
    pub(super) fn input_shape(&self) -> [usize; 3] {
        self.image_size.shape()
    }

    /// Pixels of images (n, 3, H, W) on the device.
    fn images(&self, pixels: &[f32]) -> Result<Tensor> {
        let [channels, height, width] = self.input_shape();
        Tensor::from_slice(pixels, (pixels.len() / self.image_size.values(), channels, height, width), &self.device)
    }

    /// Values of the patches of an image, where they lie; none when they are not that many.
    pub fn placed(&self, values: Vec<f32>) -> Option<EvidenceGrid> {
        EvidenceGrid::of(self.grid, values)
    }

    /// Whether the features of `readout` are sums over the patches, so that maps of them are exact.
    pub fn adds_up(&self, readout: Readout) -> bool {
        self.vit.adds_up(readout)
    }

    /// The features of a batch of pixels, with what they are sums over: all that maps of [`Extractor::evidence`] are made
    /// of, in one pass. None where features are not a sum over patches.
    ///
    /// # Errors
    /// When the device fails.
    pub fn look(&self, readout: Readout, pixels: &[f32]) -> Result<Option<Looked>> {
        if !self.vit.adds_up(readout) {
            return Ok(None);
        }
        let image = self.image_size.values();
        let found = self.workers.map(self.workers.scoring_shards(pixels.len() / image), |shard| {
            let values = &pixels[shard.start * image..shard.end * image];
            let pixels = self.images(values)?;
            let ends = self.vit.summands(readout, &pixels)?;
            Ok((on_host(&self.vit.summed(readout, &ends)?)?.to_vec1()?, single(&ends, shard.len())?))
        })?;
        let (features, summands): (Vec<Vec<f32>>, Vec<_>) = found.into_iter().unzip();
        Ok(Some(Looked { features: features.concat(), summands: summands.concat() }))
    }

    /// What each patch adds to the logit of a class over the mean of all classes, by a linear head with the `weights`
    /// (C, w): for each image that was looked at and its class, in rows from the upper left. Summed over the patches, with
    /// the bias, it is that logit.
    ///
    /// # Errors
    /// When the device fails.
    pub fn evidence(
        &self,
        readout: Readout,
        weights: &Tensor,
        looked: &Looked,
        classes: &[usize],
    ) -> Result<Vec<Vec<f32>>> {
        let weights = weights.to_device(&self.device)?.to_dtype(DType::F32)?;
        let weights = weights.broadcast_sub(&weights.mean_keepdim(0)?)?;
        self.workers.map(looked.summands.iter().zip(classes).collect(), |(ends, &class): (&Vec<Tensor>, _)| {
            let given = self.vit.contributions(readout, ends)?;
            let weights = weights.narrow(0, class, 1)?.t()?.contiguous()?; // (w, 1)
            on_host(&given.squeeze(0)?.to_dtype(DType::F32)?.contiguous()?.matmul(&weights)?)?.to_vec1()
        })
    }

    /// Where the model looks, by attention roll-out, and what it finds: for each image of a batch of pixels the share of
    /// each patch in its features, in rows from the upper left, and these features, those of `readout`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn rollout(&self, readout: Readout, pixels: &[f32]) -> Result<Vec<ImageRollout>> {
        self.workers.map(pixels.chunks_exact(self.image_size.values()).collect(), |image| {
            let image = self.images(image)?;
            let Rollout { shares, features } = self.vit.rollout(readout, &image)?;
            let values = |tensor: Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1();
            Ok(ImageRollout { shares: values(shares)?, features: values(features)? })
        })
    }
}

/// What the frozen layers make of some images whose features are sums over patches.
pub struct Looked {
    /// The features, row-major (n, w).
    pub features: Vec<f32>,
    /// For each image, the tokens (1, T, d) after each block that is read.
    summands: Vec<Vec<Tensor>>,
}

/// The tokens (B, T, d) behind some blocks, image by image.
pub(super) fn single(ends: &[Tensor], images: usize) -> Result<Vec<Vec<Tensor>>> {
    (0..images).map(|image| ends.iter().map(|end| end.narrow(0, image, 1)).collect()).collect()
}

/// All values in f32, in one row, on the host.
pub(super) fn on_host(values: &Tensor) -> Result<Tensor> {
    values.to_dtype(DType::F32)?.flatten_all()?.to_device(&Device::Cpu)
}

/// Where the model looks in an image, and what it finds.
pub struct ImageRollout {
    /// The share of each patch in its features.
    pub shares: Vec<f32>,
    /// Its features.
    pub features: Vec<f32>,
}
